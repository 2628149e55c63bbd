//! The program as the kubelet runs it: its argument, its exit code, its signals, and what it leaves in volumes.
//!
//! Promises: volumes lie in a temporary folder; a program that does not end fails a test instead of hanging it. Nothing here is timed: where something
//! must *not* happen, it is made impossible by a file that is not there, not by waiting.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test makes the volumes at which the program looks, and may fail loudly"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const UID: &str = "6b1e7b5a-1111-2222-3333-444444444444";
const PATIENCE: u32 = 60;

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-restore-wait"));
    command.args(arguments).env("LONGSHORE_RESTORES_ROOT", root).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fill(volume: &Path, uid: &str) {
    fs::create_dir_all(volume.join(".velero")).unwrap();
    fs::write(volume.join(".velero").join(uid), "").unwrap();
}

/// What it ended with and all it said.
fn ended(mut child: Child) -> (Option<i32>, String) {
    for _ in 0..PATIENCE {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            return (output.status.code(), said);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

/// Waits until it has said a line that holds `text`.
fn until_it_says(child: &mut Child, text: &str) -> Vec<String> {
    use std::io::{BufRead, BufReader};
    let mut lines = Vec::new();
    let mut reader = BufReader::new(child.stdout.as_mut().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "it ended, having said {lines:?}");
        lines.push(line.clone());
        if line.contains(text) {
            return lines;
        }
    }
}

#[test]
fn ends_when_every_volume_is_filled_and_takes_the_markers_away() {
    let root = TempDir::new().unwrap();
    fill(&root.path().join("data"), UID);
    fs::create_dir(root.path().join("logs")).unwrap();
    fs::write(root.path().join("not-a-volume"), "").unwrap();
    fs::write(root.path().join("data/precious"), "x").unwrap();
    let mut child = command(root.path(), &[UID]).spawn().unwrap();
    let lines = until_it_says(&mut child, "Waiting");
    assert!(lines[0].contains("done=1, total=2") && lines[0].contains("logs/.velero"), "{lines:?}");

    fill(&root.path().join("logs"), UID);
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(!root.path().join("data/.velero").exists() && !root.path().join("logs/.velero").exists());
    assert_eq!(fs::read(root.path().join("data/precious")).unwrap(), b"x");
}

#[test]
fn root_of_a_volume_keeps_its_times() {
    let root = TempDir::new().unwrap();
    let volume = root.path().join("data");
    fill(&volume, UID);
    let then = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(&volume).unwrap().set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    let (code, said) = ended(command(root.path(), &[UID]).spawn().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(!volume.join(".velero").exists());
    assert_eq!(fs::metadata(&volume).unwrap().modified().unwrap(), then);
}

#[test]
fn another_restore_does_not_count() {
    let root = TempDir::new().unwrap();
    fill(&root.path().join("data"), "another");
    let mut child = command(root.path(), &[UID]).spawn().unwrap();
    until_it_says(&mut child, "done=0, total=1");
    fill(&root.path().join("data"), UID);
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn no_volume_is_nothing_to_wait_for() {
    let root = TempDir::new().unwrap();
    assert_eq!(ended(command(root.path(), &[UID]).spawn().unwrap()).0, Some(0));
}

#[test]
fn root_that_is_not_there_yet_is_waited_for() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("restores");
    let mut child = command(&root, &[UID]).spawn().unwrap();
    until_it_says(&mut child, "Cannot look");
    fill(&root.join("data"), UID);
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn links_are_not_followed() {
    let root = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    fill(elsewhere.path(), UID);
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    // A tenant's link to a directory in which the done-file happens to be.
    symlink(elsewhere.path().join(".velero"), data.join(".velero")).unwrap();
    let mut child = command(root.path(), &[UID]).spawn().unwrap();
    until_it_says(&mut child, "done=0, total=1");

    fs::remove_file(data.join(".velero")).unwrap();
    fill(&data, UID);
    symlink(elsewhere.path(), data.join(".velero/way-out")).unwrap();
    assert_eq!(ended(child).0, Some(0));
    assert!(!data.join(".velero").exists());
    assert!(elsewhere.path().join(".velero").join(UID).exists(), "removed what a link pointed at");
}

#[test]
fn done_file_is_a_file() {
    let root = TempDir::new().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(data.join(".velero").join(UID)).unwrap();
    let mut child = command(root.path(), &[UID]).spawn().unwrap();
    until_it_says(&mut child, "done=0, total=1");
    fs::remove_dir(data.join(".velero").join(UID)).unwrap();
    fill(&data, UID);
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn wrong_arguments_end_it_at_once() {
    let root = TempDir::new().unwrap();
    for arguments in [&[][..], &[UID, UID], &[""], &["../data"], &[".."], &["."], &["a/b"], &["a/"]] {
        let (code, said) = ended(command(root.path(), arguments).spawn().unwrap());
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
    }
}

#[test]
fn signals_end_it() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("data")).unwrap();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = command(root.path(), &[UID]).spawn().unwrap();
        until_it_says(&mut child, "Waiting");
        let killed = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        // By its own hand, so with a code: the kernel's default would end nothing in a container, where this is process 1.
        assert_eq!(ended(child).0, Some(code));
    }
    assert!(root.path().join("data").exists());
}
