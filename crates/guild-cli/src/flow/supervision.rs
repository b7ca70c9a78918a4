//! Reads who is restarted when and with whom: `supervision` of a role, `[groups.NAME]`, and
//! `[supervision]` of the whole flow.

use guild::{
    Exhausted, GroupSpec, RestartPolicy, RestartType, RoleId, RoleSpec, Strategy, SupervisorSpec,
    TreeSpec,
};

use crate::flow::Role;
use crate::flow::file::Reading;
use crate::flow::problem::suggest;
use crate::flow::reader::{Located, Raw, Section};

const STRATEGIES: [(&str, Strategy); 3] = [
    ("one-for-one", Strategy::OneForOne),
    ("one-for-all", Strategy::OneForAll),
    ("rest-for-one", Strategy::RestForOne),
];

const RESTART_TYPES: [(&str, RestartType); 3] = [
    ("permanent", RestartType::Permanent),
    ("transient", RestartType::Transient),
    ("temporary", RestartType::Temporary),
];

const EXHAUSTED: [(&str, Exhausted); 2] =
    [("quarantine", Exhausted::Quarantine), ("escalate", Exhausted::Escalate)];

/// Most restarts or deaths that a flow may allow.
const COUNT_MAX: i64 = 1_000_000;

/// Reads the `supervision` of a role, or that of the flow.
pub(crate) fn supervision(
    reading: &Reading<'_>,
    section: &Section<'_, '_>,
) -> Option<SupervisorSpec> {
    let table = section.section("supervision")?;
    let spec = supervisor(reading, &table);
    table.finish();
    Some(spec)
}

/// Reads all groups and checks that they make a tree.
pub(crate) fn groups(
    reading: &Reading<'_>,
    section: Option<Section<'_, '_>>,
    roles: &[(Located<String>, Role)],
) -> Vec<GroupSpec> {
    let Some(section) = section else {
        return Vec::new();
    };
    let entries = section.entries();
    let known: Vec<&str> = roles.iter().map(|(name, _)| name.value.as_str()).collect();
    let known: Vec<&str> =
        known.into_iter().chain(entries.iter().map(|(name, _)| name.value.as_str())).collect();
    let read = |(name, raw): &(Located<String>, Raw<'_, '_>)| {
        let table = section.as_section(raw)?;
        let members = members(reading, name, &table, &known);
        let supervisor = supervisor(reading, &table);
        table.finish();
        if reading.name(name, true) && !reading.is_free(name) {
            return None;
        }
        Some(GroupSpec { name: name.value.as_str().into(), members: members?, supervisor })
    };
    let groups: Vec<GroupSpec> = entries.iter().filter_map(read).collect();
    // What refers to a group that could not be read would be reported a second time.
    if groups.len() == entries.len()
        && let Some((first, _)) = entries.first()
        && let Err(error) = (TreeSpec {
            root: SupervisorSpec::default(),
            roles: (0..).map(RoleId).zip(roles).map(role_spec).collect(),
            groups: groups.clone(),
        })
        .build()
    {
        reading.wrong(first, error.to_string());
    }
    groups
}

fn role_spec((role, (name, of)): (RoleId, &(Located<String>, Role))) -> RoleSpec {
    let name = name.value.as_str().into();
    RoleSpec { name, role, agents: of.agents, supervisor: SupervisorSpec::default() }
}

fn members(
    reading: &Reading<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
    known: &[&str],
) -> Option<Vec<std::sync::Arc<str>>> {
    let Some(list) = table.list("members") else {
        if table.raw("members").is_none() {
            let remedy = "has no `members`; name the roles and groups that belong together";
            reading.wrong(name, remedy);
        }
        return None;
    };
    let member = |raw: &Raw<'_, '_>| {
        let member = table.as_text(raw)?;
        if !known.contains(&member.value.as_str()) {
            let hint = suggest(&member.value, known.iter().copied());
            reading.wrong(&member, format!("unknown role or group `{}`{hint}", member.value));
            return None;
        }
        Some(member.value.as_str().into())
    };
    let members: Vec<_> = list.iter().map(member).collect();
    members.into_iter().collect()
}

fn supervisor(reading: &Reading<'_>, table: &Section<'_, '_>) -> SupervisorSpec {
    let default = SupervisorSpec::default();
    let count = |key, least: i64| {
        let count = table.integer(key, least..=COUNT_MAX)?;
        u32::try_from(count.value).ok()
    };
    let RestartPolicy { intensity, period, .. } = default.restart;
    let mut spec = default;
    spec.strategy = choice(reading, table, "strategy", &STRATEGIES).unwrap_or(spec.strategy);
    spec.restart_type = choice(reading, table, "restart", &RESTART_TYPES).unwrap_or_default();
    spec.exhausted = choice(reading, table, "exhausted", &EXHAUSTED).unwrap_or_default();
    spec.shutdown = table.duration("shutdown").unwrap_or(spec.shutdown);
    let restart = &mut spec.restart;
    restart.intensity = count("intensity", 0).unwrap_or(intensity);
    restart.period = table.duration_above_zero("period").unwrap_or(period);
    restart.backoff_first = table.duration("backoff").unwrap_or(restart.backoff_first);
    restart.backoff_max = table.duration("backoff_max").unwrap_or(restart.backoff_max);
    restart.factor = table.number("factor", 1.0..=1_000.0).map_or(restart.factor, |n| n.value);
    restart.jitter = table.number("jitter", 0.0..=1.0).map_or(restart.jitter, |n| n.value);
    restart.sustained = table.duration("sustained").unwrap_or(restart.sustained);
    restart.quarantine = table.duration_above_zero("quarantine").unwrap_or(restart.quarantine);
    let longest = table.duration_above_zero("quarantine_max").unwrap_or(restart.quarantine_max);
    restart.quarantine_max = longest.max(restart.quarantine);
    let ceiling = &mut spec.ceiling;
    ceiling.deaths_max = count("deaths_max", 0).unwrap_or(ceiling.deaths_max);
    ceiling.period = table.duration_above_zero("deaths_period").unwrap_or(ceiling.period);
    ceiling.burst = table.duration("burst").unwrap_or(ceiling.burst);
    spec
}

/// Reads one of a few words.
fn choice<T: Copy>(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    key: &'static str,
    choices: &[(&str, T)],
) -> Option<T> {
    let word = table.text(key)?;
    reading.choice(&word, choices, |word| format!("`{word}` is no {key}")).copied()
}
