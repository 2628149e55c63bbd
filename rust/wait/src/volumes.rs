//! Which volumes have their done-file, and taking the markers away.
//!
//! A volume is a directory right below the root; its marker is the directory `.velero`, its done-file a regular file in it that is named by the
//! restore's UID. Promises: no link is followed, neither to find a done-file nor to remove a marker, for the volume's contents are a tenant's; what
//! cannot be read counts as not done; a root that is ours keeps its times. It does not know time, signals or what is printed where.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

const MARKER: &str = ".velero";

/// How the volumes stand; the `Display` of it is the line that is printed.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Every volume has its done-file. Also when there is no volume: there is nothing to wait for.
    AllDone,
    /// The first volume, by name, that has none, and how many there are of how many.
    Waiting {
        /// Where the done-file will be.
        file: PathBuf,
        /// Volumes that have theirs.
        done: usize,
        /// All volumes.
        total: usize,
    },
    /// Something cannot be looked at; it is tried again.
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllDone => write!(f, "every volume is restored"),
            Self::Waiting { file, done, total } => {
                write!(f, "Waiting for volumes to be restored: done={done}, total={total}, next={}", file.display())
            }
            Self::Unreadable { path, kind } => {
                write!(f, "Cannot look at a volume, trying again: path={}, error={kind}", path.display())
            }
        }
    }
}

/// Whether it can be the name of a file in one directory.
pub fn is_name(text: &OsStr) -> bool {
    let mut parts = Path::new(text).components();
    let single = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == text);
    single && !text.as_encoded_bytes().contains(&0)
}

/// Looks at every volume once.
pub fn look(root: &Path, uid: &OsStr) -> State {
    let volumes = match volumes(root) {
        Ok(volumes) => volumes,
        Err(error) => return State::Unreadable { path: root.to_owned(), kind: error.kind() },
    };
    let (mut done, total, mut first) = (0, volumes.len(), None);
    for volume in volumes {
        let file = volume.join(MARKER).join(uid);
        match is_done(&volume, &file) {
            Ok(true) => done += 1,
            Ok(false) => first = first.or(Some(file)),
            Err(error) => return State::Unreadable { path: file, kind: error.kind() },
        }
    }
    first.map_or(State::AllDone, |file| State::Waiting { file, done, total })
}

/// Removes every volume's marker; gives what could not be removed.
pub fn remove_markers(root: &Path) -> Vec<String> {
    let volumes = match volumes(root) {
        Ok(volumes) => volumes,
        Err(error) => return vec![format!("path={}, error={error}", root.display())],
    };
    let mut failed = Vec::new();
    for volume in volumes {
        let marker = volume.join(MARKER);
        let before = fs::symlink_metadata(&volume);
        let removed = match fs::symlink_metadata(&marker) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&marker),
            Ok(_) => fs::remove_file(&marker),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                failed.push(format!("path={}, error={error}", marker.display()));
            }
            Ok(()) => before.and_then(|before| keep_times(&volume, &before)).unwrap_or_default(),
            Err(_) => {}
        }
    }
    failed
}

/// Gives a volume's root back the times it had; only its owner may, so that it cannot is no failure.
#[expect(
    clippy::disallowed_methods,
    reason = "the root of a volume is a mount point of this container, which no tenant can exchange"
)]
fn keep_times(volume: &Path, before: &fs::Metadata) -> io::Result<()> {
    let times = fs::FileTimes::new().set_accessed(before.accessed()?).set_modified(before.modified()?);
    fs::File::open(volume)?.set_times(times)
}

/// Directories right below the root, by name; other things there are nobody's volume.
fn volumes(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn is_done(volume: &Path, file: &Path) -> io::Result<bool> {
    let directory = |found: &fs::Metadata| found.is_dir();
    Ok(is(&volume.join(MARKER), directory)? && is(file, fs::Metadata::is_file)?)
}

fn is(path: &Path, wanted: impl Fn(&fs::Metadata) -> bool) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(wanted(&found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}
