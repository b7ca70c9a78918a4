use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = r#"{"name":"w","schemaVersion":"1.5","workflow":{
  "specification":{"tasks":[
    {"id":"c","name":"x","parents":["b"],"children":[]},
    {"id":"a","name":"y","parents":[],"children":["b","c"]},
    {"id":"b","name":"z","parents":[],"children":[]}]},
  "execution":{"tasks":[{"id":"a","runtimeInSeconds":1.5},{"id":"b","runtimeInSeconds":2}]}}}"#;

const OLD_SAMPLE: &str = r#"{"schemaVersion":"1.4","workflow":{"tasks":[
  {"name":"a","id":"1","children":["b"],"runtimeInSeconds":3},
  {"name":"b","id":"2","parents":["a"],"runtimeInSeconds":0.5},
  {"name":"c","parents":["b","1"]}]}}"#;

fn refusal(text: &str) -> String {
    read_workflow(text.as_bytes()).unwrap_err().to_string()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn dependencies_are_the_union_of_parents_and_children() {
    for bytes in [SAMPLE.as_bytes().to_vec(), gzip(SAMPLE)] {
        assert!(is_workflow(&bytes));
        let workload = read_workflow(&bytes).unwrap();
        let told: Vec<_> =
            workload.tasks.iter().map(|task| (task.name.as_str(), task.after.clone())).collect();

        assert_eq!(told, [("a", vec![]), ("b", vec![0]), ("c", vec![0, 1])]);
        assert_eq!(workload.tasks[0].duration, Durations::Fixed(from_seconds(1.5)));
        assert_eq!(workload.tasks[2].duration, Durations::Fixed(from_seconds(0.0)));
    }
}

#[test]
fn version_1_4_keeps_its_tasks_and_runtimes_in_one_place() {
    let workload = read_workflow(OLD_SAMPLE.as_bytes()).unwrap();

    assert_eq!(workload.tasks[1].after, [0]);
    assert_eq!(workload.tasks[2].after, [0, 1]);
    assert_eq!(workload.tasks[0].duration, Durations::Fixed(from_seconds(3.0)));
}

#[test]
fn what_makes_no_sense_is_named() {
    assert!(refusal(&SAMPLE.replace("1.5\",", "1.3\",")).contains("1.3"));
    assert!(refusal(&SAMPLE.replace("schemaVersion", "version")).contains("schemaVersion"));
    assert!(
        refusal(&SAMPLE.replace("\"b\",\"c\"", "\"b\",\"q\"")).contains("`q` in its `children`")
    );
    assert!(refusal(&SAMPLE.replace("[\"b\"]", "[\"q\"]")).contains("`q` in its `parents`"));
    assert!(
        refusal(&SAMPLE.replace("\"id\":\"b\",\"name\"", "\"id\":\"a\",\"name\"")).contains("`a`")
    );
    let circle = SAMPLE
        .replace(r#""id":"b","name":"z","parents":[]"#, r#""id":"b","name":"z","parents":["c"]"#);
    assert!(refusal(&circle).contains("b -> c -> b") || refusal(&circle).contains("c -> b -> c"));
    assert!(refusal(&SAMPLE.replace(":1.5}", ":-1.5}")).contains("-1.5 s"));
    assert!(refusal(&SAMPLE.replace(":1.5}", ":1e300}")).contains("makes no sense"));
    assert!(refusal(&SAMPLE.replace(":1.5}", ":1e999}")).contains("out of range"));
    assert!(refusal(&SAMPLE[..SAMPLE.len() - 9]).contains("EOF"));
    assert!(
        refusal(r#"{"schemaVersion":"1.5","workflow":{"specification":{}}}"#).contains("no task")
    );
    assert!(refusal(r#"{"schemaVersion":"1.5"}"#).contains("`workflow`"));
    assert!(refusal(&SAMPLE.replace(r#""id":"b","name":"z","#, "")).contains("neither"));
    let cut = gzip(SAMPLE);
    let error = read_workflow(&cut[..cut.len() / 2]).unwrap_err();
    assert!(matches!(error, WorkflowError::Gzip(_)), "{error}");
}

/// One way to spoil a workflow: a place in its JSON, and what becomes of it.
#[derive(Clone, Debug)]
enum Spoil {
    Remove,
    Replace(serde_json::Value),
    Repeat,
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!("a")),
        Just(serde_json::json!("c")),
        Just(serde_json::json!(["a", "b", "c"])),
        Just(serde_json::json!([null])),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        ".{0,12}".prop_map(serde_json::Value::from),
    ];
    prop_oneof![Just(Spoil::Remove), value.prop_map(Spoil::Replace), Just(Spoil::Repeat)]
}

/// Returns the pointers (RFC 6901) to all values within a value, itself left out.
fn pointers(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    let inner: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().map(|(place, item)| (place.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in inner {
        let pointer = format!("{at}/{key}");
        pointers(value, &pointer, found);
        found.push(pointer);
    }
}

fn spoiled(document: &mut serde_json::Value, place: prop::sample::Index, spoil: Spoil) {
    let mut found = Vec::new();
    pointers(document, "", &mut found);
    let Some(pointer) = (!found.is_empty()).then(|| place.get(&found).clone()) else {
        return;
    };
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (document.pointer_mut(parent).unwrap(), spoil) {
        (serde_json::Value::Object(members), Spoil::Replace(value)) => {
            members.insert(key.to_owned(), value);
        }
        (serde_json::Value::Object(members), Spoil::Remove | Spoil::Repeat) => {
            members.remove(key);
        }
        (serde_json::Value::Array(items), Spoil::Replace(value)) => {
            items[key.parse::<usize>().unwrap()] = value;
        }
        (serde_json::Value::Array(items), Spoil::Remove) => {
            items.remove(key.parse().unwrap());
        }
        (serde_json::Value::Array(items), Spoil::Repeat) => {
            items.push(items[key.parse::<usize>().unwrap()].clone());
        }
        _ => {}
    }
}

/// What is read makes sense, and what is refused is told where: a line and column, a key, a task or a
/// list, and in one line.
fn is_read_or_refused_well(bytes: &[u8]) -> Result<(), TestCaseError> {
    match read_workflow(bytes) {
        Ok(workload) => {
            prop_assert!(workload.check().is_ok());
            for (place, task) in workload.tasks.iter().enumerate() {
                prop_assert!(task.after.iter().all(|before| *before < place), "order");
                prop_assert!(task.after.is_sorted_by(|a, b| a != b), "repeated");
            }
        }
        Err(error) => {
            let told = error.to_string();
            let names_its_place = match &error {
                WorkflowError::Json(_) => {
                    told.contains("line ") || told.contains("column ") || told.contains("expected")
                }
                WorkflowError::Gzip(_) => told.contains("gzip"),
                WorkflowError::TooLarge => told.contains("bytes"),
                WorkflowError::Version(_) => told.contains("schemaVersion"),
                WorkflowError::Missing(part) => told.contains(part),
                WorkflowError::Empty => told.contains("no task"),
                WorkflowError::NoId(place) => told.contains(&place.to_string()),
                WorkflowError::Duplicate(id) => told.contains(id),
                WorkflowError::Unknown { task, list, unknown } => {
                    told.contains(task) && told.contains(list) && told.contains(unknown)
                }
                WorkflowError::Cycle(tasks) => tasks.iter().all(|task| told.contains(task)),
                WorkflowError::Runtime { task, seconds } => {
                    told.contains(task) && told.contains(seconds)
                }
            };
            prop_assert!(names_its_place, "{error:?}: {told}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_bytes_are_refused_with_their_place_or_read(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        packed in any::<bool>(),
    ) {
        let mut bytes = if packed { gzip(SAMPLE) } else { SAMPLE.as_bytes().to_vec() };
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(keep.index(bytes.len() * 2).max(1));

        is_read_or_refused_well(&bytes)?;
    }

    #[test]
    fn spoiled_documents_are_refused_with_their_place_or_read(
        spoils in prop::collection::vec((any::<prop::sample::Index>(), spoil()), 1..5),
        is_old in any::<bool>(),
    ) {
        let mut document: serde_json::Value =
            serde_json::from_str(if is_old { OLD_SAMPLE } else { SAMPLE }).unwrap();
        for (place, spoil) in spoils {
            spoiled(&mut document, place, spoil);
        }

        is_read_or_refused_well(document.to_string().as_bytes())?;
    }

    #[test]
    fn any_graph_is_read_in_an_order_or_its_circle_is_told(
        edges in prop::collection::vec((0_usize..9, 0_usize..9, any::<bool>()), 0..16),
    ) {
        let mut tasks: Vec<serde_json::Value> = (0..9)
            .map(|id| serde_json::json!({ "id": id.to_string(), "parents": [], "children": [] }))
            .collect();
        for (from, to, as_child) in &edges {
            let (task, list, other) =
                if *as_child { (*from, "children", to) } else { (*to, "parents", from) };
            tasks[task][list].as_array_mut().unwrap().push(other.to_string().into());
        }
        let document = serde_json::json!({
            "schemaVersion": "1.5", "workflow": { "specification": { "tasks": tasks } },
        });

        is_read_or_refused_well(document.to_string().as_bytes())?;
        match read_workflow(document.to_string().as_bytes()) {
            Ok(workload) => prop_assert_eq!(workload.tasks.len(), 9),
            Err(WorkflowError::Cycle(circle)) => {
                prop_assert_eq!(circle.first(), circle.last());
                for pair in circle.windows(2) {
                    let (from, to) = (pair[0].parse::<usize>().unwrap(), pair[1].parse::<usize>().unwrap());
                    prop_assert!(edges.iter().any(|edge| (edge.0, edge.1) == (from, to)), "{:?}", circle);
                }
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
