// Elements of the page. Everything that comes from a client becomes a text node or an attribute, never markup.

/** Makes an element: attributes, listeners as `onclick` and so on, then children; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for an element of SVG. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Numbers as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const compact = (value) => (Math.abs(value) < 1000 ? String(Math.round(value * 10) / 10) : short.format(value));

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds > 0 && seconds < 1) return `${Math.round(seconds * 1e4) / 10} ms`;
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.round(seconds * 10) / 10} s`;
}

export const time = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "–");

/** A table. A column is `{ head, cell, number, sort }`; `sort` is called when the heading's button is pressed. */
export function table(caption, columns, rows, empty = "Nothing to show.") {
  const heading = ({ head, number, sort, sorted }) =>
    h("th", { scope: "col", class: number && "number", "aria-sort": sorted && "descending" },
      sort ? h("button", { type: "button", onclick: sort }, head) : head);
  const row = (of) => h("tr", {}, columns.map(({ cell, number }) => h("td", { class: number && "number" }, cell(of))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map(heading))),
      h("tbody", {}, rows.length ? rows.map(row) : h("tr", {}, h("td", { colspan: columns.length, class: "quiet" }, empty)))));
}

/** Names and values; pairs without a value are left out. */
export function facts(pairs) {
  const set = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, set.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

let fields = 0;

/** A labelled field of a form: an input, or a select if there are options. */
export function field(label, name, { options, value = "", ...attributes } = {}) {
  const id = `field-${(fields += 1)}`;
  const control = options
    ? h("select", { id, name, ...attributes }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)))
    : h("input", { id, name, value, autocomplete: "off", ...attributes });
  return h("div", {}, h("label", { for: id }, label), control);
}

/** The values of a form's fields. */
export const values = (form) => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));

/** Shows a short message; screen readers read it. */
export function notify(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => { notice.textContent = ""; }, 8000);
}

/** Asks for confirmation, with further fields if there are any. Resolves to their values, or null. */
export function confirm(title, text, action, inputs = []) {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    let answer = null;
    const form = h("form", { method: "dialog", onsubmit: () => { answer = values(form); } },
      inputs, h("button", { type: "submit", class: "bad" }, action),
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"));
    dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), h("p", {}, text), form);
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
  });
}

/** Runs an action, and shows what came of it. */
export async function attempt(action, success) {
  try {
    const answer = await action();
    notify(typeof success === "function" ? success(answer) : success);
    return answer ?? true;
  } catch (problem) {
    notify(problem.message);
    return null;
  }
}

/** Fills an element with what a request answers, or with the problem. */
export async function show(element, load) {
  element.setAttribute("aria-busy", "true");
  try {
    element.replaceChildren(...[await load()].flat());
  } catch (problem) {
    if (problem.status === 401) throw problem;
    element.replaceChildren(h("p", { class: "problem" }, problem.message));
  } finally {
    element.removeAttribute("aria-busy");
  }
}

const ROLES = ["read", "operate", "admin"];

/** Whether a role includes another one. */
export const may = (role, least) => ROLES.indexOf(role) >= ROLES.indexOf(least);

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [600, 176, 52, 20, 8];

/**
 * A chart of the last samples, one line for each series, told apart by dashes as well as by colour. The table below
 * the chart has the same numbers. The scale ends at `least` or above.
 */
export class Chart {
  constructor(title, series, format, samples, least = 0) {
    Object.assign(this, { title, series, format, samples, least });
    const id = `chart-${(fields += 1)}`;
    this.lines = series.map((_, index) => svg("polyline", { class: `series series-${index + 1}` }));
    this.grid = svg("g");
    this.drawing = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": id },
      this.grid, this.lines);
    this.summary = h("p", { class: "quiet", id }, title);
    const key = ({ name }, index) => h("li", {},
      svg("svg", { viewBox: "0 0 28 12", "aria-hidden": "true" }, svg("line", { class: `series series-${index + 1}`, x1: 0, x2: 28, y1: 6, y2: 6 })), name);
    this.rows = h("div");
    this.details = h("details", { ontoggle: () => this.update() }, h("summary", {}, "Table"), this.rows);
    this.element = h("section", {}, h("h2", {}, title), this.drawing, h("ul", { class: "legend" }, series.map(key)), this.summary, this.details);
  }

  update() {
    const { samples } = this;
    const last = samples[samples.length - 1];
    const highest = Math.max(...this.series.flatMap(({ value }) => samples.map((sample) => value(sample) ?? 0)), this.least);
    const top = roundUp(highest);
    const x = (index) => LEFT + ((WIDTH - LEFT) * index) / Math.max(this.samples.capacity - 1, 1);
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / top;
    this.series.forEach(({ value }, line) => {
      const first = this.samples.capacity - samples.length;
      const points = samples.map((sample, index) => [x(first + index), value(sample)]).filter(([, of]) => of !== null && of !== undefined);
      this.lines[line].setAttribute("points", points.map(([at, of]) => `${at.toFixed(1)},${y(of).toFixed(1)}`).join(" "));
    });
    this.grid.replaceChildren(...[0, 0.5, 1].flatMap((share) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(top * share), y2: y(top * share) }),
      svg("text", { x: LEFT - 5, y: y(top * share) + 4, "text-anchor": "end" }, this.format(top * share)),
    ]), svg("text", { x: LEFT, y: HEIGHT - 4 }, `${this.samples.capacity} s ago`), svg("text", { x: WIDTH, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
    if (last) {
      const now = this.series.map(({ name, value }) => `${name} ${this.format(value(last) ?? 0)}`).join(", ");
      this.summary.textContent = `${this.title}: ${now}`;
    }
    if (this.details.open) this.rows.replaceChildren(this.toTable());
  }

  toTable() {
    const columns = [{ head: "Time", cell: (sample) => new Date(sample.at * 1000).toLocaleTimeString() },
      ...this.series.map(({ name, value }) => ({ head: name, number: true, cell: (sample) => this.format(value(sample) ?? 0) }))];
    return table(this.title, columns, [...this.samples].reverse().slice(0, 60));
  }
}

/** The next number above of the form 1, 2 or 5 times a power of ten. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
