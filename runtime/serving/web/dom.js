// Small pieces of the page. Texts are always set as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function facts(list, entries) {
  const kept = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(...kept.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

export function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  return `${value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)} ms`;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.0995 && share < 0.9995 ? 1 : 2)} %`;
