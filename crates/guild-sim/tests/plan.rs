//! Fault plans from the outside: what a plan may say, and what is said about one that is wrong.
#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guild_core::draw::Seed;
use guild_sim::chaos::Experiment;
use guild_sim::plan::{Kind, Need, Plan, PlanError, RULES, Scene, Source, WORKER};
use proptest::prelude::*;

/// Returns the plans that come with the project.
fn examples() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chaos");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        (file, text)
    };
    files.into_iter().map(read).collect()
}

fn parse(text: &str) -> Result<Plan, PlanError> {
    Plan::parse(text, Path::new("plan.toml"))
}

/// A plan with one fault, which is well but for what the test puts in.
fn with_method(method: &str) -> String {
    let head = "title = \"t\"\n[workload]\nshape = \"chain\"\ntasks = 10\nagents = 4\n";
    format!("{head}[[method]]\n{method}\n")
}

fn problem(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[track_caller]
fn assert_wrong(method: &str, expected: &str) {
    let problem = problem(&with_method(method));
    assert!(problem.contains(expected), "{method}\n=> {problem}\ndoes not say {expected}");
}

#[test]
fn five_example_plans_parse_and_name_every_kind_of_fault() {
    let mut kinds = BTreeSet::new();
    let examples = examples();
    assert_eq!(examples.len(), 5);

    for (file, text) in &examples {
        let plan = Plan::parse(text, file).unwrap_or_else(|error| panic!("{error}"));
        let drawn = plan.draw(plan.seed);
        let scene = Scene {
            roles: vec![(WORKER.to_owned(), drawn.agents.unwrap())],
            tasks: (0..drawn.tasks.unwrap()).map(|n| format!("t{n}")).collect(),
        };
        plan.check(&scene).unwrap_or_else(|error| panic!("{error}"));
        kinds.extend(plan.methods.iter().map(|method| method.kind));
    }

    let all: BTreeSet<Kind> = RULES.iter().map(|rule| rule.kind).collect();
    assert_eq!(kinds, all);
}

#[test]
fn reference_page_tells_of_every_kind_where_it_strikes_and_what_it_needs() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chaos.md");
    let page = std::fs::read_to_string(page).unwrap();
    let perform = "`before_perform`, `in_perform`, `after_perform`";

    for rule in RULES {
        let row = page.lines().rfind(|row| row.starts_with(&format!("| `{}` |", rule.name)));
        let cells: Vec<&str> = row.expect(rule.name).split('|').map(str::trim).collect();
        let sites: Vec<String> =
            rule.sites.iter().map(|site| format!("`{}`", site.name())).collect();
        assert_eq!(cells[3].replace("perform,", &format!("{perform},")), {
            // A row may be short for the three sites of an attempt.
            let sites = sites.join(", ");
            if cells[3] == "perform" { sites.replace(perform, "perform") } else { sites }
        });
        for (key, need) in rule.keys {
            let told = cells[4].contains(&format!("`{}`", key.name()));
            assert_eq!(told, *need != Need::InPerform, "{}", rule.name);
            assert!(*need != Need::Required || cells[4].contains("required"), "{}", rule.name);
        }
    }
}

#[test]
fn problem_is_named_with_its_place_and_the_nearest_word() {
    let text = with_method("fault = \"crsh\"\nsite = \"before_perform\"\nwhen = { nth = 1 }");

    let expected = "plan.toml:7:9: method[0].fault: unknown fault `crsh`; did you mean `crash`?";
    assert_eq!(problem(&text), expected);
    assert!(problem("titel = \"t\"\n[workload\n").starts_with("plan.toml:2:"));
}

#[test]
fn all_problems_of_a_plan_are_reported_at_once() {
    let text = "titel = \"t\"\n\
                [workload]\nshape = \"chain\"\ntasks = 0\nagents = 4\npolicy = \"fifi\"\n\
                [knobs]\nmailbox = { min = 5, max = 2 }\nlease = \"1s\"\n\
                [limits]\nagents_max_percent = 101\n\
                [steady_state]\ninvariants = [\"I18\"]\n\
                [[method]]\nfault = \"hang\"\nsite = \"assign\"\nwhen = { probability = 1.5 }\n";

    let problem = problem(text);

    for expected in [
        "plan.toml:1:1: titel: unknown key; did you mean `title`?",
        "needs `title`",
        "plan.toml:4:9: workload.tasks: 0 is not within 1 to 10000000",
        "plan.toml:6:10: workload.policy: unknown policy `fifi`; did you mean `fifo`?",
        "plan.toml:8:11: knobs.mailbox: has a min above its max",
        "plan.toml:9:1: knobs.lease: unknown key",
        "plan.toml:11:22: limits.agents_max_percent: 101 is not within 1 to 100",
        "plan.toml:13:15: steady_state.invariants[0]: unknown invariant `I18`",
        "method[0].site: `hang` cannot strike at assign, only at: before_perform, in_perform",
        "method[0].when.probability: 1.5 is no probability: write a number from 0 to 1",
    ] {
        assert!(problem.contains(expected), "{problem}\ndoes not say {expected}");
    }
}

#[test]
fn probability_outside_zero_to_one_is_refused() {
    for wrong in ["1.01", "-0.1", "2", "nan", "inf", "{ min = 0.5, max = 1.5 }", "\"0.5\""] {
        let method = format!("fault = \"kill\"\nwhen = {{ probability = {wrong} }}");
        assert_wrong(&method, "method[0].when.probability");
    }
    parse(&with_method("fault = \"kill\"\nwhen = { probability = 1 }")).unwrap();
}

#[test]
fn fault_at_a_wrong_site_is_told_where_it_may_strike() {
    let check = |method: &str, expected| {
        assert_wrong(&format!("{method}\nwhen = {{ nth = 1 }}"), expected);
    };

    check(
        "fault = \"crash\"",
        "plan.toml:6:1: method[0]: `crash` needs a site, one of: before_perform, in_perform",
    );
    check("fault = \"drop\"\nsite = \"commit\"", "only at: assign, hand_in");
    check("fault = \"drop\"\nmessage = \"reply\"", "there are: assign, result");
    check("fault = \"kill\"\nmessage = \"result\"", "`kill` cannot strike at hand_in");
    check(
        "fault = \"drop\"\nsite = \"assign\"\nmessage = \"assign\"",
        "method[0].message: says the same as `site`",
    );
}

#[test]
fn fault_that_lacks_or_does_not_know_a_key_says_so() {
    let check = |method: &str, expected| {
        assert_wrong(&format!("{method}\nwhen = {{ nth = 1 }}"), expected);
    };

    check("fault = \"slow\"\nsite = \"before_perform\"", "`slow` needs `delay`");
    check("fault = \"quota_cut\"", "`quota_cut` needs `for`");
    check("fault = \"start_crash\"\ndelay = \"1s\"", "does not know this key; there is none");
    check("fault = \"reorder\"\nmessage = \"result\"\nfor = \"1s\"", "there are: behind");
    check("fault = \"crash\"\nsite = \"in_perform\"", "in_perform needs `delay`");
    check(
        "fault = \"crash\"\nsite = \"dropped\"\ndelay = \"1s\"",
        "belongs to site = \"in_perform\"",
    );
    check("fault = \"slow_sync\"\ndelay = \"0s\"", "must be longer than zero");
    check("fault = \"kill\"\nfor_ = \"1s\"", "unknown key; did you mean `for`?");
}

#[test]
fn trigger_is_one_and_only_one() {
    let fault = "fault = \"kill\"\n";

    assert_wrong(fault, "needs `when`");
    for wrong in ["{}", "{ nth = 1, every = 2 }", "{ after = 3 }"] {
        let expected = "needs one of nth, at, every, probability, event";
        assert_wrong(&format!("{fault}when = {wrong}"), expected);
    }
    assert_wrong(&format!("{fault}when = {{ nth = 0 }}"), "0 is not within 1");
    assert_wrong(&format!("{fault}when = {{ at = 3 }}"), "must be a string, not an integer");
}

#[test]
fn only_what_can_go_on_may_be_permanent() {
    let check = |method: &str, permanent: &str, expected| {
        let method = format!("{method}\nwhen = {{ nth = 1 }}\npermanent = {permanent}");
        assert_wrong(&method, expected);
    };

    check("fault = \"kill\"", "true", "`kill` cannot be permanent");
    check("fault = \"torn_write\"\nsite = \"sync\"", "true", "`torn_write` cannot be permanent");
    check("fault = \"poison\"\nsite = \"before_perform\"", "true", "anyway");
    check("fault = \"disk_full\"\nsite = \"sync\"\nfor = \"1s\"", "true", "contradicts `for`");
    check("fault = \"start_crash\"", "1.1", "no probability");
}

#[test]
fn selector_that_selects_nobody_is_refused_at_its_place() {
    let check = |select: &str, expected| {
        let method = "fault = \"start_crash\"\nwhen = { nth = 1 }\n";
        assert_wrong(&format!("{method}select = {select}"), expected);
    };

    check(
        "{ role = \"wroker\" }",
        "plan.toml:9:19: method[0].select.role: selects nobody: there is no role `wroker`; did",
    );
    check("{ agents = [\"worker-4\"] }", "`worker-4` does not exist: the last is `worker-3`");
    check("{ agents = [\"clerk-0\"] }", "no role `clerk`");
    check("{ agents = [\"worker\"] }", "`worker` is no agent");
    check("{ agents = [] }", "selects nobody");
    check("{ mode = \"fixed\", value = 5 }", "5 are more than the 4 agents that fit");
    check(
        "{ mode = \"fixed\", value = 2, agents = [\"worker-1\"] }",
        "2 are more than the 1 agents",
    );
    check("{ mode = \"fixed\", value = 0 }", "selects nobody");
    check("{ mode = \"percent\", value = 0 }", "selects nobody");
    check("{ mode = \"percent\", value = 101 }", "101 is not within 0 to 100");
    check("{ mode = \"fixed\" }", "needs a value");
    check("{ mode = \"one\", value = 1 }", "belongs to mode");
    check("{ value = 1 }", "belongs to a mode");
    check("{ mode = \"some\" }", "unknown mode `some`");
    check("{ tasks = \"t*\" }", "no task is known");
}

#[test]
fn selector_of_the_wrong_kind_of_target_is_refused() {
    assert_wrong(
        "fault = \"kill\"\nwhen = { nth = 1 }\nselect = { mode = \"one\" }",
        "`kill` strikes the store or the process",
    );
    assert_wrong(
        "fault = \"commit_before\"\nwhen = { nth = 1 }\nselect = { role = \"worker\" }",
        "`commit_before` strikes tasks",
    );
}

#[test]
fn limits_that_leave_no_agent_to_strike_select_nobody() {
    let method = with_method("fault = \"start_crash\"\nwhen = { nth = 1 }");

    let problem = problem(&format!("{method}[limits]\nagents_max_percent = 20\n"));

    let expected = "plan.toml:10:22: limits.agents_max_percent: selects nobody: 20 % of 4 agents";
    assert_eq!(problem, expected);
}

#[test]
fn selector_is_checked_against_the_tasks_once_they_are_known() {
    let check = |select: &str| {
        let method = "fault = \"poison\"\nsite = \"before_perform\"\nwhen = { every = 1 }\n";
        let plan = parse(&with_method(&format!("{method}select = {select}"))).unwrap();
        let tasks = ["fetch-1", "fetch-2"].map(str::to_owned).to_vec();
        plan.check(&Scene { roles: vec![("worker".to_owned(), 4)], tasks })
    };

    assert!(check("{ mode = \"fixed\", value = 2, tasks = \"fetch-*\" }").is_ok());
    let error = check("{ mode = \"fixed\", value = 3 }").unwrap_err().to_string();
    let expected = "plan.toml:10:36: method[0].select.value: 3 are more than the 2 tasks that fit";
    assert_eq!(error, expected);
    let error = check("{ tasks = \"push-*\" }").unwrap_err().to_string();
    assert!(error.contains("plan.toml:10:10: method[0].select: selects nobody"), "{error}");
}

#[test]
fn workload_comes_from_one_source_only() {
    let parse = |workload: &str| {
        let method = "[[method]]\nfault = \"kill\"\nwhen = { nth = 1 }\n";
        let text = format!("title = \"t\"\n[workload]\n{workload}\n{method}");
        Plan::parse(&text, Path::new("a/p.toml"))
    };
    let problem = |workload: &str| parse(workload).unwrap_err().to_string();
    let shape = "shape = \"x\"\ntasks = 1\nagents = 1\n";

    assert!(problem("").contains("needs one of shape, flow, workflow"));
    assert!(problem(&format!("{shape}flow = \"y\"")).contains("needs one of shape"));
    assert!(problem("flow = \"y\"\ntasks = 1").contains("tasks: belongs to a generated `shape`"));
    assert!(problem("shape = \"x\"").contains("needs `tasks`: how many"));
    assert!(problem(&format!("{shape}duration = \"1\"")).contains("no duration"));
    let source = parse("flow = \"../f.toml\"").unwrap().workload.source;
    assert_eq!(source, Source::Flow("a/../f.toml".into()));
    parse(&format!("{shape}duration = {{ uniform = [1, 2] }}")).unwrap();
}

#[test]
fn errors_and_the_end_of_a_run_are_read_with_what_is_wrong_about_them() {
    let method = "[[method]]\nfault = \"kill\"\nwhen = { nth = 1 }\n";
    let with = |key: &str| {
        let shape = "shape = \"chain\"\ntasks = 4\nagents = 1\n";
        parse(&format!("title = \"t\"\n[workload]\n{shape}{key}\n{method}"))
    };
    let problem = |key: &str| with(key).unwrap_err().to_string();

    let plan = with("errors = { fatal = 0.5, retryable = { min = 0, max = 0.5 } }").unwrap();
    let drawn = plan.draw(Seed(1)).errors;
    assert!(drawn.fatal == 0.5 && drawn.retryable > 0.0 && drawn.retryable <= 0.5, "{drawn:?}");
    let drawn = with("cancel_at = \"2s\"").unwrap().draw(Seed(1));
    assert_eq!((drawn.cancel_at, drawn.errors.fatal), (Some(Duration::from_secs(2)), 0.0));

    assert!(problem("errors = {}").contains("plan.toml:6:10: workload.errors: needs `retryable`"));
    assert!(problem("errors = 0.1").contains("workload.errors: must be a table"));
    assert!(problem("errors = { fatal = 2 }").contains("workload.errors.fatal: 2 is no prob"));
    assert!(problem("errors = { fatal = 1, task = \"t\" }").contains("did you mean `tasks`?"));
    assert!(problem("cancel_at = 3").contains("workload.cancel_at: must be a string"));
    assert!(problem("cancel_at = \"3\"").contains("plan.toml:6:13: workload.cancel_at:"));
    let flow =
        format!("title = \"t\"\n[workload]\nflow = \"f\"\nerrors = {{ fatal = 1 }}\n{method}");
    assert!(parse(&flow).unwrap_err().to_string().contains("belongs to a generated `shape`"));

    with("errors = { fatal = 0.7, retryable = 0.3 }").unwrap();
    for sum in ["0.7, retryable = 0.31", "{ min = 0, max = 0.7 }, retryable = { min = 0, max = 1 }"]
    {
        let problem = problem(&format!("errors = {{ fatal = {sum} }}"));
        let expected = "plan.toml:6:10: workload.errors: `retryable` and `fatal` add up to more";
        assert!(problem.contains(expected), "{problem}");
    }

    // Where another workload runs, this one's tasks need not be there.
    let plan = with("errors = { fatal = 1, tasks = \"push-*\" }").unwrap();
    let scene = Scene { roles: vec![(WORKER.to_owned(), 1)], tasks: vec!["t0".to_owned()] };
    plan.check(&scene).unwrap();
    let error = Experiment::new(plan, "", None).unwrap_err().to_string();
    let expected =
        "plan.toml:6:31: workload.errors.tasks: selects nobody: no task matches `push-*`";
    assert_eq!(error, expected);
}

#[test]
fn knob_is_drawn_anew_for_each_seed_and_the_same_for_one() {
    let text = with_method("fault = \"kill\"\nwhen = { event = { min = 1, max = 1000 } }");
    let plan = parse(&text.replace("tasks = 10", "tasks = { min = 10, max = 1000 }")).unwrap();

    let drawn: BTreeSet<u32> = (0..50).map(|seed| plan.draw(Seed(seed)).tasks.unwrap()).collect();

    assert!(drawn.len() > 40 && drawn.iter().all(|tasks| (10..=1000).contains(tasks)));
    assert_eq!(plan.draw(Seed(3)), plan.draw(Seed(3)));
    assert_ne!(plan.draw(Seed(3)).methods, plan.draw(Seed(4)).methods);
}

/// One change of a text: what is done at which place to how many characters, and what comes in.
type Mutation = (u8, prop::sample::Index, usize, String);

/// Texts that readers stumble over.
const STONES: [&str; 26] = [
    "-1",
    "nan",
    "inf",
    "1e999",
    "0x",
    "\"",
    "{",
    "}",
    "[[method]]",
    "[",
    "]",
    "\0",
    "é",
    "99999999999999999999",
    "0o17",
    "1979-05-27T07:32:00Z",
    "true",
    "{ min = 1, max = 0 }",
    "= { probability = 7 }",
    "\"\"",
    "select = {}",
    "'''",
    "# ",
    "\r",
    "agents = [\"a-1\"]",
    "a.b.c = 1",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let stones = prop::sample::select(STONES.to_vec()).prop_map(str::to_owned);
    let pieces = prop_oneof!["[ -~\n]{0,12}", stones];
    (0u8..4, any::<prop::sample::Index>(), 0usize..40, pieces)
}

fn mutate(text: &mut Vec<char>, (how, at, length, piece): &Mutation) {
    let at = at.index(text.len() + 1);
    let end = (at + length).min(text.len());
    let put: Vec<char> = match how {
        0 => Vec::new(),
        1 => [piece.chars().collect(), text[at..end].to_vec()].concat(),
        2 => text[at..end].repeat(2),
        _ => piece.chars().collect(),
    };
    text.splice(at..end, put);
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_text_makes_the_reader_panic_and_every_problem_has_its_place(
        which in 0usize..5,
        mutations in prop::collection::vec(mutation(), 1..6),
        seed in any::<u64>(),
    ) {
        let (file, text) = &examples()[which];
        let mut text: Vec<char> = text.chars().collect();
        mutations.iter().for_each(|mutation| mutate(&mut text, mutation));
        let text: String = text.into_iter().collect();
        match Plan::parse(&text, file) {
            Ok(plan) => {
                let drawn = plan.draw(Seed(seed));
                prop_assert_eq!(&drawn, &plan.draw(Seed(seed)));
                // Whether it fits its workload is found out without a panic too.
                let first = plan.draw(plan.seed);
                if first.tasks.is_some_and(|tasks| tasks <= 400) && first.agents <= Some(100) {
                    drop(Experiment::new(plan, &text, None));
                }
            }
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                let lines = text.split('\n').count();
                for problem in &error.problems {
                    let place = problem.place.expect("what is read from a file has a place");
                    prop_assert!((1..=lines).contains(&place.line), "{error}");
                }
            }
        }
    }
}
