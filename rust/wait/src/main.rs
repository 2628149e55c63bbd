//! The init container that holds a restored pod until its volumes are filled.
//!
//! Holds the process: its one argument (the restore's UID), its signals, its clock and what it says. What is looked at and removed stands in
//! [`volumes`]. It runs under Velero's names for it (`velero-restore-helper`, and `velero-restic-restore-helper` up to Velero 1.9).
//!
//! Promises
//! - It ends with 0 only after every directory of `/restores` had its done-file, and the markers were asked to go. A marker that cannot be removed is
//!   named and does not hold the pod. Wrong arguments: 1, at once.
//! - SIGTERM and SIGINT end it within the system call it is in, also as process 1, which the kernel spares from signals that it does not handle.
//! - It looks at once, then once a second, without a limit of its own: how long a restore may take is the server's business.
//! - It says what it waits for when that changes, and each minute again; not each second, for a restore may take a day and logs are kept.
//!
//! It does not know Kubernetes, repositories, or how a volume is filled.

mod volumes;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use volumes::{State, look, remove_markers};

const ROOT: &str = "/restores";
/// For tests, which cannot mount there.
const ROOT_VARIABLE: &str = "LONGSHORE_RESTORES_ROOT";
const USAGE_CODE: u8 = 1;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two lines that say the same.
const SAY_AGAIN_AFTER: u32 = 60;

fn main() -> ExitCode {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // The flag is true from the beginning: the handler ends the process where it stands.
        if let Err(error) =
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))
        {
            say(&mut io::stderr(), &format!("a signal cannot be handled: signal={signal}, error={error}"));
        }
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(uid), None) = (arguments.next(), arguments.next()) else {
        say(&mut io::stderr(), "exactly one argument is wanted, the restore's UID");
        return ExitCode::from(USAGE_CODE);
    };
    if !volumes::is_name(&uid) {
        say(&mut io::stderr(), &format!("not the UID of a restore: value={}", uid.display()));
        return ExitCode::from(USAGE_CODE);
    }
    let root = std::env::var_os(ROOT_VARIABLE).unwrap_or_else(|| OsString::from(ROOT));
    wait(Path::new(&root), &uid);
    ExitCode::SUCCESS
}

/// Returns when every volume is filled.
fn wait(root: &Path, uid: &OsString) {
    let mut said = None;
    let mut looks = 0_u32;
    loop {
        let state = look(root, uid);
        if state == State::AllDone {
            break;
        }
        if looks.is_multiple_of(SAY_AGAIN_AFTER) || said.as_ref() != Some(&state) {
            say(&mut io::stdout(), &state.to_string());
        }
        said = Some(state);
        looks = looks.wrapping_add(1);
        thread::sleep(LOOK_EVERY);
    }
    say(&mut io::stdout(), "Every volume is restored");
    for error in remove_markers(root) {
        say(&mut io::stderr(), &format!("a marker stays: {error}"));
    }
}

/// Nobody may be reading any more; that holds up no pod.
fn say(stream: &mut dyn Write, text: &str) {
    let _ = writeln!(stream, "{text}");
    let _ = stream.flush();
}
