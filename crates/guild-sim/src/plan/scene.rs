//! Describes who is there to be struck: the agents and tasks of one run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The agents and tasks among which a plan selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The roles with their numbers of agents, in the order of their ids.
    pub roles: Vec<(String, u32)>,
    /// The names of the tasks, in the order of their ids; not those that are spawned later.
    pub tasks: Vec<String>,
}

impl Scene {
    /// Returns how many agents there are.
    pub fn agents(&self) -> u64 {
        self.roles.iter().map(|(_, agents)| u64::from(*agents)).sum()
    }
}

/// Names an agent as the event log does: `worker-3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AgentName {
    /// The agent's role.
    pub role: String,
    /// Its number within the role, from 0.
    pub index: u32,
}

/// A text that names no agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no agent: write its role and its number, like \"worker-3\"")]
pub struct AgentNameError(String);

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role, self.index)
    }
}

impl FromStr for AgentName {
    type Err = AgentNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AgentNameError(text.to_owned());
        let (role, index) = text.rsplit_once('-').ok_or_else(wrong)?;
        let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| digits && !role.is_empty()).ok_or_else(wrong)?;
        Ok(Self { role: role.to_owned(), index })
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for AgentName {
    type Error = AgentNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Tells whether a name matches a pattern, in which `*` stands for anything and `?` for one
/// character.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `*` must take one character more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut retry {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, n) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_the_whole_name() {
        for (pattern, name) in [
            ("*", ""),
            ("t*", "t1"),
            ("*-1", "a-1-1"),
            ("a?c", "aüc"),
            ("a*b*c", "axbybzc"),
            ("", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("t", "t1"), ("?", ""), ("*-1", "a-12"), ("a*b", "acbd"), ("T*", "t1"), ("", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn agent_is_named_by_its_role_and_number() {
        let name: AgentName = "fetch-page-12".parse().unwrap();

        assert_eq!((name.role.as_str(), name.index), ("fetch-page", 12));
        assert_eq!(name.to_string(), "fetch-page-12");
        for wrong in ["worker", "-3", "worker-", "worker-x", "worker-+3", "worker-99999999999"] {
            assert!(wrong.parse::<AgentName>().is_err(), "{wrong}");
        }
    }
}
