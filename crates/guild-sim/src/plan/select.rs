//! Chooses whom a fault strikes.
//!
//! The choice is a draw by rank: each candidate has a number drawn from seed, method and name,
//! and the lowest are taken. So a smaller crew loses some of the chosen and never changes the rest.

use std::collections::{BTreeMap, BTreeSet};

use guild_core::draw::{Seed, Stream};

use super::kind::{Rule, Site, Target};
use super::knob::number_of;
use super::problem::suggest;
use super::reader::Section;
use super::scene::{AgentName, Scene, matches};

/// How many of the candidates are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One of them.
    One,
    /// All of them.
    #[default]
    All,
    /// So many.
    Fixed(u32),
    /// So many of a hundred, rounded up.
    Percent(u32),
}

/// Who may be struck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// How many of the candidates.
    pub mode: Mode,
    /// The candidates' role.
    pub role: Option<String>,
    /// The candidates by name; empty for all.
    pub agents: BTreeSet<AgentName>,
    /// A pattern: of a fault that strikes tasks the candidates, of any other what its agents are
    /// struck at.
    pub tasks: Option<String>,
}

/// Who was chosen for one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    Everybody,
    Agents(BTreeMap<String, BTreeSet<u32>>),
    Tasks(BTreeSet<String>),
}

impl Select {
    /// Reads the table `select` of a fault of this kind.
    pub(super) fn read(table: &Section<'_, '_>, rule: &Rule) -> Self {
        let role = table.text("role");
        let agents = agents(table);
        let tasks = table.text("tasks").map(|text| text.value);
        let mode = mode(table).unwrap_or_default();
        table.finish();
        match rule.target {
            Target::Whole => {
                let wrong = format!("`{}` strikes the store or the process: remove it", rule.name);
                table.wrong_here(wrong);
            }
            Target::Tasks if table.has("role") || table.has("agents") => {
                let wrong = "strikes tasks: select them with mode, value and tasks";
                table.wrong_here(format!("`{}` {wrong}", rule.name));
            }
            Target::Agents if tasks.is_some() && !knows_tasks(rule) => {
                let wrong = "strikes where no task is known: remove `tasks`";
                table.wrong_here(format!("`{}` {wrong}", rule.name));
            }
            Target::Agents | Target::Tasks => {}
        }
        Self { mode, role: role.map(|role| role.value), agents, tasks }
    }

    /// Says why the choice among these agents is not what was asked for.
    pub(super) fn check_agents(&self, roles: &[(String, u32)]) -> Result<(), (String, String)> {
        let find = |role: &str| roles.iter().find(|(name, _)| name == role);
        let names = || roles.iter().map(|(name, _)| name.as_str());
        if let Some(role) = &self.role
            && find(role).is_none()
        {
            let hint = suggest(role, names());
            return wrong("role", format!("selects nobody: there is no role `{role}`{hint}"));
        }
        for agent in &self.agents {
            let Some((_, size)) = find(&agent.role) else {
                let hint = suggest(&agent.role, names());
                let message = format!("`{agent}` does not exist: no role `{}`{hint}", agent.role);
                return wrong("agents", message);
            };
            if agent.index >= *size {
                let last = size.saturating_sub(1);
                let message =
                    format!("`{agent}` does not exist: the last is `{}-{last}`", agent.role);
                return wrong("agents", message);
            }
        }
        self.check_count(self.candidates(roles).len(), "agents")
    }

    /// Says why the choice among these tasks is not what was asked for.
    pub(super) fn check_tasks(
        &self,
        tasks: &[String],
        rule: &Rule,
    ) -> Result<(), (String, String)> {
        let found = tasks.iter().filter(|task| self.admits(task)).count();
        if rule.target == Target::Tasks {
            return self.check_count(found, "tasks");
        }
        match &self.tasks {
            Some(pattern) if found == 0 => {
                wrong("tasks", format!("selects nobody: no task matches `{pattern}`"))
            }
            _ => Ok(()),
        }
    }

    fn check_count(&self, found: usize, what: &str) -> Result<(), (String, String)> {
        if found == 0 {
            return wrong("", format!("selects nobody: no {what} fit"));
        }
        match self.mode {
            Mode::Fixed(count) if count as usize > found => {
                wrong("value", format!("{count} are more than the {found} {what} that fit"))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether a task fits the pattern.
    pub(super) fn admits(&self, task: &str) -> bool {
        self.tasks.as_deref().is_none_or(|pattern| matches(pattern, task))
    }

    /// Chooses for one seed; asks for no more than there is.
    pub(super) fn choose(&self, rule: &Rule, scene: &Scene, seed: Seed, method: usize) -> Chosen {
        let rank = |name: &str| seed.bits(Stream::Plan, number_of(name), 1 + method as u64);
        let free = self.mode == Mode::All;
        match rule.target {
            Target::Agents if free && self.role.is_none() && self.agents.is_empty() => {
                Chosen::Everybody
            }
            Target::Agents => {
                let candidates = self.candidates(&scene.roles);
                let mut chosen: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
                for agent in self.lowest(candidates, |agent| rank(&agent.to_string())) {
                    chosen.entry(agent.role).or_default().insert(agent.index);
                }
                Chosen::Agents(chosen)
            }
            Target::Tasks if !free => {
                let candidates = scene.tasks.iter().filter(|task| self.admits(task));
                let chosen = self.lowest(candidates.collect(), |task| rank(task));
                Chosen::Tasks(chosen.into_iter().cloned().collect())
            }
            Target::Tasks | Target::Whole => Chosen::Everybody,
        }
    }

    fn lowest<T: Ord>(&self, mut candidates: Vec<T>, rank: impl Fn(&T) -> u64) -> Vec<T> {
        let count = match self.mode {
            Mode::All => candidates.len(),
            Mode::One => 1,
            Mode::Fixed(count) => count as usize,
            Mode::Percent(percent) => (candidates.len() * percent as usize).div_ceil(100),
        };
        candidates.sort_by_cached_key(rank);
        candidates.truncate(count);
        candidates
    }

    /// Returns all agents that fit role and names.
    fn candidates(&self, roles: &[(String, u32)]) -> Vec<AgentName> {
        let fits = |agent: &AgentName| self.agents.is_empty() || self.agents.contains(agent);
        let of_role = |(role, agents): &(String, u32)| {
            let role = role.clone();
            (0..*agents).map(move |index| AgentName { role: role.clone(), index })
        };
        let roles = roles.iter().filter(|(name, _)| self.role.as_ref().is_none_or(|r| r == name));
        roles.flat_map(of_role).filter(fits).collect()
    }
}

impl Chosen {
    /// Returns the chosen agents; none where tasks were chosen.
    pub(super) fn agents(&self, scene: &Scene) -> Vec<AgentName> {
        let named = |role: &str, index| AgentName { role: role.to_owned(), index };
        match self {
            Self::Everybody => Select::default().candidates(&scene.roles),
            Self::Agents(chosen) => chosen
                .iter()
                .flat_map(|(role, agents)| agents.iter().map(move |index| named(role, *index)))
                .collect(),
            Self::Tasks(_) => Vec::new(),
        }
    }
}

fn wrong(key: &str, message: String) -> Result<(), (String, String)> {
    Err((key.to_owned(), message))
}

/// Tells whether a task is known at some site of the kind.
fn knows_tasks(rule: &Rule) -> bool {
    rule.sites.iter().any(|site| !matches!(site, Site::Started | Site::Process))
}

fn agents(table: &Section<'_, '_>) -> BTreeSet<AgentName> {
    let Some(list) = table.list("agents") else {
        return BTreeSet::new();
    };
    if list.is_empty() {
        table.wrong_here("selects nobody: `agents` is empty");
    }
    let read = |raw| -> Option<AgentName> {
        let text = table.as_text(&raw)?;
        text.value.parse().map_err(|error| table.wrong(&raw, format!("{error}"))).ok()
    };
    list.into_iter().filter_map(read).collect()
}

fn mode(table: &Section<'_, '_>) -> Option<Mode> {
    let value = table.raw("value");
    let modes = ["one", "all", "fixed", "percent"].map(|mode| (mode, mode));
    let Some(mode) = table.name("mode", modes) else {
        if let (Some(value), false) = (&value, table.has("mode")) {
            table.wrong(value, "belongs to a mode: write mode = \"fixed\" or \"percent\"");
        }
        return None;
    };
    let max = if mode.value == "percent" { 100 } else { u32::MAX };
    match (mode.value, value) {
        ("one", None) => Some(Mode::One),
        ("all", None) => Some(Mode::All),
        ("one" | "all", Some(value)) => {
            table.wrong(&value, "belongs to mode = \"fixed\" or \"percent\"");
            None
        }
        (_, None) => {
            table.wrong(&mode, "needs a value");
            None
        }
        (which, Some(value)) => match table.as_count(&value, 0..=max)?.value {
            0 => {
                table.wrong(&value, "selects nobody");
                None
            }
            count if which == "percent" => Some(Mode::Percent(count)),
            count => Some(Mode::Fixed(count)),
        },
    }
}
