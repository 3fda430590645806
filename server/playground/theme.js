// Light, dark or as the system has it; remembered by the browser. Loaded before the first paint.

const LABELS = { system: "Auto", light: "Light", dark: "Dark" };
const TITLES = { system: "the system's theme", light: "a light theme", dark: "a dark theme" };
const NAMES = Object.keys(LABELS);

let theme = localStorage.getItem("dragoman-theme");
if (!NAMES.includes(theme)) theme = "system";
document.documentElement.dataset.theme = theme;

/** Lets `button` change the theme. */
export function themeButton(button) {
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.querySelector("span").textContent = LABELS[theme];
    button.title = TITLES[theme];
    button.setAttribute("aria-label", `${LABELS[theme]}: ${TITLES[theme]}`);
  };
  button.addEventListener("click", () => {
    theme = NAMES[(NAMES.indexOf(theme) + 1) % NAMES.length];
    localStorage.setItem("dragoman-theme", theme);
    show();
  });
  show();
}
