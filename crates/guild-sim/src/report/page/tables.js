// Figures, tables, and putting it all together.
function table(node, heads, rows) {
  const head = el("tr", {}, ...heads.map(([name, isNumber]) => el("th", { className: isNumber ? "n" : "" }, name)));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell, at) => {
    const data = el("td", { className: heads[at][1] ? "n" : heads[at][2] || "" });
    data.append(cell === null || cell === undefined ? "" : cell);
    return data;
  })));
  node.replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
}

function tile(value, name, small, isBad) {
  $("tiles").append(el("div", { className: isBad ? "tile bad" : "tile" },
    el("b", {}, value), el("span", {}, name), small ? el("small", {}, small) : null));
}

function tiles() {
  const f = RUN.figures, agents = Math.max(1, f.agents);
  const ends = [["failed", f.failed], ["skipped", f.skipped], ["cancelled", f.cancelled]].filter(([, n]) => n);
  const open = f.tasks - f.completed - f.failed - f.skipped - f.cancelled;
  tile(span(END), RUN.clock === "real" ? "makespan" : "makespan, virtual time",
    f.bound ? `${(END / f.bound).toFixed(2)} × the lower bound` : "");
  tile(span(f.critical), "critical path", `${percent(f.critical / END)} of the makespan`);
  tile(span(f.work), "work", f.lost ? `and ${span(f.lost)} in attempts that failed` : "none of it was lost");
  tile(percent(f.work / (agents * END)), "busy", `of ${plural(agents, "agent")}, up to ${count(f.running_peak)} at once`);
  tile(count(f.tasks), f.tasks === 1 ? "task" : "tasks", ends.length || open
    ? [...ends.map(([name, n]) => `${count(n)} ${name}`), open ? `${count(open)} open` : ""].filter(Boolean).join(", ")
    : "each ended exactly once", f.failed > 0);
  tile(count(f.attempts), f.attempts === 1 ? "attempt" : "attempts",
    f.attempts > f.completed ? `${count(f.attempts - f.completed)} of them failed` : "none failed");
  tile(count(f.crashes), f.crashes === 1 ? "crash" : "crashes", f.faults
    ? `${plural(f.faults, "fault")} injected, ${plural(f.restarts, "restart")}` : f.restarts ? plural(f.restarts, "restart") : "no fault was injected");
}

function legend() {
  const node = $("legend");
  RUN.kinds.forEach((kind, place) => {
    const tail = kind.name.split(".").pop();
    node.append(el("span", { title: `${kind.name}: ${plural(kind.tasks, "task")}, ${span(kind.work)} of work` },
      el("i", { style: `background:var(--k${RUN.heat ? 0 : place % 8})` }), el("em", {}, tail), count(kind.tasks)));
  });
  if (RUN.heat) {
    node.replaceChildren(el("span", {}, el("i", { style: "background:var(--k0)" }), "busy agents; the fuller the colour, the more of them"));
  }
  if (RUN.figures.attempts > RUN.figures.completed && !RUN.heat) {
    node.append(el("span", {}, el("i", { style: "background:repeating-linear-gradient(135deg,var(--fail) 0 3px,var(--paper) 3px 4.4px)" }), "failed attempt"));
  }
  if (RUN.downs.length) {
    const cross = svg("svg", { width: 12, height: 12, viewBox: "0 0 12 12", style: "width:12px;flex:none" },
      svg("path", { d: "M2 2L10 10M10 2L2 10", stroke: "var(--fail)", "stroke-width": 2.2 }));
    node.append(el("span", {}, cross, "crash"), el("span", {}, el("i", { style: "background:var(--down)" }), "agent is down"));
  }
}

const PATHS = [["none", "All tasks"], ["critical", "Critical path"], ["last", "What came last"]];

function pathTable() {
  const shown = pathName === "none" ? RUN.critical : path;
  const names = { none: "Critical path", critical: "Critical path", last: "What came last", click: "What it waited for" };
  const steps = shown.length, chain = shown.reduce((sum, step) => sum + step.end - step.start, 0);
  $("path").hidden = !steps;
  $("path-title").textContent = names[pathName] || names.none;
  const said = {
    last: `From the task that ended last back to the start: each one waited last for the one before it. ${span(chain)} of the ${span(END)} were work; in the rest the next task waited for an agent, a quota or another attempt.`,
    click: `The clicked task, and back to the start what each task waited for last.`,
  };
  $("path-note").textContent = said[pathName] ||
    `The longest chain of tasks that had to wait for each other: ${plural(steps, "task")}, ${span(chain)}. With any number of agents no run of this workload is shorter.`;
  const longest = Math.max(1, ...shown.map((step) => step.end - step.start), ...shown.map((step) => step.start - step.ready));
  const share = (us, kind) => el("span", { className: `share ${kind}`, style: `width:${Math.round(us / longest * 110)}px` });
  const heads = [["Task", 0, "name"], ["Agent"], ["Ready", 1], ["Waited", 1], ["Started", 1], ["Took", 1], ["Attempts", 1], [""]];
  table($("path-table"), heads, shown.map((step) => {
    const dot = el("i", { className: "dot", style: `background:var(--k${step.kind % 8})` });
    const bars = el("span", { style: "white-space:nowrap" }, share(Math.max(0, step.start - step.ready), "wait"), share(step.end - step.start, ""));
    bars.lastChild.style.background = `var(--k${step.kind % 8})`;
    return [el("span", {}, dot, step.task), rowNames[step.row], span(step.ready), step.start > step.ready ? span(step.start - step.ready) : "–",
      span(step.start), span(step.end - step.start), count(step.attempts), bars];
  }));
}

function incidents() {
  $("incidents").hidden = false;
  const all = RUN.figures.incidents, shown = RUN.incidents;
  const causes = new Map();
  shown.forEach((incident) => causes.set(incident.cause, (causes.get(incident.cause) || 0) + 1));
  if (!all) {
    $("incidents-note").hidden = true;
    $("incidents-scroll").replaceWith(el("p", { className: "empty" }, "None: no agent crashed, hung or was lost."));
    return;
  }
  const told = [...causes].sort((a, b) => b[1] - a[1]).map(([cause, n]) => `${count(n)} ${(cause || "other").replace("_", " ")}`);
  $("incidents-note").textContent = `${plural(all, "incident")}${all > shown.length ? `, the first ${count(shown.length)} of them below` : ""}: ${told.join(", ")}.`;
  const heads = [["At", 1], ["Severity"], ["What"], ["Agent"], ["Task", 0, "name"], ["Attempt", 1], ["Message", 0, "name"], ["Done about it"], ["Fault", 1]];
  table($("incidents-table"), heads, shown.map((i) => [span(i.at),
    el("span", { className: `sev ${i.severity}` }, i.severity || ""), (i.cause || i.type || "").replace("_", " "), i.agent, i.task, i.attempt,
    el("span", { title: i.location || "" }, i.message || ""), i.action, i.fault === null ? "" : `#${i.fault}`]));
}

function quotas() {
  if (!RUN.quotas.length) return;
  $("quotas").hidden = false;
  for (const quota of RUN.quotas) {
    const used = stepsOf(quota.in_use, 0, quota.refill), limit = stepsOf(quota.limit, quota.limit.value[0]);
    const canvas = el("canvas", { tabIndex: 0 });
    const top = Math.max(quota.peak, ...quota.limit.value);
    $("quota-charts").append(el("div", { className: "chart" },
      el("label", {}, el("b", {}, quota.name), quota.refill
        ? `, tokens spent and not yet back; ${trim(quota.refill * MINUTE, 2)} come back a minute`
        : `, permits held: up to ${count(quota.peak)} of ${count(Math.max(...quota.limit.value))}`), canvas));
    seriesPanel(canvas, 96, top, [{ steps: used, colour: "accent", name: "in use" },
      { steps: limit, colour: "fail", dash: [4, 3], name: "limit" }], { axis: true });
  }
}

function facts() {
  const list = [...DATA.facts];
  if (RUN) {
    const f = RUN.figures;
    if (f.order) list.push(["Order of ready tasks", f.order.replace("_", " ")]);
    if (f.seed !== null) list.push(["Seed", String(f.seed)]);
    list.push(["Event log", plural(f.events, "event")]);
  }
  if (!list.length) return;
  $("facts").hidden = false;
  $("facts-list").append(...list.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, el("code", {}, value))]));
}

function run() {
  $("run").hidden = false;
  prepareRows();
  tiles();
  legend();
  if (RUN.heat) $("run-note").textContent = `So many attempts are shown summed up: how busy the agents of each lane were.`;
  else $("run-note").hidden = true;
  for (const [name, title] of PATHS) {
    $("paths").append(el("button", { type: "button", value: name, onclick: () => showPath(name) }, title));
  }
  $("reset").onclick = wholeRun;
  if (!RUN.figures.ready_peak) $("ready").textContent = "waiting for an agent or a quota: none ever did";
  $("clock").textContent = RUN.clock === "real" ? "time" : "virtual time";
  const up = stepsOf(RUN.up);
  seriesPanel($("c-load"), 92, Math.max(RUN.figures.running_peak, ...(RUN.up.value.length ? RUN.up.value : [0])),
    [{ steps: stepsOf(RUN.running), colour: "accent", name: "running" }, { steps: up, colour: "soft", dash: [4, 3], name: "agents up" }], { named: true });
  seriesPanel($("c-ready"), 72, RUN.figures.ready_peak, [{ steps: stepsOf(RUN.ready), colour: "accent", name: "ready" }], {});
  gantt($("c-gantt"));
  quotas();
  incidents();
  showPath("critical");
}

sweepChart();
if (RUN) run(); else $("tiles").hidden = true;
facts();
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
