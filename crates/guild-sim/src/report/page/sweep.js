// The sweep: makespan by agents, a curve for each series, with the spread over the seeds.
function sweepChart() {
  const points = DATA.sweep;
  if (!points.length) return;
  $("sweep").hidden = false;
  const series = [...new Set(points.map((point) => point.series))];
  const agents = [...new Set(points.map((point) => point.agents))].sort((a, b) => a - b);
  const seeds = Math.max(...points.map((point) => point.makespans.length));
  $("sweep-note").textContent = `${plural(points.length, "combination")} with ${plural(seeds, "seed")} each. ` +
    (seeds > 1 ? "A dot is one run, a line goes through the medians. " : "A dot is one run. ") +
    "No schedule is faster than the dashed line: the longest chain of tasks, or the work of a role shared by its agents.";
  if (agents.length > 1) curves(points, series, agents); else strips(points, series);
  sweepTable(points);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

function valueTicks(top) {
  const step = timeStep(top, 5), ticks = [];
  for (let at = 0; at <= top + step * 0.001; at += step) ticks.push(at);
  return { step, ticks };
}

function curves(points, series, agents) {
  const W = 1200, H = 360, L = 92, R = 190, T = 16, B = 46;
  const top = Math.max(...points.flatMap((point) => [...point.makespans, point.bound])) * 1.06 || 1;
  const isLog = agents[agents.length - 1] / agents[0] >= 6;
  const scale = (value) => isLog ? Math.log(value) : value;
  const [low, high] = [scale(agents[0]), scale(agents[agents.length - 1])];
  const x = (value) => L + 24 + (scale(value) - low) / (high - low) * (W - L - R - 48);
  const y = (us) => H - B - us / top * (H - B - T);
  const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
    "aria-label": "Makespan by number of agents" });
  const { step, ticks } = valueTicks(top);
  for (const at of ticks) {
    chart.append(svg("line", { x1: L, x2: W - R, y1: y(at), y2: y(at), stroke: `var(--${at ? "grid" : "rule"})` }),
      svg("text", { x: L - 10, y: y(at) + 4, "text-anchor": "end" }, moment(at, step)));
  }
  for (const value of agents) {
    chart.append(svg("line", { x1: x(value), x2: x(value), y1: T, y2: H - B, stroke: "var(--grid)" }),
      svg("text", { x: x(value), y: H - B + 18, "text-anchor": "middle" }, count(value)));
  }
  chart.append(svg("text", { x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle" },
    `agents of all roles${isLog ? " (logarithmic)" : ""}`), svg("text", { x: L - 10, y: 8, "text-anchor": "end" }, "makespan"));
  const bounds = new Map();
  points.forEach((point) => bounds.set(point.agents, Math.min(point.bound, bounds.get(point.agents) ?? Infinity)));
  chart.append(svg("path", { d: track([...bounds], x, y), fill: "none", stroke: "var(--soft)",
    "stroke-width": 1.5, "stroke-dasharray": "5 4" }));
  const ends = [["lower bound", y([...bounds].at(-1)[1]), "var(--soft)"]];
  series.forEach((name, place) => {
    const own = points.filter((point) => point.series === name).sort((a, b) => a.agents - b.agents);
    const colour = `var(--k${place % 7})`;
    const edge = (pick) => own.map((point) => [point.agents, pick(...point.makespans)]);
    chart.append(svg("path", { d: `${track(edge(Math.max), x, y)}L${track(edge(Math.min).reverse(), x, y).slice(1)}Z`,
      fill: colour, opacity: 0.13 }));
    for (const point of own) {
      const shift = (place - (series.length - 1) / 2) * 5;
      for (const makespan of point.makespans) {
        chart.append(svg("circle", { cx: x(point.agents) + shift, cy: y(makespan), r: 3, fill: colour, opacity: 0.4 }));
      }
    }
    chart.append(svg("path", { d: track(own.map((point) => [point.agents, median(point.makespans)]), x, y),
      fill: "none", stroke: colour, "stroke-width": 2.25, "stroke-linejoin": "round" }));
    for (const point of own) {
      const dot = svg("circle", { cx: x(point.agents), cy: y(median(point.makespans)), r: 4.5, fill: colour,
        stroke: "var(--paper)", "stroke-width": 1.5 });
      sweepTip(dot, point);
      chart.append(dot);
    }
    ends.push([name, y(median(own[own.length - 1].makespans)), colour]);
  });
  nameEnds(chart, ends, W - R + 4);
  $("sweep-chart").append(chart);
}

const track = (pairs, x, y) => pairs.map(([value, us], n) => `${n ? "L" : "M"}${x(value).toFixed(1)} ${y(us).toFixed(1)}`).join("");

// Names of curves at their ends, moved apart where they would lie on each other.
function nameEnds(chart, ends, left) {
  ends.sort((a, b) => a[1] - b[1]);
  let last = -Infinity;
  for (const [name, at, colour] of ends) {
    const place = Math.max(at + 4, last + 16);
    last = place;
    const text = svg("text", { x: left, y: place }, name);
    text.setAttribute("style", `fill:${colour};font-weight:600`);
    chart.append(text);
  }
}

// One number of agents: a strip of dots for each series.
function strips(points, series) {
  const W = 1200, L = 190, R = 30, each = 44, H = series.length * each + 40;
  const top = Math.max(...points.flatMap((point) => [...point.makespans, point.bound])) * 1.04 || 1;
  const x = (us) => L + us / top * (W - L - R);
  const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Makespan of each run" });
  const { step, ticks } = valueTicks(top);
  for (const at of ticks) {
    chart.append(svg("line", { x1: x(at), x2: x(at), y1: 0, y2: H - 34, stroke: "var(--grid)" }),
      svg("text", { x: x(at), y: H - 16, "text-anchor": "middle" }, moment(at, step)));
  }
  points.forEach((point, place) => {
    const middle = place * each + each / 2, colour = `var(--k${series.indexOf(point.series) % 7})`;
    chart.append(svg("text", { x: L - 14, y: middle + 4, "text-anchor": "end" }, point.series),
      svg("line", { x1: x(point.bound), x2: x(point.bound), y1: middle - 16, y2: middle + 16,
        stroke: "var(--soft)", "stroke-width": 1.5, "stroke-dasharray": "4 3" }));
    point.makespans.forEach((makespan, n) => {
      const dot = svg("circle", { cx: x(makespan), cy: middle + ((n * 7) % 5 - 2) * 3, r: 4, fill: colour, opacity: 0.5 });
      sweepTip(dot, point);
      chart.append(dot);
    });
    const half = median(point.makespans);
    chart.append(svg("line", { x1: x(half), x2: x(half), y1: middle - 13, y2: middle + 13, stroke: colour, "stroke-width": 3 }));
  });
  $("sweep-chart").append(chart);
}

function sweepTip(node, point) {
  node.addEventListener("pointermove", (event) => tip(event, `${point.series}, ${plural(point.agents, "agent")}`, [
    ["median", span(median(point.makespans))],
    ["fastest", span(Math.min(...point.makespans))], ["slowest", span(Math.max(...point.makespans))],
    ["lower bound", span(point.bound)], ["busy", percent(point.busy)]]));
  node.addEventListener("pointerleave", noTip);
}

function sweepTable(points) {
  const heads = [["Policy"], ["Agents", 1], ["Median", 1], ["Fastest", 1], ["Slowest", 1], ["Lower bound", 1],
    ["Above it", 1], ["Busy", 1], ["Failed", 1]];
  table($("sweep-table"), heads, points.map((point) => {
    const half = median(point.makespans);
    return [point.series, count(point.agents), span(half), span(Math.min(...point.makespans)),
      span(Math.max(...point.makespans)), span(point.bound),
      point.bound ? `+${((half / point.bound - 1) * 100).toFixed(1)} %` : "–", percent(point.busy), count(point.failed)];
  }));
}
