//! Populations as their modellers see them: own state, draws, time steps, events, births, series.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_memory::TransactionError;
use guild_runtime::{RandomFaults, TaskError};
use guild_sim::population::{
    Individual, Next, Population, PopulationBuilder, PopulationError, Turn, sweep, sweep_csv,
};
use serde::{Deserialize, Serialize};

/// Gives a coin to a neighbour whom it draws, if it has one.
#[derive(Serialize, Deserialize)]
struct Giver {
    given: u64,
    /// Whom it drew last.
    last: u64,
}

fn purse(id: u64) -> String {
    format!("coins/{id:05}")
}

impl Individual for Giver {
    async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
        let own = purse(turn.id().0.into());
        let neighbour = u64::from(turn.population());
        self.last = turn.draws().below(neighbour);
        let other = purse(self.last);
        if turn.memory().get::<i64>(&own)?.unwrap_or(0) > 0 {
            turn.memory().add(&own, -1)?;
            turn.memory().add(&other, 1)?;
            self.given += 1;
        }
        Ok(Next::Tick)
    }
}

fn givers(seed: u64, count: u32) -> PopulationBuilder<Giver> {
    Population::with_seed(seed)
        .name("givers")
        .individuals(count, |_, _| Giver { given: 0, last: 0 })
        .share(move |memory| {
            (0..count).try_for_each(|id| memory.put(purse(id.into()), &5).map(drop))
        })
        .measure("coins", |view| view.sum("coins/"))
        .measure("given", |view| {
            Ok(view.individuals()?.values().map(|giver| giver.given as f64).sum())
        })
        .measure_each("last", |_, giver| giver.last as f64)
        .world(|world| world.validate(true))
}

fn crashing(spec: &str, seed: u64) -> Arc<RandomFaults> {
    Arc::new(RandomFaults::parse(spec, Seed(seed)).unwrap())
}

#[test]
fn what_is_shared_is_conserved_and_what_is_own_is_kept_whatever_crashes() {
    let mut model = givers(3, 100).faults(crashing("crash=0.1", 3)).start().unwrap();

    model.run_ticks(8).unwrap();

    assert!(model.world().counts().crashes > 50, "{:?}", model.world().counts());
    assert_eq!(model.series().column("coins").unwrap(), vec![500.0; 9]);
    let given = model.series().column("given").unwrap();
    assert!(given.is_sorted() && given[8] > 700.0 && given[8] <= 800.0, "{given:?}");
}

#[test]
fn crashes_change_when_a_step_is_done_and_not_what_it_draws() {
    // Everybody steps alone, so that no order of commits can matter.
    let play = |faults: bool| {
        let mut model = Population::<Walker>::with_seed(5).agents(1);
        if faults {
            model = model.faults(crashing("crash=0.2", 9));
        }
        let mut model = model.individuals(20, |_, draws| Walker::new(draws)).start().unwrap();
        model.run_ticks(10).unwrap();
        let view = model.view();
        let places = view.individuals().unwrap().values().map(|walker| walker.place);
        (places.collect::<Vec<f64>>(), model.world().counts().crashes)
    };

    let (calm, crashes) = play(false);
    assert_eq!(crashes, 0);
    let (shaken, crashes) = play(true);
    assert!(crashes > 20, "{crashes}");
    assert_eq!(calm, shaken);
}

/// Walks; draws where to and when.
#[derive(Serialize, Deserialize)]
struct Walker {
    place: f64,
    times_us: Vec<u64>,
}

impl Walker {
    fn new(draws: &mut guild_sim::population::Draws) -> Self {
        Self { place: draws.between(-1.0, 1.0), times_us: Vec::new() }
    }
}

impl Individual for Walker {
    async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
        self.place += turn.draws().between(-1.0, 1.0);
        self.times_us.push(turn.time().as_micros() as u64);
        assert_eq!(turn.step(), self.times_us.len() as u64);
        Ok(match turn.id().0 % 2 {
            0 => Next::Tick,
            _ => Next::After(Duration::from_micros(700_001)),
        })
    }
}

#[test]
fn time_steps_and_events_share_one_time_to_the_microsecond() {
    let mut model = Population::with_seed(1)
        .individuals(2, |_, draws| Walker::new(draws))
        .time_step(Duration::from_secs(1))
        .start()
        .unwrap();

    model.run_for(Duration::from_secs(3)).unwrap();

    let view = model.view();
    let walkers = view.individuals().unwrap();
    let times: Vec<&Vec<u64>> = walkers.values().map(|walker| &walker.times_us).collect();
    assert_eq!(*times[0], [1_000_000, 2_000_000, 3_000_000]);
    assert_eq!(*times[1], [1_000_000, 1_700_001, 2_400_002]);
    assert_eq!(view.time(), Duration::from_secs(3));
    // Times at which somebody stepped: 1, 1.700001, 2, 2.400002 and 3 seconds.
    assert_eq!(view.tick(), 5);
}

/// Divides at every second step, and dies at the third.
#[derive(Serialize, Deserialize)]
struct Cell {
    generation: u32,
}

impl Individual for Cell {
    async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
        if turn.step() == 2 {
            turn.bear(Cell { generation: self.generation + 1 });
            turn.bear(Cell { generation: self.generation + 1 });
        }
        Ok(if turn.step() == 3 { Next::Leave } else { Next::Tick })
    }
}

#[test]
fn individuals_are_born_and_leave_and_ids_are_never_used_twice() {
    let mut colony = Population::with_seed(1)
        .individuals(1, |_, _| Cell { generation: 0 })
        .measure("cells", |view| Ok(view.count() as f64))
        .faults(crashing("crash=0.2", 4))
        .start()
        .unwrap();

    let reached = colony.run_until(30, |view| Ok(view.count() >= 8)).unwrap();

    assert!(reached);
    let cells = colony.series().column("cells").unwrap();
    assert_eq!(cells, [1.0, 1.0, 3.0, 2.0, 6.0, 4.0, 12.0]);
    let view = colony.view();
    let ids: Vec<u32> = view.individuals().unwrap().keys().map(|id| id.0).collect();
    assert_eq!(ids, (3..15).collect::<Vec<_>>());
}

#[test]
fn population_that_nobody_is_left_of_ends() {
    let mut colony = Population::with_seed(1)
        .individuals(3, |_, _| Ends { with: "leave".into() })
        .start()
        .unwrap();

    assert!(colony.tick().unwrap());
    assert!(!colony.tick().unwrap());
    assert_eq!(colony.view().count(), 0);
}

#[derive(Serialize, Deserialize)]
struct Ends {
    with: String,
}

impl Individual for Ends {
    async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
        match self.with.as_str() {
            "leave" => Ok(Next::Leave),
            "error" if turn.id().0 == 1 => Err(TaskError::fatal("no bread")),
            "type" => turn.memory().get::<i64>("word").map(|_| Next::Tick).map_err(TaskError::from),
            _ => Ok(Next::Tick),
        }
    }
}

#[test]
fn step_that_fails_for_good_is_named() {
    let failure = |with: &'static str| {
        let mut model = Population::with_seed(1)
            .individuals(3, move |_, _| Ends { with: with.to_owned() })
            .share(|memory| memory.put("word", "no number"))
            .start()
            .unwrap();
        model.tick().unwrap_err().to_string()
    };

    assert_eq!(failure("error"), "individual 1 failed in its step 1: no bread");
    assert!(failure("type").contains("memory key `word` holds a value of another type"));
}

#[test]
fn model_step_and_measures_say_what_is_wrong_with_them() {
    let model = || Population::with_seed(1).individuals(1, |_, _| Ends { with: String::new() });

    let mut fails = model()
        .model_step(|memory, _| memory.put("word", "x").and_then(|()| memory.add("word", 1)))
        .start()
        .unwrap();
    assert!(matches!(fails.tick(), Err(PopulationError::Memory(_))));
    let unread = model()
        .share(|memory| memory.put("word", "x"))
        .measure("word", |view| view.number("word"))
        .start();
    assert!(matches!(unread, Err(PopulationError::Memory(TransactionError::Decode { .. }))));
}

#[test]
fn model_step_sees_the_time_and_is_seen_by_the_next_steps() {
    let mut model = Population::with_seed(1)
        .individuals(1, |_, _| Ends { with: String::new() })
        .time_step(Duration::from_secs(60))
        .model_step(|memory, time| memory.add("minutes", (time.as_secs() / 60) as i64))
        .measure("minutes", |view| view.number("minutes"))
        .measure_every(2)
        .start()
        .unwrap();

    model.run_ticks(4).unwrap();

    assert_eq!(model.series().to_csv(), "tick,time_s,minutes\n0,0,0\n2,120,3\n4,240,10\n");
}

#[test]
fn seed_repeats_a_population_to_the_byte() {
    let play = |seed| {
        let mut model = givers(seed, 30).faults(crashing("crash=0.1", seed)).start().unwrap();
        model.run_ticks(4).unwrap();
        let mut each = Vec::new();
        model.write_each_csv(&mut each).unwrap();
        (model.world().log_hash(), model.series().to_csv(), String::from_utf8(each).unwrap())
    };

    let (one, again, other) = (play(1), play(1), play(2));

    assert_eq!(one, again);
    assert_ne!(one.0, other.0);
    assert_ne!(one.2, other.2);
    assert!(one.2.starts_with("individual,tick,time_s,last\n0,0,0,0\n"), "{}", one.2);
}

#[test]
fn sweep_on_all_cores_gives_what_each_trial_gives_alone() {
    let trial = |count: &u32, seed: u64| {
        let mut model = givers(seed, *count).start()?;
        model.run_ticks(3)?;
        Ok::<_, PopulationError>(model.series().clone())
    };

    let trials = sweep(&[5, 9], 1..4, trial).unwrap();

    assert_eq!(trials.len(), 6);
    for found in &trials {
        assert_eq!(found.result, trial(&found.parameters, found.seed).unwrap());
    }
    let csv = sweep_csv(&trials, ["individuals"], |count| [count.to_string()]);
    assert_eq!(csv.lines().count(), 1 + 6 * 4);
    assert!(csv.starts_with("individuals,seed,tick,time_s,coins,given\n5,1,0,0,25,0\n"), "{csv}");
    let failed = sweep(&[1, 2], 0..2, |count: &u32, seed| match (count, seed) {
        (1, 0) => Ok(()),
        (count, seed) => Err(format!("{count} {seed}")),
    });
    assert_eq!(failed.unwrap_err(), "1 1");
}
