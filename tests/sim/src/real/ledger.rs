//! What lies in a repository's folder, shown to the oracle.
//!
//! The oracle is made to see objects come and go; a folder is shown to it in the order in which its objects can have come: packs, usage tables, markers,
//! removals, snapshots. Reads files with nothing of the engine.

use crate::oracle::Ledger;
use crate::oracle::format::Reader;
use crate::process::{NEW_SECRET, SECRET};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// Every object of a folder by key, those that have no name yet left out.
///
/// # Errors
/// As the filesystem.
pub fn objects(folder: &Path, prefix: &str) -> io::Result<Vec<(String, Bytes)>> {
    let mut out = vec![];
    if !folder.join(prefix).is_dir() {
        return Ok(out);
    }
    for entry in std::fs::read_dir(folder.join(prefix))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let key = format!("{prefix}/{name}");
        if entry.file_type()?.is_dir() {
            out.extend(objects(folder, &key)?);
        } else {
            out.push((key, Bytes::from(std::fs::read(entry.path())?)));
        }
    }
    out.sort();
    Ok(out)
}

/// The oracle's view of a folder in which these snapshots were told to be deleted.
///
/// # Errors
/// When no slot opens, or as the filesystem.
pub fn ledger(folder: &Path, intended: &[String]) -> Result<Ledger, String> {
    let of = |prefix: &str| objects(folder, prefix).map_err(|error| format!("{prefix}: {error}"));
    let slots = of("keys")?;
    let open = |(key, slot): &(String, Bytes)| [SECRET, NEW_SECRET].iter().find_map(|s| Reader::from_slot(key, slot, s));
    let mut ledger = Ledger::new(slots.iter().find_map(open).ok_or("I1: no slot opens the repository")?);
    intended.iter().for_each(|session| ledger.intend(session));
    for prefix in ["packs", "usage", "sessions", "removed", "decisions", "snapshots"] {
        for (key, body) in of(prefix)? {
            ledger.created(&key, &body);
        }
    }
    Ok(ledger)
}
