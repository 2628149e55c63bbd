//! A process of which the kernel counts what it reads and writes, killed when it has come so far.
//!
//! The counts are those of `/proc/PID/io`: every byte that it had by a read or gave by a write, of files, pipes and sockets alike, also of a process
//! that was killed. Does not know what the process does.

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a process has read and written, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// By reads.
    pub read_bytes: u64,
    /// By writes.
    pub written_bytes: u64,
}

impl std::ops::AddAssign for Io {
    fn add_assign(&mut self, other: Self) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// How a process went.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Whether it was killed.
    pub killed: bool,
    /// What it said.
    pub said: String,
    /// What the kernel counted.
    pub io: Io,
}

fn io_of(child: &Child) -> Result<Io, String> {
    let path = format!("/proc/{}/io", child.id());
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    match (number("rchar:"), number("wchar:")) {
        (Some(read_bytes), Some(written_bytes)) => Ok(Io { read_bytes, written_bytes }),
        _ => Err(format!("{path} says nothing of bytes: {text:?}")),
    }
}

/// Runs a process; kills it when `is_time` says so of its counts.
///
/// # Errors
/// When it cannot be started, or fails by itself.
pub fn run(program: &Path, arguments: &[String], is_time: impl Fn(Io) -> bool) -> Result<Ran, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    let outcome = follow(&mut child, is_time);
    if outcome.is_err() {
        let _ = child.kill().and_then(|()| child.wait());
    }
    let (killed, io) = outcome?;
    let (mut said, mut complained) = (String::new(), String::new());
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut said));
    let _ = child.stderr.take().map(|mut out| out.read_to_string(&mut complained));
    let status = child.wait().map_err(|error| error.to_string())?;
    match killed || status.success() {
        true => Ok(Ran { killed, said, io }),
        false => Err(format!("a process failed: {arguments:?}: {complained}")),
    }
}

/// Waits for its end, and brings it about when it is time; its counts are read before it is forgotten.
fn follow(child: &mut Child, is_time: impl Fn(Io) -> bool) -> Result<(bool, Io), String> {
    let pid = Pid::from_child(child);
    let mut killed = false;
    loop {
        let wait = if killed { WaitIdOptions::empty() } else { WaitIdOptions::NOHANG };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | wait;
        if let Some(status) = waitid(WaitId::Pid(pid), options).map_err(|errno| errno.to_string())? {
            // It may have come to its end in the moment in which it was killed.
            return Ok((status.killed(), io_of(child)?));
        }
        if is_time(io_of(child)?) {
            child.kill().map_err(|error| error.to_string())?;
            killed = true;
        } else {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}
