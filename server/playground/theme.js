// Light, dark or as the system has it; remembered by the browser. Loaded before the first paint.

const LABELS = { system: "Auto", light: "Light", dark: "Dark" };
const NAMES = Object.keys(LABELS);

let theme = localStorage.getItem("dragoman-theme");
if (!NAMES.includes(theme)) theme = "system";
document.documentElement.dataset.theme = theme;

/** Lets `button` change the theme. */
export function themeButton(button) {
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = LABELS[theme];
    button.setAttribute("aria-label", `Theme: ${theme === "system" ? "as the system" : theme}`);
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    theme = NAMES[(NAMES.indexOf(theme) + 1) % NAMES.length];
    localStorage.setItem("dragoman-theme", theme);
    show();
  });
  show();
}
