//! Commands that run nothing: validate, graph, completions, help.

mod support;

use support::{Desk, Ended, guild};

const FLOW: &str = r#"
name = "drawn"
[roles.tool]
kind = "exec"
[vars]
dir = "."
[tasks.list]
command = ["ls", "{{ vars.dir }}"]
parse = "lines"
[tasks.each]
for_each = "{{ tasks.list.output }}"
command = ["echo", "{{ item }}"]
[tasks.end]
command = ["cat"]
after = ["each"]
[result]
lines = "{{ tasks.list.output }}"
"#;

fn said(arguments: &[&str]) -> String {
    let desk = Desk::new();
    desk.flow(FLOW);
    let ended = Ended::of(desk.guild().args(arguments));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.stdout
}

#[test]
fn valid_flow_is_described() {
    let text = said(&["validate", "flow.toml", "--set", "dir=/"]);

    assert!(text.contains("flow `drawn` is valid: 3 tasks (1 of them"), "{text}");
}

#[test]
fn flow_is_drawn_as_mermaid() {
    let expected = "flowchart TD
    t_list[\"list<br/>tool\"]
    t_each[[\"each (each)<br/>tool\"]]
    t_end[\"end<br/>tool\"]
    t_result([\"result\"])
    t_list --> t_each
    t_each --> t_end
    t_list --> t_result
    t_end --> t_result
";
    assert_eq!(said(&["graph", "flow.toml"]), expected);
}

#[test]
fn flow_is_drawn_as_dot() {
    let expected = "digraph \"drawn\" {
    node [shape=box];
    \"list\" [label=\"list\\ntool\"];
    \"each\" [label=\"each (each)\\ntool\", peripheries=2];
    \"end\" [label=\"end\\ntool\"];
    \"result\" [shape=oval];
    \"list\" -> \"each\";
    \"each\" -> \"end\";
    \"list\" -> \"result\";
    \"end\" -> \"result\";
}
";
    assert_eq!(said(&["graph", "flow.toml", "--format", "dot"]), expected);
}

#[test]
fn every_shell_has_completions_and_the_reaper_stays_hidden() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        assert!(script.contains("incidents") && script.contains("guild"), "{shell}");
    }
    assert!(!said(&["--help"]).contains("reaper"));
}

#[test]
fn every_example_flow_is_valid() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flows");
    let mut flows = 0;
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    for flow in paths.filter(|path| path.extension().is_some_and(|end| end == "toml")) {
        let ended = Ended::of(guild().arg("validate").arg(flow));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        flows += 1;
    }
    assert!(flows > 0);
}

#[test]
fn unknown_command_is_bad_usage() {
    Ended::of(guild().arg("rnu")).refused(2, &["rnu", "Usage"]);
    Ended::of(&mut guild()).refused(2, &["Usage"]);
}
