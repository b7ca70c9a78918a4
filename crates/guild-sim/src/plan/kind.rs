//! Lists the kinds of fault: where each may strike, whom, and what it can be told.
//!
//! One table, [`RULES`], is all there is to know; the reader of plans, the striker and the
//! reference page follow it.

use serde::{Deserialize, Serialize};

/// Where a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// An attempt, before the agent begins.
    BeforePerform,
    /// An attempt, while the agent works.
    InPerform,
    /// An attempt, after its effect and before anybody knows.
    AfterPerform,
    /// An agent that is being built or started.
    Started,
    /// An agent whose behaviour is being dropped.
    Dropped,
    /// An assignment on its way to an agent.
    Assign,
    /// A result on its way from an agent.
    HandIn,
    /// A commit of the shared memory.
    Commit,
    /// A sync of the store.
    Sync,
    /// The process as a whole; visited at every event.
    Process,
}

impl Site {
    /// All sites with their names in plans and in the event log.
    pub const ALL: [(&'static str, Self); 10] = [
        ("before_perform", Self::BeforePerform),
        ("in_perform", Self::InPerform),
        ("after_perform", Self::AfterPerform),
        ("started", Self::Started),
        ("dropped", Self::Dropped),
        ("assign", Self::Assign),
        ("hand_in", Self::HandIn),
        ("commit", Self::Commit),
        ("sync", Self::Sync),
        ("process", Self::Process),
    ];

    /// Returns the site's name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The agent panics.
    Crash,
    /// The agent panics in its factory or in `started`.
    StartCrash,
    /// The agent's host panics with messages queued behind.
    CrashQueued,
    /// The agent waits for ever.
    Hang,
    /// The agent takes longer.
    Slow,
    /// The agent blocks the thread that it shares with others.
    Stall,
    /// The agent ends without a panic.
    Exit,
    /// A message is lost.
    Drop,
    /// A message arrives twice.
    Duplicate,
    /// A message arrives later.
    Delay,
    /// A message arrives behind later ones.
    Reorder,
    /// The agent's mailbox takes nothing.
    FullMailbox,
    /// The store refuses a commit, of which nothing is written.
    CommitBefore,
    /// The store reports an error for a commit that it has written.
    CommitAfter,
    /// The store does not say what became of a commit; a draw decides.
    CommitUnknown,
    /// A sync takes longer.
    SlowSync,
    /// The disk has no room.
    DiskFull,
    /// The power fails in the middle of a write, of which then all is there or nothing.
    TornWrite,
    /// What was not synced is lost, and the process ends.
    LostWrites,
    /// The whole control plane dies and recovers.
    ControllerCrash,
    /// The process is killed and started again.
    Kill,
    /// Every attempt of the task crashes its agent.
    Poison,
    /// The agent answers with a result that is not its task's.
    WrongResult,
    /// A quota has less to give.
    QuotaCut,
    /// Agents stall one by one and are released in another order.
    Swizzle,
}

/// Whom a kind strikes, which is what `select` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Agents.
    Agents,
    /// Tasks.
    Tasks,
    /// The store or the process: there is nothing to choose.
    Whole,
}

/// A key that tells a fault how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `delay`: how much later, or how far into the work.
    Delay,
    /// `for`: how long it lasts.
    For,
    /// `behind`: how many messages go first.
    Behind,
    /// `quota`: which one.
    Quota,
    /// `left_percent`: what is left of it.
    LeftPercent,
}

impl Key {
    /// All keys.
    pub const ALL: [Self; 5] =
        [Self::Delay, Self::For, Self::Behind, Self::Quota, Self::LeftPercent];

    /// Returns the key's name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::For => "for",
            Self::Behind => "behind",
            Self::Quota => "quota",
            Self::LeftPercent => "left_percent",
        }
    }
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Required,
    /// It may.
    Optional,
    /// It must at the site `in_perform`, and must not elsewhere.
    InPerform,
}

/// What there is to know about one kind.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// Its name in plans, and the `type` in the event log.
    pub name: &'static str,
    /// Where it may strike; where there is one only, a plan need not say it.
    pub sites: &'static [Site],
    /// Whom it strikes.
    pub target: Target,
    /// What it can be told.
    pub keys: &'static [(Key, Need)],
}

const PERFORM: &[Site] = &[Site::BeforePerform, Site::InPerform, Site::AfterPerform];
const AROUND: &[Site] = &[Site::BeforePerform, Site::AfterPerform];
const MESSAGE: &[Site] = &[Site::Assign, Site::HandIn];
const STORE: &[Site] = &[Site::Commit, Site::Sync];
const INTO_WORK: &[(Key, Need)] = &[(Key::Delay, Need::InPerform)];

/// Everything about every kind, in the order of [`Kind`].
pub const RULES: [Rule; 25] = [
    rule(
        Kind::Crash,
        "crash",
        &[Site::BeforePerform, Site::InPerform, Site::AfterPerform, Site::Dropped],
        Target::Agents,
        INTO_WORK,
    ),
    rule(Kind::StartCrash, "start_crash", &[Site::Started], Target::Agents, &[]),
    rule(Kind::CrashQueued, "crash_queued", &[Site::Assign], Target::Agents, &[]),
    rule(Kind::Hang, "hang", PERFORM, Target::Agents, INTO_WORK),
    rule(Kind::Slow, "slow", AROUND, Target::Agents, &[(Key::Delay, Need::Required)]),
    rule(Kind::Stall, "stall", AROUND, Target::Agents, &[(Key::For, Need::Required)]),
    rule(Kind::Exit, "exit", PERFORM, Target::Agents, INTO_WORK),
    rule(Kind::Drop, "drop", MESSAGE, Target::Agents, &[]),
    rule(Kind::Duplicate, "duplicate", MESSAGE, Target::Agents, &[]),
    rule(Kind::Delay, "delay", MESSAGE, Target::Agents, &[(Key::Delay, Need::Required)]),
    rule(Kind::Reorder, "reorder", MESSAGE, Target::Agents, &[(Key::Behind, Need::Optional)]),
    rule(
        Kind::FullMailbox,
        "full_mailbox",
        &[Site::Assign],
        Target::Agents,
        &[(Key::For, Need::Optional)],
    ),
    rule(Kind::CommitBefore, "commit_before", &[Site::Commit], Target::Tasks, &[]),
    rule(Kind::CommitAfter, "commit_after", &[Site::Commit], Target::Tasks, &[]),
    rule(Kind::CommitUnknown, "commit_unknown", &[Site::Commit], Target::Tasks, &[]),
    rule(
        Kind::SlowSync,
        "slow_sync",
        &[Site::Sync],
        Target::Whole,
        &[(Key::Delay, Need::Required)],
    ),
    rule(Kind::DiskFull, "disk_full", STORE, Target::Whole, &[(Key::For, Need::Optional)]),
    rule(Kind::TornWrite, "torn_write", STORE, Target::Whole, &[]),
    rule(Kind::LostWrites, "lost_writes", &[Site::Sync, Site::Process], Target::Whole, &[]),
    rule(Kind::ControllerCrash, "controller_crash", &[Site::Process], Target::Whole, &[]),
    rule(Kind::Kill, "kill", &[Site::Process], Target::Whole, &[]),
    rule(Kind::Poison, "poison", PERFORM, Target::Tasks, INTO_WORK),
    rule(Kind::WrongResult, "wrong_result", &[Site::HandIn], Target::Agents, &[]),
    rule(
        Kind::QuotaCut,
        "quota_cut",
        &[Site::Process],
        Target::Whole,
        &[
            (Key::For, Need::Required),
            (Key::Quota, Need::Optional),
            (Key::LeftPercent, Need::Optional),
        ],
    ),
    rule(
        Kind::Swizzle,
        "swizzle",
        &[Site::Process],
        Target::Agents,
        &[(Key::Delay, Need::Required), (Key::For, Need::Required)],
    ),
];

const fn rule(
    kind: Kind,
    name: &'static str,
    sites: &'static [Site],
    target: Target,
    keys: &'static [(Key, Need)],
) -> Rule {
    Rule { kind, name, sites, target, keys }
}

impl Kind {
    /// Returns what there is to know about the kind.
    pub fn rule(self) -> &'static Rule {
        &RULES[self as usize]
    }

    /// Returns the kind's name in plans and in the event log.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.name == name).map(|rule| rule.kind)
    }

    /// Tells whether the kind acts on the agent at which it strikes, and counts for the blast
    /// radius. A faulty commit or sync leaves its agent alone.
    pub fn disturbs_agents(self) -> bool {
        self.rule().target == Target::Agents || self == Self::Poison
    }
}

impl Rule {
    /// Returns whether the kind needs, may have or cannot have this key.
    pub fn need(&self, key: Key) -> Option<Need> {
        self.keys.iter().find(|(known, _)| *known == key).map(|(_, need)| *need)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_site_stands_at_its_own_place_in_its_table() {
        for (n, rule) in RULES.iter().enumerate() {
            assert_eq!(rule.kind as usize, n, "{}", rule.name);
            assert_eq!(Kind::from_name(rule.name), Some(rule.kind));
            assert_eq!(serde_json::to_value(rule.kind).unwrap(), rule.name);
        }
        for (n, (name, site)) in Site::ALL.into_iter().enumerate() {
            assert_eq!((site as usize, site.name()), (n, name));
            assert_eq!(serde_json::to_value(site).unwrap(), name);
        }
    }

    #[test]
    fn kind_that_needs_a_key_in_the_work_may_strike_there() {
        for rule in RULES {
            let in_work = rule.keys.iter().any(|(_, need)| *need == Need::InPerform);
            assert_eq!(in_work, rule.sites.contains(&Site::InPerform), "{}", rule.name);
        }
    }
}
