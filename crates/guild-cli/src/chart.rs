//! Draws the tasks of a flow as Mermaid or DOT.

use std::fmt::Write;

use crate::args::GraphFormat;
use crate::flow::{Flow, RESULT_TASK};

/// Returns the drawing; maps are drawn as stacks, the declared result as a sink.
pub(crate) fn draw(flow: &Flow, format: GraphFormat) -> String {
    match format {
        GraphFormat::Mermaid => mermaid(flow),
        GraphFormat::Dot => dot(flow),
    }
}

/// Returns every arrow, from the task that goes first.
fn arrows(flow: &Flow) -> Vec<(&str, &str)> {
    let mut arrows = Vec::new();
    for task in &flow.tasks {
        for after in &task.after {
            arrows.push((flow.tasks[*after].name.as_str(), task.name.as_str()));
        }
    }
    if !flow.result.is_empty() {
        let waited_for = |name: &str| arrows.iter().any(|(from, _)| *from == name);
        let sinks = flow.tasks.iter().map(|task| task.name.as_str());
        let sinks: Vec<_> = sinks.filter(|name| !waited_for(name)).collect();
        let named = flow.result_inputs.iter().map(|at| flow.tasks[*at].name.as_str());
        let named: Vec<_> = named.filter(|name| !sinks.contains(name)).collect();
        arrows.extend(named.into_iter().chain(sinks).map(|name| (name, RESULT_TASK)));
    }
    arrows
}

fn mermaid(flow: &Flow) -> String {
    let mut text = String::from("flowchart TD\n");
    // Mermaid takes some words (`end`) for its own; a prefix makes every name a plain one.
    for task in &flow.tasks {
        let (name, role) = (&task.name, &flow.roles[task.role].name);
        let node = match task.for_each {
            Some(_) => format!("t_{name}[[\"{name} (each)<br/>{role}\"]]"),
            None => format!("t_{name}[\"{name}<br/>{role}\"]"),
        };
        writeln!(text, "    {node}").ok();
    }
    if !flow.result.is_empty() {
        writeln!(text, "    t_{RESULT_TASK}([\"{RESULT_TASK}\"])").ok();
    }
    for (from, to) in arrows(flow) {
        writeln!(text, "    t_{from} --> t_{to}").ok();
    }
    text
}

fn dot(flow: &Flow) -> String {
    let mut text = format!("digraph \"{}\" {{\n    node [shape=box];\n", flow.name);
    for task in &flow.tasks {
        let (name, role) = (&task.name, &flow.roles[task.role].name);
        let more = match task.for_each {
            Some(_) => format!("label=\"{name} (each)\\n{role}\", peripheries=2"),
            None => format!("label=\"{name}\\n{role}\""),
        };
        writeln!(text, "    \"{name}\" [{more}];").ok();
    }
    if !flow.result.is_empty() {
        writeln!(text, "    \"{RESULT_TASK}\" [shape=oval];").ok();
    }
    for (from, to) in arrows(flow) {
        writeln!(text, "    \"{from}\" -> \"{to}\";").ok();
    }
    text.push_str("}\n");
    text
}
