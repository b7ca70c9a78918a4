//! `guild chaos` as a user meets it: plans that pass, promises that break, plans that are wrong, and
//! a real process under SIGKILL.
mod support;

use std::path::{Path, PathBuf};

use support::{Desk, Ended};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chaos").join(name)
}

fn chaos(desk: &Desk, plan: &Path, more: &[&str]) -> Ended {
    Ended::of(desk.guild().arg("chaos").arg(plan).args(more))
}

const CARELESS: &str = r#"
title = "Effects without a key"
[workload]
shape = "chain"
tasks = 30
agents = 4
effects = "careless"
[knobs]
attempts_max = 9
[[method]]
fault = "crash"
site = "after_perform"
when = { probability = 0.2 }
"#;

const WORKFLOW: &str = r#"{"name":"w","schemaVersion":"1.5","workflow":{
  "specification":{"tasks":[{"id":"a","name":"a"},{"id":"b","name":"b","parents":["a"]}]},
  "execution":{"tasks":[{"id":"a","runtimeInSeconds":1},{"id":"b","runtimeInSeconds":2}]}}}"#;

#[test]
fn one_seed_is_played_told_and_written_down() {
    let desk = Desk::new();
    let files = ["--events", "events.jsonl", "--result", "result.json"];

    let ended = chaos(&desk, &example("kill.toml"), &[&files[..], &["--format", "json"]].concat());

    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let printed = ended.json();
    let written: serde_json::Value = serde_json::from_str(&desk.read("result.json")).unwrap();
    assert_eq!(printed["events_hash"], written["events_hash"]);
    assert!(printed["verdicts"].as_array().unwrap().len() >= 8, "{printed}");
    assert_eq!(printed["methods"][0]["fired"], 1);
    let events = support::events(&desk.path("events.jsonl"));
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert!(kinds.iter().filter(|kind| **kind == "guild_started").count() >= 3, "{kinds:?}");
}

#[test]
fn broken_promise_ends_with_three_and_the_line_that_repeats_it_does() {
    let desk = Desk::new();
    std::fs::write(desk.path("plan.toml"), CARELESS).unwrap();

    let ended = chaos(&desk, Path::new("plan.toml"), &["--seeds", "20"]);

    assert_eq!(ended.code, Some(3), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("I3 is violated"), "{}", ended.stderr);
    let line = ended.stderr.lines().last().unwrap();
    let line = line.strip_prefix("repeat: guild chaos plan.toml ").unwrap();
    let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
    let again = chaos(&desk, Path::new("plan.toml"), &words);
    assert_eq!(again.code, Some(3), "{line}\n{}", again.stderr);
    assert!(again.stdout.contains("violated"), "{}", again.stdout);
}

#[test]
fn injected_faults_are_not_logged_unless_it_is_asked_for() {
    let desk = Desk::new();
    let plan = example("memory_errors.toml");

    let ended = chaos(&desk, &plan, &["--seeds", "3"]);
    let is_message = |line: &str| line.starts_with("guild: ");
    assert!(ended.stderr.lines().all(is_message), "{}", ended.stderr);

    std::fs::write(desk.path("w.json"), WORKFLOW).unwrap();
    let simulate = ["simulate", "w.json", "--chaos", "crash=0.5", "--seed", "1"];
    let ended = Ended::of(desk.guild().args(simulate));
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);

    let asked = Ended::of(desk.guild().env("GUILD_LOG", "error").arg("chaos").arg(&plan));
    assert!(asked.stderr.contains("ERROR"), "{}", asked.stderr);
    assert!(!asked.stderr.contains('\u{1b}'), "colours without a terminal: {:?}", asked.stderr);
}

#[test]
fn plan_whose_fault_never_strikes_has_shown_nothing() {
    let desk = Desk::new();
    let text =
        CARELESS.replace("probability = 0.2", "nth = 1000000").replace("\"careless\"", "true");
    std::fs::write(desk.path("plan.toml"), text).unwrap();

    for more in [&[][..], &["--seeds", "3"]] {
        let ended = chaos(&desk, Path::new("plan.toml"), more);

        ended.refused(3, &["fault 0 (`crash` at after_perform) never struck"]);
    }
}

#[test]
fn wrong_plan_is_refused_with_its_place_and_nothing_is_written() {
    let desk = Desk::new();
    let plan = desk.path("plan.toml");
    let refused = |text: &str, more: &[&str], parts: &[&str]| {
        std::fs::write(&plan, text).unwrap();
        let more = [more, &["--result", "result.json"]].concat();
        chaos(&desk, Path::new("plan.toml"), &more).refused(2, parts);
        assert!(!desk.path("result.json").exists());
    };

    refused(&CARELESS.replace("crash", "crsh"), &[], &["plan.toml:11:", "did you mean `crash`"]);
    refused(&CARELESS.replace("0.2", "1.2"), &[], &["plan.toml:13:", "probability"]);
    let kill = CARELESS.replace("crash", "kill").replace("site = \"after_perform\"\n", "");
    refused(&kill, &[], &["plan.toml:", "method[0].fault", "durability"]);
    refused(CARELESS, &["--only", "methods=7"], &["--only", "no fault 7"]);
    refused(CARELESS, &["--only", "x"], &["--only", "`x`"]);
    refused(CARELESS, &["--real"], &["--real needs a `kill`"]);
    refused(CARELESS, &["--events", "no/such/folder/e.jsonl"], &["--events"]);
    chaos(&desk, Path::new("absent.toml"), &[]).refused(2, &["absent.toml", "cannot read"]);
}

#[test]
fn plan_strikes_a_run_and_a_simulation_too_but_not_their_store() {
    let desk = Desk::new();
    let flow = "[roles.tool]\nkind = \"render\"\nagents = 2\n[defaults]\n\
                retry = { attempts = 9, backoff = \"1ms\" }\n[tasks.a]\ntext = \"x\"\n";
    desk.flow(flow);
    let crash = "title = \"t\"\n[workload]\nshape = \"chain\"\ntasks = 1\nagents = 1\n\
                 [[method]]\nfault = \"crash\"\nsite = \"before_perform\"\n\
                 select = { role = \"ROLE\" }\nwhen = { nth = 1 }\n";
    std::fs::write(desk.path("crash.toml"), crash.replace("ROLE", "worker")).unwrap();
    let crash = crash.replace("ROLE", "tool");
    let run = |plan: &str| {
        // The plan's own crew has no such role, so its workload is left to a file.
        let plan = plan.replace("shape = \"chain\"\ntasks = 1\nagents = 1", "flow = \"flow.toml\"");
        std::fs::write(desk.path("plan.toml"), plan).unwrap();
        desk.run(&["--chaos", "plan.toml", "--events", "events.jsonl"])
    };

    let summary = run(&crash).completed();
    assert_eq!((&summary["attempts"], &summary["incidents"]), (&2.into(), &1.into()), "{summary}");
    let events = support::events(&desk.path("events.jsonl"));
    assert!(
        events.iter().any(|event| event["kind"] == "fault_injected" && event["type"] == "crash")
    );

    let kill = crash.replace(
        "fault = \"crash\"\nsite = \"before_perform\"\nselect = { role = \"tool\" }\n",
        "fault = \"kill\"\n",
    );
    run(&kill).refused(2, &["plan.toml:", "only `guild chaos` can"]);
}

#[test]
fn real_process_is_killed_and_keeps_what_it_told() {
    let desk = Desk::new();
    let plan = r#"
title = "Kill -9"
[workload]
shape = "layers"
tasks = 24
agents = 4
duration = "5ms"
durability = "disk"
effects = true
[knobs]
attempts_max = 9
[[method]]
fault = "kill"
when = { event = 20 }
[[method]]
fault = "kill"
when = { event = 90 }
[[method]]
fault = "crash"
site = "after_perform"
when = { nth = 6 }
"#;
    std::fs::write(desk.path("plan.toml"), plan).unwrap();

    let ended = chaos(
        &desk,
        Path::new("plan.toml"),
        &["--real", "--format", "json", "--events", "log.jsonl"],
    );

    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let result = ended.json();
    assert_eq!(result["killed_at_events"].as_array().unwrap().len(), 2, "{result}");
    let log = support::events(&desk.path("log.jsonl"));
    let count = |kind: &str| log.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("guild_started"), count("task_completed")), (3, 24));
    assert!(count("fault_injected") >= 1);
}

#[test]
fn real_process_of_a_flow_is_killed_and_its_store_agrees_with_what_it_told() {
    let desk = Desk::new();
    let flow = "[roles.sh]\nkind = \"exec\"\nagents = 3\n\
                [tasks.each]\nrole = \"sh\"\nfor_each = [1, 2, 3, 4, 5, 6, 7, 8]\nshell = 'sleep 0.02'\n\
                [tasks.end]\nrole = \"sh\"\nafter = [\"each\"]\nshell = 'true'\n";
    desk.flow(flow);
    let plan = "title = \"Mine\"\n[workload]\nflow = \"flow.toml\"\ndurability = \"disk\"\n\
                [steady_state]\ncompleted_min_percent = 100\n\
                [[method]]\nfault = \"kill\"\nwhen = { event = 12 }\n";
    std::fs::write(desk.path("plan.toml"), plan).unwrap();
    let real = ["--real", "--format", "json", "--events", "log.jsonl"];

    let ended = chaos(&desk, Path::new("plan.toml"), &real);

    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.json()["verdicts"].as_array().unwrap().len(), 0);
    let log = support::events(&desk.path("log.jsonl"));
    let count = |kind: &str| log.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("guild_started"), count("task_completed")), (2, 10));

    desk.flow(&flow.replace("'true'", "'exit 1'"));
    let ended = chaos(&desk, Path::new("plan.toml"), &real);
    assert_eq!(ended.code, Some(3), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("9 of 10 tasks completed"), "{}", ended.stdout);
}
