//! Kills a process at its N-th call, with strace.
//!
//! The kernel takes it before the call is carried out, all threads at once. Where a process has several threads, each counts for itself, and the
//! first that comes to its N-th call ends all. Does not know what the process does.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

/// Calls of the kernel among which the N-th is chosen.
pub const CALLS: [&str; 2] = ["all", CHANGING];

/// Calls that change what lies on a disk, or may: between two of them every other call leaves the same state.
const CHANGING: &str = "openat,openat2,write,writev,pwrite64,pwritev,copy_file_range,mkdirat,mkdir,linkat,link,unlinkat,unlink,\
rename,renameat,renameat2,symlinkat,mknodat,ftruncate,fallocate,fsync,fdatasync,syncfs,sync_file_range,flock,fchmod,fchmodat,fchown,\
fchownat,utimensat,fsetxattr,close";

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was killed.
    Killed,
    /// It came to its end.
    Done,
}

/// Why there is no strace, if there is none.
#[must_use]
pub fn missing() -> Option<String> {
    match Command::new("strace").arg("-V").output() {
        Ok(said) if said.status.success() => None,
        _ => Some("strace is not installed; on Debian: apt-get install strace".to_owned()),
    }
}

fn traced(program: &Path, arguments: &[String], strace: &[&str]) -> Result<Output, String> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(strace).arg(program).args(arguments);
    command.output().map_err(|error| format!("strace cannot be started: {error}"))
}

/// The most calls that one thread of a process makes, undisturbed: of each set of [`CALLS`].
///
/// # Errors
/// When it cannot be run, or fails.
pub fn count(program: &Path, arguments: &[String], notes: &Path) -> Result<[u64; 2], String> {
    let ran = traced(program, arguments, &["-o", &notes.to_string_lossy()])?;
    if !ran.status.success() {
        return Err(format!("a victim fails undisturbed: {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr)));
    }
    let text = String::from_utf8_lossy(&std::fs::read(notes).map_err(|error| error.to_string())?).into_owned();
    let changing: Vec<&str> = CHANGING.split(',').collect();
    let mut threads = BTreeMap::<&str, [u64; 2]>::new();
    for line in text.lines() {
        // `1234  write(1, …`; not the second half of a call that another thread interrupted, nor the end of a thread.
        let Some((thread, (name, _))) = line.split_once(' ').and_then(|(t, rest)| Some((t, rest.trim_start().split_once('(')?)))
        else {
            continue;
        };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let counts = threads.entry(thread).or_default();
            counts[0] += 1;
            counts[1] += u64::from(changing.contains(&name));
        }
    }
    let most = |set: usize| threads.values().map(|counts| counts[set]).max().unwrap_or(0);
    match [most(0), most(1)] {
        [0, _] | [_, 0] => Err("strace counted nothing".to_owned()),
        counts => Ok(counts),
    }
}

/// Runs a process that is killed at its N-th call; how it ended, and what it said.
///
/// # Errors
/// When it cannot be run, or fails by itself.
pub fn kill(program: &Path, arguments: &[String], calls: &str, number: u64) -> Result<(End, String), String> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={number}"));
    let ran = traced(program, arguments, &["-e", &trace, "-e", &inject, "-o", "/dev/null"])?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    match (ran.status.signal(), ran.status.code()) {
        (Some(9), _) | (_, Some(137)) => Ok((End::Killed, said)),
        (_, Some(0)) => Ok((End::Done, said)),
        _ => Err(format!("a victim failed and was not killed: {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr))),
    }
}
