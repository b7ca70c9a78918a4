// What all parts need: the data, colours, numbers as people read them, elements.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUN = DATA.run;
const $ = (id) => document.getElementById(id);

const SECOND = 1e6, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key === "style" || key.startsWith("aria-")) node.setAttribute(key, value);
    else node[key] = value;
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const GROUPED = new Intl.NumberFormat("en-GB");
const count = (n) => GROUPED.format(n);
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || one + "s"}`;
const percent = (share) => `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;

function trim(number, digits) {
  return digits > 0 ? number.toFixed(digits).replace(/\.?0+$/, "") : number.toFixed(0);
}

// A duration with three significant digits, or in two units.
function span(us) {
  if (us === 0) return "0 s";
  const sized = (value, unit) => `${trim(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
  if (us < 1e3) return `${trim(us, 0)} µs`;
  if (us < SECOND) return sized(us / 1e3, "ms");
  if (us < 2 * MINUTE) return sized(us / SECOND, "s");
  return twoUnits(us, us < 2 * HOUR ? SECOND : us < 2 * DAY ? MINUTE : HOUR);
}

const UNITS = [[365 * DAY, "a"], [DAY, "d"], [HOUR, "h"], [MINUTE, "min"], [SECOND, "s"]];

function twoUnits(us, smallest) {
  let rest = Math.round(us / smallest) * smallest;
  const parts = [];
  for (const [size, name] of UNITS) {
    if (size < smallest || parts.length === 2) break;
    const whole = Math.floor(rest / size + 1e-9);
    if (whole > 0) parts.push(`${count(whole)} ${name}`);
    else if (parts.length) break;
    rest -= whole * size;
  }
  return parts.join(" ") || "0 s";
}

// A point in time, as exact as a step between two marks asks for.
function moment(us, step) {
  if (us === 0) return "0";
  const digits = (unit) => Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  if (step < 1e3 && us < 1e5) return `${trim(us, 0)} µs`;
  if (step < SECOND && us < SECOND) return `${trim(us / 1e3, digits(1e3))} ms`;
  if (step < SECOND || us < 2 * MINUTE) return `${trim(us / SECOND, digits(SECOND))} s`;
  return twoUnits(us, step < MINUTE ? SECOND : step < HOUR ? MINUTE : step < DAY ? HOUR : DAY);
}

const STEPS = [SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE,
  2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR,
  12 * HOUR, DAY, 2 * DAY, 5 * DAY, 10 * DAY];

function decimalStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least * 0.999999);
}

function timeStep(range, marks) {
  const least = Math.max(range / marks, 1);
  if (least <= SECOND / 2) return Math.max(1, decimalStep(least));
  return STEPS.find((step) => step >= least) || decimalStep(least / DAY) * DAY;
}

// Differences back to values.
function sums(differences) {
  let sum = 0;
  return differences.map((difference) => (sum += difference));
}

let COLOURS = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  COLOURS = { kinds: [], onKinds: [] };
  for (const name of ["paper", "card", "ink", "soft", "faint", "rule", "grid", "accent", "fail",
    "down", "area"]) COLOURS[name] = read(name);
  for (let n = 0; n < 8; n += 1) {
    const colour = read(`k${n}`);
    COLOURS.kinds.push(colour);
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    COLOURS.onKinds.push(0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14161a" : "#ffffff");
  }
}
readColours();

const TIP = $("tip");
function tip(event, title, rows) {
  TIP.replaceChildren(el("b", {}, title), el("dl", {}, ...rows.flatMap(([name, value]) =>
    value === null || value === undefined || value === ""
      ? [] : [el("dt", {}, name), el("dd", {}, String(value))])));
  TIP.hidden = false;
  const box = TIP.getBoundingClientRect();
  const left = event.clientX + 16 + box.width > innerWidth
    ? event.clientX - box.width - 12 : event.clientX + 16;
  const top = Math.min(event.clientY + 14, innerHeight - box.height - 8);
  TIP.style.left = `${Math.max(8, left)}px`;
  TIP.style.top = `${Math.max(8, top)}px`;
}
const noTip = () => { TIP.hidden = true; };
