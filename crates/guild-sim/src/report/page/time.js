// Panels that share one axis of time: zooming one zooms all.
const LEFT = 104, RIGHT = 14, AXIS = 22;
const END = RUN ? Math.max(1, RUN.end) : 1;
const view = { from: 0, to: END, rowFrom: 0, rowTo: 1, rows: 1 };
const panels = [];
let pending = false;

// What moves with the pointer is drawn over a picture of the rest, which is drawn anew only when it
// changes.
function hint() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    panels.forEach((panel) => panel.paint());
  });
}

function redraw() {
  panels.forEach((panel) => { panel.isStale = true; });
  hint();
  requestAnimationFrame(() => {
    const whole = view.from === 0 && view.to === END && view.rowFrom === 0 && view.rowTo === view.rows;
    $("reset").disabled = whole;
    $("reset").style.visibility = whole ? "hidden" : "visible";
  });
}

function zoomTo(from, to) {
  const least = Math.max(10, END / 1e6);
  let range = Math.min(END, Math.max(least, to - from));
  from = Math.max(0, Math.min(from, END - range));
  view.from = from;
  view.to = from + range;
  redraw();
}

function rowsTo(from, to) {
  const range = Math.min(view.rows, Math.max(1, to - from));
  view.rowFrom = Math.max(0, Math.min(from, view.rows - range));
  view.rowTo = view.rowFrom + range;
  redraw();
}

function wholeRun() {
  view.rowFrom = 0;
  view.rowTo = view.rows;
  zoomTo(0, END);
}

function zoomBy(factor, around) {
  const range = (view.to - view.from) * factor;
  const share = (around - view.from) / (view.to - view.from);
  zoomTo(around - share * range, around + (1 - share) * range);
}

class Panel {
  constructor(canvas, height, options) {
    this.canvas = canvas;
    this.height = height;
    this.options = options;
    this.drag = null;
    this.picture = document.createElement("canvas");
    this.isStale = true;
    panels.push(this);
    const on = (name, handler, passive) => canvas.addEventListener(name, handler, passive);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointerleave", () => { if (!this.drag) { noTip(); cursor.at = null; hint(); } });
    on("dblclick", wholeRun);
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("keydown", (event) => this.key(event));
  }

  get width() { return this.canvas.clientWidth; }
  get inner() { return Math.max(1, this.width - LEFT - RIGHT); }
  x(us) { return LEFT + (us - view.from) / (view.to - view.from) * this.inner; }
  at(x) { return view.from + (x - LEFT) / this.inner * (view.to - view.from); }

  down(event) {
    if (event.button !== 0 || event.offsetX < LEFT) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, toX: event.offsetX, toY: event.offsetY };
  }

  move(event) {
    cursor.at = event.offsetX < LEFT ? null : this.at(event.offsetX);
    if (this.drag) {
      this.drag.toX = Math.max(LEFT, Math.min(event.offsetX, this.width - RIGHT));
      this.drag.toY = Math.max(0, Math.min(event.offsetY, this.height));
      noTip();
    } else if (cursor.at === null) {
      noTip();
    } else {
      this.options.hover(event, cursor.at, event.offsetY);
    }
    hint();
  }

  up(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const [left, right] = [drag.x, drag.toX].sort((a, b) => a - b);
    const [top, bottom] = [drag.y, drag.toY].sort((a, b) => a - b);
    if (right - left < 4 && bottom - top < 4) {
      if (this.options.click) this.options.click(this.at(event.offsetX), event.offsetY);
    } else {
      if (this.options.rows && bottom - top > 12) this.options.rows(top, bottom);
      if (right - left >= 4) zoomTo(this.at(left), this.at(right));
    }
    hint();
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomBy(Math.exp(event.deltaY * 0.0022), this.at(Math.max(LEFT, event.offsetX)));
  }

  key(event) {
    const step = (view.to - view.from) * 0.2, middle = (view.from + view.to) / 2;
    const keys = {
      ArrowLeft: () => zoomTo(view.from - step, view.to - step),
      ArrowRight: () => zoomTo(view.from + step, view.to + step),
      "+": () => zoomBy(0.6, middle), "=": () => zoomBy(0.6, middle), "-": () => zoomBy(1 / 0.6, middle),
      Escape: wholeRun, 0: wholeRun,
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  paint() {
    const ratio = devicePixelRatio || 1, width = this.width;
    if (!width) return;
    const [wide, tall] = [Math.round(width * ratio), Math.round(this.height * ratio)];
    for (const canvas of [this.canvas, this.picture]) {
      if (canvas.width === wide && canvas.height === tall) continue;
      [canvas.width, canvas.height, this.isStale] = [wide, tall, true];
      canvas.style.height = `${this.height}px`;
    }
    if (this.isStale) {
      const pen = this.picture.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, this.height);
      pen.font = "12px system-ui, sans-serif";
      this.grid(pen);
      this.options.draw(pen, this);
      this.isStale = false;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, wide, tall);
    pen.drawImage(this.picture, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.overlay(pen);
  }

  grid(pen) {
    const step = timeStep(view.to - view.from, this.inner / 110);
    const floor = this.height - (this.options.axis ? AXIS : 0);
    pen.strokeStyle = COLOURS.grid;
    pen.fillStyle = COLOURS.soft;
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    pen.beginPath();
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      pen.moveTo(x, 0);
      pen.lineTo(x, floor);
      if (this.options.axis) {
        pen.fillText(moment(at, step), Math.min(x, this.width - RIGHT - 12), this.height - 5);
      }
    }
    pen.stroke();
    for (const [at, name] of RUN.phases) {
      const x = Math.round(this.x(at)) + 0.5;
      if (x < LEFT || x > this.width - RIGHT) continue;
      pen.strokeStyle = COLOURS.faint;
      pen.setLineDash([2, 3]);
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, floor);
      pen.stroke();
      pen.setLineDash([]);
      pen.textAlign = "left";
      if (this.options.named) pen.fillText(name, x + 5, 11);
    }
  }

  overlay(pen) {
    const floor = this.height - (this.options.axis ? AXIS : 0);
    if (cursor.at !== null && cursor.at >= view.from && cursor.at <= view.to) {
      const x = Math.round(this.x(cursor.at)) + 0.5;
      pen.strokeStyle = COLOURS.faint;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, floor);
      pen.stroke();
    }
    if (!this.drag) return;
    const { x, toX, y, toY } = this.drag;
    const isBox = this.options.rows && Math.abs(toY - y) > 12;
    pen.fillStyle = COLOURS.area;
    pen.strokeStyle = COLOURS.accent;
    pen.fillRect(x, isBox ? y : 0, toX - x, isBox ? toY - y : floor);
    pen.strokeRect(x, isBox ? y : 0, toX - x, isBox ? toY - y : floor);
  }
}

const cursor = { at: null };

// The step that holds at a time.
function stepAt(times, us) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= us) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// Steps from time 0 on; with a refill the value falls by that much each microsecond until the next.
function stepsOf(columns, initial = 0, refill = 0) {
  const steps = { at: sums(columns.at), value: [...columns.value], refill };
  if (steps.at[0] !== 0) {
    steps.at.unshift(0);
    steps.value.unshift(initial);
  }
  return steps;
}

function valueAt(steps, us) {
  const n = stepAt(steps.at, us);
  return n < 0 ? 0 : Math.max(0, steps.value[n] - steps.refill * (us - steps.at[n]));
}

function trace(pen, panel, steps, y) {
  const first = Math.max(0, stepAt(steps.at, view.from));
  pen.moveTo(panel.x(view.from), y(valueAt(steps, view.from)));
  for (let n = first; n < steps.at.length && steps.at[n] <= view.to; n += 1) {
    const from = Math.max(view.from, steps.at[n]);
    const to = Math.min(view.to, n + 1 < steps.at.length ? steps.at[n + 1] : view.to);
    pen.lineTo(panel.x(from), y(valueAt(steps, from)));
    const empty = steps.refill ? steps.at[n] + steps.value[n] / steps.refill : to;
    if (empty > from && empty < to) pen.lineTo(panel.x(empty), y(0));
    pen.lineTo(panel.x(to), y(Math.max(0, steps.value[n] - steps.refill * (to - steps.at[n]))));
  }
}

// A panel of steps: the first series as an area, further ones as lines.
function seriesPanel(canvas, height, top, series, options) {
  const PAD = 8;
  const draw = (pen, panel) => {
    const floor = panel.height - (options.axis ? AXIS : 1);
    const y = (value) => floor - value / Math.max(1, top) * (floor - PAD);
    const step = Math.max(1, decimalStep(Math.max(1, top) / 2));
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let value = 0; value <= top; value += step) {
      const line = Math.round(y(value)) - 0.5;
      pen.strokeStyle = value ? COLOURS.grid : COLOURS.rule;
      pen.beginPath();
      pen.moveTo(LEFT, line);
      pen.lineTo(panel.width - RIGHT, line);
      pen.stroke();
      pen.fillStyle = COLOURS.soft;
      pen.fillText(count(value), LEFT - 8, Math.min(line, floor - 3));
    }
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, panel.inner, floor + 1);
    pen.clip();
    series.forEach(({ steps, colour, dash }, place) => {
      pen.strokeStyle = COLOURS[colour];
      pen.lineWidth = place ? 1 : 1.5;
      pen.setLineDash(dash || []);
      pen.beginPath();
      trace(pen, panel, steps, y);
      pen.stroke();
      pen.setLineDash([]);
      if (place === 0) {
        pen.lineTo(panel.x(view.to), floor);
        pen.lineTo(panel.x(view.from), floor);
        pen.fillStyle = COLOURS.area;
        pen.fill();
      }
      pen.lineWidth = 1;
    });
    pen.restore();
  };
  const hover = (event, us) => tip(event, span(us),
    series.map(({ steps, name }) => [name, count(Math.ceil(valueAt(steps, us)))]));
  return new Panel(canvas, height, { draw, hover, ...options });
}
