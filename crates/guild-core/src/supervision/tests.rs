//! What a supervisor does, told by children that obey at once.

use std::time::Duration;

use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::restart::RestartPolicy;

/// A supervisor, and children that obey at once.
struct Nursery {
    supervisor: Supervisor,
    now: Timestamp,
    /// What the children were told, in order: `+2` started, `-2` stopped, `x2` left behind, `!` ended.
    told: Vec<String>,
    endings: Vec<Ending>,
    readies: u32,
    /// Children that do not hear that they have to stop.
    deaf: Vec<u32>,
}

impl Nursery {
    fn new(spec: SupervisorSpec, children: u32) -> Self {
        let supervisor = Supervisor::new(spec, Kind::Agents, children);
        let mut nursery = Self {
            supervisor,
            now: Timestamp(0),
            told: Vec::new(),
            endings: Vec::new(),
            readies: 0,
            deaf: Vec::new(),
        };
        nursery.tell(Input::Start);
        nursery.told.clear();
        nursery
    }

    fn tell(&mut self, input: Input) -> Option<Verdict> {
        let mut orders = Vec::new();
        let verdict = self.supervisor.step(self.now, input, 0.0, &mut orders);
        while !orders.is_empty() {
            for order in std::mem::take(&mut orders) {
                let answer = match order {
                    Order::Start { child, probe, .. } => {
                        self.told.push(format!("{}{child}", if probe { "?" } else { "+" }));
                        Input::Up { child }
                    }
                    Order::Stop { child } => {
                        self.told.push(format!("-{child}"));
                        if self.deaf.contains(&child) {
                            continue;
                        }
                        Input::Stopped { child }
                    }
                    Order::Abandon { child } => {
                        self.told.push(format!("x{child}"));
                        continue;
                    }
                    Order::Ready => {
                        self.readies += 1;
                        continue;
                    }
                    Order::Extinct => {
                        self.told.push("extinct".to_owned());
                        continue;
                    }
                    Order::Ended(ending) => {
                        self.told.push("!".to_owned());
                        self.endings.push(ending);
                        continue;
                    }
                };
                self.supervisor.step(self.now, answer, 0.0, &mut orders);
            }
        }
        verdict
    }

    fn dies(&mut self, child: u32, cause: u64) -> Option<Verdict> {
        self.tell(Input::Down { child, exit: Exit::Failed { cause } })
    }

    fn after(&mut self, seconds: u64) -> String {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.tell(Input::Tick);
        std::mem::take(&mut self.told).join(" ")
    }
}

fn spec(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec { strategy, ..SupervisorSpec::default() }
}

#[test]
fn one_for_one_restarts_nobody_else() {
    let mut nursery = Nursery::new(spec(Strategy::OneForOne), 3);
    assert_eq!(nursery.dies(1, 7), Some(Verdict::Restart { at: Timestamp(0) }));
    assert_eq!(nursery.told, ["+1"]);
}

#[test]
fn one_for_all_stops_all_in_reverse_and_starts_all_in_order() {
    let mut nursery = Nursery::new(spec(Strategy::OneForAll), 3);
    nursery.dies(1, 7);
    assert_eq!(nursery.after(0), "-2 -0 +0 +1 +2");
}

#[test]
fn rest_for_one_restarts_those_that_were_started_after() {
    let mut nursery = Nursery::new(spec(Strategy::RestForOne), 4);
    nursery.dies(1, 7);
    assert_eq!(nursery.after(0), "-3 -2 +1 +2 +3");
}

#[test]
fn restart_type_says_who_comes_back() {
    for (restart_type, failed, normal) in [
        (RestartType::Permanent, "+0", "+0"),
        (RestartType::Transient, "+0", "extinct"),
        (RestartType::Temporary, "extinct", "extinct"),
    ] {
        let mut nursery =
            Nursery::new(SupervisorSpec { restart_type, ..spec(Strategy::OneForOne) }, 1);
        nursery.dies(0, 7);
        assert_eq!(nursery.after(0), failed, "{restart_type:?} after a failure");

        let mut nursery =
            Nursery::new(SupervisorSpec { restart_type, ..spec(Strategy::OneForOne) }, 1);
        nursery.tell(Input::Down { child: 0, exit: Exit::Normal });
        assert_eq!(nursery.after(0), normal, "{restart_type:?} after a normal end");
    }
}

#[test]
fn child_that_uses_up_its_restarts_is_quarantined_and_comes_back_on_probation() {
    let restart = RestartPolicy { intensity: 2, ..RestartPolicy::default() };
    let mut nursery = Nursery::new(SupervisorSpec { restart, ..spec(Strategy::OneForOne) }, 2);
    nursery.dies(0, 7);
    nursery.after(1);
    nursery.dies(0, 7);
    nursery.after(1);
    let until = nursery.now.after(Duration::from_secs(30));
    assert_eq!(nursery.dies(0, 7), Some(Verdict::Quarantine { until }));
    assert!(nursery.supervisor.is_quarantined(0));
    assert_eq!(nursery.after(29), "");
    assert_eq!(nursery.after(1), "?0");
    nursery.tell(Input::Passed { child: 0 });
    assert!(matches!(nursery.dies(0, 7), Some(Verdict::Restart { .. })));
}

#[test]
fn forgiven_child_leaves_its_quarantine_at_once_and_its_record_is_as_before() {
    let restart = RestartPolicy { intensity: 1, ..RestartPolicy::default() };
    let mut nursery = Nursery::new(SupervisorSpec { restart, ..spec(Strategy::OneForOne) }, 1);
    nursery.dies(0, 7);
    nursery.tell(Input::Forgiven { child: 0 });
    nursery.dies(0, 7);
    assert_eq!(nursery.after(0), "+0 +0", "one death of its own is borne");
    assert!(matches!(nursery.dies(0, 7), Some(Verdict::Quarantine { .. })));
    nursery.tell(Input::Forgiven { child: 0 });
    assert_eq!(nursery.after(0), "+0", "not on probation: it has done nothing wrong");
    assert!(matches!(nursery.dies(0, 7), Some(Verdict::Quarantine { until })
        if until == nursery.now.after(Duration::from_secs(30))));
}

#[test]
fn children_that_belong_together_fail_their_supervisor() {
    let restart = RestartPolicy { intensity: 1, ..RestartPolicy::default() };
    let mut nursery = Nursery::new(SupervisorSpec { restart, ..spec(Strategy::OneForAll) }, 3);
    nursery.dies(1, 7);
    nursery.after(1);
    assert_eq!(nursery.dies(1, 8), Some(Verdict::Meltdown));
    assert_eq!(nursery.after(0), "-2 -0 !");
    assert_eq!(nursery.endings, [Ending::Meltdown { child: 1, cause: 8 }]);
    nursery.tell(Input::Start);
    assert_eq!(nursery.after(0), "+0 +1 +2");
}

#[test]
fn deaths_of_one_cause_in_a_burst_count_once() {
    let ceiling = Ceiling { deaths_max: 2, ..Ceiling::default() };
    let spec = SupervisorSpec { ceiling, ..spec(Strategy::OneForOne) };
    let mut nursery = Nursery::new(spec, 100);
    for child in 0..100 {
        assert!(matches!(nursery.dies(child, 7), Some(Verdict::Restart { .. })), "{child}");
    }
    assert!(matches!(nursery.dies(0, 8), Some(Verdict::Restart { .. })));
    nursery.after(0);
    assert_eq!(nursery.dies(1, 9), Some(Verdict::Meltdown));
}

#[test]
fn stop_ends_all_in_reverse_and_a_second_one_changes_nothing() {
    let mut nursery = Nursery::new(spec(Strategy::OneForOne), 3);
    nursery.tell(Input::Stop);
    assert_eq!(nursery.after(0), "-2 -1 -0 !");
    nursery.tell(Input::Stop);
    assert_eq!(nursery.endings, [Ending::Stopped, Ending::Stopped]);
}

#[test]
fn a_child_that_does_not_stop_in_time_is_left_behind_and_the_others_go_on() {
    let shutdown = Duration::from_secs(5);
    let mut nursery = Nursery::new(SupervisorSpec { shutdown, ..spec(Strategy::OneForAll) }, 3);
    nursery.deaf.push(2);
    nursery.dies(0, 7);
    assert_eq!(nursery.after(4), "-2");
    assert_eq!(nursery.supervisor.next_wakeup(), Some(Timestamp(5_000_000)));
    assert_eq!(nursery.after(1), "x2 -1 +0 +1 +2");

    let mut nursery = Nursery::new(SupervisorSpec { shutdown, ..spec(Strategy::OneForOne) }, 3);
    nursery.deaf.push(1);
    nursery.tell(Input::Stop);
    assert_eq!(nursery.after(0), "-2 -1 -0", "who does not depend on others is told at once");
    assert_eq!(nursery.after(5), "x1 !");
    nursery.tell(Input::Stopped { child: 1 });
    assert_eq!(nursery.after(0), "", "that it stops at last is of no interest");
}

#[test]
fn children_that_depend_on_each_other_are_started_one_after_the_other() {
    let mut supervisor = Supervisor::new(spec(Strategy::RestForOne), Kind::Agents, 2);
    let mut orders = Vec::new();
    let start = |child| Order::Start { child, probe: false, released: false };

    supervisor.step(Timestamp(0), Input::Start, 0.0, &mut orders);
    assert_eq!(orders, [start(0)]);
    assert_eq!(supervisor.next_wakeup(), None, "the second waits for the first, not for the time");
    supervisor.step(Timestamp(1), Input::Up { child: 0 }, 0.0, &mut orders);
    supervisor.step(Timestamp(1), Input::Up { child: 1 }, 0.0, &mut orders);
    assert_eq!(orders, [start(0), start(1), Order::Ready]);
}

#[test]
fn a_supervisor_is_ready_when_all_children_have_come_up_and_says_so_once() {
    let mut nursery = Nursery::new(spec(Strategy::OneForOne), 3);
    assert_eq!(nursery.readies, 1);
    nursery.dies(1, 7);
    assert_eq!(nursery.readies, 1);
}

proptest! {
    /// Whatever happens, the supervisor ends after a stop, starts nobody who is alive, and stops
    /// nobody who is not.
    #[test]
    fn no_child_is_started_or_stopped_twice(
        strategy in prop::sample::select(vec![
            Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne,
        ]),
        events in prop::collection::vec((0_u32..5, 0_u8..6, 0_u64..3_000_000), 0..200),
        intensity in 0_u32..5,
    ) {
        let backoff_first = Duration::from_millis(500);
        let restart = RestartPolicy { intensity, backoff_first, ..RestartPolicy::default() };
        let ceiling = Ceiling { deaths_max: 8, ..Ceiling::default() };
        let mut supervisor =
            Supervisor::new(SupervisorSpec { restart, ceiling, ..spec(strategy) }, Kind::Agents, 5);
        let mut alive = [false; 5];
        let mut asked = [false; 5];
        let (mut now, mut ended) = (Timestamp(0), 0);
        let mut orders = Vec::new();
        supervisor.step(now, Input::Start, 0.0, &mut orders);
        let tail = (0..24).flat_map(|_| (0..5).map(|child| (child, 1, 500_000)));
        for (n, (child, what, gap)) in events.iter().copied().chain(tail).enumerate() {
            for order in orders.drain(..) {
                match order {
                    Order::Start { child, .. } => {
                        prop_assert!(!alive[child as usize], "{child} is started twice");
                        alive[child as usize] = true;
                    }
                    Order::Stop { child } => {
                        prop_assert!(alive[child as usize] && !asked[child as usize]);
                        asked[child as usize] = true;
                    }
                    Order::Abandon { child } => {
                        prop_assert!(alive[child as usize] && asked[child as usize]);
                        (alive[child as usize], asked[child as usize]) = (false, false);
                    }
                    Order::Ready => {}
                    Order::Extinct => prop_assert!(false, "permanent children are never gone"),
                    Order::Ended(_) => {
                        prop_assert_eq!(alive, [false; 5]);
                        ended += 1;
                    }
                }
            }
            now = now.after(Duration::from_micros(gap));
            if n == events.len() {
                supervisor.step(now, Input::Stop, 0.0, &mut orders);
                continue;
            }
            let input = match (what, alive[child as usize], asked[child as usize]) {
                (0, true, _) => Input::Up { child },
                (1, true, true) => {
                    (alive[child as usize], asked[child as usize]) = (false, false);
                    Input::Stopped { child }
                }
                (2 | 3, true, _) => {
                    (alive[child as usize], asked[child as usize]) = (false, false);
                    Input::Down { child, exit: Exit::Failed { cause: u64::from(what) } }
                }
                (4, true, _) => Input::Passed { child },
                _ => Input::Tick,
            };
            supervisor.step(now, input, 0.5, &mut orders);
        }
        let said = orders.iter().filter(|order| matches!(order, Order::Ended(_))).count();
        prop_assert!(ended + said >= 1, "it never ended");
    }
}
