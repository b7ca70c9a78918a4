//! Reads the short form of a plan: `crash=0.05,hang=0.01,slow=0.1`.

use std::path::Path;
use std::time::Duration;

use guild_core::draw::Seed;

use super::kind::{Kind, Site};
use super::knob::Knob;
use super::method::{How, Method, When};
use super::problem::{Places, PlanError, Problems, suggest};
use super::setting::{Knobs, Limits, Quiet, SteadyState, Workload};
use super::{Plan, Select};

/// How much a slow attempt or a late message is late.
const DELAY: Duration = Duration::from_millis(100);

/// The faults that the short form knows, and where they strike.
const KINDS: [(Kind, &[Site]); 7] = [
    (Kind::Crash, &[Site::BeforePerform, Site::AfterPerform]),
    (Kind::Hang, &[Site::BeforePerform]),
    (Kind::Slow, &[Site::BeforePerform]),
    (Kind::Exit, &[Site::BeforePerform]),
    (Kind::Drop, &[Site::Assign, Site::HandIn]),
    (Kind::Duplicate, &[Site::Assign, Site::HandIn]),
    (Kind::Delay, &[Site::Assign, Site::HandIn]),
];

impl Plan {
    /// Makes a plan of `crash=0.05,hang=0.01,slow=0.1`: the probability of each fault per attempt.
    ///
    /// A crash strikes before or after the work and a message fault either message, with equal
    /// chance; `slow` and `delay` add 100 ms. The faults are independent of each other, and
    /// nothing ends them but the quiet phase after a minute.
    ///
    /// # Errors
    /// A part is no `name=value`, a fault is unknown or named twice, or a probability is not
    /// within 0 to 1.
    pub fn from_spec(spec: &str) -> Result<Self, PlanError> {
        let problems = Problems::new(Path::new("--chaos"), "");
        let mut methods: Vec<Method> = Vec::new();
        for part in spec.split(',').map(str::trim) {
            match read(part) {
                Ok((kind, _, _)) if methods.iter().any(|method| method.kind == kind) => {
                    problems.add_at(
                        None,
                        "",
                        format!("the fault `{}` is named twice", kind.name()),
                    );
                }
                Ok((kind, sites, probability)) => methods.extend(make(kind, sites, probability)),
                Err(message) => problems.add_at(None, "", message),
            }
        }
        problems.finish(Some(Self {
            file: "--chaos".into(),
            title: spec.to_owned(),
            seed: Seed(1),
            workload: Workload::generated(),
            knobs: Knobs::default(),
            limits: Limits::default(),
            steady_state: SteadyState::default(),
            methods,
            quiet: Quiet::default(),
            places: Places::default(),
        }))
    }
}

fn read(part: &str) -> Result<(Kind, &'static [Site], f64), String> {
    let (name, value) = part.split_once('=').ok_or_else(|| {
        format!("`{part}` is no fault: write name=probability, for example crash=0.05")
    })?;
    let (name, value) = (name.trim(), value.trim());
    let (kind, sites) =
        KINDS.into_iter().find(|(kind, _)| kind.name() == name).ok_or_else(|| {
            let hint = suggest(name, KINDS.iter().map(|(kind, _)| kind.name()));
            format!("unknown fault `{name}`{hint}")
        })?;
    let probability = value.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p));
    let probability = probability.ok_or_else(|| {
        format!("`{value}` is no probability for `{name}`: write a number from 0 to 1")
    })?;
    Ok((kind, sites, probability))
}

/// Splits a probability over the sites, such that their sum over an attempt is what was asked for.
fn make(kind: Kind, sites: &'static [Site], probability: f64) -> impl Iterator<Item = Method> {
    let share = probability / sites.len() as f64;
    let delayed = matches!(kind, Kind::Slow | Kind::Delay);
    sites.iter().enumerate().map(move |(n, site)| Method {
        kind,
        site: *site,
        select: Select::default(),
        // Only attempts that no earlier site struck come this far.
        when: When::Probability(Knob::Fixed(share / (1.0 - share * n as f64))),
        how: How { delay: delayed.then_some(Knob::Fixed(DELAY)), ..How::default() },
        permanent: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_part_of_a_specification_is_named() {
        let parse = |spec: &str| Plan::from_spec(spec).unwrap_err().to_string();

        assert!(parse("crash").contains("`crash` is no fault"));
        assert!(parse("crsh=0.1").contains("unknown fault `crsh`; did you mean `crash`?"));
        assert!(parse("kill=0.1").contains("unknown fault `kill`"));
        assert!(parse("crash=1.5").contains("`1.5` is no probability for `crash`"));
        assert!(parse("crash=NaN").contains("no probability"));
        assert!(parse("crash=0.1,crash=0.2").contains("named twice"));
        let two = parse("hang=2,slw=1");
        assert!(two.contains("`2` is no probability") && two.contains("`slw`"), "{two}");
    }

    #[test]
    fn probability_is_split_over_the_sites_of_an_attempt() {
        let plan = Plan::from_spec("crash=1, slow=0.5").unwrap();

        let found: Vec<_> = plan.methods.iter().map(|m| (m.kind, m.site, m.when)).collect();

        let always = |p| When::Probability(Knob::Fixed(p));
        assert_eq!(
            found,
            [
                (Kind::Crash, Site::BeforePerform, always(0.5)),
                (Kind::Crash, Site::AfterPerform, always(1.0)),
                (Kind::Slow, Site::BeforePerform, always(0.5)),
            ]
        );
    }
}
