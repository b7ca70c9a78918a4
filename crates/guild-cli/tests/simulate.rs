//! `guild simulate` through its public face: flows, workflows, sweeps, and input that makes no sense.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use support::{Desk, Ended, events};

const WORKFLOW: &str = r#"{"name":"w","schemaVersion":"1.5","workflow":{
  "specification":{"tasks":[
    {"id":"a","name":"a","parents":[],"children":["b","c"]},
    {"id":"b","name":"b","parents":[],"children":[]},
    {"id":"c","name":"c","parents":["b"],"children":[]}]},
  "execution":{"tasks":[{"id":"a","runtimeInSeconds":1.5},{"id":"b","runtimeInSeconds":2},
    {"id":"c","runtimeInSeconds":4}]}}}"#;

/// Tasks of two roles: a static list, a list of unknown length, one of as many; a time limit.
const FLOW: &str = r#"
name = "hours"
[vars]
n = 6
[roles.tool]
kind = "exec"
agents = 3
duration = "2h"
[roles.text]
kind = "render"
[quotas.door]
permits = 2
[tasks.each]
role = "tool"
for_each = "{{ range(vars.n) }}"
command = ["false"]
quota = { door = 1 }
timeout = "3h"
[tasks.found]
role = "tool"
for_each = "{{ tasks.each.outputs | first }}"
items = 4
command = ["false"]
timeout = "3h"
[tasks.again]
role = "tool"
for_each = "{{ tasks.found.outputs }}"
command = ["false"]
duration = { distribution = "uniform", min = "10m", max = "20m" }
timeout = "3h"
[tasks.end]
role = "text"
text = "{{ tasks.again.outputs }}"
[result]
text = "{{ tasks.end.output }}"
"#;

fn simulate(desk: &Desk, file: &str, more: &[&str]) -> Ended {
    Ended::of(desk.guild().args(["simulate", file, "--format", "json"]).args(more))
}

fn write(desk: &Desk, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(desk.path(name), bytes).unwrap();
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Every file that a simulation could write.
const OUTPUTS: [&str; 4] = ["--events", "events.jsonl", "--report", "report.html"];

/// Simulates bad input with all outputs asked for: refused, and nothing written.
fn refuse(file: &str, bytes: impl AsRef<[u8]>, more: &[&str], parts: &[&str]) {
    let desk = Desk::new();
    write(&desk, file, bytes);
    let mut arguments = OUTPUTS.to_vec();
    arguments.extend(more);

    let refused = simulate(&desk, file, &arguments);

    refused.refused(2, parts);
    assert_eq!(refused.stdout, "");
    let left: Vec<_> =
        fs::read_dir(desk.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [file], "nothing was written");
}

#[test]
fn workflow_is_told_from_a_flow_by_its_content() {
    let desk = Desk::new();
    write(&desk, "plain", WORKFLOW);
    write(&desk, "packed", gzip(WORKFLOW));
    write(
        &desk,
        "old",
        r#"{"schemaVersion":"1.4","workflow":{"tasks":[
        {"name":"a","id":"a","children":["b"],"runtimeInSeconds":3},{"name":"b","id":"b"}]}}"#,
    );

    for name in ["plain", "packed"] {
        let json = simulate(&desk, name, &["--agents", "2"]).completed();
        assert_eq!(json["makespan_s"], 7.5, "a, then b, then c: {json}");
        assert_eq!((&json["critical_path_s"], &json["work_s"]), (&7.5.into(), &7.5.into()));
    }
    assert_eq!(simulate(&desk, "old", &[]).completed()["makespan_s"], 3.0);
}

#[test]
fn json_object_has_exactly_the_documented_shape() {
    let desk = Desk::new();
    write(&desk, "w.json", WORKFLOW);

    let ended = simulate(&desk, "w.json", &["--seed", "9"]);

    let keys: Vec<&str> = ended
        .stdout
        .trim_end()
        .split("\"")
        .filter(|part| !part.contains([':', ',', '{', '}']))
        .collect();
    assert_eq!(
        keys,
        [
            "outcome",
            "completed",
            "tasks",
            "total",
            "completed",
            "failed",
            "skipped",
            "cancelled",
            "attempts",
            "agents",
            "incidents",
            "restarts",
            "makespan_s",
            "critical_path_s",
            "work_s",
            "messages_per_task",
            "events",
            "events_hash",
            ended.json()["events_hash"].as_str().unwrap(),
            "seed",
        ]
    );
    assert_eq!(ended.stdout.lines().count(), 1, "one object on one line");
    assert_eq!(ended.json()["seed"], 9);
}

#[test]
fn every_role_task_list_and_quota_of_a_flow_is_simulated() {
    let desk = Desk::new();
    desk.flow(FLOW);

    let ended = simulate(&desk, "flow.toml", &["--events", "events.jsonl"]);
    let json = ended.completed();

    // Six, four and four tasks of lists, what expands the three, the last one, and the result.
    assert_eq!(json["tasks"]["total"], 6 + 4 + 4 + 3 + 1 + 1);
    assert_eq!(json["agents"], 4, "three of `tool`, one of `text`");
    // Two of six at a time pass the door; four are shared by three; the third list is drawn.
    let hours = json["makespan_s"].as_f64().unwrap() / 3600.0;
    assert!(hours > 6.0 + 4.0 + 2.0 / 6.0 && hours < 6.0 + 4.0 + 4.0 / 6.0 + 0.01, "{hours}");
    assert!(ended.stderr.contains("no `duration` for end: 1s each"), "{}", ended.stderr);
    assert_eq!(json.get("result"), None, "outputs do not exist");
    let log = events(&desk.path("events.jsonl"));
    assert_eq!(log.len() as u64, json["events"].as_u64().unwrap());
    let doors: Vec<&Value> = log.iter().filter(|event| event["kind"] == "quota_changed").collect();
    assert!(doors.len() >= 12 && doors.iter().all(|event| event["in_use"].as_u64() <= Some(2)));

    let more = simulate(&desk, "flow.toml", &["--set", "n=12", "--agents", "2"]).completed();
    assert_eq!((&more["tasks"]["total"], &more["agents"]), (&25.into(), &4.into()));
}

#[test]
fn time_limits_and_retries_are_those_of_the_flow() {
    let desk = Desk::new();
    let flow = |limit: &str| {
        format!(
            "[roles.r]\nkind = \"exec\"\n[tasks.slow]\ncommand = [\"x\"]\nduration = \"11m\"\n{limit}\
             retry = {{ attempts = 3, backoff = \"20s\", factor = 1, jitter = 0 }}\n"
        )
    };

    // A run gives a task ten minutes that asks for nothing else, so a simulation does.
    desk.flow(&flow(""));
    let failed = simulate(&desk, "flow.toml", &[]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(
        (&failed.json()["attempts"], &failed.json()["tasks"]["failed"]),
        (&3.into(), &1.into())
    );
    assert_eq!(failed.json()["makespan_s"], 30.0 * 60.0 + 40.0);

    desk.flow(&flow("timeout = \"12m\"\n"));
    assert_eq!(simulate(&desk, "flow.toml", &[]).completed()["makespan_s"], 660.0);
}

#[test]
fn agents_are_supervised_as_the_flow_says() {
    let desk = Desk::new();
    let flow = |supervision: &str| {
        format!(
            "[roles.r]\nkind = \"exec\"\nagents = 4\n[roles.r.supervision]\n{supervision}\n\
             [tasks.t]\nrole = \"r\"\nfor_each = \"{{{{ range(40) }}}}\"\ncommand = [\"x\"]\nduration = \"1s\"\n\
             retry = {{ attempts = 1000, backoff = \"0s\" }}\n"
        )
    };
    let simulate = |supervision: &str| {
        desk.flow(&flow(supervision));
        let more = ["--chaos", "crash=0.3", "--seed", "1", "--events", "events.jsonl"];
        let ended = simulate(&desk, "flow.toml", &more);
        let log = events(&desk.path("events.jsonl"));
        let is_of_role =
            |event: &&Value| event["agent"].as_str().is_some_and(|agent| agent.starts_with("r-"));
        let of_role: Vec<&Value> = log.iter().filter(is_of_role).collect();
        let count = |kind| of_role.iter().filter(|event| event["kind"] == kind).count();
        (ended.code, count("agent_restarted"), count("agent_stopped"), count("agent_quarantined"))
    };

    let (code, restarted, stopped, quarantined) = simulate("intensity = 1000");
    assert_eq!((code, stopped, quarantined), (Some(0), 0, 0));
    assert!(restarted > 5);

    let (code, restarted, _, _) = simulate("restart = \"temporary\"");
    assert_eq!((code, restarted), (Some(1), 0), "its agents are not started again");

    let (_, _, stopped, _) = simulate("strategy = \"one-for-all\"\nintensity = 1000");
    assert!(stopped > 5, "the others are restarted too");

    let (code, _, _, quarantined) = simulate("intensity = 0\nquarantine = \"1m\"");
    assert_eq!(code, Some(0));
    assert!(quarantined > 5);
}

#[test]
fn durations_are_drawn_by_the_seed() {
    let desk = Desk::new();
    write(&desk, "samples.csv", "n,ms\n1,250\n2,500\n");
    let makespan = |duration: &str, seed: &str| {
        desk.flow(&format!(
            "[roles.r]\nkind = \"exec\"\n[tasks.a]\ncommand = [\"x\"]\nduration = {duration}\n"
        ));
        simulate(&desk, "flow.toml", &["--seed", seed]).completed()["makespan_s"].as_f64().unwrap()
    };

    for duration in [
        "{ distribution = \"uniform\", min = \"1s\", max = \"1m\" }",
        "{ distribution = \"normal\", mean = \"1m\", sd = \"10s\" }",
        "{ distribution = \"log-normal\", median = \"1m\", sigma = 0.5 }",
        "{ distribution = \"exponential\", mean = \"1m\" }",
        "{ distribution = \"pareto\", min = \"1s\", shape = 2 }",
    ] {
        let first = makespan(duration, "1");
        assert_eq!(first, makespan(duration, "1"), "{duration}");
        assert_ne!(first, makespan(duration, "2"), "{duration}");
    }
    let empirical =
        "{ distribution = \"empirical\", file = \"samples.csv\", column = \"ms\", unit = \"ms\" }";
    for seed in ["1", "2", "3", "4"] {
        assert!([0.25, 0.5].contains(&makespan(empirical, seed)));
    }
}

#[test]
fn a_run_takes_no_notice_of_durations_and_needs_no_samples() {
    let desk = Desk::new();
    desk.flow(
        "[roles.r]\nkind = \"exec\"\nduration = \"5h\"\n[tasks.list]\ncommand = [\"echo\", \"x\"]\n\
         parse = \"lines\"\n[tasks.a]\nfor_each = \"{{ tasks.list.output }}\"\nitems = 100\n\
         command = [\"true\"]\n\
         duration = { distribution = \"empirical\", file = \"absent.csv\", column = \"s\" }\n",
    );

    let json = desk.run(&[]).completed();
    assert_eq!(json["tasks"]["total"], 3, "one item, whatever a simulation takes");
    simulate(&desk, "flow.toml", &[])
        .refused(2, &["flow.toml:11:", "tasks.a.duration.file", "absent.csv"]);
}

#[test]
fn example_flow_is_simulated_and_runs() {
    let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flows/nightly.toml");
    let flow = flow.to_str().unwrap();
    let desk = Desk::new();

    let calm = simulate(&desk, flow, &[]).completed();
    assert!(calm["makespan_s"].as_f64().unwrap() > 300.0, "{calm}");
    let chaos =
        simulate(&desk, flow, &["--chaos", "crash=0.1,hang=0.02", "--seed", "7"]).completed();
    assert!(chaos["restarts"].as_u64().unwrap() > 10, "{chaos}");
    let run = Ended::of(desk.guild().args(["run", flow, "--format", "json"]));
    assert_eq!(run.completed()["tasks"]["total"], 1 + 41 + 1 + 81 + 81 + 2);
}

#[test]
fn sweep_is_the_same_whatever_the_number_of_cores() {
    let desk = Desk::new();
    write(&desk, "w.json", WORKFLOW);
    let sweep = |jobs: &str, csv: &str| {
        let mut command = desk.guild();
        command.args([
            "simulate",
            "w.json",
            "--sweep",
            "agents=1,2",
            "--sweep",
            "policy=fifo,random",
        ]);
        command.args(["--seeds", "3", "--chaos", "crash=0.2", "--csv", csv, "--jobs", jobs]);
        Ended::of(&mut command)
    };

    let (one, many) = (sweep("1", "one.csv"), sweep("4", "many.csv"));

    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert_eq!(one.stdout, many.stdout);
    assert_eq!(desk.read("one.csv"), desk.read("many.csv"));
    assert_eq!(desk.lines("one.csv").len(), 1 + 2 * 2 * 3);
    assert!(desk.lines("one.csv")[1].starts_with("fifo,1,1,0,"));
}

/// Returns the data that a page carries.
fn page(desk: &Desk, name: &str) -> Value {
    let html = desk.read(name);
    let (_, rest) = html.split_once("id=\"data\">").expect("a page carries its data");
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn report_shows_the_run_and_is_made_of_its_log() {
    let desk = Desk::new();
    desk.flow(FLOW);
    let chaos = ["--chaos", "crash=0.2", "--seed", "3"];
    let more = ["--events", "events.jsonl", "--report", "run.html"];
    let json = simulate(&desk, "flow.toml", &[&chaos[..], &more].concat()).completed();

    let run = &page(&desk, "run.html")["run"];
    let figures = &run["figures"];
    assert_eq!((&figures["tasks"], &figures["agents"]), (&json["tasks"]["total"], &json["agents"]));
    assert_eq!((&figures["attempts"], &figures["events"]), (&json["attempts"], &json["events"]));
    assert_eq!(
        (&figures["incidents"], &figures["restarts"]),
        (&json["incidents"], &json["restarts"])
    );
    assert!(figures["crashes"].as_u64() > Some(0), "{figures}");
    let makespan_us = (json["makespan_s"].as_f64().unwrap() * 1e6).round() as u64;
    assert_eq!(run["end"], makespan_us);
    assert_eq!(run["quotas"][0]["name"], "door");

    let report = ["report", "events.jsonl", "--out", "log.html"];
    assert_eq!(Ended::of(desk.guild().args(report)).code, Some(0));
    assert_eq!(page(&desk, "log.html")["run"], *run);
}

#[test]
fn report_of_a_sweep_shows_every_combination_and_the_fastest_run() {
    let desk = Desk::new();
    write(&desk, "w.json", WORKFLOW);
    let sweep = ["--sweep", "agents=1,2", "--seeds", "3", "--report", "sweep.html"];
    assert_eq!(simulate(&desk, "w.json", &sweep).code, Some(0));

    let page = page(&desk, "sweep.html");
    let points = page["sweep"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|point| point["makespans"].as_array().unwrap().len() == 3));
    assert_eq!(page["run"]["end"], points[0]["makespans"][0], "two agents are not faster");
}

#[test]
fn log_that_makes_no_sense_is_not_reported() {
    let desk = Desk::new();
    write(&desk, "w.json", WORKFLOW);
    simulate(&desk, "w.json", &["--events", "events.jsonl"]).completed();
    let log = desk.read("events.jsonl");
    let refuse = |text: &str, parts: &[&str]| {
        write(&desk, "bad.jsonl", text);
        let report = ["report", "bad.jsonl", "--out", "bad.html"];
        Ended::of(desk.guild().args(report)).refused(2, parts);
        assert!(!desk.path("bad.html").exists());
    };

    refuse(
        &log[..log.len() - 9],
        &["bad.jsonl: line", "of the event log is not what Guild writes"],
    );
    refuse(&log.replacen("\n", "\nno line\n", 1), &["line 2 of the event log"]);
    refuse("", &["the log has no task"]);
    refuse(&log.replacen("\"kind\"", "\"kin\"", 1), &["line 1 of", "`kind`"]);
    let report = ["report", "events.jsonl", "--out", "no/such.html"];
    Ended::of(desk.guild().args(report)).refused(2, &["--out", "its directory does not exist"]);
}

#[test]
fn workflow_that_makes_no_sense_is_refused() {
    let change = |from: &str, to: &str| WORKFLOW.replacen(from, to, 1);
    for (text, part) in [
        (WORKFLOW[..200].to_owned(), "EOF while parsing"),
        (change("1.5\",", "1.2\","), "WfFormat 1.2 is not supported"),
        (change("\"id\":\"b\",\"name\":\"b\",", ""), "neither `id` nor `name`"),
        (change("[\"b\"]", "[\"q\"]"), "`q` in its `parents`"),
        (change("\"parents\":[]", "\"parents\":[\"c\"]"), "c -> a"),
        (change(":1.5}", ":-1.5}"), "task `a`: a runtime of -1.5 s"),
        (change(":1.5}", ":1e999}"), "out of range"),
        (
            r#"{"schemaVersion":"1.5","workflow":{"specification":{"tasks":[]}}}"#.to_owned(),
            "no task",
        ),
        ("{}".to_owned(), "schemaVersion"),
    ] {
        refuse("w.json", text, &[], &["w.json: ", part]);
    }
    let packed = gzip(WORKFLOW);
    refuse("w.json.gz", &packed[..packed.len() / 2], &[], &["w.json.gz: ", "gzip stream is cut"]);
    refuse("w.json", WORKFLOW, &["--set", "n=1"], &["--set is for flow files"]);
    refuse("w.bin", [0xff, 0xfe, 0x00], &[], &["w.bin", "not UTF-8"]);
    refuse("w.toml", "", &[], &["w.toml", "the flow is empty"]);
}

#[test]
fn flow_whose_simulation_makes_no_sense_is_refused() {
    let task =
        |keys: &str| format!("[roles.r]\nkind = \"exec\"\n[tasks.a]\ncommand = [\"x\"]\n{keys}\n");
    for (keys, parts) in [
        ("duration = \"-3s\"", &["flow.toml:5:12: tasks.a.duration", "no duration"][..]),
        ("duration = 3", &["must be a table, not an integer"]),
        ("duration = { mean = \"3s\" }", &["has no `distribution`"]),
        (
            "duration = { distribution = \"gauss\", mean = \"3s\" }",
            &["unknown distribution `gauss`", "normal"],
        ),
        ("duration = { distribution = \"normal\", mean = \"3s\" }", &["has no `sd`"]),
        (
            "duration = { distribution = \"exponential\", mean = \"3s\", sd = \"1s\" }",
            &["duration.sd: unknown key"],
        ),
        (
            "duration = { distribution = \"uniform\", min = \"3s\", max = \"1s\" }",
            &["`min` of `uniform`"],
        ),
        (
            "duration = { distribution = \"pareto\", min = \"3s\", shape = 0 }",
            &["`shape` of `pareto`"],
        ),
        (
            "duration = { distribution = \"pareto\", min = \"3s\", shape = inf }",
            &["duration.shape"],
        ),
        (
            "duration = { distribution = \"empirical\", file = \"no.csv\", column = \"s\" }",
            &["duration.file", "no.csv"],
        ),
        ("items = 3", &["tasks.a.items", "belongs to `for_each`"]),
        ("for_each = [1, 2]\nitems = 3", &["tasks.a.items", "known without"]),
    ] {
        refuse("flow.toml", task(keys), &[], parts);
    }
    let list = "[tasks.b]\ncommand = [\"x\"]\nfor_each = \"{{ tasks.a.output }}\"\n";
    refuse(
        "flow.toml",
        task("") + list,
        &[],
        &["flow.toml:8:12: tasks.b.for_each", "a simulation does not have", "items = 100"],
    );
    refuse(
        "flow.toml",
        task("") + list + "items = { min = 3, max = 1 }",
        &[],
        &["tasks.b.items", "above"],
    );
    refuse("flow.toml", task("") + list + "items = -1", &[], &["tasks.b.items: -1 is not within"]);
}

#[test]
fn argument_that_makes_no_sense_is_refused() {
    for (more, part) in [
        (&["--policy", "fastest"][..], "critical-path"),
        (&["--sweep", "agents=0,4"], "`0` is no number of agents"),
        (&["--sweep", "agents"], "`agents` is no parameter"),
        (&["--sweep", "agents="], "`` is no number"),
        (&["--sweep", "speed=1"], "unknown parameter `speed`"),
        (&["--sweep", "policy=best"], "unknown policy `best`"),
        (&["--sweep", "agents=1", "--sweep", "agents=2"], "`agents` is given twice"),
        (&["--agents", "0"], "0 is not in 1..=1000000"),
        (&["--seeds", "0"], "0 is not in 1..=1000000"),
        (&["--chaos", "crash=2"], "`2` is no probability"),
        (&["--sweep", "agents=1,2"], "--events: a sweep has many logs"),
    ] {
        refuse("w.json", WORKFLOW, more, &[part]);
    }
    let desk = Desk::new();
    write(&desk, "w.json", WORKFLOW);
    for (option, more) in [("--events", &[][..]), ("--report", &[]), ("--csv", &["--seeds", "2"])] {
        let refuse = |file: &str, why: &str| {
            let arguments = [&[option, file], more].concat();
            simulate(&desk, "w.json", &arguments).refused(2, &[option, file, why]);
        };
        refuse("no/such/file", "its directory does not exist");
        refuse(".", "it is a directory");
    }
    simulate(&desk, "w.json", &["--csv", "rows.csv"]).refused(2, &["--csv: there is no sweep"]);
    simulate(&desk, "absent.json", &[]).refused(2, &["absent.json: cannot read it"]);
    assert_eq!(fs::read_dir(desk.root()).unwrap().count(), 1, "nothing was written");
}
