// Elements from plain values. Whatever comes from outside becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an HTML element; children are elements or texts. */
export const h = (tag, attributes, ...children) =>
  filled(document.createElement(tag), attributes, children);

/** Return an SVG element. */
export const svg = (tag, attributes, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Set an element's text, where it is another one: what did not change is not told again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Show a table. `columns` are {name, number?, cell(row)}; a cell is a text or a node. The
 * roles are written out because on narrow screens rows are laid out as blocks, which would take
 * them away.
 */
export function table(place, titleId, columns, rows) {
  const heads = columns.map((column) =>
    h("th", { role: "columnheader", scope: "col", class: column.number && "number" }, column.name),
  );
  const lines = rows.map((row) =>
    h(
      "tr",
      { role: "row" },
      ...columns.map((column, index) => {
        const shown = column.cell(row);
        const options = {
          "data-name": column.name,
          class: column.number && "number",
          "data-empty": shown === "–",
        };
        return index === 0
          ? h("th", { ...options, role: "rowheader", scope: "row" }, shown)
          : h("td", { ...options, role: "cell", "data-value": column.value?.(row) }, shown);
      }),
    ),
  );
  place.replaceChildren(
    h(
      "table",
      { role: "table", "aria-labelledby": titleId },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)),
      h("tbody", { role: "rowgroup" }, ...lines),
    ),
  );
}

/** Return a small coloured label. `kind` picks the colour; the words say the same. */
export const chip = (text, kind) => h("span", { class: "chip", "data-kind": kind }, text);

/** Return a function that redraws only where what it is told is not what it was told last. */
export function whenChanged(draw) {
  let before;
  return (...told) => {
    const now = JSON.stringify(told);
    if (now === before) return;
    before = now;
    draw(...told);
  };
}
