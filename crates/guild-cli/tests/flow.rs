//! What a flow file can say, run for real.

mod support;

use guild_core::digest::Digest;
use serde_json::json;
use support::{Desk, events};

const TOOL: &str =
    "[roles.tool]\nkind = \"exec\"\nagents = 4\n[roles.text]\nkind = \"render\"\nagents = 2\n";

/// Runs a flow that must complete; returns its summary.
fn complete(desk: &Desk, tasks: &str) -> serde_json::Value {
    desk.flow(&format!("{TOOL}{tasks}"));
    desk.run(&[]).completed()
}

/// Runs a flow that must fail; returns what it said.
fn fail(tasks: &str) -> String {
    let desk = Desk::new();
    desk.flow(&format!("{TOOL}{tasks}"));
    let run = desk.run(&["--events", "events.jsonl"]);
    assert_eq!(run.code, Some(1), "{}\n{}", run.stdout, run.stderr);
    assert_eq!(run.json()["outcome"], "failed");
    let log = events(&desk.path("events.jsonl"));
    let assigned = log.iter().filter(|event| event["kind"] == "task_assigned");
    format!("{} attempts\n{}", assigned.count(), run.stderr)
}

#[test]
fn values_keep_their_types_on_the_way_to_the_result() {
    let desk = Desk::new();
    let json = complete(
        &desk,
        r#"
        [vars]
        list = [1, "two", { three = 3.5 }]
        [tasks.each]
        role = "text"
        for_each = "{{ vars.list }}"
        text = "{{ {'item': item, 'index': index} | tojson }}"
        parse = "json"
        [tasks.each.memory]
        add = { count = 1, "sum/{{ run }}" = "{{ index }}" }
        put = { "item/{{ index }}" = "{{ output.item }}" }
        [tasks.last]
        role = "tool"
        command = ["cat"]
        after = ["each"]
        parse = "json"
        [result]
        outputs = "{{ tasks.each.outputs }}"
        input = "{{ tasks.last.output.tasks.each.outputs | length }}"
        count = "{{ memory.count }}"
        sum = "{{ memory['sum/' ~ run] }}"
        items = "{{ scan('item/') }}"
        absent = "{{ memory.absent | default(none) }}"
        text = "{{ memory.count }} of {{ run }}"
        constant = { a = [1, 2] }
        "#,
    );

    let items = json!([1, "two", { "three": 3.5 }]);
    assert_eq!(
        json["result"],
        json!({
            "outputs": [{"index": 0, "item": items[0]}, {"index": 1, "item": items[1]}, {"index": 2, "item": items[2]}],
            "input": 3, "count": 3, "sum": 3, "absent": null, "text": "3 of flow", "constant": {"a": [1, 2]},
            "items": {"item/0": items[0], "item/1": items[1], "item/2": items[2]},
        })
    );
}

#[test]
fn process_gets_arguments_without_a_shell_and_its_identity() {
    let desk = Desk::new();
    let json = complete(
        &desk,
        r#"
        [tasks.args]
        role = "tool"
        command = ["printf", "%s|", "a b", "$HOME", "{{ vars.x }}", { path = "%41%25" }, 7]
        [vars]
        x = "'; exit 1"
        [tasks.env]
        role = "tool"
        shell = 'echo "$GUILD_RUN $GUILD_TASK $GUILD_ATTEMPT $GUILD_IDEMPOTENCY_KEY $MORE $1"; pwd'
        args = ["{{ tasks.args.output }}"]
        env = { MORE = "{{ task }}/{{ attempt }}" }
        cwd = "/"
        parse = "lines"
        [result]
        args = "{{ tasks.args.output }}"
        env = "{{ tasks.env.output }}"
        "#,
    );

    let args = "a b|$HOME|'; exit 1|A%|7|";
    assert_eq!(json["result"]["args"], args);
    let env = &json["result"]["env"];
    let line = env[0].as_str().unwrap();
    assert!(line.starts_with("flow env 1 ") && line.ends_with(&format!("env/1 {args}")), "{line}");
    assert_eq!(env[1], "/");
}

#[test]
fn process_reads_its_input_as_json() {
    let desk = Desk::new();
    let json = complete(
        &desk,
        r#"
        [tasks.first]
        role = "tool"
        command = ["echo", "hello"]
        [tasks.second]
        role = "tool"
        command = ["cat"]
        after = ["first"]
        parse = "json"
        [tasks.third]
        role = "tool"
        for_each = ["x"]
        command = ["cat"]
        parse = "json"
        [result]
        second = "{{ tasks.second.output }}"
        third = "{{ tasks.third.outputs }}"
        "#,
    );

    assert_eq!(json["result"]["second"], json!({ "tasks": { "first": { "output": "hello" } } }));
    assert_eq!(json["result"]["third"], json!([{ "item": "x", "index": 0 }]));
}

#[test]
fn failed_attempts_are_tried_again() {
    let desk = Desk::new();
    desk.flow(&format!(
        "{TOOL}{}",
        r#"
        [tasks.flaky]
        role = "tool"
        shell = 'echo x >> effects; [ "$GUILD_ATTEMPT" -ge 3 ]'
        retry = { attempts = 3, backoff = "1ms" }
        [tasks.dies]
        role = "tool"
        shell = '[ "$GUILD_ATTEMPT" -ge 2 ] || kill -9 $$'
        retry = { attempts = 2, backoff = "1ms" }
        [tasks.hangs]
        role = "tool"
        shell = '[ "$GUILD_ATTEMPT" -ge 2 ] || sleep 1000'
        timeout = "1s"
        retry = { attempts = 2, backoff = "1ms" }
        "#
    ));

    let json = desk.run(&["--events", "events.jsonl"]).completed();

    assert_eq!(desk.lines("effects").len(), 3);
    assert_eq!(json["attempts"], 3 + 2 + 2);
    let log = events(&desk.path("events.jsonl"));
    let causes = |task: &str| -> Vec<_> {
        let failed =
            log.iter().filter(|event| event["kind"] == "task_failed" && event["task"] == task);
        failed.map(|event| event["cause"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(causes("flaky"), ["error", "error"]);
    assert_eq!(causes("dies"), ["panic"]);
    assert_eq!(causes("hangs"), ["timeout"]);
}

#[test]
fn injected_hang_ends_by_the_timeout() {
    let desk = Desk::new();
    desk.flow(&format!(
        "{TOOL}{}",
        r#"
        [tasks.each]
        role = "text"
        for_each = "{{ range(40) }}"
        text = "x"
        timeout = "100ms"
        retry = { attempts = 20, backoff = "1ms" }
        "#
    ));

    let json = desk.run(&["--chaos", "hang=0.1", "--seed", "1"]).completed();

    assert!(json["attempts"].as_u64() > Some(41), "{json}");
}

#[test]
fn failure_skips_what_waits_for_it_and_nothing_else() {
    let desk = Desk::new();
    desk.flow(&format!(
        "{TOOL}{}",
        r#"
        [tasks.bad]
        role = "tool"
        shell = "echo because >&2; exit 7"
        retry = { attempts = 2, backoff = "1ms" }
        [tasks.waits]
        role = "tool"
        command = ["true"]
        after = ["bad"]
        [tasks.other]
        role = "tool"
        command = ["true"]
        "#
    ));

    let run = desk.run(&[]);

    run.refused(1, &["task bad of run flow failed: `sh` ended with status 7: because"]);
    let tasks = json!({"total": 3, "completed": 1, "failed": 1, "skipped": 1, "cancelled": 0});
    assert_eq!(run.json()["tasks"], tasks);
}

#[test]
fn what_cannot_succeed_is_not_tried_again() {
    let one = |task: &str, parts: &[&str]| {
        let said = fail(&format!("[tasks.a]\nrole = \"tool\"\n{task}"));
        for part in parts.iter().chain(&["1 attempts\n", "task a"]) {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    };
    one("command = [\"guild-no-such-program\"]", &["command not found: `guild-no-such-program`"]);
    one("command = [\"/etc/hostname\"]", &["`/etc/hostname` is not executable"]);
    one("command = [\"true\"]\ncwd = \"/no/such\"", &["working directory `/no/such`"]);
    one("shell = 'printf \"a\\377\"'", &["tasks.a.parse", "not UTF-8 (byte 2)"]);
    one("command = [\"echo\", \"{\"]\nparse = \"json\"", &["not one JSON value"]);
    one(
        "command = [\"echo\", \"{{ vars.o.missing }}\"]\n[vars]\no = { x = 1 }",
        &["flow.toml:9:20: tasks.a.command[1]", "undefined", "{{ vars.o.missing }}"],
    );
    one(
        "shell = 'head -c 9000000 /dev/zero | tr \"\\0\" x'\nmemory.put = { big = \"{{ output }}{{ output }}\" }",
        &["big", "16777216"],
    );
    one(
        "command = [\"echo\", \"x\"]\nmemory.add = { n = \"{{ output }}\" }",
        &["tasks.a.memory.add.n", "| int"],
    );
}

#[test]
fn output_beyond_its_bound_fails_at_once() {
    let said = fail(
        "[roles.small]\nkind = \"exec\"\nstdout_max = \"1 KiB\"\n[tasks.a]\nrole = \"small\"\ncommand = [\"yes\"]",
    );

    assert!(said.contains("1 attempts\n") && said.contains("raise stdout_max"), "{said}");
}

#[test]
fn for_each_over_an_output_that_is_no_list_fails_at_once() {
    let said = fail(
        "[tasks.a]\nrole = \"tool\"\ncommand = [\"echo\", \"x\"]\n[tasks.b]\nrole = \"tool\"\ncommand = [\"true\"]\n\
         for_each = \"{{ tasks.a.output }}\"",
    );

    assert!(said.contains("2 attempts\n") && said.contains("tasks.b.for_each"), "{said}");
    assert!(said.contains("needs a list"), "{said}");
}

#[test]
fn permits_bound_how_many_run_at_once() {
    let desk = Desk::new();
    let json = complete(
        &desk,
        r#"
        [quotas.one]
        permits = 1
        [tasks.each]
        role = "tool"
        for_each = "{{ range(8) }}"
        quota = { one = 1 }
        shell = 'mkdir alone && sleep 0.01 && rmdir alone'
        retry = { attempts = 1 }
        "#,
    );

    assert_eq!(json["attempts"], 9);
}

#[test]
fn rate_spaces_out_what_draws_on_it() {
    let desk = Desk::new();
    desk.flow(&format!(
        "{TOOL}{}",
        r#"
        [quotas.calls]
        rate = "20/s"
        burst = 1
        [tasks.each]
        role = "text"
        for_each = "{{ range(10) }}"
        quota = { calls = 1 }
        text = "x"
        "#
    ));

    desk.run(&["--events", "events.jsonl"]).completed();

    let log = events(&desk.path("events.jsonl"));
    let assigned: Vec<u64> = log
        .iter()
        .filter(|event| event["kind"] == "task_assigned" && event["task"] != "each")
        .map(|event| event["at_us"].as_u64().unwrap())
        .collect();
    // Nine refills of 50 ms; the log may note the first assignment a little late.
    let spread_us = assigned[9] - assigned[0];
    assert!(assigned.len() == 10 && spread_us > 225_000, "10 calls within {spread_us} us");
    let calls: Vec<_> = log.iter().filter(|event| event["kind"] == "quota_changed").collect();
    assert_eq!(calls.len(), 10);
    assert!(calls.iter().all(|call| call["quota"] == "calls" && call["limit"] == 1));
}

#[test]
fn same_seed_and_flow_give_the_same_log_shape_and_hash_of_the_file() {
    let desk = Desk::new();
    desk.flow(&format!("{TOOL}[tasks.a]\nrole = \"text\"\ntext = \"x\""));

    let json = desk.run(&["--events", "events.jsonl", "--seed", "5"]).completed();

    let bytes = std::fs::read(desk.path("events.jsonl")).unwrap();
    assert_eq!(json["events_hash"], format!("{:016x}", Digest::of(&bytes)));
    assert_eq!(json["seed"], 5);
    assert_eq!(json["result"], serde_json::Value::Null);
}

#[test]
fn tasks_of_a_role_that_has_lost_all_its_agents_fail_and_the_run_ends() {
    let desk = Desk::new();
    desk.flow(
        r#"
        [roles.mayfly]
        kind = "exec"
        agents = 1
        [roles.mayfly.supervision]
        restart = "temporary"
        [tasks.dies]
        shell = "kill -9 $$"
        retry = { attempts = 3, backoff = "0s" }
        [tasks.waits]
        command = ["true"]
        after = []
        "#,
    );

    let run = desk.run(&["--events", "events.jsonl"]);

    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.json()["outcome"], "failed");
    let log = events(&desk.path("events.jsonl"));
    assert!(log.iter().any(|event| event["kind"] == "role_lost" && event["role"] == "mayfly"));
}

#[test]
fn a_dead_letter_is_listed_tried_again_with_its_flow_and_discarded() {
    let desk = Desk::new();
    desk.flow(
        r#"
        name = "work"
        [roles.tool]
        kind = "exec"
        agents = 2
        [tasks.each]
        for_each = [1, 2]
        shell = "test $1 = 1 || test -e mended || kill -9 $$; echo $1"
        args = ["{{ item }}"]
        retry = { attempts = 2, backoff = "0s" }
        "#,
    );
    assert_eq!(desk.run(&["--store", "store"]).code, Some(1));
    let letters = |more: &[&str]| desk.ask(&[&["letters"], more].concat());

    let list = letters(&["--format", "json"]).json();
    assert_eq!(list["letters"][0]["letter"], "work/each[1]");
    assert_eq!(list["letters"][0]["state"], "waiting");
    let shown = letters(&["show", "work/each[1]"]);
    assert!(shown.stdout.contains("its attempts are used up"), "{}", shown.stdout);
    let shown = letters(&["show", "work/each[1]", "--format", "json"]).json();
    let killed = |n: usize| shown["reports"][n]["message"].as_str().unwrap().contains("killed by");
    assert!(killed(0) && killed(1) && shown["crashes"] == 2, "{shown}");
    letters(&["show", "work/each[2]"]).refused(2, &["no dead letter `work/each[2]`"]);
    desk.run(&["--store", "store", "--retry", "work/x"]).refused(2, &["there are: work/each[1]"]);

    std::fs::write(desk.path("mended"), "").unwrap();
    desk.run(&["--store", "store", "--retry", "work/each[1]"]).completed();
    let list = letters(&["--format", "json"]).json();
    assert_eq!(list["letters"][0]["state"], "retried as work/each[1]/retry-1");

    letters(&["discard", "work/each[1]", "--note", "a lost cause"]);
    assert!(letters(&[]).stdout.contains("discarded: a lost cause"));
}
