//! Kills a process at one of its calls, with strace.
//!
//! The kernel takes it before the call is carried out, all threads at once. strace counts the calls of each name by themselves, and those of
//! each thread: a call is the K-th of its name, and the first thread that comes to its K-th ends all. Does not know what the process does.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

/// Which calls of the kernel a process may be killed at.
pub const SETS: [&str; 2] = ["of all", "of those that change a disk"];

/// Calls that change what lies on a disk, or may: between two of them every other call leaves the same state.
const CHANGING: &str = "openat,openat2,write,writev,pwrite64,pwritev,copy_file_range,mkdirat,mkdir,linkat,link,unlinkat,unlink,\
rename,renameat,renameat2,symlinkat,mknodat,ftruncate,fallocate,fsync,fdatasync,syncfs,sync_file_range,flock,fchmod,fchmodat,fchown,\
fchownat,utimensat,fsetxattr,close";

/// How often a process makes each call, at most in one thread.
#[derive(Clone, Debug, Default)]
pub struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// How many there are.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// One of them: the K-th of a name.
    #[must_use]
    pub fn nth(&self, mut at: u64) -> Option<(&str, u64)> {
        for (name, count) in &self.0 {
            if at < *count {
                return Some((name, at + 1));
            }
            at -= count;
        }
        None
    }

    /// A process came to its end before the K-th of a name.
    pub fn leave_out(&mut self, name: &str, from: u64) {
        if let Some(count) = self.0.get_mut(name) {
            *count = from.saturating_sub(1).min(*count);
        }
    }
}

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

/// The calls of a process, undisturbed: of each of the [`SETS`].
///
/// # Errors
/// When it cannot be run, or fails.
pub fn count(program: &Path, arguments: &[String], notes: &Path) -> Result<[Calls; 2], String> {
    let ran = traced(program, arguments, &["-o", &notes.to_string_lossy()])?;
    if !ran.status.success() {
        return Err(format!("a victim fails undisturbed: {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr)));
    }
    let text = String::from_utf8_lossy(&std::fs::read(notes).map_err(|error| error.to_string())?).into_owned();
    let mut threads = BTreeMap::<(&str, &str), u64>::new();
    for line in text.lines() {
        // `1234  write(1, …`; not the second half of a call that another thread interrupted, nor the end of a thread.
        let Some((thread, (name, _))) = line.split_once(' ').and_then(|(t, rest)| Some((t, rest.trim_start().split_once('(')?)))
        else {
            continue;
        };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *threads.entry((thread, name)).or_default() += 1;
        }
    }
    let mut calls = [Calls::default(), Calls::default()];
    for ((_, name), count) in threads {
        for (set, calls) in calls.iter_mut().enumerate() {
            if set == 0 || CHANGING.split(',').any(|changing| changing == name) {
                let most = calls.0.entry(name.to_owned()).or_default();
                *most = count.max(*most);
            }
        }
    }
    if calls.iter().any(|calls| calls.sum() == 0) { Err("strace counted nothing".to_owned()) } else { Ok(calls) }
}

/// Runs a process that is killed at its `number`-th call of a name; how it ended, and what it said.
///
/// # Errors
/// When it cannot be run, or fails by itself.
pub fn kill(program: &Path, arguments: &[String], name: &str, number: u64) -> Result<(End, String), String> {
    // One that strace has no name for goes by its number.
    let known = name.strip_prefix("syscall_0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let call = known.map_or_else(|| name.to_owned(), |number| number.to_string());
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={number}"));
    let ran = traced(program, arguments, &["-e", &trace, "-e", &inject, "-o", "/dev/null"])?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    match (ran.status.signal(), ran.status.code()) {
        (Some(9), _) | (_, Some(137)) => Ok((End::Killed, said)),
        (_, Some(0)) => Ok((End::Done, said)),
        _ => Err(format!("a victim failed and was not killed: {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_chosen_by_one_number_and_none_that_was_left_out() {
        let mut calls = Calls([("close".to_owned(), 2), ("openat".to_owned(), 3)].into());
        let all =
            |calls: &Calls| (0..calls.sum()).filter_map(|at| calls.nth(at)).map(|(n, k)| format!("{n} {k}")).collect::<Vec<_>>();
        assert_eq!(all(&calls), ["close 1", "close 2", "openat 1", "openat 2", "openat 3"]);
        assert_eq!(calls.nth(5), None);
        calls.leave_out("openat", 2);
        calls.leave_out("openat", 3);
        calls.leave_out("close", 1);
        assert_eq!(all(&calls), ["openat 1"]);
    }
}
