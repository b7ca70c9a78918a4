//! Plays fault plans against whole guilds: the five plans of `examples/chaos`, every kind of fault,
//! and what is said when a promise is broken.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use guild_core::draw::Seed;
use guild_sim::chaos::{Batch, BatchEnd, ChaosRun, Checks, Experiment};
use guild_sim::plan::{Kind, Plan, RULES};

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
