//! Power cuts: every disk that one could leave behind is opened and judged.
//!
//! A child process works on a real store in a directory while a recorder (`shim.rs`, preloaded)
//! writes down each call that changes a file. The trace is then cut between any two calls, and what
//! was not synced is lost, kept, reordered or torn. SIGKILL cannot find a missing fdatasync; this does.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod images;
mod segments;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use common::World;
use common::draws::Draws;
use common::work::{Work, open};
use images::{Disk, Operation, Step, Survival, read_trace};
use segments::Segments;

const CHILD: &str = "POWER_CUT_CHILD";
const ROOT: &str = "POWER_CUT_ROOT";
const FAIL: &str = "POWER_CUT_FAIL";
/// Exit code of a child whose store has failed.
const FAILED: i32 = 7;

/// Many small groups: every call is a cut.
const SMALL: Work =
    Work { name: "small", tasks: 100, group: 2, value_bytes: 200, keys: 1_000, large_every: 17 };
/// Enough that the engine is given rows behind the groups, several times.
const MEDIUM: Work =
    Work { name: "medium", tasks: 240, group: 4, value_bytes: 20_000, keys: 20, large_every: 0 };
/// Many small rows: the pages in which the engine has them are split over and over.
const PAGES: Work =
    Work { name: "pages", tasks: 2_400, group: 25, value_bytes: 900, keys: 1_500, large_every: 0 };
/// Large values over and over: segments of the data file are freed and written again.
const LARGE: Work =
    Work { name: "large", tasks: 700, group: 7, value_bytes: 60_000, keys: 20, large_every: 9 };

/// No test of its own: the body of the child process.
#[test]
fn child_works_until_it_is_done() {
    let Ok(name) = std::env::var(CHILD) else {
        return;
    };
    let work = [SMALL, MEDIUM, PAGES, LARGE].into_iter().find(|work| work.name == name).unwrap();
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let mut acks = fs::File::create(root.join("acks")).unwrap();
    for end in [work.tasks / 2, work.tasks] {
        let mut world = open_somehow(&root.join("store"));
        world.submit("run", work.tasks);
        let outputs = world.recovered.runs.first().map_or(&[][..], |run| &run.outputs);
        let mut next = u32::try_from(outputs.iter().flatten().count()).unwrap();
        while next < end {
            match work.complete_group(&mut world, next) {
                Ok(last) => {
                    for trouble in world.memory.take_troubles() {
                        println!("trouble: {trouble}");
                    }
                    acks.write_all(format!("{last}\n").as_bytes()).unwrap();
                    next = last + 1;
                }
                Err(error) => {
                    println!("failed: {error}");
                    std::process::exit(FAILED);
                }
            }
        }
        // What the engine did not take is in the journal.
        if let Err(error) = world.memory.close() {
            println!("trouble: {error}");
        }
    }
}

/// Opens a store, in a few tries if it has to be; how far the engine is when a call fails depends on how
/// busy the machine is.
#[expect(clippy::print_stdout, reason = "the parent reads what its child prints")]
fn open_somehow(path: &Path) -> World {
    for _ in 0..3 {
        match open(path) {
            Ok(world) => return world,
            Err(error) => println!("trouble: {error}"),
        }
    }
    println!("failed: the store does not open");
    std::process::exit(FAILED);
}

/// Puts the recorder into a folder; it is compiled once.
fn recorder(folder: &Path) -> PathBuf {
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    let library = folder.join("recorder.so");
    fs::write(&library, COMPILED.get_or_init(|| compiled(&library))).unwrap();
    library
}

fn compiled(library: &Path) -> Vec<u8> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut/shim.rs");
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
        .arg(library)
        .arg(source)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "the recorder needs `rustc` in the path");
    fs::read(library).unwrap()
}

/// Runs the child under the recorder with these settings; `FAIL` lets a call fail, see `shim.rs`. What
/// an earlier child has left goes on, and so does the trace.
fn record(folder: &Path, work: Work, settings: &[(&str, &str)]) -> (ExitStatus, String) {
    let root = folder.join("root");
    fs::create_dir_all(&root).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child_works_until_it_is_done", "--exact", "--nocapture"])
        .env(CHILD, work.name)
        .env(ROOT, &root)
        .env("POWER_CUT_TRACE", folder.join("trace"))
        .env("LD_PRELOAD", recorder(folder))
        .envs(settings.iter().copied())
        .stdout(Stdio::piped());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// Images are made for reading, not to last: RAM is fast enough for them.
fn scratch() -> tempfile::TempDir {
    let ram = Path::new("/dev/shm");
    if ram.is_dir() { tempfile::tempdir_in(ram).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Cuts the power after every operation that `chosen` picks; returns how many images were judged.
fn cut(folder: &Path, work: Work, chosen: impl Fn(usize) -> bool + Sync) -> usize {
    cut_often(folder, work, 1, chosen)
}

/// Cuts the power so many times after every operation that `chosen` picks, each time with other draws.
fn cut_often(
    folder: &Path,
    work: Work,
    times: u64,
    chosen: impl Fn(usize) -> bool + Sync,
) -> usize {
    let judged = judge_cuts(&read_trace(&folder.join("trace")), work, times, chosen);
    judged.unwrap_or_else(|wrong| panic!("{}: {wrong}", work.name))
}

/// Judges what is left of a trace that is cut after each operation that `chosen` picks, and returns how
/// many images that were, or what is wrong with one of them.
fn judge_cuts(
    steps: &[Step],
    work: Work,
    times: u64,
    chosen: impl Fn(usize) -> bool + Sync,
) -> Result<usize, String> {
    let workers = 2;
    let judge_own = |worker| {
        let (scratch, mut images) = (scratch(), 0);
        let (mut disk, mut acknowledged) = (Disk::default(), None);
        for (place, step) in steps.iter().enumerate() {
            disk.perform(step);
            if step.name == "acks"
                && let Operation::Write { data, .. } = &step.operation
            {
                acknowledged = Some(String::from_utf8_lossy(data).trim().parse().unwrap());
            }
            if place % workers != worker || !chosen(place) || !disk.is_at_risk() {
                continue;
            }
            let seeds = (0..times).map(|time| place as u64 + (time << 32));
            let each = |seed| Survival::ALL.map(|survival| (survival, Draws(seed)));
            for (survival, mut draws) in seeds.flat_map(each) {
                let image = scratch.path().join("image");
                fs::create_dir(&image).unwrap();
                disk.write_image(survival, &mut draws, &image);
                let verdict = work.judge(&image.join("store"), acknowledged);
                fs::remove_dir_all(&image).unwrap();
                images += 1;
                verdict
                    .map_err(|wrong| format!("cut after call {place}, {survival:?}: {wrong}"))?;
            }
        }
        Ok(images)
    };
    std::thread::scope(|scope| {
        let judge_own = &judge_own;
        let started: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || judge_own(worker))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn a_power_cut_between_any_two_calls_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), SMALL, &[]);
    assert!(status.success(), "{output}");
    // Every call of the first start, and of what follows every second one.
    let images = cut(folder.path(), SMALL, |place| place < 40 || place % 2 == 0);
    println!("{images} images");
    assert!(images >= 500, "{images} images");
}

#[test]
fn a_power_cut_while_segments_are_written_again_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), LARGE, &[]);
    assert!(status.success(), "{output}");
    let steps = read_trace(&folder.path().join("trace"));
    let segments = Segments::of(&steps);
    assert!(segments.places.len() < segments.begun, "no segment is written again");
    assert_eq!(segments.untrue, [] as [String; 0]);
    let images = cut(folder.path(), LARGE, |place| segments.last_unsynced.contains(&place));
    println!("{images} images of {} segments in {} places", segments.begun, segments.places.len());
    assert!(images >= 2 * segments.begun, "{images} images of {} segments", segments.begun);
}

/// The engine writes many pages at once; some sectors of them reach the disk.
#[test]
fn a_power_cut_while_pages_are_split_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), PAGES, &[]);
    assert!(status.success(), "{output}");
    let steps = read_trace(&folder.path().join("trace"));
    let is_of_pages = |step: &Step| match &step.operation {
        Operation::Write { data, .. } => step.name.ends_with("/db") && data.len() > 100_000,
        _ => false,
    };
    let splits: Vec<usize> = (0..steps.len()).filter(|place| is_of_pages(&steps[*place])).collect();
    assert!(splits.len() >= 4, "pages are written at {splits:?}");
    let images = cut_often(folder.path(), PAGES, 2, |place| {
        splits.iter().any(|split| (*split..split + 2).contains(&place))
    });
    println!("{images} images of {} splits", splits.len());
    assert!(images >= 40, "{images} images");
}

const EIO: u32 = 5;
const ENOSPC: u32 = 28;

/// Each call that can fail, with what it fails with and after how many good ones: those of the journal
/// while groups wait for it, and those of the engine behind it.
const FAILURES: [(Work, &str, u32, u32); 7] = [
    (SMALL, "pwrite", 20, ENOSPC),
    (SMALL, "pwrite", 27, EIO),
    (SMALL, "fdatasync", 10, EIO),
    (SMALL, "fdatasync", 13, ENOSPC),
    (MEDIUM, "pwrite", 24, EIO),
    (MEDIUM, "sync_file_range", 6, EIO),
    (MEDIUM, "fdatasync", 18, ENOSPC),
];

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_and_the_work_goes_on() {
    for (work, call, good, error) in FAILURES {
        let folder = tempfile::tempdir().unwrap();
        let fail = format!("{call}:{good}:1:{error}");
        let (status, output) = record(folder.path(), work, &[(FAIL, &fail)]);
        assert!(status.success(), "{fail}: {output}");
        assert!(output.contains("trouble"), "{fail}: {output}");
        work.judge(&folder.path().join("root/store"), Some(work.tasks - 1)).unwrap();
    }
}

/// A power cut during and after the way back from a failed sync: what the page cache alone had held
/// was written again.
#[test]
fn a_power_cut_after_a_failed_sync_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), SMALL, &[(FAIL, "fdatasync:10:1:5")]);
    assert!(status.success(), "{output}");
    let images = cut(folder.path(), SMALL, |place| place > 40 && place % 19 == 0);
    println!("{images} images");
    assert!(images >= 20, "{images} images");
}

/// A disk that fails for good: the process acknowledges nothing more, says why, and what it had
/// acknowledged is there afterwards.
#[test]
fn a_disk_that_fails_for_good_ends_the_service_and_loses_nothing() {
    for (work, call, good, error) in FAILURES {
        let folder = tempfile::tempdir().unwrap();
        let fail = format!("{call}:{good}:{}:{error}", u32::MAX);
        let (status, output) = record(folder.path(), work, &[(FAIL, &fail)]);
        assert_eq!(status.code(), Some(FAILED), "{fail}: {output}");
        let place = folder.path().join("root/store");
        assert!(output.contains(place.to_str().unwrap()), "{fail}: {output}");
        assert_eq!(output.contains("disk full"), error == ENOSPC, "{fail}: {output}");
        let acks = fs::read_to_string(folder.path().join("root/acks")).unwrap();
        let last = acks.lines().last().map(|line| line.parse().unwrap());
        assert!(last.is_some(), "{fail}: nothing was acknowledged before");
        work.judge(&place, last).unwrap();
    }
}

/// What a killed process has given to the kernel need not be on the disk: the next one must not rest on
/// it, nor write over what it would need to do it again.
#[test]
fn a_power_cut_after_a_kill_loses_nothing_that_was_acknowledged() {
    // The engine syncs when the store is opened, when it was given rows, and at the close.
    let mut images = 0;
    for good in 3..10 {
        let folder = tempfile::tempdir().unwrap();
        let dies = format!("sync_file_range:{good}:1:0");
        let (status, _) = record(folder.path(), SMALL, &[(FAIL, &dies)]);
        if status.success() {
            break;
        }
        let killed = read_trace(&folder.path().join("trace")).len();
        let (status, output) = record(folder.path(), SMALL, &[]);
        assert!(status.success(), "{output}");
        images += cut(folder.path(), SMALL, |place| (killed..killed + 40).contains(&place));
    }
    println!("{images} images");
    assert!(images >= 160, "{images} images");
}

/// A process that dies before its group is synced leaves it to the kernel. The next one finds it whole and
/// gives it to the engine; unless it is durable in the journal first, a power cut then leaves half of it.
#[test]
fn a_power_cut_while_what_a_killed_process_left_is_stored_leaves_no_half_of_a_group() {
    let mut images = 0;
    // Early syncs of groups: what a torn write of the engine leaves whole is the rows of one of them.
    for good in [7, 8] {
        let folder = tempfile::tempdir().unwrap();
        let dies = format!("fdatasync:{good}:1:0");
        let (status, output) = record(folder.path(), SMALL, &[(FAIL, &dies)]);
        assert!(!status.success(), "{output}");
        let steps = read_trace(&folder.path().join("trace"));
        let left = &steps[steps.len() - 1].name;
        assert!(left.contains("journal-"), "it left a write of `{left}` to the kernel");
        let (status, output) = record(folder.path(), SMALL, &[]);
        assert!(status.success(), "{output}");
        let opening = steps.len()..steps.len() + 16;
        images += cut_often(folder.path(), SMALL, 3, |place| opening.contains(&place));
    }
    println!("{images} images");
    assert!(images >= 200, "{images} images");
}

#[test]
fn an_image_without_its_synced_bytes_is_seen_to_be_wrong() {
    // The control: what was synced is taken away too, so the judge must find something missing.
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), SMALL, &[]);
    assert!(status.success(), "{output}");
    let store = folder.path().join("root/store");
    SMALL.judge(&store, Some(SMALL.tasks - 1)).unwrap();
    let data = fs::read(store.join("db")).unwrap();
    let used = data.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(store.join("db"), &data[..used / 3]).unwrap();
    // What the engine had been given last could be given to it once more.
    for journal in ["journal-0", "journal-1"] {
        fs::write(store.join(journal), "").unwrap();
    }
    let wrong = SMALL.judge(&store, Some(SMALL.tasks - 1)).unwrap_err();
    assert!(wrong.contains("acknowledged") || wrong.contains("open"), "{wrong}");
}

/// The control of the recorder and of all cuts: what a store that never syncs its journal would have done.
#[test]
fn a_journal_that_is_never_synced_is_seen_to_lose_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = record(folder.path(), SMALL, &[]);
    assert!(status.success(), "{output}");
    let mut steps = read_trace(&folder.path().join("trace"));
    let all = steps.len();
    let is_of_journal = |step: &Step| step.name.contains("/journal-");
    steps.retain(|step| !(is_of_journal(step) && matches!(step.operation, Operation::Sync)));
    assert!(all - steps.len() >= (SMALL.tasks / SMALL.group) as usize, "{all} calls, {steps:?}");
    let is_acknowledgement = |place: usize| steps[place].name == "acks";
    let wrong = judge_cuts(&steps, SMALL, 1, is_acknowledgement).unwrap_err();
    assert!(wrong.contains("was acknowledged, and"), "{wrong}");
}
