//! `guild chaos` as a user meets it: plans that pass, promises that break, plans that are wrong, and
//! a real process under SIGKILL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

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

    let ended = chaos(&desk, &plan, &["--seeds", "3", "--format", "json"]);
    let is_message = |line: &str| line.starts_with("guild: ");
    assert!(ended.stderr.lines().all(is_message), "{}", ended.stderr);
    let struck = &ended.json()["coverage"]["methods"];
    let is_struck = |fault: &serde_json::Value| fault.as_u64() > Some(0);
    assert!(
        struck.as_array().unwrap().iter().all(is_struck),
        "there is something to log: {struck}"
    );

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
    let full = "[[method]]\nfault = \"disk_full\"\nsite = \"sync\"\nwhen = { nth = 1 }\n\
                [[method]]\nfault = \"controller_crash\"\nwhen = { event = 9 }\n";
    let (head, _) = CARELESS.split_once("[[method]]").unwrap();
    let full = head.replace("agents = 4", "agents = 4\ndurability = \"disk\"") + full;
    refused(
        &full,
        &["--real"],
        &[
            "plan.toml:12:9: method[0].fault: `disk_full` strikes the store",
            "plan.toml:16:9: method[1].fault: `controller_crash` is done to the whole guild",
        ],
    );
    refused(CARELESS, &["--real", "--only", "methods="], &["--only: names no fault"]);
    let nobody = |select: &str| format!("{CARELESS}select = {{ {select} }}\n");
    refused(
        &nobody("role = \"wroker\""),
        &[],
        &["plan.toml:14:", "method[0].select.role", "`wroker`"],
    );
    refused(&nobody("agents = [\"worker-9\"]"), &[], &["method[0].select.agents", "worker-9"]);
    refused(&nobody("tasks = \"none-*\""), &[], &["method[0].select.tasks", "none-*"]);
    let limited = CARELESS.replace("[knobs]", "[limits]\nagents_max_percent = 1\n[knobs]");
    refused(&limited, &[], &["limits.agents_max_percent", "selects nobody"]);
    refused(CARELESS, &["--events", "no/such/folder/e.jsonl"], &["--events"]);
    chaos(&desk, Path::new("absent.toml"), &[]).refused(2, &["absent.toml", "cannot read"]);
    chaos(&desk, Path::new("crsh=0.1"), &[]).refused(2, &["crsh=0.1: cannot read it"]);
}

#[test]
fn faults_that_struck_another_run_of_the_store_do_not_count() {
    let desk = Desk::new();
    desk.flow(
        "[roles.worker]\nkind = \"render\"\nagents = 2\n[defaults]\n\
         retry = { attempts = 9, backoff = \"1ms\" }\n[tasks.a]\ntext = \"x\"\n",
    );
    std::fs::write(desk.path("plan.toml"), STRANGER).unwrap();
    std::fs::write(desk.path("never.toml"), STRANGER.replace("nth = 1", "nth = 100000")).unwrap();
    let run = |name: &str, plan: &str| {
        desk.run(&["--store", "store", "--run", name, "--chaos", plan]).code
    };

    assert_eq!(run("one", "plan.toml"), Some(0));
    assert_eq!(run("two", "never.toml"), Some(3), "`one` was struck");
    assert_eq!(run("three", "plan.toml"), Some(0));
    assert_eq!(run("one", "plan.toml"), Some(0), "it is as it was");
    assert_eq!(run("two", "never.toml"), Some(3), "`three` was struck");
}

/// A plan for whoever is there.
const STRANGER: &str = r#"
title = "For others"
[workload]
flow = "nobody-reads-it.toml"
[[method]]
fault = "crash"
site = "before_perform"
select = { role = "worker" }
when = { nth = 1 }
"#;

#[test]
fn simulation_of_a_plan_whose_fault_never_strikes_has_shown_nothing() {
    let desk = Desk::new();
    std::fs::write(desk.path("w.json"), WORKFLOW).unwrap();
    std::fs::write(desk.path("plan.toml"), STRANGER).unwrap();
    std::fs::write(desk.path("never.toml"), STRANGER.replace("nth = 1", "nth = 100000")).unwrap();
    let simulate = |plan: &str, more: &[&str]| {
        Ended::of(desk.guild().args(["simulate", "w.json", "--chaos", plan]).args(more))
    };

    let single = "each of 2 tasks ended exactly once";
    let row = "\ncritical-path,,16,1,3.000000,3.000000,3.000000,2,2,0,2,0,0,";
    for (more, summary) in [(&[][..], single), (&["--seeds", "2", "--jobs", "2"], row)] {
        let ended = simulate("plan.toml", more);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);

        let ended = simulate("never.toml", more);
        ended.refused(3, &["fault 0 (`crash` at before_perform) never struck"]);
        assert!(ended.stdout.contains(summary), "{}", ended.stdout);
    }
}

#[test]
fn simulation_under_faults_that_make_no_sense_writes_nothing() {
    let desk = Desk::new();
    std::fs::write(desk.path("w.json"), WORKFLOW).unwrap();
    let refused = |chaos: &str, parts: &[&str]| {
        let files = ["--events", "e.jsonl", "--report", "r.html"];
        let simulate = ["simulate", "w.json", "--chaos", chaos];
        Ended::of(desk.guild().args(simulate).args(files)).refused(2, parts);
        assert!(!desk.path("e.jsonl").exists() && !desk.path("r.html").exists());
    };
    let plan = |from: &str, to: &str, parts: &[&str]| {
        std::fs::write(desk.path("plan.toml"), STRANGER.replace(from, to)).unwrap();
        refused("plan.toml", parts);
    };

    refused("crsh=0.1", &["--chaos: unknown fault `crsh`"]);
    refused("crash", &["--chaos:", "`crash`"]);
    refused("absent.toml", &["absent.toml: cannot read it"]);
    plan("\"crash\"", "\"crsh\"", &["plan.toml:6:9", "did you mean `crash`"]);
    plan("\"worker\"", "\"wroker\"", &["plan.toml:8:", "method[0].select.role", "`wroker`"]);
    plan("role = \"worker\"", "agents = [\"worker-16\"]", &["plan.toml:8:", "worker-16"]);
    plan("role = \"worker\"", "tasks = \"c*\"", &["plan.toml:8:", "select.tasks", "c*"]);
    let kill = "fault = \"crash\"\nsite = \"before_perform\"\nselect = { role = \"worker\" }";
    plan(kill, "fault = \"kill\"", &["plan.toml:", "only `guild chaos` can"]);
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

    run(&crash.replace("nth = 1", "nth = 100000")).refused(3, &["fault 0", "never struck"]);

    // Whom `one` chooses is one who has work, whatever the seed: none of those that expand lists.
    desk.flow(&flow.replace("agents = 2", "agents = 1"));
    run(&crash.replace("role = \"tool\"", "mode = \"one\"")).completed();
    for seed in ["1", "2", "3", "4", "5"] {
        desk.run(&["--chaos", "plan.toml", "--seed", seed]).completed();
    }

    let kill = crash.replace(
        "fault = \"crash\"\nsite = \"before_perform\"\nselect = { role = \"tool\" }\n",
        "fault = \"kill\"\n",
    );
    run(&kill).refused(2, &["plan.toml:", "only `guild chaos` can"]);
}

const REAL: &str = r#"
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

/// Returns the verdicts of a result that are neither `holds` nor `not judged`.
fn broken(result: &serde_json::Value) -> Vec<&serde_json::Value> {
    let verdicts = result["verdicts"].as_array().unwrap();
    assert!(verdicts.iter().any(|verdict| verdict[1] == "holds"), "{result}");
    verdicts.iter().filter(|verdict| verdict[1].as_str().unwrap().contains("violated")).collect()
}

#[test]
fn real_process_is_killed_and_keeps_what_it_told() {
    let desk = Desk::new();
    std::fs::write(desk.path("plan.toml"), REAL).unwrap();

    let ended = chaos(
        &desk,
        Path::new("plan.toml"),
        &["--real", "--format", "json", "--events", "log.jsonl"],
    );

    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let result = ended.json();
    assert_eq!(result["killed_at_events"].as_array().unwrap().len(), 2, "{result}");
    assert!(
        broken(&result).is_empty() && result["never_seen"] == serde_json::json!([]),
        "{result}"
    );
    assert_eq!(result["methods"][1]["fired"], 1, "{result}");
    assert!(result["faults"][0]["agent"].as_str().unwrap().starts_with("worker-"), "{result}");
    assert_eq!(result["repeat"], "guild chaos --real plan.toml --seed 1");
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
    assert!(broken(&ended.json()).is_empty(), "{}", ended.stdout);
    let log = support::events(&desk.path("log.jsonl"));
    let count = |kind: &str| log.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("guild_started"), count("task_completed")), (2, 10));

    desk.flow(&flow.replace("'true'", "'exit 1'"));
    let ended = chaos(&desk, Path::new("plan.toml"), &real);
    assert_eq!(ended.code, Some(3), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("9 of 10 tasks completed"), "{}", ended.stdout);
}

#[test]
fn real_process_that_a_fault_never_strikes_has_shown_nothing() {
    let desk = Desk::new();
    let plan = REAL.replace("event = 90", "event = 100000").replace("nth = 6", "nth = 100000");
    std::fs::write(desk.path("my plan.toml"), plan).unwrap();
    let plan = Path::new("my plan.toml");

    let ended = chaos(&desk, plan, &["--real"]);

    let (kill, crash) = ("fault 1 (`kill` at process)", "fault 2 (`crash` at after_perform)");
    ended.refused(3, &[&format!("{kill} never struck"), &format!("{crash} never struck")]);
    assert!(!ended.stderr.contains("fault 0"), "{}", ended.stderr);

    let ended = chaos(&desk, plan, &["--real", "--only", "methods=1,2;tasks=8"]);
    assert_eq!(ended.code, Some(0), "a part promises nothing: {}\n{}", ended.stdout, ended.stderr);
    let ended = chaos(&desk, plan, &["--real", "--only", "methods=0;tasks=8"]);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let repeat = "repeat: guild chaos --real 'my plan.toml' --seed 1 --only 'methods=0;tasks=8'\n";
    assert!(ended.stdout.ends_with(repeat), "{}", ended.stdout);
}

#[test]
fn real_process_that_dies_by_itself_breaks_a_promise_whatever_is_asked_for() {
    let desk = Desk::new();
    desk.flow("[roles.sh]\nkind = \"exec\"\n[tasks.murder]\nshell = 'sleep 0.3; kill -9 $PPID'\n");
    let plan = "title = \"Mine\"\n[workload]\nflow = \"flow.toml\"\ndurability = \"disk\"\n\
                [steady_state]\ninvariants = [\"I3\"]\n\
                [[method]]\nfault = \"kill\"\nwhen = { event = 2 }\n";
    std::fs::write(desk.path("plan.toml"), plan).unwrap();

    let ended = chaos(&desk, Path::new("plan.toml"), &["--real", "--format", "json"]);

    assert_eq!(ended.code, Some(3), "{}\n{}", ended.stdout, ended.stderr);
    let result = ended.json();
    assert_eq!(result["never_seen"], serde_json::json!([]), "{result}");
    let died = |verdict: &&serde_json::Value| {
        verdict[0] == "I9" && verdict[1].as_str().unwrap().contains("guild run ended by a signal")
    };
    assert!(broken(&result).iter().any(died), "{result}");
}

#[test]
fn strikes_of_a_part_are_of_its_faults_and_what_a_process_cannot_show_is_named() {
    let desk = Desk::new();
    let more = "effects = true\nerrors = { fatal = 1 }\ncancel_at = \"1ms\"";
    let plan = REAL.replace("effects = true", more)
        + "[[method]]\nfault = \"crash\"\nsite = \"after_perform\"\nwhen = { nth = 3 }\n";
    std::fs::write(desk.path("plan.toml"), plan).unwrap();
    let real = ["--real", "--format", "json", "--only", "methods=3;tasks=8"];

    let ended = chaos(&desk, Path::new("plan.toml"), &real);

    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let result = ended.json();
    let methods: Vec<_> =
        result["faults"].as_array().unwrap().iter().map(|fault| &fault["method"]).collect();
    assert_eq!(methods, [3], "{result}");
    assert_eq!(result["left_out"], serde_json::json!(["errors", "cancel_at"]));
}

#[test]
fn example_plans_are_played_with_a_real_process() {
    for (name, quiet, kills, left_out) in
        [("kill.toml", "10s", 2, "lost_writes"), ("crash_storm.toml", "4s", 0, "errors")]
    {
        let desk = Desk::new();
        let plan = std::fs::read_to_string(example(name)).unwrap();
        // The clock is real, and the machine may be busy with other tests: no fault comes too late.
        let patient = plan.replace(&format!("after = \"{quiet}\""), "after = \"10m\"");
        assert_ne!(plan, patient);
        std::fs::write(desk.path("plan.toml"), patient).unwrap();

        let ended = chaos(&desk, Path::new("plan.toml"), &["--real", "--format", "json"]);

        assert_eq!(ended.code, Some(0), "{name}: {}\n{}", ended.stdout, ended.stderr);
        let result = ended.json();
        assert!(broken(&result).is_empty(), "{result}");
        assert_eq!(result["killed_at_events"].as_array().unwrap().len(), kills, "{result}");
        assert_eq!(result["left_out"][0].as_str().unwrap_or_default(), left_out, "{result}");
    }
}
