//! Writes down what came of one run of a plan, with everything that is needed to repeat it.

use std::path::Path;
use std::time::Duration;

use guild_core::draw::Seed;
use serde::{Deserialize, Serialize};

use super::Plan;
use super::case::Case;
use super::scene::AgentName;

/// What came of one run of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanResult {
    /// The plan's title.
    pub plan: String,
    /// The plan's file.
    pub file: String,
    /// The text of the plan, so that the result stands alone.
    pub text: String,
    /// The seed.
    pub seed: u64,
    /// Which part of the plan was run, unless all of it.
    pub only: Option<String>,
    /// The version of Guild.
    pub version: String,
    /// The faults of the plan and how often each struck.
    pub methods: Vec<MethodNote>,
    /// The strikes, in their order.
    pub faults: Vec<FiredFault>,
    /// The incidents, in their order.
    pub incidents: Vec<IncidentNote>,
    /// Each invariant that was asked for, and `holds`, `not judged: ...` or `violated ...`.
    pub verdicts: Vec<(String, String)>,
    /// The hash of the event log.
    pub events_hash: String,
    /// How long the run took in its own time, in seconds.
    pub virtual_s: f64,
    /// How long it took to simulate, in seconds.
    pub real_s: f64,
    /// The command that repeats the run.
    pub repeat: String,
}

/// One fault of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodNote {
    /// Its kind.
    pub fault: String,
    /// Where it strikes.
    pub site: String,
    /// How often it struck.
    pub fired: u64,
}

/// One strike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiredFault {
    /// Its number in the event log.
    pub fault: u64,
    /// Its kind.
    pub r#type: String,
    /// Where it struck.
    pub site: String,
    /// Which fault of the plan it is, by place.
    pub method: usize,
    /// The `seq` of its event.
    pub event: u64,
    /// Who was struck.
    pub agent: Option<AgentName>,
    /// At which task.
    pub task: Option<String>,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentNote {
    /// Its number.
    pub incident: u64,
    /// Its type.
    pub r#type: String,
    /// The `seq` of its event.
    pub event: u64,
    /// The number of the fault behind it.
    pub fault: Option<u64>,
}

impl PlanResult {
    /// The verdict of an invariant that holds.
    pub const HOLDS: &'static str = "holds";

    /// Starts the result of a run of this plan; what came of the run is to be filled in.
    ///
    /// `fired` is how often each fault struck, `case` the part that was run, unless all.
    pub fn new(plan: &Plan, text: &str, seed: Seed, case: Option<&Case>, fired: &[u64]) -> Self {
        let note = |(method, fired): (&super::Method, &u64)| MethodNote {
            fault: method.kind.name().to_owned(),
            site: method.site.name().to_owned(),
            fired: *fired,
        };
        Self {
            plan: plan.title.clone(),
            file: plan.file.display().to_string(),
            text: text.to_owned(),
            seed: seed.0,
            only: case.map(ToString::to_string),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            methods: plan.methods.iter().zip(fired).map(note).collect(),
            faults: Vec::new(),
            incidents: Vec::new(),
            verdicts: Vec::new(),
            events_hash: String::new(),
            virtual_s: 0.0,
            real_s: 0.0,
            repeat: repeat(&plan.file, seed, case),
        }
    }

    /// Notes how long the run took in its own time and how long its simulation took.
    pub fn times(&mut self, virtual_time: Duration, real: Duration) {
        (self.virtual_s, self.real_s) = (virtual_time.as_secs_f64(), real.as_secs_f64());
    }

    /// Returns the invariants that do not hold, each with how it is violated.
    pub fn violated(&self) -> impl Iterator<Item = &(String, String)> {
        self.verdicts.iter().filter(|(_, verdict)| verdict.starts_with("violated"))
    }

    /// Returns the result as indented JSON.
    ///
    /// # Errors
    /// A time is not finite.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// Returns the command that repeats a run.
fn repeat(file: &Path, seed: Seed, case: Option<&Case>) -> String {
    let file = quoted(&file.display().to_string());
    let only = case.map(|case| format!(" --only '{case}'")).unwrap_or_default();
    format!("guild chaos {file} --seed {}{only}", seed.0)
}

/// Quotes a text for a shell where it needs it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "title = \"Storm\"\n[workload]\nshape = \"chain\"\ntasks = 3\nagents = 2\n\
                        [[method]]\nfault = \"kill\"\nwhen = { event = 5 }\n";

    fn result(case: Option<&Case>) -> PlanResult {
        let plan = Plan::parse(TEXT, Path::new("my plans/storm.toml")).unwrap();
        PlanResult::new(&plan, TEXT, Seed(17), case, &[1])
    }

    #[test]
    fn result_names_the_command_that_repeats_it() {
        assert_eq!(result(None).repeat, "guild chaos 'my plans/storm.toml' --seed 17");

        let case: Case = "methods=0;faults=0:1;tasks=2".parse().unwrap();
        let repeat = result(Some(&case)).repeat;
        assert!(repeat.ends_with("--seed 17 --only 'methods=0;faults=0:1;tasks=2'"), "{repeat}");
    }

    #[test]
    fn name_of_a_file_is_quoted_for_the_shell() {
        assert_eq!(quoted("a/b-c_1.toml"), "a/b-c_1.toml");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn result_survives_being_written_and_read() {
        let mut result = result(None);
        result.verdicts =
            vec![("I1".into(), "holds".into()), ("I3".into(), "violated at line 7: twice".into())];
        result.times(Duration::from_millis(1_500), Duration::from_micros(7));

        let read: PlanResult = serde_json::from_str(&result.to_json().unwrap()).unwrap();

        assert_eq!(read, result);
        assert_eq!(read.violated().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["I3"]);
        assert_eq!((read.methods[0].fault.as_str(), read.methods[0].fired), ("kill", 1));
    }
}
