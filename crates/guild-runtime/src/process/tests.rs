//! What holds of every process that is run.

use std::sync::Mutex;

use rustix::process::Pid;

use super::*;

fn shell(script: &str) -> ExecSpec {
    let mut spec = ExecSpec::new("sh");
    spec.program.args = vec!["-c".into(), script.into()];
    spec
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn run_now(spec: &ExecSpec) -> Result<ExecOutput, ExecError> {
    on_runtime(run(spec, &()))
}

/// Waits until no process of the group is left; a group that stays makes the test hang.
async fn gone(group: i32) {
    let pid = Pid::from_raw(group).unwrap();
    while rustix::process::test_kill_process_group(pid).is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Default)]
struct Groups(Mutex<Vec<i32>>);

impl ProcessObserver for Groups {
    fn started(&self, group: i32) {
        self.0.lock().unwrap().push(group);
    }
    fn ended(&self, group: i32) {
        self.0.lock().unwrap().push(-group);
    }
}

#[test]
fn both_outputs_are_captured_and_the_input_arrives() {
    let spec = ExecSpec { stdin: Bytes::from(vec![b'x'; 1 << 20]), ..shell("wc -c; echo e >&2") };

    let output = run_now(&spec).unwrap();

    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "1048576");
    assert_eq!(output.stderr, b"e\n");
}

#[test]
fn input_goes_on_after_the_process_has_closed_its_outputs() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("exec >&- 2>&-; sleep 0.05; cat > '{}'", file.path().display());
    let spec = ExecSpec { stdin: Bytes::from(vec![b'x'; 1 << 20]), ..shell(&script) };

    run_now(&spec).unwrap();

    assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
}

#[test]
fn process_that_does_not_read_its_input_ends_well() {
    let spec = ExecSpec { stdin: Bytes::from(vec![b'x'; 1 << 20]), ..shell("echo done") };

    assert_eq!(run_now(&spec).unwrap().stdout, b"done\n");
}

#[test]
fn status_carries_the_end_of_standard_error_and_may_be_retried() {
    let error = run_now(&shell("echo first >&2; echo last >&2; exit 3")).unwrap_err();

    assert_eq!(error.to_string(), "`sh` ended with status 3: first\nlast");
    assert!(error.is_retryable());
}

#[test]
fn signal_is_told_from_a_status() {
    let error = run_now(&shell("kill -9 $$")).unwrap_err();

    assert!(matches!(error, ExecError::Signal { signal: 9, .. }), "{error}");
}

#[test]
fn missing_and_unexecutable_programs_and_directories_are_not_retried() {
    let missing = run_now(&ExecSpec::new("guild-no-such-program")).unwrap_err();
    let unexecutable = run_now(&ExecSpec::new("/etc/hostname")).unwrap_err();
    let mut homeless = shell("true");
    homeless.program.cwd = Some("/no/such/directory".into());
    let homeless = run_now(&homeless).unwrap_err();

    assert!(matches!(missing, ExecError::NotFound(_)), "{missing}");
    assert!(matches!(unexecutable, ExecError::NotExecutable(_)), "{unexecutable}");
    assert!(matches!(homeless, ExecError::WorkingDirectory(_)), "{homeless}");
    assert!([missing, unexecutable, homeless].iter().all(|error| !error.is_retryable()));
}

#[test]
fn too_much_output_on_either_stream_ends_the_process() {
    let bounded =
        |script| ExecSpec { stdout_bytes_max: 1_000, stderr_bytes_max: 1_000, ..shell(script) };

    let out = run_now(&bounded("yes")).unwrap_err();
    let err = run_now(&bounded("yes >&2")).unwrap_err();
    let exact = run_now(&bounded("head -c 1000 /dev/zero")).unwrap();

    assert!(out.to_string().contains("more than 1000 bytes to its standard output"), "{out}");
    assert!(err.to_string().contains("raise stderr_max"), "{err}");
    assert!(!out.is_retryable() && !err.is_retryable());
    assert_eq!(exact.stdout.len(), 1_000);
}

#[test]
fn process_has_the_bounds_that_it_is_given() {
    let mut spec = shell("ulimit -S -t; ulimit -v; ulimit -n");
    spec.program.resources = Resources {
        memory_bytes_max: Some(300 << 20),
        cpu_time_max: Some(Duration::from_millis(6_500)),
        open_files_max: Some(33),
    };

    let output = run_now(&spec).unwrap();

    assert_eq!(String::from_utf8(output.stdout).unwrap(), "7\n307200\n33\n");
}

#[test]
fn child_that_holds_the_pipe_does_not_hang_the_attempt_and_is_killed() {
    let groups = Groups::default();
    on_runtime(async {
        let output = run(&shell("sleep 1000 & echo done"), &groups).await.unwrap();
        assert_eq!(output.stdout, b"done\n");
        let seen = groups.0.lock().unwrap().clone();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], -seen[1]);
        gone(seen[0]).await;
    });
}

#[test]
fn dropping_the_attempt_kills_the_group_with_all_children() {
    let groups = Groups::default();
    on_runtime(async {
        let spec = shell("sleep 1000 & sh -c 'sleep 1000 & sleep 1000' & wait");
        let limit = Duration::from_millis(50);
        tokio::time::timeout(limit, run(&spec, &groups)).await.unwrap_err();
        let seen = groups.0.lock().unwrap().clone();
        assert_eq!(seen, [seen[0], -seen[0]]);
        gone(seen[0]).await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn session_of_its_own_ends_with_an_attempt_that_fails_and_outlives_one_that_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let daemon = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' >&- 2>&- & \
         until [ -s {0} ]; do sleep 0.01; done;",
        file.path().display()
    );
    let pid =
        || Pid::from_raw(std::fs::read_to_string(file.path()).unwrap().trim().parse().unwrap());
    let is_alive = |pid: Pid| rustix::process::test_kill_process(pid).is_ok();
    on_runtime(async {
        run(&shell(&format!("{daemon} exit 3")), &()).await.unwrap_err();
        while is_alive(pid().unwrap()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }

        std::fs::write(file.path(), "").unwrap();
        run(&shell(&format!("{daemon} exit 0")), &()).await.unwrap();
        let daemon = pid().unwrap();
        assert!(is_alive(daemon));
        rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    });
}
