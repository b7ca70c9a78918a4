// Agents over time: one row each, a bar for each attempt, marks where an agent crashed.
const rowNames = [], rowRoles = [];
const attempts = { task: [], row: [], number: [], start: [], end: [], state: [], ofRow: [], failure: new Map() };
const tasks = RUN ? RUN.tasks : { name: [], kind: [], ready: [], before: [] };
let path = [], pathName = "";

function prepareRows() {
  for (const [role, ranges] of RUN.roles) {
    const first = rowNames.length;
    for (const [from, to] of ranges) for (let n = from; n <= to; n += 1) rowNames.push(`${role}-${n}`);
    rowRoles.push({ role, first, last: rowNames.length });
  }
  view.rows = Math.max(1, rowNames.length);
  view.rowTo = view.rows;
  Object.assign(attempts, RUN.attempts, { start: sums(RUN.attempts.start), state: RUN.attempts.end });
  attempts.end = attempts.start.map((start, n) => start + RUN.attempts.length[n]);
  attempts.ofRow = rowNames.map(() => []);
  attempts.row.forEach((row, n) => attempts.ofRow[row].push(n));
  RUN.failures.forEach(([n, cause, message]) => attempts.failure.set(n, [cause, message]));
}

const kindColour = (kind) => COLOURS.kinds[kind % COLOURS.kinds.length];

function hatch(pen) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const brush = tile.getContext("2d");
  brush.fillStyle = COLOURS.fail;
  brush.fillRect(0, 0, 6, 6);
  brush.strokeStyle = COLOURS.paper;
  brush.lineWidth = 1.4;
  brush.beginPath();
  brush.moveTo(-1, 7);
  brush.lineTo(7, -1);
  brush.stroke();
  return pen.createPattern(tile, "repeat");
}

function gantt(canvas) {
  const rows = view.rows;
  const height = AXIS + Math.max(96, Math.min(620, rows * (rows <= 24 ? 22 : rows <= 48 ? 15 : 8)));
  const floor = height - AXIS;
  const rowHeight = () => floor / (view.rowTo - view.rowFrom);
  const y = (row) => (row - view.rowFrom) * rowHeight();
  const rowAt = (at) => Math.floor(view.rowFrom + at / rowHeight());

  function draw(pen, panel) {
    const each = rowHeight(), gap = each >= 12 ? 2 : each >= 5 ? 1 : 0;
    lanes(pen, panel, each);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, panel.inner, floor);
    pen.clip();
    downTimes(pen, panel, each);
    if (RUN.heat) heat(pen, panel, each);
    else bars(pen, panel, each, gap);
    if (path.length) drawPath(pen, panel, each, gap);
    crashes(pen, panel, each);
    pen.restore();
  }

  function lanes(pen, panel, each) {
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = COLOURS.soft;
    const bottom = Math.round(floor) - 0.5;
    const named = each >= 12;
    if (named) {
      for (let row = Math.floor(view.rowFrom); row < view.rowTo; row += 1) {
        const top = y(row);
        if (row % 2 === 0) {
          pen.globalAlpha = 0.55;
          pen.fillStyle = COLOURS.card;
          pen.fillRect(LEFT, top, panel.inner, each);
          pen.globalAlpha = 1;
        }
        pen.fillStyle = COLOURS.soft;
        pen.fillText(clip(pen, rowNames[row] || "", LEFT - 14), LEFT - 8, top + each / 2);
      }
    }
    for (const { role, first, last } of rowRoles) {
      const top = Math.max(0, y(first)), end = Math.min(floor, y(last));
      if (end <= top) continue;
      if (first > 0 && y(first) >= 0) line(pen, COLOURS.rule, LEFT, panel.width - RIGHT, Math.round(top) + 0.5);
      if (named || end - top < 14) continue;
      const middle = (top + end) / 2, many = last - first;
      pen.fillStyle = COLOURS.ink;
      pen.fillText(clip(pen, role, LEFT - 14), LEFT - 8, middle - (end - top > 30 ? 8 : 0));
      pen.fillStyle = COLOURS.soft;
      if (end - top > 30) pen.fillText(plural(many, "agent"), LEFT - 8, middle + 8);
    }
    line(pen, COLOURS.rule, LEFT, panel.width - RIGHT, bottom);
  }

  function line(pen, colour, from, to, at) {
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.moveTo(from, at);
    pen.lineTo(to, at);
    pen.stroke();
  }

  function downTimes(pen, panel, each) {
    pen.fillStyle = COLOURS.down;
    for (const [row, from, to] of RUN.downs) {
      if (row + 1 <= view.rowFrom || row >= view.rowTo) continue;
      const left = panel.x(from), right = panel.x(to === null ? END : to);
      if (right < LEFT || left > panel.width) continue;
      pen.fillRect(left, y(row), Math.max(0.5, right - left), each);
    }
  }

  function bars(pen, panel, each, gap) {
    const failed = each >= 5 ? hatch(pen) : COLOURS.fail;
    const thick = Math.max(each - 2 * gap, each * 0.6);
    const texts = [];
    pen.globalAlpha = path.length ? 0.38 : 1;
    // One pass for each colour: changing it is what costs time.
    const passes = COLOURS.kinds.map(() => []);
    const failures = [];
    for (let n = 0; n < attempts.start.length; n += 1) {
      if (attempts.start[n] > view.to) break;
      const row = attempts.row[n];
      if (attempts.end[n] < view.from || row + 1 <= view.rowFrom || row >= view.rowTo) continue;
      if (attempts.state[n] === 1) failures.push(n);
      else passes[tasks.kind[attempts.task[n]] % passes.length].push(n);
    }
    // On whole pixels rows and bars are sharp and quick to draw; thinner rows blend to a shade.
    const ratio = devicePixelRatio || 1;
    const sharp = each < 2 ? (at) => at : (at) => Math.round(at * ratio) / ratio;
    const paint = (n) => {
      const left = sharp(Math.max(LEFT - 2, panel.x(attempts.start[n])));
      const wide = sharp(Math.min(panel.width, panel.x(attempts.end[n]))) - left;
      const top = sharp(y(attempts.row[n]) + gap), tall = sharp(y(attempts.row[n]) + gap + thick) - top;
      pen.fillRect(left, top, Math.max(each < 2 ? 0.6 : 1 / ratio, wide - (wide > 4 ? 1 : 0)), tall);
      if (wide > 44 && each >= 13 && attempts.state[n] !== 1) texts.push([n, left, wide]);
    };
    passes.forEach((pass, kind) => { pen.fillStyle = kindColour(kind); pass.forEach(paint); });
    pen.fillStyle = failed;
    failures.forEach(paint);
    pen.globalAlpha = 1;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.font = "11px system-ui, sans-serif";
    for (const [n, left, wide] of texts) {
      if (path.length && !onPath.has(`${attempts.row[n]}:${attempts.start[n]}`)) continue;
      const kind = tasks.kind[attempts.task[n]];
      label(pen, tasks.name[attempts.task[n]], kind, left, y(attempts.row[n]) + each / 2, wide);
    }
    pen.font = "12px system-ui, sans-serif";
  }

  function label(pen, name, kind, left, middle, wide) {
    const text = clip(pen, name, wide - 12);
    if (text.length < 3) return;
    pen.fillStyle = COLOURS.onKinds[kind % COLOURS.onKinds.length];
    pen.fillText(text, left + 5, middle + 0.5);
  }

  function heat(pen, panel, each) {
    const { lanes, columns, cells } = RUN.heat;
    const tall = view.rows / lanes * each, wide = END / columns;
    pen.fillStyle = kindColour(0);
    for (let lane = 0; lane < lanes; lane += 1) {
      const top = y(lane * view.rows / lanes);
      if (top + tall < 0 || top > floor) continue;
      for (let column = 0; column < columns; column += 1) {
        const level = parseInt(cells[lane * columns + column], 36);
        const left = panel.x(column * wide);
        if (!level || left > panel.width) continue;
        const right = panel.x((column + 1) * wide);
        if (right < LEFT) continue;
        pen.globalAlpha = level / 35 * (path.length ? 0.45 : 1);
        pen.fillRect(left, top, right - left + 0.4, tall + 0.4);
      }
    }
    pen.globalAlpha = 1;
  }

  function drawPath(pen, panel, each, gap) {
    const thick = Math.max(2.5, each - 2 * gap);
    pen.lineWidth = 1.25;
    pen.strokeStyle = COLOURS.ink;
    pen.lineJoin = "round";
    pen.beginPath();
    path.forEach((step, n) => {
      if (!n) return;
      const before = path[n - 1];
      const x0 = panel.x(before.end), x1 = panel.x(step.start);
      pen.moveTo(x0, y(before.row) + each / 2);
      pen.lineTo(x1, y(step.row) + each / 2);
    });
    pen.stroke();
    for (const step of path) {
      const left = panel.x(step.start), wide = Math.max(1.5, panel.x(step.end) - left);
      if (left > panel.width || left + wide < LEFT) continue;
      const top = y(step.row) + (each - thick) / 2;
      pen.fillStyle = kindColour(step.kind);
      pen.fillRect(left, top, wide, thick);
      if (wide > 3 && thick > 4) pen.strokeRect(left + 0.5, top + 0.5, wide - 1, thick - 1);
      else { pen.fillStyle = COLOURS.ink; pen.fillRect(left, top, wide, thick); }
      if (wide > 44 && each >= 13) {
        pen.font = "11px system-ui, sans-serif";
        pen.textAlign = "left";
        pen.textBaseline = "middle";
        label(pen, step.task, step.kind, left, y(step.row) + each / 2, wide);
        pen.font = "12px system-ui, sans-serif";
        pen.strokeStyle = COLOURS.ink;
        pen.lineWidth = 1.25;
      }
    }
    pen.lineWidth = 1;
  }

  // A cross, so that no colour is needed to see it.
  function crashes(pen, panel, each) {
    const size = Math.max(2.2, Math.min(5, each * 0.3));
    const cross = (width, colour) => {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.beginPath();
      for (const [row, at] of RUN.downs) {
        const x = panel.x(at), middle = y(row) + each / 2;
        if (x < LEFT || x > panel.width || middle < 0 || middle > floor) continue;
        pen.moveTo(x - size, middle - size);
        pen.lineTo(x + size, middle + size);
        pen.moveTo(x - size, middle + size);
        pen.lineTo(x + size, middle - size);
      }
      pen.stroke();
    };
    if (RUN.downs.length < 400) cross(4, COLOURS.paper);
    cross(RUN.downs.length < 400 ? 2 : 1.2, COLOURS.fail);
    pen.lineWidth = 1;
  }

  // The attempt under the pointer, or the nearest within two pixels.
  function attemptAt(panel, us, at) {
    const near = 2 * (view.to - view.from) / panel.inner;
    const span = Math.max(0, Math.ceil(1.5 / rowHeight()) - 1);
    let found = -1, best = Infinity;
    for (let row = rowAt(at) - span; row <= rowAt(at) + span; row += 1) {
      for (const n of attempts.ofRow[row] || []) {
        const away = Math.max(0, attempts.start[n] - us, us - attempts.end[n]);
        const score = away + Math.abs(row - rowAt(at)) * 1e-3;
        if (away <= near && score <= best) { found = n; best = score; }
      }
    }
    return found;
  }

  function crashAt(panel, us, at) {
    const near = 6 * (view.to - view.from) / panel.inner;
    return RUN.downs.find(([row, from]) =>
      Math.abs(from - us) <= near && Math.abs(y(row) + rowHeight() / 2 - at) <= Math.max(6, rowHeight() / 2));
  }

  function hover(event, us, at) {
    if (at > floor) return noTip();
    const crash = crashAt(panel, us, at);
    if (crash) {
      const [row, from, to, quarantined, message] = crash;
      return tip(event, `${rowNames[row]} crashed`, [["at", span(from)], ["why", message],
        [quarantined ? "quarantined for" : "back after", to === null ? "not until the end" : span(to - from)]]);
    }
    const n = attemptAt(panel, us, at);
    if (n < 0) {
      const agent = rowNames[rowAt(at)];
      return agent ? tip(event, agent, [["at", span(us)]]) : noTip();
    }
    const task = attempts.task[n], failure = attempts.failure.get(n);
    const ready = tasks.ready[task], waited = attempts.start[n] - ready;
    const before = tasks.before[task];
    tip(event, tasks.name[task], [
      ["agent", rowNames[attempts.row[n]]],
      ["attempt", attempts.number[n] > 1 || failure ? attempts.number[n] : ""],
      ["from", span(attempts.start[n])],
      ["took", span(attempts.end[n] - attempts.start[n])],
      ["ready since", ready < 0 ? "" : `${span(ready)}, ${waited > 0 ? `waited ${span(waited)}` : "started at once"}`],
      ["after", before < 0 ? "" : tasks.name[before]],
      ["failed", failure ? failure.filter(Boolean).join(": ") : ""],
      ["", attempts.state[n] === 2 ? "under way when the log ends" : ""]]);
  }

  // What the clicked task waited for, back to the start.
  function click(us, at) {
    const n = attemptAt(panel, us, at);
    if (n < 0) return showPath("none");
    const done = new Map();
    attempts.task.forEach((task, place) => { if (attempts.state[place] === 0) done.set(task, place); });
    const steps = [];
    for (let task = attempts.task[n]; task >= 0 && steps.length < 5e3; task = tasks.before[task]) {
      const place = task === attempts.task[n] ? n : done.get(task);
      if (place === undefined) break;
      steps.unshift({ task: tasks.name[task], kind: tasks.kind[task], row: attempts.row[place],
        ready: tasks.ready[task], start: attempts.start[place], end: attempts.end[place],
        attempts: attempts.number[place] });
    }
    return showPath("click", steps);
  }

  const rows2d = (top, bottom) => rowsTo(Math.floor(view.rowFrom + top / rowHeight()),
    Math.ceil(view.rowFrom + Math.min(bottom, floor) / rowHeight()));
  const panel = new Panel(canvas, height, { draw, hover, axis: true, click: RUN.heat ? null : click,
    rows: rows2d });
  canvas.setAttribute("aria-label", `Gantt chart of ${plural(rowNames.length, "agent")} over ${span(END)}`);
}

const clips = new Map();
function clip(pen, text, width) {
  if (width < 12) return "";
  const key = `${pen.font}|${Math.round(width)}|${text}`;
  if (clips.has(key)) return clips.get(key);
  let short = text;
  if (pen.measureText(text).width > width) {
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (pen.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle; else high = middle - 1;
    }
    short = low ? `${text.slice(0, low)}…` : "";
  }
  if (clips.size > 2e4) clips.clear();
  clips.set(key, short);
  return short;
}

let onPath = new Set();
function showPath(name, steps) {
  const paths = { critical: RUN.critical, last: RUN.last, click: steps, none: [] };
  path = paths[name] || [];
  pathName = name;
  onPath = new Set(path.map((step) => `${step.row}:${step.start}`));
  for (const button of $("paths").children) button.setAttribute("aria-pressed", button.value === name);
  pathTable();
  redraw();
}
