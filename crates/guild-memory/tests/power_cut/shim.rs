//! Records what a process does to the files below one directory, and makes calls fail on command.
//!
//! A tool of the test `power_cut`, which compiles it with `rustc --crate-type cdylib` and puts it
//! between the program and libc by `LD_PRELOAD`: nothing else can see where an fdatasync really
//! happens. It is no part of the workspace, because a preloaded library cannot do without `unsafe`.
//!
//! `POWER_CUT_ROOT` names the directory, `POWER_CUT_TRACE` the file that the trace is appended to,
//! `POWER_CUT_FAIL=CALL:GOOD:BAD:ERRNO` lets so many calls of that name fail after so many good ones; with
//! the error 0 the process dies there instead.
//! A record is: operation (u8), path and second path (u16 length, bytes), number (u64), data (u64
//! length, bytes), all little-endian. One lock is held around each call and its record, so the
//! trace has the order in which things happened.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
    fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64;
}

const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;
const SEEK_CUR: c_int = 1;
const O_CREAT: c_int = 0o100;
const O_TRUNC: c_int = 0o1000;

/// Looks up the function that would have been called without this library. Used within `unsafe`,
/// where the caller vouches that libc's function of this name has this signature.
macro_rules! real {
    ($name:literal as $kind:ty) => {{
        static REAL: OnceLock<usize> = OnceLock::new();
        let look_up = || dlsym(RTLD_NEXT, concat!($name, "\0").as_ptr().cast()) as usize;
        let address = *REAL.get_or_init(|| look_up());
        assert_ne!(address, 0, concat!("libc has no ", $name));
        std::mem::transmute::<usize, $kind>(address)
    }};
}

type Open = unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type WriteAt = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;
type Sync = unsafe extern "C" fn(c_int) -> c_int;
type SyncRange = unsafe extern "C" fn(c_int, i64, i64, c_uint) -> c_int;
type Truncate = unsafe extern "C" fn(c_int, i64) -> c_int;
type OnPath = unsafe extern "C" fn(*const c_char) -> c_int;
type OnPaths = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
type MakeDir = unsafe extern "C" fn(*const c_char, c_uint) -> c_int;

#[derive(Clone, Copy)]
#[repr(u8)]
enum Operation {
    Create = 1,
    Truncate = 2,
    Write = 3,
    Sync = 4,
    SyncRange = 5,
    Rename = 6,
    Unlink = 7,
    MakeDir = 8,
}

struct Recorder {
    root: PathBuf,
    trace: c_int,
    /// The call that is to fail, how many more of it succeed, how many then fail, and the error.
    fail: Option<(String, u64, u64, c_int)>,
}

fn recorder() -> &'static Mutex<Option<Recorder>> {
    static RECORDER: OnceLock<Mutex<Option<Recorder>>> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let open = || {
            let root = PathBuf::from(std::env::var_os("POWER_CUT_ROOT")?);
            let trace = std::env::var_os("POWER_CUT_TRACE")?;
            let trace = CString::new(trace.as_bytes()).ok()?;
            let append_and_create = 0o1 | 0o100 | 0o2000 | 0o2_000_000;
            // SAFETY: the path is a C string.
            let trace =
                unsafe { real!("open64" as Open)(trace.as_ptr(), append_and_create, 0o600) };
            let fail = std::env::var("POWER_CUT_FAIL").ok().and_then(|spec| {
                let mut parts = spec.split(':');
                let call = parts.next()?.to_owned();
                let mut number = || parts.next()?.parse::<u64>().ok();
                Some((call, number()?, number()?, number()? as c_int))
            });
            (trace >= 0).then_some(Recorder { root, trace, fail })
        };
        Mutex::new(open())
    })
}

impl Recorder {
    /// Returns a path below the root as the trace names it; none for any other file.
    fn name(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        let below = path.strip_prefix(&self.root).ok()?;
        let name = below.as_os_str().as_bytes();
        (!name.ends_with(b" (deleted)")).then(|| name.to_vec())
    }

    fn name_of(&self, fd: c_int) -> Option<Vec<u8>> {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        self.name(path.as_os_str().as_bytes())
    }

    /// Returns whether this call is to fail, and sets `errno` then.
    fn fails(&mut self, call: &str) -> bool {
        let Some((name, good, bad, errno)) = &mut self.fail else {
            return false;
        };
        if name != call {
            return false;
        }
        if *good > 0 || *bad == 0 {
            *good = good.saturating_sub(1);
            return false;
        }
        *bad -= 1;
        if *errno == 0 {
            std::process::abort();
        }
        // SAFETY: the location is that of this thread.
        unsafe { *__errno_location() = *errno };
        true
    }

    fn record(&self, operation: Operation, name: &[u8], second: &[u8], number: u64, data: &[u8]) {
        let mut record = vec![operation as u8];
        for name in [name, second] {
            record.extend_from_slice(&(name.len() as u16).to_le_bytes());
            record.extend_from_slice(name);
        }
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&(data.len() as u64).to_le_bytes());
        record.extend_from_slice(data);
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            // SAFETY: the buffer is `rest`.
            let written =
                unsafe { real!("write" as Write)(self.trace, rest.as_ptr().cast(), rest.len()) };
            assert!(written > 0, "the trace cannot be written");
            rest = &rest[written as usize..];
        }
    }
}

/// Runs a call on a path; `recorded` gets the recorder, the name and whether the file was there.
fn on_path<R>(
    path: *const c_char,
    call: impl FnOnce() -> R,
    recorded: impl FnOnce(&Recorder, &[u8], bool, &R),
) -> R {
    let guard = recorder().lock().unwrap();
    // SAFETY: callers pass C strings to libc.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let Some((recorder, name)) = guard.as_ref().and_then(|r| Some((r, r.name(path)?))) else {
        drop(guard);
        return call();
    };
    let existed = PathBuf::from(std::ffi::OsStr::from_bytes(path)).exists();
    let result = call();
    recorded(recorder, &name, existed, &result);
    result
}

/// Runs a call on a descriptor, or lets it fail.
fn on_descriptor<R: From<i8>>(
    fd: c_int,
    name: &str,
    call: impl FnOnce() -> R,
    recorded: impl FnOnce(&Recorder, &[u8], &R),
) -> R {
    let mut guard = recorder().lock().unwrap();
    let Some((recorder, file)) = guard.as_mut().and_then(|r| r.name_of(fd).map(|f| (r, f))) else {
        drop(guard);
        return call();
    };
    if recorder.fails(name) {
        return R::from(-1);
    }
    let result = call();
    recorded(recorder, &file, &result);
    result
}

fn open(path: *const c_char, flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    on_path(path, call, |recorder, name, existed, fd| {
        if *fd < 0 {
            return;
        }
        if flags & O_CREAT != 0 && !existed {
            recorder.record(Operation::Create, name, b"", 0, b"");
        } else if flags & O_TRUNC != 0 {
            recorder.record(Operation::Truncate, name, b"", 0, b"");
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's.
    open(path, flags, || unsafe { real!("open64" as Open)(path, flags, mode) })
}

fn write_at(fd: c_int, data: *const c_void, len: usize, at: i64, call: WriteAt) -> isize {
    // SAFETY: the arguments are the caller's, here and below.
    on_descriptor(
        fd,
        "pwrite",
        || unsafe { call(fd, data, len, at) },
        |recorder, name, written| {
            if *written > 0 {
                let data = unsafe { std::slice::from_raw_parts(data.cast(), *written as usize) };
                recorder.record(Operation::Write, name, b"", at as u64, data);
            }
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn pwrite64(fd: c_int, data: *const c_void, len: usize, at: i64) -> isize {
    write_at(fd, data, len, at, unsafe { real!("pwrite64" as WriteAt) })
}

#[unsafe(no_mangle)]
pub extern "C" fn write(fd: c_int, data: *const c_void, len: usize) -> isize {
    let call = || unsafe { real!("write" as Write)(fd, data, len) };
    on_descriptor(fd, "write", call, |recorder, name, written| {
        if *written > 0 {
            // The place is the descriptor's, which the write has moved.
            let at = (unsafe { lseek64(fd, 0, SEEK_CUR) } - *written as i64) as u64;
            let data = unsafe { std::slice::from_raw_parts(data.cast(), *written as usize) };
            recorder.record(Operation::Write, name, b"", at, data);
        }
    })
}

fn sync(fd: c_int, name: &str, call: Sync) -> c_int {
    on_descriptor(
        fd,
        name,
        || unsafe { call(fd) },
        |recorder, file, result| {
            if *result == 0 {
                recorder.record(Operation::Sync, file, b"", 0, b"");
            }
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, "fsync", unsafe { real!("fsync" as Sync) })
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, "fdatasync", unsafe { real!("fdatasync" as Sync) })
}

#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(fd: c_int, at: i64, len: i64, flags: c_uint) -> c_int {
    let call = || unsafe { real!("sync_file_range" as SyncRange)(fd, at, len, flags) };
    on_descriptor(fd, "sync_file_range", call, |recorder, file, _| {
        recorder.record(Operation::SyncRange, file, b"", 0, b"");
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    let call = || unsafe { real!("ftruncate64" as Truncate)(fd, len) };
    on_descriptor(fd, "ftruncate", call, |recorder, file, result| {
        if *result == 0 {
            recorder.record(Operation::Truncate, file, b"", len as u64, b"");
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: callers pass C strings to libc.
    let target = unsafe { CStr::from_ptr(to) }.to_bytes().to_vec();
    let call = || unsafe { real!("rename" as OnPaths)(from, to) };
    on_path(from, call, |recorder, name, _, result| {
        if *result == 0
            && let Some(target) = recorder.name(&target)
        {
            recorder.record(Operation::Rename, name, &target, 0, b"");
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn unlink(path: *const c_char) -> c_int {
    let call = || unsafe { real!("unlink" as OnPath)(path) };
    on_path(path, call, |recorder, name, _, result| {
        if *result == 0 {
            recorder.record(Operation::Unlink, name, b"", 0, b"");
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let call = || unsafe { real!("mkdir" as MakeDir)(path, mode) };
    on_path(path, call, |recorder, name, _, result| {
        if *result == 0 {
            recorder.record(Operation::MakeDir, name, b"", 0, b"");
        }
    })
}
