//! Fixes what a plan leaves to the seed.
//!
//! Every draw is keyed by the name of what it is for, so a plan that gets one knob more keeps all
//! other draws.

use std::collections::BTreeSet;
use std::time::Duration;

use guild_core::draw::Seed;

use super::case::Case;
use super::kind::{Kind, Site};
use super::knob::{Knob, Range};
use super::method::{Method, When};
use super::scene::AgentName;
use super::select::Select;
use super::setting::{Knobs, Limits, Quiet, Source};
use super::{How, Plan};

/// Share of a quota that is left when a plan does not say it, in percent.
const LEFT_PERCENT: u32 = 0;
/// How many messages go before a reordered one when a plan does not say it.
const BEHIND: u32 = 1;

/// A plan for one seed: nothing in it is open but who of the scene its selectors choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The seed.
    pub seed: Seed,
    /// How many tasks a generated workload has.
    pub tasks: Option<u32>,
    /// How many agents there are; of a flow, in each role.
    pub agents: Option<u32>,
    /// How often tasks answer with an error.
    pub errors: DrawnErrors,
    /// When the run is cancelled, if it is.
    pub cancel_at: Option<Duration>,
    /// The settings of the guild.
    pub knobs: DrawnKnobs,
    /// How far faults may go.
    pub limits: Limits,
    /// When no new faults come.
    pub quiet: Quiet,
    /// The faults, in the order of the plan.
    pub methods: Vec<DrawnMethod>,
    /// Which part of it happens.
    pub case: Case,
}

/// How often tasks answer with an error, for one seed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DrawnErrors {
    /// The probability of one after which another attempt may succeed.
    pub retryable: f64,
    /// The probability of one that says not to try again.
    pub fatal: f64,
}

/// The settings of the guild for one seed; absent ones keep their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Knobs`")]
pub struct DrawnKnobs {
    pub timeout: Option<Duration>,
    pub heartbeat: Option<Duration>,
    pub attempts_max: Option<u32>,
    pub restarts_max: Option<u32>,
    pub mailbox: Option<u32>,
    pub commits_in_flight: Option<u32>,
    pub sync: Option<Duration>,
    pub jitter: Option<Duration>,
}

/// One fault for one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnMethod {
    /// What happens.
    pub kind: Kind,
    /// Where.
    pub site: Site,
    /// Whom it may strike.
    pub select: Select,
    /// When it strikes.
    pub when: DrawnWhen,
    /// How it strikes.
    pub parameter: Parameter,
    /// Probability that a strike is permanent.
    pub permanent: f64,
}

/// When a fault strikes, see [`When`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are those of `When`")]
pub enum DrawnWhen {
    Nth(u64),
    At(Duration),
    Every(u64),
    Probability(f64),
    Event(u64),
}

/// How a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// There is nothing to tell.
    None,
    /// So much later, or so far into the work.
    Delay(Duration),
    /// For so long.
    For(Duration),
    /// Behind so many messages.
    Behind(u32),
    /// A quota has less to give.
    Cut {
        /// Which one; all when absent.
        quota: Option<String>,
        /// What is left of it.
        left_percent: u32,
        /// For how long.
        lasts: Duration,
    },
    /// Agents stall one by one and go on in another order.
    Swizzle {
        /// Who stalls, in this order.
        stalled: Vec<AgentName>,
        /// Who goes on, in this order.
        released: Vec<AgentName>,
        /// Time from one to the next, both ways.
        delay: Duration,
        /// Time from the last that stalls to the first that goes on.
        lasts: Duration,
    },
}

impl Plan {
    /// Fixes what the plan leaves to the seed.
    pub fn draw(&self, seed: Seed) -> Drawn {
        let tasks = match &self.workload.source {
            Source::Shape { tasks, .. } => Some(tasks.draw(seed, "workload.tasks")),
            Source::Flow(_) | Source::Workflow(_) => None,
        };
        let method = |(n, method): (usize, &Method)| method.draw(seed, n);
        let workload = &self.workload;
        let probability = |knob, key| draw(knob, seed, key).unwrap_or(0.0);
        Drawn {
            seed,
            tasks,
            errors: DrawnErrors {
                retryable: probability(workload.errors.retryable, "workload.errors.retryable"),
                fatal: probability(workload.errors.fatal, "workload.errors.fatal"),
            },
            cancel_at: draw(workload.cancel_at, seed, "workload.cancel_at"),
            agents: self.workload.agents.map(|agents| agents.draw(seed, "workload.agents")),
            knobs: self.knobs.draw(seed),
            limits: self.limits,
            quiet: self.quiet,
            methods: self.methods.iter().enumerate().map(method).collect(),
            case: Case { methods: (0..self.methods.len()).collect(), ..Case::default() },
        }
    }
}

impl Drawn {
    /// Returns the part of the plan that a case names.
    ///
    /// Strikes that the case leaves out are decided as before and then not carried out, so that
    /// those it keeps stay what they were as far as the run allows.
    pub fn reduce(&self, case: &Case) -> Self {
        let methods: BTreeSet<usize> =
            case.methods.iter().copied().filter(|method| *method < self.methods.len()).collect();
        Self {
            tasks: case.tasks.filter(|_| self.tasks.is_some()).or(self.tasks),
            agents: case.agents.or(self.agents),
            case: Case { methods, ..case.clone() },
            ..self.clone()
        }
    }

    /// Returns the case that is the whole plan, from which a shrinker starts.
    pub fn whole(&self) -> Case {
        Case {
            methods: (0..self.methods.len()).collect(),
            faults: None,
            tasks: self.tasks,
            agents: self.agents,
        }
    }
}

impl Knobs {
    fn draw(&self, seed: Seed) -> DrawnKnobs {
        DrawnKnobs {
            timeout: draw(self.timeout, seed, "knobs.timeout"),
            heartbeat: draw(self.heartbeat, seed, "knobs.heartbeat"),
            attempts_max: draw(self.attempts_max, seed, "knobs.attempts_max"),
            restarts_max: draw(self.restarts_max, seed, "knobs.restarts_max"),
            mailbox: draw(self.mailbox, seed, "knobs.mailbox"),
            commits_in_flight: draw(self.commits_in_flight, seed, "knobs.commits_in_flight"),
            sync: draw(self.sync, seed, "knobs.sync"),
            jitter: draw(self.jitter, seed, "knobs.jitter"),
        }
    }
}

impl Method {
    fn draw(&self, seed: Seed, place: usize) -> DrawnMethod {
        let when = format!("method[{place}].when");
        DrawnMethod {
            kind: self.kind,
            site: self.site,
            select: self.select.clone(),
            when: match &self.when {
                When::Nth(nth) => DrawnWhen::Nth(nth.draw(seed, &when)),
                When::At(at) => DrawnWhen::At(at.draw(seed, &when)),
                When::Every(every) => DrawnWhen::Every(every.draw(seed, &when)),
                When::Probability(p) => DrawnWhen::Probability(p.draw(seed, &when)),
                When::Event(event) => DrawnWhen::Event(event.draw(seed, &when)),
            },
            parameter: self.how.draw(self.kind, seed, place),
            permanent: self.permanent,
        }
    }
}

impl How {
    fn draw(&self, kind: Kind, seed: Seed, place: usize) -> Parameter {
        let delay = draw(self.delay, seed, &format!("method[{place}].delay"));
        let lasts = draw(self.lasts, seed, &format!("method[{place}].for"));
        match (kind, delay, lasts) {
            (Kind::QuotaCut, _, Some(lasts)) => {
                let left = draw(self.left_percent, seed, &format!("method[{place}].left_percent"));
                let left_percent = left.unwrap_or(LEFT_PERCENT);
                Parameter::Cut { quota: self.quota.clone(), left_percent, lasts }
            }
            (Kind::Swizzle, Some(delay), Some(lasts)) => {
                Parameter::Swizzle { stalled: Vec::new(), released: Vec::new(), delay, lasts }
            }
            (Kind::Reorder, _, _) => {
                let behind = draw(self.behind, seed, &format!("method[{place}].behind"));
                Parameter::Behind(behind.unwrap_or(BEHIND))
            }
            (_, Some(delay), _) => Parameter::Delay(delay),
            (_, None, Some(lasts)) => Parameter::For(lasts),
            (_, None, None) => Parameter::None,
        }
    }
}

fn draw<T: Range>(knob: Option<Knob<T>>, seed: Seed, key: &str) -> Option<T> {
    knob.map(|knob| knob.draw(seed, key))
}
