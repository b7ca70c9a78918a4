use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = r#"{"name":"w","schemaVersion":"1.5","workflow":{
  "specification":{"tasks":[
    {"id":"c","name":"x","parents":["b"],"children":[]},
    {"id":"a","name":"y","parents":[],"children":["b","c"]},
    {"id":"b","name":"z","parents":[],"children":[]}]},
  "execution":{"tasks":[{"id":"a","runtimeInSeconds":1.5},{"id":"b","runtimeInSeconds":2}]}}}"#;

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
    let workload = read_workflow(
        br#"{"schemaVersion":"1.4","workflow":{"tasks":[
            {"name":"a","id":"1","children":["b"],"runtimeInSeconds":3},
            {"name":"b","id":"2","parents":["a"]}]}}"#,
    )
    .unwrap();

    assert_eq!(workload.tasks[1].after, [0]);
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

proptest! {
    #[test]
    fn damaged_input_is_refused_or_read_but_never_panics(
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
        let workload = read_workflow(&bytes);
        if let Ok(workload) = workload {
            prop_assert!(!workload.tasks.is_empty());
        }
    }
}
