//! Reads the sections of a flow file: variables, roles, quotas, defaults, tasks, result.

use std::path::Path;
use std::sync::Arc;

use guild::Limits;
use guild::QuotaSpec;
use guild_core::digest::Digest;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::flow::problem::{FlowError, Problems, suggest};
use crate::flow::reader::{Located, Raw, Section};
use crate::flow::template::{Engine, Origin, Template};
use crate::flow::{FLOW_ROLE, Flow, Quota, check, namespace, quantity, role, supervision, task};

/// What all readers of sections need.
pub(crate) struct Reading<'a> {
    pub(crate) problems: &'a Problems,
    pub(crate) engine: Engine,
    pub(crate) file: Arc<Path>,
    pub(crate) limits: Limits,
}

impl Reading<'_> {
    /// Compiles a template; a mistake in it is reported at its place.
    pub(crate) fn template(&self, text: &Located<String>) -> Option<Template> {
        let compiled = self.engine.compile(&text.value, self.origin(text));
        compiled.map_err(|message| self.wrong(text, format!("template: {message}"))).ok()
    }

    /// Reads a template, or any other value as it is.
    pub(crate) fn value(&self, section: &Section<'_, '_>, raw: &Raw<'_, '_>) -> Option<Template> {
        if raw.value.is_str() {
            return self.template(&section.as_text(raw)?);
        }
        let value = self.json(raw)?;
        Some(Engine::constant(&value, self.origin(raw)))
    }

    /// Reads a table of names and templates.
    pub(crate) fn templates(
        &self,
        section: Option<Section<'_, '_>>,
    ) -> Vec<(Located<String>, Template)> {
        let entries = section.map(|section| {
            let read = |(name, raw): (Located<String>, Raw<'_, '_>)| {
                Some((name, self.value(&section, &raw)?))
            };
            section.entries().into_iter().filter_map(read).collect()
        });
        entries.unwrap_or_default()
    }

    pub(crate) fn wrong<T>(&self, at: &Located<T>, message: impl Into<String>) {
        self.problems.add(at.span.clone(), &at.key, message);
    }

    /// Returns what one of a few words stands for; another word is reported with what `unknown` says.
    pub(crate) fn choice<'c, T>(
        &self,
        word: &Located<String>,
        choices: &'c [(&str, T)],
        unknown: impl FnOnce(&str) -> String,
    ) -> Option<&'c T> {
        let found = choices.iter().find(|(name, _)| *name == word.value);
        if found.is_none() {
            let hint = suggest(&word.value, choices.iter().map(|(name, _)| *name));
            self.wrong(word, format!("{}{hint}", unknown(&word.value)));
        }
        found.map(|(_, value)| value)
    }

    /// Reports a name of a role or group that Guild has taken; returns whether it is free.
    pub(crate) fn is_free(&self, name: &Located<String>) -> bool {
        if name.value == FLOW_ROLE {
            self.wrong(name, format!("the name `{FLOW_ROLE}` is taken by Guild; take another"));
        }
        name.value != FLOW_ROLE
    }

    pub(crate) fn origin<T>(&self, at: &Located<T>) -> Origin {
        let place = self.problems.place(at.span.start);
        Origin { file: self.file.clone(), place, key: at.key.as_str().into() }
    }

    /// Converts a TOML value to JSON; dates become text.
    pub(crate) fn json(&self, raw: &Raw<'_, '_>) -> Option<Value> {
        let json = to_json(raw.value);
        if json.is_none() {
            self.wrong(raw, "has a number that JSON cannot hold (nan, inf, beyond 64 bits)");
        }
        json
    }

    /// Reports a name that templates, events or the store could not carry.
    pub(crate) fn name(&self, name: &Located<String>, hyphen: bool) -> bool {
        let text = name.value.as_str();
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (hyphen && c == '-');
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let fits = text.len() <= self.limits.name_chars_max;
        if starts && fits && text.chars().all(allowed) {
            return true;
        }
        let hyphen = if hyphen { ", - " } else { " " };
        let max = self.limits.name_chars_max;
        let message = format!(
            "`{text}` is no name: use 1 to {max} letters, digits, _{hyphen}and begin with a letter"
        );
        self.wrong(name, message);
        false
    }
}

/// Reads and checks the text of a flow file.
pub(crate) fn parse(
    file: &Path,
    text: &str,
    settings: &[String],
    agents: Option<u32>,
) -> Result<Flow, FlowError> {
    let problems = Problems::new(file, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            problems.add(error.span().unwrap_or(0..0), "", error.message());
            return problems.finish(None);
        }
    };
    let reading = Reading {
        problems: &problems,
        engine: Engine::new(),
        file: file.into(),
        limits: Limits::default(),
    };
    let root = Section::root(&table, &problems);
    let flow = sections(&reading, &root, text, settings, agents);
    root.finish();
    problems.finish(Some(flow))
}

fn sections(
    reading: &Reading<'_>,
    root: &Section<'_, '_>,
    text: &str,
    settings: &[String],
    agents: Option<u32>,
) -> Flow {
    let name = root.text("name").filter(|name| reading.name(name, true)).map(|name| name.value);
    let description = root.text("description").map(|text| text.value);
    let mut vars = variables(reading, root.section("vars"));
    override_variables(reading, &mut vars, settings);
    let mut roles = role::read(reading, root.section("roles"));
    if let Some(agents) = agents {
        roles.iter_mut().for_each(|(_, role)| role.agents = agents);
    }
    let quotas = quotas(reading, root.section("quotas"));
    let namespaces = namespace::namespaces(reading, root.section("namespaces"), &roles);
    let groups = supervision::groups(reading, root.section("groups"), &roles);
    let supervision = supervision::supervision(reading, root);
    let defaults = task::defaults(root.section("defaults"));
    let tasks = root.section("tasks");
    let drafts = task::read(reading, tasks, &roles, &quotas, &defaults);
    let result = reading.templates(root.section("result"));
    let stem = || reading.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut flow = Flow {
        file: reading.file.clone(),
        name: name.or_else(stem).unwrap_or_else(|| "flow".to_owned()),
        description,
        digest: digest(text, &vars),
        vars,
        roles: roles.into_iter().map(|(_, role)| role).collect(),
        quotas: quotas.into_iter().map(|(_, quota)| quota).collect(),
        namespaces,
        groups,
        supervision,
        tasks: drafts,
        result: result.into_iter().map(|(name, value)| (name.value, value)).collect(),
        result_inputs: std::collections::BTreeSet::new(),
    };
    // What refers to a task that could not be read would be reported a second time.
    if reading.problems.is_empty() {
        check::check(reading, &mut flow);
    }
    flow
}

fn variables(reading: &Reading<'_>, section: Option<Section<'_, '_>>) -> Map<String, Value> {
    let mut vars = Map::new();
    for (name, raw) in section.iter().flat_map(Section::entries) {
        if reading.name(&name, false)
            && let Some(value) = reading.json(&raw)
        {
            vars.insert(name.value, value);
        }
    }
    vars
}

/// Applies `--set KEY=VALUE`: the value is read as what the default is.
fn override_variables(reading: &Reading<'_>, vars: &mut Map<String, Value>, settings: &[String]) {
    for setting in settings {
        let wrong = |message: String| reading.problems.add_at(None, "--set", message);
        let Some((name, text)) = setting.split_once('=') else {
            wrong(format!("`{setting}` is no KEY=VALUE"));
            continue;
        };
        let Some(default) = vars.get_mut(name) else {
            let hint = suggest(name, vars.keys().map(String::as_str));
            wrong(format!("unknown variable `{name}`{hint}"));
            continue;
        };
        let value = match default {
            Value::String(_) => Some(Value::from(text)),
            ref default => serde_json::from_str::<Value>(text).ok().filter(|value| {
                std::mem::discriminant(value) == std::mem::discriminant(&**default)
                    && (!default.is_i64() || value.is_i64())
            }),
        };
        match value {
            Some(value) => *default = value,
            None => {
                let json = if default.is_array() || default.is_object() { " as JSON" } else { "" };
                wrong(format!(
                    "`{text}` is not of the kind of `{name}`; write it{json} like its default, {default}"
                ));
            }
        }
    }
}

fn quotas(
    reading: &Reading<'_>,
    section: Option<Section<'_, '_>>,
) -> Vec<(Located<String>, Quota)> {
    let Some(section) = section else {
        return Vec::new();
    };
    let read = |(name, raw): (Located<String>, Raw<'_, '_>)| {
        let table = section.as_section(&raw)?;
        let spec = quota(reading, &name, &table);
        table.finish();
        let spec = spec.filter(|_| reading.name(&name, true))?;
        let quota = Quota { name: name.value.clone(), spec };
        Some((name, quota))
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn quota(
    reading: &Reading<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
) -> Option<QuotaSpec> {
    let count = |number: Located<i64>| u32::try_from(number.value).unwrap_or(u32::MAX);
    let permits = table.integer("permits", 1..=1_000_000_000).map(count);
    let burst = table.integer("burst", 1..=1_000_000_000);
    let rate = table.quantity("rate", |text| quantity::rate(text, burst.clone().map(count)));
    match (table.raw("permits").is_some(), table.raw("rate").is_some()) {
        (true, false) => {
            if let Some(burst) = &burst {
                reading.wrong(burst, "belongs to a rate; permits have no burst");
            }
            permits.map(QuotaSpec::Permits)
        }
        (false, true) => rate.map(|rate| rate.value),
        _ => {
            let remedy = "needs either permits (held during an attempt) or a rate like \"600/min\"";
            reading.wrong(name, remedy);
            None
        }
    }
}

fn to_json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => {
            serde_json::Number::from_f64(number.as_str().parse().ok()?).map(Value::Number)?
        }
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => {
            items.iter().map(|item| to_json(item.get_ref())).collect::<Option<Value>>()?
        }
        DeValue::Table(table) => {
            let entry =
                |(key, value): (
                    &serde_spanned::Spanned<toml::de::DeString<'_>>,
                    &serde_spanned::Spanned<DeValue<'_>>,
                )| { Some((key.get_ref().to_string(), to_json(value.get_ref())?)) };
            Value::Object(table.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

/// Hashes the text and the variables.
fn digest(text: &str, vars: &Map<String, Value>) -> u64 {
    let vars = Value::Object(vars.clone()).to_string();
    let mut digest = Digest::default();
    digest.update(text.as_bytes());
    digest.update(vars.as_bytes());
    digest.value()
}
