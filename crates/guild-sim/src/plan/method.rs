//! Holds one fault of a plan: what, where, whom, when and how.

use std::time::Duration;

use super::kind::{Key, Kind, Need, RULES, Rule, Site, Target};
use super::knob::Knob;
use super::problem::suggest;
use super::reader::{Located, Section};
use super::select::Select;

/// Longest count that a trigger may wait for.
const COUNT_MAX: u64 = 1_000_000_000_000;
/// Most messages that a reordered one may fall behind.
const BEHIND_MAX: u32 = 1_000;

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// What happens.
    pub kind: Kind,
    /// Where.
    pub site: Site,
    /// Whom it may strike.
    pub select: Select,
    /// When it strikes.
    pub when: When,
    /// How it strikes.
    pub how: How,
    /// Probability that whom it struck is struck at every later hit too, also in the quiet phase.
    pub permanent: f64,
}

/// When a fault strikes, counted in hits: visits of its site by somebody whom it selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Once, at the hit of this number.
    Nth(Knob<u64>),
    /// Once, at the first hit at or after this time.
    At(Knob<Duration>),
    /// At every hit whose number is a multiple.
    Every(Knob<u64>),
    /// At each hit with this probability.
    Probability(Knob<f64>),
    /// Once, at the first hit at or after this event.
    Event(Knob<u64>),
}

/// What a fault is told; which of these a kind knows is in [`RULES`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct How {
    /// How much later, or how far into the work.
    pub delay: Option<Knob<Duration>>,
    /// How long it lasts.
    pub lasts: Option<Knob<Duration>>,
    /// How many messages go first.
    pub behind: Option<Knob<u32>>,
    /// Which quota; all when absent.
    pub quota: Option<String>,
    /// What is left of the quota.
    pub left_percent: Option<Knob<u32>>,
}

impl Method {
    /// Reads one table of the list `method`.
    pub(super) fn read(table: &Section<'_, '_>) -> Option<Self> {
        let rule = table.name("fault", RULES.iter().map(|rule| (rule.name, rule)));
        let site = site(table, rule.as_ref().map(|rule| rule.value));
        let when = table.raw("when").and_then(|raw| When::read(&table.as_section(&raw)?));
        let how = How::read(table);
        let permanent = permanent(table);
        let select = table.raw("select").and_then(|raw| table.as_section(&raw));
        for (key, remedy) in [("fault", "which of the kinds"), ("when", "when it strikes")] {
            if !table.has(key) {
                table.wrong_here(format!("needs `{key}`: {remedy}"));
            }
        }
        table.finish();
        let rule = rule?.value;
        let select = select.map(|select| Select::read(&select, rule)).unwrap_or_default();
        check_keys(table, rule, site);
        check_permanent(table, rule);
        let (site, when) = (site?, when?);
        let (kind, permanent) = (rule.kind, permanent.unwrap_or(0.0));
        // What poisons a task once poisons every attempt of it.
        let permanent = if kind == Kind::Poison { 1.0 } else { permanent };
        Some(Self { kind, site, select, when, how, permanent })
    }
}

impl When {
    fn read(table: &Section<'_, '_>) -> Option<Self> {
        let count = |table: &Section<'_, '_>, raw: &_| table.as_integer(raw, 1..=COUNT_MAX);
        let found = [
            table.has("nth").then(|| table.knob("nth", count).map(Self::Nth)),
            table.has("at").then(|| table.knob("at", Section::as_duration).map(Self::At)),
            table.has("every").then(|| table.knob("every", count).map(Self::Every)),
            table.has("probability").then(|| {
                let probability = table.knob("probability", Section::as_probability);
                probability.map(Self::Probability)
            }),
            table.has("event").then(|| table.knob("event", count).map(Self::Event)),
        ];
        table.finish();
        let mut found = found.into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(when), None) => when,
            _ => {
                table.wrong_here("needs one of nth, at, every, probability, event");
                None
            }
        }
    }
}

impl How {
    fn read(table: &Section<'_, '_>) -> Self {
        Self {
            delay: table.knob("delay", Section::as_duration_above_zero),
            lasts: table.knob("for", Section::as_duration_above_zero),
            behind: table.knob("behind", |table, raw| table.as_count(raw, 1..=BEHIND_MAX)),
            quota: table.text("quota").map(|quota| quota.value),
            left_percent: table.knob("left_percent", |table, raw| table.as_count(raw, 0..=99)),
        }
    }
}

/// Reads `site`, or `message` where a fault strikes messages.
fn site(table: &Section<'_, '_>, rule: Option<&Rule>) -> Option<Site> {
    let named = table.name("site", Site::ALL);
    let message = table.name("message", [("assign", Site::Assign), ("result", Site::HandIn)]);
    let (named, both) = match (table.raw("site"), table.raw("message")) {
        (Some(_), Some(message)) => (named, Some(message)),
        (None, Some(_)) => (message, None),
        _ => (named, None),
    };
    let rule = rule?;
    if let Some(message) = both {
        table.wrong(&message, "says the same as `site`: remove one of them");
    }
    let allowed = || rule.sites.iter().map(|site| site.name()).collect::<Vec<_>>().join(", ");
    match named {
        Some(Located { value, .. }) if rule.sites.contains(&value) => Some(value),
        Some(wrong) => {
            let wrong_site = wrong.value.name();
            let message =
                format!("`{}` cannot strike at {wrong_site}, only at: {}", rule.name, allowed());
            table.wrong(&wrong, message);
            None
        }
        None if table.has("site") || table.has("message") => None,
        None => match rule.sites {
            [only] => Some(*only),
            _ => {
                table.wrong_here(format!("`{}` needs a site, one of: {}", rule.name, allowed()));
                None
            }
        },
    }
}

/// Reads `permanent`: true, false or a probability.
fn permanent(table: &Section<'_, '_>) -> Option<f64> {
    let raw = table.raw("permanent")?;
    match raw.value.as_bool() {
        Some(permanent) => Some(f64::from(u8::from(permanent))),
        None => Some(table.as_probability(&raw)?.value),
    }
}

fn check_keys(table: &Section<'_, '_>, rule: &Rule, site: Option<Site>) {
    let may = |key: &Key| rule.need(*key).is_some();
    let known = || Key::ALL.into_iter().filter(may).map(Key::name);
    for key in Key::ALL {
        let (name, fault) = (key.name(), rule.name);
        match (rule.need(key), table.raw(name)) {
            (None, Some(raw)) => {
                let hint = suggest("", known());
                table.wrong(&raw, format!("`{fault}` does not know this key{hint}"));
            }
            (Some(Need::Required), None) => {
                table.wrong_here(format!("`{fault}` needs `{name}`"));
            }
            (Some(Need::InPerform), None) if site == Some(Site::InPerform) => {
                table.wrong_here(format!(
                    "`{fault}` in_perform needs `{name}`: how far into the work"
                ));
            }
            (Some(Need::InPerform), Some(raw)) if site.is_some_and(|s| s != Site::InPerform) => {
                table.wrong(&raw, "belongs to site = \"in_perform\"");
            }
            _ => {}
        }
    }
}

fn check_permanent(table: &Section<'_, '_>, rule: &Rule) {
    let Some(raw) = table.raw("permanent") else {
        return;
    };
    let lasts = rule.target == Target::Whole && table.has("for");
    let once = rule.sites.contains(&Site::Process) || rule.kind == Kind::TornWrite;
    if rule.kind == Kind::Poison {
        table.wrong(&raw, "`poison` strikes every attempt of its task anyway: remove it");
    } else if lasts {
        table.wrong(&raw, "contradicts `for`: remove one of them");
    } else if once {
        table.wrong(&raw, format!("`{}` cannot be permanent", rule.name));
    }
}
