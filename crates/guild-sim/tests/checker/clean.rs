//! Logs of real worlds violate nothing.

use std::time::Duration;

use guild_memory::store::Crash;
use guild_runtime::Drain;
use guild_sim::checker::{Invariant, Knowledge, Ruling, Verdict, Watch};

use crate::support::{Log, assert_clean, calm_log, garden, on_disk, stormy, world};

fn complete() -> Knowledge {
    Knowledge { is_complete: true, ..Knowledge::default() }
}

fn checked(verdict: &Verdict, invariant: Invariant) -> u64 {
    match verdict.ruling(invariant) {
        Ruling::Holds { checked, .. } => *checked,
        Ruling::NotJudged { .. } | Ruling::Violated { .. } => 0,
    }
}

#[test]
fn undisturbed_run_is_clean_and_nearly_everything_is_judged() {
    let verdict = calm_log().judged_by(&complete());

    assert_clean(&verdict, "a calm garden");
    let judged: Vec<&str> = verdict
        .rulings
        .iter()
        .filter(|(_, ruling)| !matches!(ruling, Ruling::NotJudged { .. }))
        .map(|(invariant, _)| invariant.name())
        .collect();
    let expected = ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I10", "I13", "I14", "I17"];
    assert_eq!(judged, expected);
    assert_eq!(checked(&verdict, Invariant::I1), 17);
}

#[test]
fn storm_of_crashes_and_hangs_is_clean() {
    let mut faults = 0;
    for seed in 0..20 {
        let watch = Watch::default();
        let mut world = stormy(seed).reader(watch.clone()).start().unwrap();
        for name in ["first", "second"] {
            world.submit(garden(&world, name)).unwrap();
        }
        world.run_for(Duration::from_millis(500));
        world.guild().record_phase("quiet");
        world.run_until_quiet().unwrap();

        let hash = world.log_hash();
        let verdict = watch.finish_with(&complete());

        assert_clean(&verdict, &format!("seed {seed}"));
        assert_eq!(verdict.log_hash, hash);
        faults += world.counts().faults;
    }
    assert!(faults > 100, "{faults} faults struck");
}

#[test]
fn kill_at_any_event_is_clean() {
    let mut undisturbed = on_disk(3).start().unwrap();
    let run = undisturbed.submit(garden(&undisturbed, "garden")).unwrap();
    undisturbed.run_until_ended(&run).unwrap();
    for seq in (1..=undisturbed.counts().events).step_by(5) {
        let mut world = on_disk(3).start().unwrap();
        let run = world.submit(garden(&world, "garden")).unwrap();
        world.run_until_event(seq).unwrap();

        world.crash(Crash::PowerCut { batches_kept: 0 }).unwrap();
        world.run_until_ended(&run).unwrap();

        let verdict = Log(world.log()).judged_by(&complete());
        assert_clean(&verdict, &format!("killed at {seq}"));
        assert_eq!(checked(&verdict, Invariant::I9), 1);
    }
}

#[test]
fn cancelled_run_is_clean() {
    let mut world = stormy(5).start().unwrap();
    world.submit(garden(&world, "garden")).unwrap();
    world.run_for(Duration::from_millis(25));
    world.guild().run("garden").unwrap().cancel();
    world.run_until_quiet().unwrap();

    let verdict = Log(world.log()).judged_by(&complete());

    assert_clean(&verdict, "a cancelled garden");
    assert_eq!(checked(&verdict, Invariant::I16), 1);
}

#[test]
fn guild_that_drains_is_clean() {
    let mut world = world(1).start().unwrap();
    world.submit(garden(&world, "garden")).unwrap();
    world.run_for(Duration::from_millis(25));
    let guild = world.guild().clone();
    let report =
        world.block_on(async move { guild.shutdown(Drain::Until(Duration::from_secs(5))).await });
    report.unwrap();

    assert_clean(&Log(world.log()).judged(), "a garden that was drained");
}
