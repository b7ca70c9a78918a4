//! Reads the tasks of a flow file, and the defaults that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guild::QuotaSpec;
use guild::RetryPolicy;

use crate::flow::file::Reading;
use crate::flow::output::Parse;
use crate::flow::problem::suggest;
use crate::flow::reader::{Located, Raw, Section};
use crate::flow::role::{environment, refuse};
use crate::flow::template::Template;
use crate::flow::work::work;
use crate::flow::{FlowTask, Quota, Role, RoleKind, duration};

/// What tasks use that say nothing else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    retry: RetryPolicy,
    timeout: Option<Duration>,
}

/// Reads `[defaults]`.
pub(crate) fn defaults(section: Option<Section<'_, '_>>) -> Defaults {
    let Some(section) = section else {
        return Defaults::default();
    };
    let defaults = Defaults {
        retry: retry(&section, &RetryPolicy::default()),
        timeout: section.duration_above_zero("timeout"),
    };
    section.finish();
    defaults
}

fn retry(section: &Section<'_, '_>, default: &RetryPolicy) -> RetryPolicy {
    let Some(table) = section.section("retry") else {
        return default.clone();
    };
    let attempts = table.integer("attempts", 1..=1_000);
    let attempts = attempts.and_then(|attempts| u32::try_from(attempts.value).ok());
    let policy = RetryPolicy {
        attempts_max: attempts.unwrap_or(default.attempts_max),
        backoff_first: table.duration("backoff").unwrap_or(default.backoff_first),
        backoff_max: table.duration("backoff_max").unwrap_or(default.backoff_max),
        factor: table.number("factor", 1.0..=1_000.0).map_or(default.factor, |n| n.value),
        jitter: table.number("jitter", 0.0..=1.0).map_or(default.jitter, |n| n.value),
    };
    table.finish();
    policy
}

/// What tasks may refer to.
struct Known<'a> {
    roles: &'a [(Located<String>, Role)],
    quotas: &'a [(Located<String>, Quota)],
    tasks: BTreeMap<String, usize>,
    defaults: &'a Defaults,
}

/// Reads all of `[tasks]`; `after` holds what is written there and nothing implied yet.
pub(crate) fn read(
    reading: &Reading<'_>,
    section: Option<Section<'_, '_>>,
    roles: &[(Located<String>, Role)],
    quotas: &[(Located<String>, Quota)],
    defaults: &Defaults,
) -> Vec<FlowTask> {
    let entries = section.as_ref().map(Section::entries).unwrap_or_default();
    let Some(section) = section.filter(|_| !entries.is_empty()) else {
        let message = "the flow is empty: it has no tasks; add one under [tasks.NAME]";
        reading.problems.add_at(None, "tasks", message);
        return Vec::new();
    };
    let names = entries.iter().enumerate().map(|(n, (name, _))| (name.value.clone(), n));
    let known = Known { roles, quotas, tasks: names.collect(), defaults };
    let read = |(name, raw): (Located<String>, Raw<'_, '_>)| {
        let table = section.as_section(&raw)?;
        let task = task(reading, &known, &name, &table);
        table.finish();
        task.filter(|_| reading.name(&name, false))
    };
    entries.into_iter().filter_map(read).collect()
}

fn task(
    reading: &Reading<'_>,
    known: &Known<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
) -> Option<FlowTask> {
    let role = role(reading, known, name, table);
    let kind = role.map(|role| known.roles[role].1.kind);
    let work = work(reading, name, table, kind);
    only_for_kind(reading, table, kind);
    let for_each = table.raw("for_each").and_then(|raw| reading.value(table, &raw));
    if let Some(list) = for_each.as_ref().filter(|list| !list.is_typed()) {
        let message = "is no list; write one expression that yields a list, like \
                       \"{{ tasks.list.output }}\", or a list of values";
        reading.problems.add_at(Some(list.origin().place), &list.origin().key, message);
    }
    let memory = table.section("memory");
    let pairs = |key| memory.as_ref().map(|memory| memory_writes(reading, memory, key));
    let (put, add) = (pairs("put").unwrap_or_default(), pairs("add").unwrap_or_default());
    if let Some(memory) = &memory {
        memory.finish();
    }
    let task = FlowTask {
        name: name.value.clone(),
        place: reading.problems.place(name.span.start),
        role: role.unwrap_or_default(),
        env: environment(reading, table),
        cwd: table.text("cwd").and_then(|text| reading.template(&text)),
        for_each,
        after: after(reading, known, table),
        inputs: BTreeSet::new(),
        list_inputs: BTreeSet::new(),
        retry: retry(table, &known.defaults.retry),
        timeout: table.duration_above_zero("timeout").or(known.defaults.timeout),
        heartbeat: table.duration_above_zero("heartbeat"),
        priority: table
            .integer("priority", -1_000_000..=1_000_000)
            .and_then(|priority| i32::try_from(priority.value).ok())
            .unwrap_or_default(),
        quotas: demands(reading, known, table),
        parse: parse(reading, table),
        duration: duration::duration(table),
        items: duration::items(table),
        put,
        add,
        work: work?,
    };
    role.map(|_| task)
}

/// Reports what makes no sense for a kind of role.
fn only_for_kind(reading: &Reading<'_>, table: &Section<'_, '_>, kind: Option<RoleKind>) {
    match kind {
        Some(RoleKind::Process) => {
            refuse(
                reading,
                table,
                &["parse"],
                "is not for a role of kind \"process\": its agents answer in JSON",
            );
            refuse(
                reading,
                table,
                &["env", "cwd"],
                "is not for a role of kind \"process\": set it for the role",
            );
        }
        Some(RoleKind::Exec | RoleKind::Render) => {
            let why = "needs a role of kind \"process\": only its agents can send any";
            refuse(reading, table, &["heartbeat"], why);
        }
        None => {}
    }
}

fn role(
    reading: &Reading<'_>,
    known: &Known<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
) -> Option<usize> {
    let names = || known.roles.iter().map(|(name, _)| name.value.as_str());
    let Some(role) = table.text("role") else {
        return match known.roles {
            [_] => Some(0),
            roles => {
                if table.raw("role").is_none()
                    && !(roles.is_empty() && reading.problems.is_about("roles"))
                {
                    let remedy = match roles {
                        [] => "has no role and the flow has none; add [roles.NAME] with a kind",
                        _ => "has no role; with several roles each task must name one",
                    };
                    reading.wrong(name, remedy);
                }
                None
            }
        };
    };
    let found = names().position(|known| known == role.value);
    if found.is_none() && !reading.problems.is_about(&format!("roles.{}", role.value)) {
        let hint = suggest(&role.value, names());
        reading.wrong(&role, format!("unknown role `{}`{hint}", role.value));
    }
    found
}

fn after(reading: &Reading<'_>, known: &Known<'_>, table: &Section<'_, '_>) -> BTreeSet<usize> {
    let resolve = |raw: Raw<'_, '_>| {
        let name = table.as_text(&raw)?;
        let found = known.tasks.get(&name.value).copied();
        if found.is_none() {
            let hint = suggest(&name.value, known.tasks.keys().map(String::as_str));
            reading.wrong(&name, format!("unknown task `{}`{hint}", name.value));
        }
        found
    };
    table.list("after").unwrap_or_default().into_iter().filter_map(resolve).collect()
}

fn demands(reading: &Reading<'_>, known: &Known<'_>, table: &Section<'_, '_>) -> Vec<(usize, u32)> {
    let Some(section) = table.section("quota") else {
        return Vec::new();
    };
    let demand = |(name, raw): (Located<String>, Raw<'_, '_>)| {
        let amount = section.as_integer(&raw, 1..=1_000_000_000)?;
        let Some(at) = known.quotas.iter().position(|(quota, _)| quota.value == name.value) else {
            if !reading.problems.is_about(&format!("quotas.{}", name.value)) {
                let names = known.quotas.iter().map(|(name, _)| name.value.as_str());
                let hint = suggest(&name.value, names);
                reading.wrong(&name, format!("unknown quota `{}`{hint}", name.value));
            }
            return None;
        };
        let (capacity, remedy) = match known.quotas[at].1.spec {
            QuotaSpec::Permits(permits) => (permits, "permits"),
            QuotaSpec::Rate { burst, .. } => (burst, "burst"),
        };
        if amount.value > i64::from(capacity) {
            let message = format!(
                "demands {} of quota `{}`, which never has more than {capacity}: the task could \
                 never run; lower the demand or raise `{remedy}`",
                amount.value, name.value
            );
            reading.wrong(&raw, message);
        }
        Some((at, u32::try_from(amount.value).ok()?))
    };
    section.entries().into_iter().filter_map(demand).collect()
}

fn parse(reading: &Reading<'_>, table: &Section<'_, '_>) -> Parse {
    let Some(name) = table.text("parse") else {
        return Parse::default();
    };
    let unknown = |word: &str| format!("unknown way to read an output `{word}`");
    reading.choice(&name, &Parse::ALL, unknown).copied().unwrap_or_default()
}

fn memory_writes(
    reading: &Reading<'_>,
    memory: &Section<'_, '_>,
    key: &'static str,
) -> Vec<(Template, Template)> {
    let limits = &reading.limits;
    let write = |(name, value): (Located<String>, Template)| {
        let key = reading.template(&name)?;
        if key.is_literal() && !(1..=limits.key_bytes_max).contains(&name.value.len()) {
            let message = format!(
                "is a key of {} bytes; 1 to {} are allowed",
                name.value.len(),
                limits.key_bytes_max
            );
            reading.wrong(&name, message);
        }
        if value.is_literal() && value.source().len() > limits.value_bytes_max {
            let message = format!(
                "is a value of {} bytes; a memory value has at most {}",
                value.source().len(),
                limits.value_bytes_max
            );
            reading.wrong(&name, message);
        }
        Some((key, value))
    };
    reading.templates(memory.section(key)).into_iter().filter_map(write).collect()
}
