// Elements are made here and nowhere else: text becomes text, never markup.

/** An element with properties, and with children that are nodes or strings. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { dataset = {}, attributes = {}, ...plain } = properties;
  Object.assign(element, plain);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A button with a text and what it does. */
export function button(text, onclick, properties = {}) {
  const element = el("button", { type: "button", ...properties }, text);
  element.addEventListener("click", onclick);
  return element;
}

/** Calls `action` once, `milliseconds` after the last call. */
export function debounced(action, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

/** A token's text with its white space and control characters made visible. */
export function visible(text) {
  if (text === "") return "∅";
  return text
    .replaceAll("\n", "↵")
    .replaceAll("\t", "⇥")
    .replaceAll("\r", "␍")
    .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length))
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "�");
}

/** A probability in few characters. */
export function percent(probability) {
  if (probability >= 0.9995) return "100 %";
  if (probability >= 0.1) return `${(probability * 100).toFixed(1)} %`;
  if (probability >= 0.0001) return `${(probability * 100).toFixed(2)} %`;
  return "< 0.01 %";
}
