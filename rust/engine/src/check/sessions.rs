//! Whether what sessions and prunes wrote of themselves can be read: markers, removals, tombstones, lists of open writers, decisions, watches.
//!
//! Nothing of a snapshot lies in them. But one that cannot be read stops backups, or keeps prunes from freeing anything, and neither says so where it
//! is looked for. Promises to name each with what mends it, and none that goes while it is looked at. What cannot be mended and harms nobody is a
//! warning: an error would be one for ever. Removals are as many as snapshots ever were, and their being there is all that counts, so they are opened by a check of all data
//! alone.

use super::report::{Notes, Severity};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::repository::cursor::is_damage;
use crate::repository::{Repository, list, opened};
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, OpenWriters, Role, Watch, decision_key, open_key, tombstone_key, watch_key};
use longshore_format::id::{RandomName, SessionId};
use longshore_format::limits;
use longshore_format::session::{Removal, SessionMarker, removed_key, session_key};
use longshore_format::snapshot::snapshot_key;

/// Looks at all of them; `all`: at removals, too.
pub(super) fn look(repository: &Repository, job: &Job, notes: &Notes, all: bool) -> Result<()> {
    let (keys, mut codec) = (&*repository.keys, Codec::new()?);
    for session in repository.sessions_under("sessions/")? {
        job.check()?;
        let text = session_key(session);
        let open = |bytes: &[u8], codec: &mut Codec| Ok(SessionMarker::decode(keys, session, bytes, codec).map(drop)?);
        let Some(error) = damage(repository, &text, &mut codec, open)? else { continue };
        match has_ended(repository, session)? {
            true => notes.find(
                Severity::Warning,
                text,
                format!("{error}; its session has ended: the next prune takes it away"),
                vec![],
            ),
            false => {
                let message = format!(
                    "{error}; it counts as a backup that runs and a restore of everything, so prunes free nothing: when its process is gone, \
                     longshore repo prune --fence {session}"
                );
                notes.find(Severity::Error, text, message, vec![]);
            }
        }
    }
    let doomed = |role: Role, name: RandomName| {
        move |bytes: &[u8], codec: &mut Codec| Ok(Doomed::decode(keys, role, name, bytes, codec).map(drop)?)
    };
    for name in names(repository, "tombstones/")? {
        job.check()?;
        let text = tombstone_key(name);
        let Some(error) = damage(repository, &text, &mut codec, doomed(Role::Tombstone, name))? else { continue };
        let by_hand = damage(repository, &decision_key(name), &mut codec, doomed(Role::Decision, name))?.is_some();
        let step = match by_hand {
            true => format!(
                "and its decision cannot be read either, so nobody knows what it meant to delete: while no prune runs, delete it, {} and {}",
                decision_key(name),
                open_key(name)
            ),
            false => {
                "backups refuse until it is ended: longshore repo prune; where that refuses, longshore repo repair".to_owned()
            }
        };
        notes.find(Severity::Error, text, format!("{error}; {step}"), vec![]);
    }
    for name in names(repository, "open/")? {
        job.check()?;
        let text = open_key(name);
        let open = |bytes: &[u8], codec: &mut Codec| Ok(OpenWriters::decode(keys, name, bytes, codec).map(drop)?);
        if let Some(error) = damage(repository, &text, &mut codec, open)? {
            notes.find(Severity::Error, text, format!("{error}; a prune ends its generation: longshore repo prune"), vec![]);
        }
    }
    for name in names(repository, "decisions/")? {
        job.check()?;
        let text = decision_key(name);
        let Some(error) = damage(repository, &text, &mut codec, doomed(Role::Decision, name))? else { continue };
        match repository.has(&tombstone_key(name))? {
            true => {
                let message = format!("{error}; what its tombstone names goes by other generations: longshore repo prune");
                notes.find(Severity::Error, text, message, vec![]);
            }
            false => {
                let message = format!(
                    "{error}; all that it named is gone, and its being there is what counts: bring it back from a copy if there is one"
                );
                notes.find(Severity::Warning, text, message, vec![]);
            }
        }
    }
    for name in names(repository, "watches/")? {
        job.check()?;
        let text = watch_key(name);
        let open = |bytes: &[u8], codec: &mut Codec| Ok(Watch::decode(keys, name, bytes, codec).map(drop)?);
        if let Some(error) = damage(repository, &text, &mut codec, open)? {
            notes.find(Severity::Error, text, format!("{error}; a prune writes another: longshore repo prune"), vec![]);
        }
    }
    if !all {
        return Ok(());
    }
    for session in repository.sessions_under("removed/")? {
        job.check()?;
        let text = removed_key(session);
        let open = |bytes: &[u8], codec: &mut Codec| Ok(Removal::decode(keys, session, bytes, codec).map(drop)?);
        if let Some(error) = damage(repository, &text, &mut codec, open)? {
            let message = format!("{error}; the snapshot stays deleted, as its being there is what counts");
            notes.find(Severity::Warning, text, message, vec![]);
        }
    }
    Ok(())
}

/// Why an object cannot be read; none when it can, or is gone.
fn damage(
    repository: &Repository,
    text: &str,
    codec: &mut Codec,
    mut open: impl FnMut(&[u8], &mut Codec) -> Result<()>,
) -> Result<Option<Error>> {
    let read = || repository.get(text.to_owned(), limits::RECORD_BYTES_MAX);
    match opened(read, |read| read.as_ref().map_or(Ok(()), |bytes| open(bytes, codec))) {
        Ok(()) => Ok(None),
        Err(error) if is_damage(&error) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

fn has_ended(repository: &Repository, session: SessionId) -> Result<bool> {
    Ok(repository.has(&snapshot_key(session))? || repository.is_removed(session)?)
}

fn names(repository: &Repository, prefix: &str) -> Result<Vec<RandomName>> {
    let mut out = Vec::new();
    list(&*repository.store, prefix, |entry| {
        out.extend(entry.key.as_str().strip_prefix(prefix).and_then(|n| RandomName::from_hex(n).ok()));
        Ok(())
    })?;
    Ok(out)
}
