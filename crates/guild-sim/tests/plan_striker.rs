//! Which faults of a plan strike, asked by a small world of agents and tasks.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::id::{AgentId, RoleId, RunId, TaskId, TaskIndex};
use guild_core::time::Timestamp;
use guild_sim::plan::{
    AgentName, Case, FaultId, Hit, Kind, Parameter, Plan, Scene, Site, Strike, Striker,
};

const AGENTS: u32 = 8;
const TASKS: u32 = 100;
const CRASH: &str = "[[method]]\nfault = \"crash\"\nsite = \"before_perform\"\n";

fn plan(rest: &str) -> Plan {
    let workload = format!("[workload]\nshape = \"chain\"\ntasks = {TASKS}\nagents = {AGENTS}\n");
    let text = format!("title = \"t\"\n{workload}{rest}");
    Plan::parse(&text, Path::new("plan.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn scene() -> Scene {
    Scene {
        roles: vec![("worker".to_owned(), AGENTS)],
        tasks: (0..TASKS).map(|n| format!("t{n}")).collect(),
    }
}

fn striker(rest: &str, seed: u64) -> Striker {
    Striker::new(&plan(rest).draw(Seed(seed)), &scene())
}

/// What a run asks: an attempt every millisecond, at three sites, by agents in turn.
struct World {
    striker: Striker,
    /// Each strike with the agent and the task of its hit.
    log: Vec<(u32, u32, Strike)>,
}

impl World {
    fn new(striker: Striker) -> Self {
        Self { striker, log: Vec::new() }
    }

    fn run(striker: Striker) -> Self {
        let mut world = Self::new(striker);
        (0..1_000).for_each(|n| world.attempt(n, n % AGENTS, n % TASKS));
        world
    }

    fn of(rest: &str) -> Self {
        Self::run(striker(rest, 1))
    }

    fn attempt(&mut self, now_ms: u32, agent: u32, task: u32) {
        let name = format!("t{task}");
        let id = TaskId { run: RunId(1), index: TaskIndex(task) };
        let agent_id = AgentId { role: RoleId(0), index: agent };
        let now = Timestamp(u64::from(now_ms) * 1_000);
        for site in [Site::BeforePerform, Site::AfterPerform, Site::Process] {
            let whole = site == Site::Process;
            let hit = Hit {
                site,
                agent: (!whole).then_some((agent_id, "worker")),
                task: (!whole).then_some((name.as_str(), id)),
                event_seq: u64::from(now_ms) + 1,
            };
            self.log.extend(self.striker.strike(now, &hit).map(|strike| (agent, task, strike)));
        }
    }

    fn agents(&self) -> BTreeSet<u32> {
        self.log.iter().map(|(agent, ..)| *agent).collect()
    }

    fn tasks(&self) -> Vec<u32> {
        self.log.iter().map(|(_, task, _)| *task).collect()
    }
}

#[test]
fn counted_triggers_strike_at_their_hits() {
    let tasks = |when: &str| World::of(&format!("{CRASH}when = {when}\n")).tasks();

    assert_eq!(tasks("{ nth = 3 }"), [2]);
    assert_eq!(tasks("{ every = 301 }"), [0, 1, 2]);
    assert_eq!(tasks("{ at = \"50ms\" }"), [50]);
    assert_eq!(tasks("{ event = 61 }"), [60]);
}

#[test]
fn strikes_by_chance_come_as_often_as_asked_and_differ_by_seed() {
    let rest = format!("{CRASH}when = {{ probability = 0.2 }}\n");

    let [one, again, other] = [1, 1, 2].map(|seed| World::run(striker(&rest, seed)));

    assert!((150..250).contains(&one.log.len()), "{} of 200", one.log.len());
    assert_eq!(one.log, again.log);
    assert_ne!(one.tasks(), other.tasks());
}

#[test]
fn attempt_that_was_struck_by_chance_may_be_spared_at_its_next_try() {
    let mut world = World::new(striker(&format!("{CRASH}when = {{ probability = 0.5 }}\n"), 1));

    (0..100).for_each(|n| world.attempt(n, 0, 7));

    assert!((30..70).contains(&world.log.len()), "{}", world.log.len());
}

#[test]
fn two_faults_by_chance_strike_independently() {
    let rest = "[[method]]\nfault = \"hang\"\nsite = \"before_perform\"\n\
                when = { probability = 0.5 }\n\
                [[method]]\nfault = \"exit\"\nsite = \"after_perform\"\n\
                when = { probability = 0.5 }\n";
    let world = World::of(rest);

    let tries = |kind: Kind| {
        let of_kind =
            |(at, (.., strike)): (usize, &(u32, u32, Strike))| (strike.kind == kind).then_some(at);
        world.log.iter().enumerate().filter_map(of_kind).count()
    };
    let both = world.log.windows(2).filter(|two| two[0].1 == two[1].1).count();

    assert!((430..570).contains(&tries(Kind::Hang)) && (430..570).contains(&tries(Kind::Exit)));
    assert!((180..320).contains(&both), "{both} attempts were struck by both");
}

#[test]
fn selector_chooses_as_many_as_it_says_and_others_for_another_seed() {
    let chosen = |select: &str, seed| {
        let rest = format!("{CRASH}when = {{ every = 1 }}\nselect = {select}\n");
        World::run(striker(&rest, seed)).agents()
    };

    assert_eq!(chosen("{ mode = \"one\" }", 1).len(), 1);
    assert_eq!(chosen("{ mode = \"fixed\", value = 3 }", 1).len(), 3);
    assert_eq!(chosen("{ mode = \"percent\", value = 30 }", 1).len(), 3);
    assert_eq!(chosen("{ mode = \"all\" }", 1).len(), 8);
    assert_eq!(chosen("{ agents = [\"worker-2\", \"worker-5\"] }", 1), BTreeSet::from([2, 5]));
    let ones: BTreeSet<u32> = (0..40).flat_map(|seed| chosen("{ mode = \"one\" }", seed)).collect();
    assert_eq!(ones.len(), 8, "every agent is some seed's choice");
}

#[test]
fn exactly_the_selected_agents_are_struck() {
    let select = "select = { mode = \"fixed\", value = 3 }";
    let rest = format!("{CRASH}when = {{ every = 1 }}\n{select}\n");
    for seed in 0..20 {
        let world = World::run(striker(&rest, seed));
        let selected = world.striker.selected().into_iter().map(|agent| agent.index).collect();
        assert_eq!(world.agents(), selected);
    }
}

#[test]
fn agents_are_struck_at_the_tasks_that_fit_only() {
    let world =
        World::of(&format!("{CRASH}when = {{ every = 1 }}\nselect = {{ tasks = \"t?\" }}\n"));

    assert_eq!(world.log.len(), 100);
    assert!(world.tasks().iter().all(|task| *task < 10));
}

#[test]
fn smaller_crew_keeps_the_choice_among_those_who_stay() {
    let select = "select = { mode = \"fixed\", value = 4 }";
    let drawn = plan(&format!("{CRASH}when = {{ every = 1 }}\n{select}\n")).draw(Seed(1));
    let few = Scene { roles: vec![("worker".to_owned(), 5)], ..scene() };

    let [all, some] = [scene(), few].map(|scene| Striker::new(&drawn, &scene).selected());

    assert_eq!(some.len(), 4);
    let stay: BTreeSet<AgentName> = all.into_iter().filter(|agent| agent.index < 5).collect();
    assert!(some.is_superset(&stay), "{some:?} without some of {stay:?}");
}

#[test]
fn poisoned_task_is_struck_at_every_attempt_also_when_it_is_quiet() {
    let rest = "[[method]]\nfault = \"poison\"\nsite = \"after_perform\"\nwhen = { nth = 8 }\n\
                [quiet]\nafter = \"200ms\"\n";

    assert_eq!(World::of(rest).tasks(), [7; 10]);
}

#[test]
fn no_new_fault_strikes_in_the_quiet_phase() {
    let rest = format!("{CRASH}when = {{ every = 1 }}\n[quiet]\nafter = \"10ms\"\n");

    assert_eq!(World::of(&rest).log.len(), 10);
    let late = striker(&rest, 1).starting_at(Timestamp(5_000));
    assert_eq!(World::run(late).log.len(), 15);
}

#[test]
fn permanent_fault_stays_with_those_whom_it_struck() {
    let permanent =
        |share: &str| World::of(&format!("{CRASH}when = {{ nth = 3 }}\npermanent = {share}\n"));

    let world = permanent("true");
    assert_eq!((world.agents(), world.log.len()), (BTreeSet::from([2]), 125));
    assert_eq!(permanent("false").log.len(), 1);
}

#[test]
fn blast_radius_is_never_exceeded() {
    let swizzle = "[[method]]\nfault = \"swizzle\"\ndelay = \"1ms\"\nfor = \"1ms\"\n";
    let world = World::of(&format!(
        "{CRASH}when = {{ every = 3 }}\n{swizzle}when = {{ every = 50 }}\n\
         [limits]\nagents_max_percent = 50\nfaults_max = 40\n"
    ));

    let mut struck = BTreeSet::new();
    for (agent, _, strike) in &world.log {
        if let Parameter::Swizzle { stalled, released, .. } = &strike.parameter {
            let [stalled, released] =
                [stalled, released].map(|agents| agents.iter().map(|agent| agent.index));
            assert_eq!(stalled.clone().collect::<BTreeSet<_>>(), released.collect());
            struck.extend(stalled);
        } else {
            struck.insert(*agent);
        }
    }
    assert_eq!((struck.len(), world.log.len()), (4, 40));
    assert!(world.striker.fired().iter().all(|fired| *fired > 0));
    assert_eq!(world.striker.fired().iter().sum::<u64>(), 40);
}

#[test]
fn swizzled_agents_go_on_in_another_order() {
    let swizzle = "[[method]]\nfault = \"swizzle\"\ndelay = \"1ms\"\nfor = \"1ms\"\n";
    let world = World::of(&format!("{swizzle}when = {{ every = 100 }}\n"));

    let orders = |strike: &Strike| match &strike.parameter {
        Parameter::Swizzle { stalled, released, .. } => (stalled.clone(), released.clone()),
        other => panic!("{other:?} is no swizzle"),
    };
    let orders: BTreeSet<_> = world.log.iter().map(|(.., strike)| orders(strike)).collect();

    assert_eq!(orders.len(), 10, "each strike has orders of its own");
    assert!(orders.iter().all(|(stalled, released)| stalled.len() == 8 && stalled != released));
}

#[test]
fn fault_whose_hit_went_to_another_strikes_at_the_next() {
    let hang = "[[method]]\nfault = \"hang\"\nsite = \"before_perform\"\nwhen = { nth = 3 }\n";
    let world = World::of(&format!("{CRASH}when = {{ nth = 3 }}\n{hang}"));

    let found: Vec<_> = world.log.iter().map(|(_, task, strike)| (*task, strike.kind)).collect();
    assert_eq!(found, [(2, Kind::Crash), (3, Kind::Hang)]);
}

#[test]
fn parameter_is_what_the_plan_says() {
    let parameter = |method: &str| {
        let world = World::of(&format!("[[method]]\n{method}\nwhen = {{ nth = 1 }}\n"));
        world.log[0].2.parameter.clone()
    };
    let two = Duration::from_secs(2);

    let slow = "fault = \"slow\"\nsite = \"after_perform\"\ndelay = \"2s\"";
    assert_eq!(parameter(slow), Parameter::Delay(two));
    let stall = "fault = \"stall\"\nsite = \"before_perform\"\nfor = \"2s\"";
    assert_eq!(parameter(stall), Parameter::For(two));
    let cut = "fault = \"quota_cut\"\nfor = \"2s\"\nquota = \"api\"\nleft_percent = 10";
    let quota = Some("api".to_owned());
    assert_eq!(parameter(cut), Parameter::Cut { quota, left_percent: 10, lasts: two });
    assert_eq!(parameter("fault = \"kill\""), Parameter::None);
}

#[test]
fn left_out_strikes_do_not_move_the_others() {
    let hang = "[[method]]\nfault = \"hang\"\nsite = \"before_perform\"\nwhen = { every = 20 }\n";
    let limits = "[limits]\nfaults_max = 100\n";
    let drawn =
        plan(&format!("{CRASH}when = {{ probability = 0.1 }}\n{hang}{limits}")).draw(Seed(5));
    let all = World::run(Striker::new(&drawn, &scene()));
    let kept: BTreeSet<FaultId> = all.striker.faults().iter().copied().step_by(7).collect();
    let case = Case { faults: Some(kept.clone()), ..drawn.whole() };

    let some = World::run(Striker::new(&drawn.reduce(&case), &scene()));

    let mut expected = all.log.clone();
    expected.retain(|(.., strike)| kept.contains(&strike.fault));
    assert_eq!(some.log, expected);
    assert_eq!(all.striker.faults().len(), 100);
    assert_eq!(some.striker.faults().len(), kept.len());
    assert_eq!(some.striker.fired().iter().sum::<u64>(), kept.len() as u64);
}

#[test]
fn reduced_plan_has_fewer_tasks_and_agents_and_the_same_faults() {
    let drawn = plan(&format!("{CRASH}when = {{ nth = 1 }}\n")).draw(Seed(1));

    let reduced = drawn.reduce(&"methods=0,7;tasks=5;agents=2".parse().unwrap());

    assert_eq!((reduced.tasks, reduced.agents), (Some(5), Some(2)));
    assert_eq!(reduced.case.methods, BTreeSet::from([0]));
    assert_eq!((reduced.knobs, reduced.methods), (drawn.knobs, drawn.methods));
}
