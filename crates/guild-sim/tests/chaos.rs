//! Plays fault plans against whole guilds: the five plans of `examples/chaos`, every kind of fault,
//! and what is said when a promise is broken.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::event::EventRecord;
use guild_core::supervision::{Strategy, SupervisorSpec};
use guild_sim::chaos::{Batch, BatchEnd, ChaosRun, Checks, Experiment};
use guild_sim::plan::{Branch, Coverage, Kind, Plan, RULES, Target};
use guild_sim::workload::{Durations, Items, Map, Role, WorkTask, Workload, read_workflow};
use guild_sim::world::LogReader;

fn example(name: &str) -> Experiment {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chaos");
    let file: PathBuf = root.join(name).with_extension("toml");
    let text = std::fs::read_to_string(&file).unwrap();
    Experiment::new(Plan::parse(&text, &file).unwrap(), &text, None).unwrap()
}

fn experiment(text: &str) -> Experiment {
    let plan = Plan::parse(text, Path::new("plan.toml")).unwrap_or_else(|error| panic!("{error}"));
    Experiment::new(plan, text, None).unwrap_or_else(|error| panic!("{error}"))
}

/// A plan of a workload that was read from a file.
fn loaded(text: &str, workload: Workload) -> Experiment {
    let plan = Plan::parse(text, Path::new("plan.toml")).unwrap_or_else(|error| panic!("{error}"));
    Experiment::new(plan, text, Some(workload)).unwrap_or_else(|error| panic!("{error}"))
}

/// Plays a seed in which nothing may be violated and every fault must strike.
fn plays_clean(experiment: &Experiment, seed: u64) -> ChaosRun {
    let run = experiment.run(Seed(seed), None, Checks::ALL, Vec::new()).unwrap();
    let violated: Vec<_> = run.result.violated().collect();
    assert!(violated.is_empty(), "seed {seed}: {violated:#?}");
    let missing = run.coverage.missing().methods;
    assert!(missing.is_empty(), "seed {seed}: faults {missing:?} never struck");
    run
}

fn play(experiment: &Experiment, seeds: u64) -> BatchEnd {
    let first = experiment.plan().seed.0;
    let batch = Batch { first, seeds, threads: 2, trials_max: 60 };
    batch.play(experiment, || {}).unwrap()
}

/// Plays a batch in which nothing may be violated and every fault must strike.
fn passes(name: &str, seeds: u64) {
    let experiment = example(name);
    let end = play(&experiment, seeds);

    if let Some(violated) = &end.violated {
        let run = violated.small.as_ref().map_or(&violated.run, |(_, run)| run);
        let all: Vec<_> = violated.run.result.violated().collect();
        let small: Vec<_> = run.result.violated().collect();
        panic!("{all:#?}\nshrunk: {small:#?}\n{}", run.result.repeat);
    }
    let missing = end.coverage.missing().methods;
    assert!(missing.is_empty(), "faults {missing:?} never struck");
    let unseen = end.coverage.unseen_branches(experiment.plan());
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn crash_storm_breaks_no_promise() {
    passes("crash_storm", 8);
}

#[test]
fn crash_after_effect_breaks_no_promise() {
    passes("crash_after_effect", 8);
}

#[test]
fn hang_and_slow_breaks_no_promise() {
    passes("hang_and_slow", 8);
}

#[test]
fn memory_errors_break_no_promise() {
    passes("memory_errors", 4);
}

#[test]
fn disk_that_fails_again_while_the_guild_starts_again_breaks_no_promise() {
    let batch = Batch { first: 58, seeds: 1, threads: 1, trials_max: 1 };
    let end = batch.play(&example("memory_errors"), || {}).unwrap();

    assert!(end.violated.is_none(), "{:?}", end.violated);
}

#[test]
fn kill_breaks_no_promise() {
    passes("kill", 8);
}

const EXAMPLES: [&str; 5] =
    ["crash_storm", "crash_after_effect", "hang_and_slow", "memory_errors", "kill"];

#[test]
fn each_example_passes_alone_with_its_own_seed() {
    for name in EXAMPLES {
        let experiment = example(name);
        plays_clean(&experiment, experiment.plan().seed.0);
    }
}

#[test]
fn each_example_passes_alone_with_nearly_every_other_seed() {
    let mut missed = Vec::new();
    for name in EXAMPLES {
        let experiment = example(name);
        for seed in 1..=25 {
            let run = experiment.run(Seed(seed), None, Checks::NONE, Vec::new()).unwrap();
            let violated: Vec<_> = run.result.violated().collect();
            assert!(violated.is_empty(), "{name}, seed {seed}: {violated:#?}");
            if !run.coverage.missing().methods.is_empty() {
                missed.push((name, seed, run.coverage.methods));
            }
        }
    }
    assert!(missed.len() <= EXAMPLES.len(), "{missed:?}");
}

#[test]
fn strike_with_which_the_process_died_is_told_once() {
    for name in ["memory_errors", "kill"] {
        let experiment = example(name);
        for seed in 1..=10 {
            let run = experiment.run(Seed(seed), None, Checks::NONE, Vec::new()).unwrap();
            for (n, method) in experiment.plan().methods.iter().enumerate() {
                let told = run.coverage.methods[n];
                let decided = run.faults.iter().filter(|fault| fault.method == n).count() as u64;
                assert!(told <= decided, "{name}, seed {seed}, fault {n}: {told} of {decided}");
                if method.kind.rule().target != Target::Agents && method.kind != Kind::SlowSync {
                    assert_eq!(told, decided, "{name}, seed {seed}, fault {n}");
                }
            }
        }
    }
}

#[test]
fn examples_together_take_every_branch_of_recovery_but_two() {
    let mut shown = Coverage::new(0);
    for name in EXAMPLES {
        shown.merge(&play(&example(name), 4).coverage);
    }

    // What hands tasks back or cancels them is in no example: it has its own tests below.
    let elsewhere = [Branch::HandedBack, Branch::Cancelled];
    let missing: Vec<_> =
        shown.missing().branches.into_iter().filter(|of| !elsewhere.contains(of)).collect();
    assert!(missing.is_empty(), "{missing:?} in none of {} runs", shown.runs);
    assert!(shown.missing().kinds.is_empty(), "{:?}", shown.missing().kinds);
}

/// Collects which task was assigned when.
#[derive(Clone, Default)]
struct Assigned(Arc<Mutex<Vec<String>>>);

impl LogReader for Assigned {
    fn record(&mut self, _: &EventRecord, line: &str) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["kind"] == "task_assigned" {
            self.0.lock().unwrap().push(line["task"].as_str().unwrap().to_owned());
        }
    }
}

#[test]
fn each_seed_is_another_order_of_equal_tasks() {
    let experiment = experiment(
        "title = \"t\"\n[workload]\nshape = \"independent\"\ntasks = 12\nagents = 1\n\
         [[method]]\nfault = \"slow\"\nsite = \"before_perform\"\ndelay = \"1ms\"\nwhen = { nth = 1 }\n",
    );
    let order = |seed| {
        let assigned = Assigned::default();
        let readers: Vec<Box<dyn LogReader>> = vec![Box::new(assigned.clone())];
        experiment.run(Seed(seed), None, Checks::NONE, readers).unwrap();
        assigned.0.lock().unwrap().clone()
    };

    assert_eq!(order(1), order(1));
    let orders: BTreeSet<Vec<String>> = (0..10).map(order).collect();
    assert!(orders.len() > 8, "{orders:#?}");
}

#[test]
fn task_of_an_hour_outlives_a_crash() {
    let experiment = experiment(
        "title = \"hours\"\n[workload]\nshape = \"layers\"\ntasks = 12\nagents = 3\nduration = \"1h\"\n\
         [steady_state]\ncompleted_min_percent = 100\n\
         [[method]]\nfault = \"crash\"\nsite = \"before_perform\"\nwhen = { nth = 2 }\n",
    );

    for seed in 0..5 {
        assert_eq!(plays_clean(&experiment, seed).counts.crashes, 1);
    }
}

#[test]
fn plan_of_a_workflow_is_played() {
    let workflow = r#"{"name":"w","schemaVersion":"1.5","workflow":{
        "specification":{"tasks":[
            {"id":"a","name":"a","parents":[],"children":["b","c"]},
            {"id":"b","name":"b","parents":["a"],"children":[]},
            {"id":"c","name":"c","parents":["a"],"children":[]}]},
        "execution":{"tasks":[{"id":"a","runtimeInSeconds":7200},{"id":"b","runtimeInSeconds":2}]}}}"#;
    let text = "title = \"w\"\n[workload]\nworkflow = \"w.json\"\nagents = 2\n\
                [steady_state]\ncompleted_min_percent = 100\n\
                [[method]]\nfault = \"crash\"\nsite = \"after_perform\"\nselect = { tasks = \"a\" }\n\
                when = { nth = 1 }\n[[method]]\nfault = \"hang\"\nsite = \"before_perform\"\n\
                select = { tasks = \"b\" }\nwhen = { nth = 1 }\n[quiet]\nafter = \"5h\"\n";

    let experiment = loaded(text, read_workflow(workflow.as_bytes()).unwrap());

    let run = plays_clean(&experiment, 3);
    let hang = &run.coverage.branches[&Branch::RetriedAfterTimeout];
    assert_eq!((*hang, run.counts.attempts), (1, 5));
}

/// A workload as a flow gives one: two roles, one of which expands a list.
fn flow() -> Workload {
    let second = Durations::Fixed(Duration::from_secs(1));
    let mut flow = Workload::new("flow", "tool");
    let supervision = SupervisorSpec { strategy: Strategy::OneForAll, ..SupervisorSpec::default() };
    flow.roles[0].agents = Some(3);
    flow.roles[0].supervision = Some(supervision);
    flow.roles.push(Role {
        name: "inner".to_owned(),
        agents: Some(1),
        is_inner: true,
        supervision: None,
    });
    let first = flow.add(WorkTask::new("first", second.clone()));
    let mut map = WorkTask::new("map", Durations::Fixed(Duration::ZERO)).after([first]);
    map.role = 1;
    map.map = Some(Box::new(Map {
        items: Items::Fixed(40),
        role: 0,
        duration: second.clone(),
        priority: 0,
        quotas: Vec::new(),
        retry: map.retry.clone(),
        timeout: Some(Duration::from_secs(600)),
    }));
    let map = flow.add(map);
    flow.add(WorkTask::new("last", second).after([map]));
    flow
}

#[test]
fn plan_of_a_flow_is_played_under_its_supervision_and_hands_back_what_was_under_way() {
    let text = "title = \"f\"\n[workload]\nflow = \"f.toml\"\n\
                [knobs]\nattempts_max = 20\nrestarts_max = 1000\n\
                [steady_state]\ncompleted_min_percent = 100\n\
                [[method]]\nfault = \"crash\"\nsite = \"after_perform\"\n\
                select = { role = \"tool\" }\nwhen = { every = 4 }\n[quiet]\nafter = \"30s\"\n";
    let experiment = loaded(text, flow());

    let mut shown = Coverage::new(1);
    for seed in 0..10 {
        shown.join(&plays_clean(&experiment, seed).coverage);
    }

    assert!(shown.branches.contains_key(&Branch::HandedBack), "{:?}", shown.branches);
}

#[test]
fn cancelled_run_starts_nothing_more_whatever_strikes() {
    let text = "title = \"c\"\n[workload]\nshape = \"layers\"\ntasks = 200\nagents = 8\n\
                duration = \"50ms\"\ndurability = \"disk\"\neffects = true\n\
                cancel_at = { min = \"200ms\", max = \"900ms\" }\n\
                [knobs]\ntimeout = \"1s\"\njitter = \"5ms\"\n\
                [[method]]\nfault = \"crash\"\nsite = \"after_perform\"\nwhen = { probability = 0.1 }\n\
                [[method]]\nfault = \"kill\"\nwhen = { at = { min = \"190ms\", max = \"910ms\" } }\n\
                [[method]]\nfault = \"commit_unknown\"\nwhen = { probability = 0.02 }\n\
                [quiet]\nafter = \"1s\"\n";
    let experiment = experiment(text);

    let end = play(&experiment, 50);

    assert!(end.violated.is_none(), "{:?}", end.violated.map(|of| of.run.result.verdicts));
    assert!(end.coverage.missing().methods.is_empty());
    assert!(end.coverage.branches[&Branch::Cancelled] > 50 * 50);
    let run = experiment.run(Seed(1), None, Checks::NONE, Vec::new()).unwrap();
    let i16 = run.result.verdicts.iter().find(|(id, _)| id.as_str() == "I16").unwrap();
    assert_eq!(i16.1, "holds");
}

#[test]
fn what_a_process_was_told_and_has_not_written_the_next_is_told_again() {
    let text = "title = \"a\"\n[workload]\nshape = \"layers\"\ntasks = 100\nagents = 4\nduration = \"50ms\"\n\
                durability = \"disk\"\ncancel_at = \"300ms\"\n[knobs]\nsync = \"20ms\"\n\
                [[method]]\nfault = \"lost_writes\"\nsite = \"sync\"\n\
                when = { at = { min = \"250ms\", max = \"299ms\" } }\n[quiet]\nafter = \"300ms\"\n";
    let experiment = experiment(text);

    let mut died = 0;
    for seed in 0..40 {
        let run = experiment.run(Seed(seed), None, Checks::NONE, Vec::new()).unwrap();
        assert_eq!(run.result.violated().next(), None, "seed {seed}");
        let branches = run.coverage.branches;
        assert!(branches.contains_key(&Branch::Quiet), "seed {seed}: {branches:?}");
        assert!(branches.contains_key(&Branch::Cancelled), "seed {seed}: {branches:?}");
        died += run.counts.recoveries;
    }
    assert!(died > 10, "a sync falls into the time before the end in {died} runs");
}

#[test]
fn promise_that_no_fault_is_to_blame_for_is_violated_before_any() {
    let text = "title = \"b\"\n[workload]\nshape = \"chain\"\ntasks = 5\nagents = 2\nduration = \"1s\"\n\
                [knobs]\ntimeout = \"500ms\"\nattempts_max = 2\n\
                [steady_state]\ninvariants = [\"I1\"]\ncompleted_min_percent = 100\n\
                [[method]]\nfault = \"slow\"\nsite = \"before_perform\"\ndelay = \"1ms\"\nwhen = { nth = 1 }\n";
    let experiment = experiment(text);

    let end = play(&experiment, 3);

    let violated = end.violated.expect("no task can complete in time");
    let (id, why) = violated.run.result.violated().next().unwrap();
    assert_eq!((id.as_str(), violated.run.result.seed), ("steady_state", 1));
    assert!(why.contains("before any fault"), "{why}");
    let (shrunk, _) = violated.small.unwrap();
    assert_eq!(shrunk.faults, [], "no fault is needed: {}", shrunk.case);
}

#[test]
fn torn_write_is_there_whole_or_not_at_all() {
    let text = "title = \"torn\"\n[workload]\nshape = \"chain\"\ntasks = 12\nagents = 1\n\
                durability = \"disk\"\neffects = true\n[steady_state]\ncompleted_min_percent = 100\n\
                [[method]]\nfault = \"torn_write\"\nsite = \"commit\"\nwhen = { nth = 5 }\n";
    let experiment = experiment(text);

    let attempts: BTreeSet<u64> =
        (0..20).map(|seed| plays_clean(&experiment, seed).counts.attempts).collect();

    // What is there needs no second attempt.
    assert_eq!(attempts, BTreeSet::from([12, 13]));
}

/// A method that makes the kind strike in the small workload of [`small`].
fn method_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Crash => "site = \"in_perform\"\ndelay = \"20ms\"\nwhen = { nth = 3 }",
        Kind::StartCrash => "when = { nth = 2 }",
        Kind::CrashQueued | Kind::Duplicate | Kind::Drop => "site = \"assign\"\nwhen = { nth = 5 }",
        Kind::Hang => "site = \"in_perform\"\ndelay = \"10ms\"\nwhen = { nth = 3 }",
        Kind::Slow => "site = \"before_perform\"\ndelay = \"30ms\"\nwhen = { every = 4 }",
        Kind::Stall => "site = \"after_perform\"\nfor = \"70ms\"\nwhen = { nth = 6 }",
        Kind::Exit => "site = \"after_perform\"\nwhen = { nth = 6 }",
        Kind::Delay => "site = \"hand_in\"\ndelay = \"2s\"\nwhen = { nth = 6 }",
        Kind::Reorder => "site = \"assign\"\nbehind = 2\nwhen = { every = 3 }",
        Kind::FullMailbox => "for = \"30ms\"\nwhen = { nth = 4 }",
        Kind::CommitBefore | Kind::CommitAfter | Kind::CommitUnknown => "when = { nth = 7 }",
        Kind::SlowSync => "delay = \"40ms\"\nwhen = { nth = 3 }",
        Kind::DiskFull => "site = \"sync\"\nfor = \"200ms\"\nwhen = { nth = 8 }",
        Kind::TornWrite => "site = \"commit\"\nwhen = { nth = 9 }",
        Kind::LostWrites => "site = \"sync\"\nwhen = { nth = 9 }",
        Kind::ControllerCrash | Kind::Kill => "when = { event = 60 }",
        Kind::Poison => {
            "site = \"before_perform\"\nselect = { mode = \"one\" }\nwhen = { every = 1 }"
        }
        Kind::WrongResult => "when = { nth = 6 }",
        Kind::QuotaCut => "for = \"100ms\"\nleft_percent = 50\nwhen = { at = \"60ms\" }",
        Kind::Swizzle => "delay = \"10ms\"\nfor = \"50ms\"\nwhen = { at = \"60ms\" }",
    }
}

fn small(kind: Kind) -> ChaosRun {
    let (name, method) = (kind.name(), method_of(kind));
    let text = format!(
        "title = \"{name}\"\n[workload]\nshape = \"layers\"\ntasks = 24\nagents = 4\n\
         duration = \"50ms\"\ndurability = \"disk\"\neffects = true\n\
         [workload.quotas]\napi = {{ permits = 3 }}\n\
         [knobs]\ntimeout = \"1s\"\nattempts_max = 3\njitter = \"1ms\"\n\
         [[method]]\nfault = \"{name}\"\n{method}\n"
    );
    experiment(&text).run(Seed(5), None, Checks::ALL, Vec::new()).unwrap()
}

#[test]
fn every_kind_of_fault_happens_and_breaks_no_promise() {
    let mut wrong = String::new();
    for rule in RULES {
        let run = small(rule.kind);
        if run.coverage.kinds.get(&rule.kind).copied().unwrap_or(0) == 0 {
            writeln!(wrong, "{} never struck", rule.name).unwrap();
        }
        for (id, verdict) in run.result.violated() {
            writeln!(wrong, "{}: {id} {verdict}", rule.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn strike_is_told_with_its_place_in_plan_and_log() {
    let run = small(Kind::Exit);

    let [fault] = &run.result.faults[..] else { panic!("{:?}", run.result.faults) };
    assert_eq!(
        (fault.method, fault.r#type.as_str(), fault.site.as_str()),
        (0, "exit", "after_perform")
    );
    assert!(fault.event > 1 && fault.agent.is_some() && fault.task.is_some());
    let incident = run.result.incidents.iter().find(|incident| incident.fault == Some(fault.fault));
    assert!(incident.is_some_and(|incident| incident.event > fault.event));
}

/// Agents that have their effect anew with each attempt, and are struck after it.
const CARELESS: &str = "title = \"careless\"\n[workload]\nshape = \"chain\"\ntasks = 60\nagents = 6\n\
    effects = \"careless\"\n[knobs]\nattempts_max = 9\n\
    [[method]]\nfault = \"slow\"\nsite = \"before_perform\"\ndelay = \"10ms\"\nwhen = { every = 5 }\n\
    [[method]]\nfault = \"crash\"\nsite = \"after_perform\"\nwhen = { probability = 0.02 }\n";

#[test]
fn broken_promise_is_found_shrunk_and_repeated() {
    let experiment = experiment(CARELESS);

    let end = play(&experiment, 50);

    let violated = end.violated.expect("an effect happens twice");
    let (id, why) = violated.run.result.violated().next().unwrap();
    assert_eq!(id, "I3", "{why}");
    let (shrunk, run) = violated.small.expect("the same seed breaks it again");
    assert_eq!(shrunk.faults.len(), 1, "one crash suffices: {}", shrunk.case);
    assert_eq!(run.result.methods[0].fired, 0, "slowness has nothing to do with it");
    let only = run.result.only.clone().unwrap();
    assert!(run.result.repeat.contains(&format!("--seed {} --only '{only}'", run.result.seed)));
    let again = experiment
        .run(Seed(run.result.seed), Some(&only.parse().unwrap()), Checks::NONE, Vec::new())
        .unwrap();
    assert_eq!(again.result.verdicts, run.result.verdicts);
    assert_eq!(again.result.events_hash, run.result.events_hash);
}

#[test]
fn lowest_seed_that_violates_is_found_whatever_core_is_faster() {
    let experiment = experiment(CARELESS);
    let of = |threads| {
        let batch = Batch { first: 1, seeds: 50, threads, trials_max: 1 };
        let end = batch.play(&experiment, || {}).unwrap();
        (end.runs, end.coverage, end.violated.unwrap().run.result.seed)
    };

    assert_eq!(of(1), of(4));
}

#[test]
fn plan_that_does_not_fit_its_workload_is_refused_at_its_place() {
    let refused = |workload: &str, method: &str| {
        let text = format!(
            "title = \"t\"\n[workload]\nshape = \"chain\"\ntasks = 3\nagents = 2\n{workload}\
             [[method]]\nwhen = {{ event = 5 }}\n{method}\n"
        );
        let plan = Plan::parse(&text, Path::new("p.toml")).unwrap();
        Experiment::new(plan, &text, None).unwrap_err().to_string()
    };

    let no_disk = refused("", "fault = \"kill\"");
    assert!(no_disk.starts_with("p.toml:") && no_disk.contains("durability"), "{no_disk}");
    let lost = refused("durability = \"process\"\n", "fault = \"lost_writes\"\nsite = \"process\"");
    assert!(lost.contains("durability = \"disk\""), "{lost}");
    let cut = "fault = \"quota_cut\"\nfor = \"1s\"\nquota = \"api\"";
    assert!(refused("", cut).contains("method[0].quota: selects no quota"));
    let shape =
        refused("", "fault = \"hang\"\nsite = \"before_perform\"\nselect = { tasks = \"x*\" }");
    assert!(shape.contains("no task matches `x*`"), "{shape}");
    let spread = refused(
        "duration = { distribution = \"uniform\", min = \"2s\", max = \"1s\" }\n",
        "fault = \"hang\"\nsite = \"before_perform\"",
    );
    assert!(spread.contains("workload.duration") && spread.contains("`min`"), "{spread}");
}
