//! Bad input of every kind: exit code 2, a message that says where and what to do, nothing written.

mod support;

use support::{Desk, Ended};

const EXEC: &str = "[roles.tool]\nkind = \"exec\"\n";

/// Runs a bad flow with a store and an events file, and asserts that neither came to be.
fn refuse(flow: &str, more: &[&str], parts: &[&str]) {
    let desk = Desk::new();
    desk.flow(flow);
    let mut arguments = vec!["--store", "store", "--events", "events.jsonl"];
    arguments.extend(more);

    let run = desk.run(&arguments);
    run.refused(2, parts);
    assert_eq!(run.stdout, "");
    assert!(!desk.path("store").exists() && !desk.path("events.jsonl").exists());

    let settings = more.iter().position(|word| *word == "--set").map(|at| &more[at..at + 2]);
    if more.is_empty() || settings.is_some() {
        let settings = settings.unwrap_or_default();
        let validate = Ended::of(desk.guild().args(["validate", "flow.toml"]).args(settings));
        validate.refused(2, parts);
    }
}

fn refuse_task(task: &str, parts: &[&str]) {
    refuse(&format!("{EXEC}[tasks.a]\n{task}\n"), &[], parts);
}

#[test]
fn syntax_error_names_line_and_column() {
    refuse("name = \"x\"\nvars = [\n", &[], &["flow.toml:2:", "unclosed array"]);
}

#[test]
fn unknown_key_names_the_nearest_known_one() {
    refuse_task(
        "comand = [\"true\"]",
        &["flow.toml:4:1: tasks.a.comand", "did you mean `command`?"],
    );
    refuse(
        &format!("nme = \"x\"\n{EXEC}[tasks.a]\ncommand = [\"true\"]"),
        &[],
        &["flow.toml:1:1: nme", "`name`"],
    );
    let retry = "command = [\"true\"]\nretry = { attemps = 1 }";
    refuse_task(retry, &["flow.toml:5:11: tasks.a.retry.attemps", "`attempts`"]);
}

#[test]
fn unknown_role_task_variable_and_quota_are_named() {
    refuse_task(
        "command = [\"true\"]\nrole = \"tol\"",
        &["flow.toml:5:8", "unknown role `tol`", "`tool`"],
    );
    refuse_task(
        "command = [\"true\"]\nafter = [\"lst\"]",
        &["flow.toml:5:10", "unknown task `lst`"],
    );
    refuse_task(
        "command = [\"{{ tasks.x.output }}\"]",
        &["flow.toml:4:12", "tasks.a.command[0]", "unknown task `x`"],
    );
    refuse_task(
        "command = [\"{{ vars.dir }}\"]",
        &["flow.toml:4:12", "unknown variable `vars.dir`"],
    );
    refuse_task(
        "command = [\"true\"]\nquota = { api = 1 }",
        &["flow.toml:5:11", "unknown quota `api`"],
    );
    let flow = format!("{EXEC}[vars]\ndir = \".\"\n[tasks.a]\ncommand = [\"true\"]");
    refuse(&flow, &["--set", "dri=x"], &["--set", "unknown variable `dri`", "did you mean `dir`?"]);
    refuse(&flow, &["--set", "dir"], &["`dir` is no KEY=VALUE"]);
}

#[test]
fn variable_of_another_kind_is_refused() {
    let flow = format!("{EXEC}[vars]\ncount = 3\n[tasks.a]\ncommand = [\"true\"]");

    refuse(&flow, &["--set", "count=many"], &["`many` is not of the kind of `count`"]);
}

#[test]
fn cycle_is_named() {
    let flow = format!(
        "{EXEC}[tasks.a]\ncommand = [\"x\", \"{{{{ tasks.c.output }}}}\"]\n[tasks.b]\ncommand = [\"x\"]\n\
         after = [\"a\"]\n[tasks.c]\ncommand = [\"x\"]\nafter = [\"b\"]\n"
    );
    refuse(&flow, &[], &["flow.toml:3:8: tasks.a: cycle: a -> b -> c -> a"]);
    refuse_task("command = [\"x\"]\nafter = [\"a\"]", &["cycle: a -> a"]);
}

#[test]
fn duplicate_task_is_refused() {
    let flow = format!("{EXEC}[tasks.a]\ncommand = [\"x\"]\n[tasks.a]\ncommand = [\"y\"]\n");

    refuse(&flow, &[], &["flow.toml:5:", "duplicate key"]);
}

#[test]
fn empty_flow_is_refused() {
    refuse("", &[], &["the flow is empty", "[tasks.NAME]"]);
    refuse(&format!("{EXEC}[tasks]\n"), &[], &["the flow is empty"]);
}

#[test]
fn template_error_names_template_and_place() {
    refuse_task(
        "command = [\"x\", \"{{ 1 +\"]",
        &["flow.toml:4:17: tasks.a.command[1]: template: syntax error"],
    );
    refuse_task("command = [\"{{ item }}\"]", &["`item` exists only in a task with `for_each`"]);
    refuse_task(
        "command = [\"{{ a }}{{ b }}\"]",
        &["unknown variable `a`", "unknown variable `b`"],
    );
    refuse_task(
        "command = [\"{{ run | uper }}\"]",
        &["flow.toml:4:12: tasks.a.command[0]: template: unknown filter `uper`"],
    );
    refuse_task(
        "command = [\"x\", \"{% if run is defned %}y{% endif %}\"]",
        &["tasks.a.command[1]", "unknown test `defned`"],
    );
    refuse_task(
        "shell = \"echo {{ run }}\"",
        &["flow.toml:4:9: tasks.a.shell", "args = [\"{{ ... }}\"]"],
    );
}

#[test]
fn for_each_over_no_list_is_refused() {
    let task = |list: &str| format!("command = [\"x\"]\nfor_each = {list}");
    refuse_task(&task("\"{{ 3 }}\""), &["flow.toml:5:12: tasks.a.for_each", "needs a list"]);
    refuse_task(&task("\"abc\""), &["is no list"]);
    refuse_task(&task("7"), &["needs a list"]);
}

#[test]
fn negative_and_absurd_numbers_are_refused() {
    let role =
        |text: &str| format!("[roles.tool]\nkind = \"exec\"\n{text}\n[tasks.a]\ncommand = [\"x\"]");
    refuse(&role("agents = -1"), &[], &["flow.toml:3:10: roles.tool.agents: -1 is not within"]);
    refuse(&role("agents = 0"), &[], &["0 is not within"]);
    refuse(&role("agents = 99999999999999999999"), &[], &["is not within"]);
    refuse(&role("stdout_max = \"0\""), &[], &["is not within 1 B to 1 GiB"]);
    refuse_task("command = [\"x\"]\ntimeout = \"-3s\"", &["flow.toml:5:11", "no duration"]);
    refuse_task("command = [\"x\"]\ntimeout = \"0s\"", &["longer than zero"]);
    refuse_task("command = [\"x\"]\ntimeout = \"9999d\"", &["longer than 366 days"]);
    refuse_task("command = [\"x\"]\nretry = { attempts = 0 }", &["0 is not within 1 to 1000"]);
    refuse_task("command = [\"x\"]\nretry = { factor = 0.5 }", &["0.5 is not within 1 to 1000"]);
    refuse_task("command = [\"x\"]\nretry = { jitter = nan }", &["NaN is not within 0 to 1"]);
    refuse_task("command = [\"x\"]\npriority = 1e9", &["must be a whole number, not a float"]);
    let quota = |text: &str| format!("{EXEC}[quotas.q]\n{text}\n[tasks.a]\ncommand = [\"x\"]");
    refuse(&quota("permits = 0"), &[], &["0 is not within"]);
    refuse(&quota("rate = \"-5/min\""), &[], &["no rate"]);
    refuse(&quota(""), &[], &["needs either permits"]);
}

#[test]
fn rules_of_namespaces_are_checked() {
    let rules =
        |text: &str| format!("{EXEC}[tasks.a]\ncommand = [\"x\"]\n[namespaces.\"board/\"]\n{text}");
    let place = "namespaces.board/";
    refuse(&rules("allow = { tol = [\"read\"] }"), &[], &[place, "did you mean `tool`?"]);
    refuse(&rules("allow = { tool = [\"red\"] }"), &[], &[place, "did you mean `read`?"]);
    refuse(&rules("allow = { tool = \"read\" }"), &[], &["must be a list, not a string"]);
    refuse(&rules("others = [1]"), &[], &["must be a string"]);
    refuse(&rules("rows_max = 0"), &[], &["0 is not within"]);
    refuse(&rules("bytes_max = \"0\""), &[], &["must be above zero"]);
    refuse(&rules("on_conflict = \"retri\""), &[], &["did you mean `retry`?"]);
    refuse(&rules("rows = 1"), &[], &["unknown key"]);
}

#[test]
fn supervision_and_groups_are_checked() {
    let flow = |text: &str| format!("{EXEC}[tasks.a]\ncommand = [\"x\"]\n{text}");
    let role = |text: &str| flow(&format!("[roles.tool.supervision]\n{text}"));
    refuse(&role("strategy = \"one-for-al\""), &[], &["did you mean `one-for-all`?"]);
    refuse(&role("restart = \"always\""), &[], &["no restart; there are: permanent, transient"]);
    refuse(&role("intensty = 1"), &[], &["unknown key; did you mean `intensity`?"]);
    let group = |text: &str| flow(&format!("[groups.pair]\n{text}"));
    refuse(&group(""), &[], &["groups.pair", "has no `members`"]);
    refuse(&group("members = []"), &[], &["groups.pair", "has no members"]);
    refuse(&group("members = [\"tol\"]"), &[], &["groups.pair", "did you mean `tool`?"]);
    refuse(&group("members = [\"tool\", \"pair\"]"), &[], &["contains itself"]);
    refuse(
        &flow("[groups.a]\nmembers = [\"tool\"]\n[groups.b]\nmembers = [\"tool\"]"),
        &[],
        &["`tool` is in `a` and in `b`"],
    );
    refuse(&flow("[groups.flow]\nmembers = [\"tool\"]"), &[], &["taken by Guild"]);
}

#[test]
fn demand_that_can_never_be_met_is_refused() {
    let flow = format!(
        "{EXEC}[quotas.api]\npermits = 2\n[tasks.a]\ncommand = [\"x\"]\nquota = {{ api = 3 }}"
    );
    refuse(&flow, &[], &["flow.toml:7:17: tasks.a.quota.api", "never", "raise `permits`"]);
    let flow = flow.replace("permits = 2", "rate = \"600/min\"\nburst = 2");
    refuse(&flow, &[], &["raise `burst`"]);
}

#[test]
fn map_over_the_limit_is_refused_before_it_starts() {
    let task = "command = [\"x\"]\nfor_each = \"{{ range(2000001) }}\"";

    refuse_task(task, &["2000001 items", "at most 2000000 tasks"]);
}

#[test]
fn constant_value_over_the_limit_is_refused() {
    let size = (16 << 20) + 1;
    let task = format!("command = [\"x\"]\nmemory.put = {{ key = \"{}\" }}", "v".repeat(size));

    refuse_task(&task, &["tasks.a.memory.put.key", "16777217 bytes", "at most 16777216"]);
}

#[test]
fn unreadable_file_is_refused() {
    let desk = Desk::new();
    desk.run(&[]).refused(2, &["flow.toml", "cannot read the flow file"]);
    std::fs::create_dir(desk.path("flow.toml")).unwrap();
    desk.run(&[]).refused(2, &["flow.toml", "cannot read the flow file"]);
    std::fs::remove_dir(desk.path("flow.toml")).unwrap();
    std::fs::write(desk.path("flow.toml"), b"name = \"\xff\"").unwrap();
    desk.run(&[]).refused(2, &["flow.toml", "not UTF-8 (byte 9)"]);
}

#[test]
fn bad_arguments_are_refused() {
    let flow = format!("{EXEC}[tasks.a]\ncommand = [\"true\"]");
    refuse(&flow, &["--chaos", "crsh=0.1"], &["--chaos", "crsh"]);
    refuse(&flow, &["--chaos", "crash=2"], &["--chaos", "probability"]);
    refuse(&flow, &["--agents", "0"], &["--agents"]);
    refuse(&flow, &["--run", ""], &["--run"]);
    refuse(&flow, &["--run", "two\nlines"], &["--run", "`two\\nlines`"]);
    refuse(&flow, &["--format", "xml"], &["--format"]);
    refuse(&flow, &["--seed", "-1"], &["--seed", "invalid digit"]);
}

#[test]
fn events_file_that_cannot_be_written_is_refused_before_anything_starts() {
    let desk = Desk::new();
    let flow = desk.flow(&format!("{EXEC}[tasks.a]\ncommand = [\"true\"]"));
    let text = desk.read("flow.toml");
    // Nobody can make a file in /proc, not even root.
    for (events, why) in [
        ("no/such/events", "directory does not exist"),
        (".", "is a directory"),
        ("/proc/events.jsonl", "/proc/events.jsonl"),
        ("flow.toml", "the file that is read"),
        (flow.to_str().unwrap(), "the file that is read"),
    ] {
        desk.run(&["--events", events, "--store", "store"]).refused(2, &["--events", events, why]);
    }
    assert!(!desk.path("store").exists());
    assert_eq!(desk.read("flow.toml"), text);
}

#[test]
fn empty_program_is_refused() {
    refuse_task("command = [\"\"]", &["flow.toml:4:12: tasks.a.command[0]", "the program"]);
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let task = "comand = 1\ncommand = [\"{{ x }}\"]\ntimeout = \"1\"\nparse = \"yaml\"";

    refuse_task(task, &["flow.toml:4:1", "flow.toml:6:11", "flow.toml:7:9"]);
}
