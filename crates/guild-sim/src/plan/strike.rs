//! Decides which fault strikes, at every place where one could.
//!
//! Pure: the caller passes the time and the hit. Whether a strike of chance happens depends on the
//! seed, the fault, who is hit and how often before, and on nothing else; so a fault that
//! is left out does not move the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::id::{AgentId, TaskId};
use guild_core::time::Timestamp;

use super::case::{Case, FaultId};
use super::draw::{Drawn, DrawnMethod, DrawnWhen, Parameter};
use super::kind::{Kind, Rule, Site, Target};
use super::knob::number_of;
use super::scene::{AgentName, Scene};
use super::select::Chosen;

/// A visit of a place where a fault could strike.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The place.
    pub site: Site,
    /// The agent that is there and the name of its role.
    pub agent: Option<(AgentId, &'a str)>,
    /// The task it is about.
    pub task: Option<(&'a str, TaskId)>,
    /// How many events have happened.
    pub event_seq: u64,
}

/// A fault that strikes now.
#[derive(Clone, Debug, PartialEq)]
pub struct Strike {
    /// Which fault of the plan, and which of its strikes.
    pub fault: FaultId,
    /// What happens.
    pub kind: Kind,
    /// How.
    pub parameter: Parameter,
}

/// Decides which fault of one drawn plan strikes.
#[derive(Clone, Debug)]
pub struct Striker {
    seed: Seed,
    case: Case,
    roles: Vec<(String, u32)>,
    started: Timestamp,
    quiet_after: Duration,
    methods: Vec<Armed>,
    /// Agents that may be disturbed in all.
    agents_max: u64,
    disturbed: BTreeSet<AgentName>,
    faults_max: u64,
    /// Strikes so far, also those that the case leaves out.
    decided: u64,
    fired: Vec<u64>,
    faults: Vec<FaultId>,
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Task(TaskId),
    Agent(AgentId),
    Whole,
}

/// A fault that waits for its hits.
#[derive(Clone, Debug)]
struct Armed {
    method: DrawnMethod,
    chosen: Chosen,
    /// Who may be chosen from, for a fault that strikes several agents at once.
    crew: Vec<AgentName>,
    hits: u64,
    /// Hits of each subject, for strikes by chance.
    hits_of: BTreeMap<Subject, u64>,
    strikes: u64,
    /// The trigger came, and nothing was struck since.
    due: bool,
    /// The trigger comes no more.
    spent: bool,
    /// Whom it struck permanently.
    afflicted: BTreeSet<Subject>,
}

impl Striker {
    /// Gets a drawn plan ready for a scene; a selector that asks for more than there is gets what
    /// there is (see [`Plan::check`](super::Plan::check)).
    pub fn new(drawn: &Drawn, scene: &Scene) -> Self {
        let armed = |(n, method): (usize, &DrawnMethod)| {
            let chosen = method.select.choose(method.kind.rule(), scene, drawn.seed, n);
            let many = method.kind == Kind::Swizzle;
            let crew = if many { chosen.agents(scene) } else { Vec::new() };
            Armed {
                method: method.clone(),
                chosen,
                crew,
                hits: 0,
                hits_of: BTreeMap::new(),
                strikes: 0,
                due: false,
                spent: false,
                afflicted: BTreeSet::new(),
            }
        };
        Self {
            seed: drawn.seed,
            case: drawn.case.clone(),
            roles: scene.roles.clone(),
            started: Timestamp(0),
            quiet_after: drawn.quiet.after,
            methods: drawn.methods.iter().enumerate().map(armed).collect(),
            agents_max: drawn.limits.agents_max(scene.agents()),
            disturbed: BTreeSet::new(),
            faults_max: drawn.limits.faults_max.unwrap_or(u64::MAX),
            decided: 0,
            fired: vec![0; drawn.methods.len()],
            faults: Vec::new(),
        }
    }

    /// Says when the run began, from which `at` and the quiet phase are counted; 0 when not said.
    pub fn starting_at(mut self, now: Timestamp) -> Self {
        self.started = now;
        self
    }

    /// Returns the fault that strikes at this hit; call it once for each hit, in their order.
    ///
    /// At most one fault strikes. A counted fault that another one went before, or that the limits
    /// hold back, strikes at its next hit.
    pub fn strike(&mut self, now: Timestamp, hit: &Hit<'_>) -> Option<Strike> {
        let after = now.since(self.started);
        let quiet = after >= self.quiet_after;
        let mut struck = None;
        for place in 0..self.methods.len() {
            let seed = Seed(self.seed.bits(Stream::Plan, place as u64, u64::MAX));
            let wants = self.methods[place].wants(seed, after, quiet, hit);
            if wants && struck.is_none() {
                struck = self.decide(place, seed, hit);
            }
        }
        struck.filter(|strike: &Strike| self.case.admits(strike.fault)).inspect(|strike| {
            self.fired[strike.fault.method] += 1;
            self.faults.push(strike.fault);
        })
    }

    /// Returns how often each fault of the plan struck.
    pub fn fired(&self) -> &[u64] {
        &self.fired
    }

    /// Returns all strikes in their order.
    pub fn faults(&self) -> &[FaultId] {
        &self.faults
    }

    /// Returns the agents that faults may disturb: those they may strike, and all where one blocks the
    /// thread that they share.
    pub fn selected(&self) -> BTreeSet<AgentName> {
        let scene = Scene { roles: self.roles.clone(), tasks: Vec::new() };
        let strikes = |armed: &&Armed| armed.method.kind.disturbs_agents();
        let agents = |armed: &Armed| match armed.method.kind.rule().target {
            Target::Agents if armed.method.kind != Kind::Stall => armed.chosen.agents(&scene),
            Target::Agents | Target::Tasks | Target::Whole => Chosen::Everybody.agents(&scene),
        };
        self.methods.iter().filter(strikes).flat_map(agents).collect()
    }

    /// Strikes, unless the limits forbid it.
    fn decide(&mut self, place: usize, seed: Seed, hit: &Hit<'_>) -> Option<Strike> {
        if self.decided >= self.faults_max {
            return None;
        }
        let room = self.agents_max.saturating_sub(self.disturbed.len() as u64);
        let armed = &mut self.methods[place];
        let kind = armed.method.kind;
        let mut parameter = armed.method.parameter.clone();
        if let Parameter::Swizzle { stalled, released, .. } = &mut parameter {
            let seed = Seed(seed.bits(Stream::Plan, 0, armed.strikes));
            *stalled = within(&self.disturbed, room, in_order(&armed.crew, seed, 0));
            *released = in_order(stalled, seed, 1);
            if stalled.is_empty() {
                return None;
            }
            self.disturbed.extend(stalled.iter().cloned());
        } else if let (true, Some((id, role))) = (kind.disturbs_agents(), hit.agent) {
            let agent = AgentName { role: role.to_owned(), index: id.index };
            if room == 0 && !self.disturbed.contains(&agent) {
                return None;
            }
            self.disturbed.insert(agent);
        }
        self.decided += 1;
        let strike = armed.strike(seed, hit);
        Some(Strike { fault: FaultId { method: place, strike }, kind, parameter })
    }
}

impl Armed {
    /// Counts the hit and tells whether the fault wants to strike at it.
    fn wants(&mut self, seed: Seed, after: Duration, quiet: bool, hit: &Hit<'_>) -> bool {
        let rule = self.method.kind.rule();
        if hit.site != self.method.site || !self.selects(rule, hit) {
            return false;
        }
        if self.afflicted.contains(&afflictable(rule, hit)) {
            return true;
        }
        self.hits += 1;
        if self.spent || quiet {
            return false;
        }
        self.due |= match self.method.when {
            DrawnWhen::Nth(nth) => self.hits == nth,
            DrawnWhen::At(at) => after >= at,
            DrawnWhen::Every(every) => self.hits.is_multiple_of(every),
            DrawnWhen::Event(event) => hit.event_seq >= event,
            DrawnWhen::Probability(probability) => {
                let subject = subject(hit);
                let n = self.hits_of.entry(subject).or_default();
                *n += 1;
                return seed.unit(Stream::Fault, subject.number(), *n) < probability;
            }
        };
        self.due
    }

    fn selects(&self, rule: &Rule, hit: &Hit<'_>) -> bool {
        // A fault that strikes several agents at once has no agent at its hit.
        let many = self.method.kind == Kind::Swizzle;
        let chosen = match (&self.chosen, hit.agent, hit.task) {
            _ if many => true,
            (Chosen::Everybody, agent, _) => rule.target != Target::Agents || agent.is_some(),
            (Chosen::Agents(roles), Some((id, role)), _) => {
                roles.get(role).is_some_and(|agents| agents.contains(&id.index))
            }
            (Chosen::Tasks(tasks), _, Some((task, _))) => tasks.contains(task),
            (Chosen::Agents(_), None, _) | (Chosen::Tasks(_), _, None) => false,
        };
        let admitted = match hit.task {
            Some((task, _)) => self.method.select.admits(task),
            None => self.method.select.tasks.is_none(),
        };
        chosen && admitted
    }

    /// Takes note of a strike and returns its number.
    fn strike(&mut self, seed: Seed, hit: &Hit<'_>) -> u64 {
        self.strikes += 1;
        self.due = false;
        self.spent |=
            matches!(self.method.when, DrawnWhen::Nth(_) | DrawnWhen::At(_) | DrawnWhen::Event(_));
        let subject = afflictable(self.method.kind.rule(), hit);
        if seed.unit(Stream::Plan, subject.number(), self.strikes) < self.method.permanent {
            self.afflicted.insert(subject);
        }
        self.strikes
    }
}

impl Subject {
    fn number(self) -> u64 {
        match self {
            Self::Task(task) => u64::from(task.run.0) << 32 | u64::from(task.index.0),
            Self::Agent(agent) => 1 << 63 | u64::from(agent.role.0) << 32 | u64::from(agent.index),
            Self::Whole => u64::MAX,
        }
    }
}

/// Returns who is hit, as closely as it is known.
fn subject(hit: &Hit<'_>) -> Subject {
    match (hit.task, hit.agent) {
        (Some((_, task)), _) => Subject::Task(task),
        (None, Some((agent, _))) => Subject::Agent(agent),
        (None, None) => Subject::Whole,
    }
}

/// Returns who is struck for good by a permanent fault of this kind.
fn afflictable(rule: &Rule, hit: &Hit<'_>) -> Subject {
    match (rule.target, hit.task, hit.agent) {
        (Target::Agents, _, Some((agent, _))) => Subject::Agent(agent),
        (Target::Tasks, Some((_, task)), _) => Subject::Task(task),
        _ => Subject::Whole,
    }
}

/// Puts agents into an order that is drawn.
fn in_order(agents: &[AgentName], seed: Seed, n: u64) -> Vec<AgentName> {
    let mut agents = agents.to_vec();
    agents.sort_by_cached_key(|agent| seed.bits(Stream::Plan, number_of(&agent.to_string()), n));
    agents
}

/// Keeps the agents that are disturbed already and as many others as there is room for.
fn within(disturbed: &BTreeSet<AgentName>, room: u64, agents: Vec<AgentName>) -> Vec<AgentName> {
    let mut room = room;
    let fits = |agent: &AgentName| {
        let free = disturbed.contains(agent);
        let fits = free || room > 0;
        room -= u64::from(fits && !free);
        fits
    };
    agents.into_iter().filter(fits).collect()
}
