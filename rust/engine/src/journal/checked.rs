//! What a running check has read and found good, for the check that follows if this one is killed.
//!
//! One log for each question: which packs are read, on whose behalf, how deeply. A record says of one pack its size, and a sum over the
//! frames that were read in it; a pack in which anything was damaged has no record, so it is always read again. **A record stands for
//! reading the same bytes once more, and for nothing else**: who goes on has listed the pack and read its header anew, and believes the record
//! only when size and sum are still what they were. Who reads to its end removes the log: asked again, everything is read again.
//!
//! What was read long ago says little of today: a log that began more than [`BELIEVED_NANOS`] ago, or by a clock that was ahead, is begun
//! anew. And damage that is found anywhere ends all other logs: no repair may believe what a check read before the damage came.
//! Memory: a row a pack.

use super::records::{Records, forget, others};
use crate::repository::Repository;
use longshore_format::Keys;
use longshore_format::id::{PackName, RandomName, SessionId};
use longshore_format::wire::Reader;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const MAGIC: &[u8; 8] = b"LSCHKD01";
const KIND_RUN: u8 = 1;
const KIND_PACK: u8 = 2;
/// In the names of these logs, beside those of backups.
const PREFIX: &str = "packs-";
/// For how long what was read stands for being read again: a week, the usual time between two verifications.
const BELIEVED_NANOS: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// The journal of one running check.
#[derive(Debug)]
pub(crate) struct Checked {
    records: Records,
    name: String,
    /// Of each pack that interrupted runs read, its size and the sum over its frames.
    before: HashMap<PackName, (u64, u64)>,
    begun_nanos: i64,
    has_doubts: AtomicBool,
}

/// What stands in a log: when it began, and its packs.
#[derive(Debug, Default)]
struct Found {
    begun_nanos: Option<i64>,
    packs: HashMap<PackName, (u64, u64)>,
}

fn log_name(keys: &Keys, question: &str) -> String {
    let mut short = [0; 16];
    short.copy_from_slice(&keys.cache_sum(b"check journal", question.as_bytes())[..16]);
    format!("{PREFIX}{}", RandomName(short))
}

impl Found {
    fn take(&mut self, body: &[u8]) {
        let mut fields = Reader::new(body.get(1..).unwrap_or_default(), "journal");
        match body.first() {
            Some(&KIND_RUN) => self.begun_nanos = fields.u64().ok().map(|nanos| nanos as i64),
            Some(&KIND_PACK) => {
                if let (Ok(session), Ok(number), Ok(size), Ok(sum)) = (fields.array(), fields.u32(), fields.u64(), fields.u64()) {
                    self.packs.insert(PackName { session: SessionId(session), number }, (size, sum));
                }
            }
            _ => {}
        }
    }
}

impl Checked {
    /// Takes the journal of a question. None without a cache, or when another process asks the same. `fresh`: go on from nothing.
    pub fn open(repository: &Repository, question: &str, fresh: bool) -> Option<Self> {
        let name = log_name(&repository.keys, question);
        let (mut records, left) = Records::open(repository, MAGIC, question, &name)?;
        let now = repository.world.clock.wall_nanos();
        if let Some(left) = left.filter(|_| !fresh) {
            let mut found = Found::default();
            let end = left.scan(|_, body| found.take(body));
            match found.begun_nanos {
                Some(begun) if (0..=BELIEVED_NANOS).contains(&now.saturating_sub(begun)) && !found.packs.is_empty() => {
                    records.go_on(&left, end)?;
                    let has_doubts = AtomicBool::new(false);
                    return Some(Self { records, name, before: found.packs, begun_nanos: begun, has_doubts });
                }
                Some(begun) if !found.packs.is_empty() => {
                    tracing::warn!(
                        begun_nanos = begun,
                        now_nanos = now,
                        packs = found.packs.len(),
                        "Cannot go on from an interrupted run, it began too long ago or by a clock that was ahead"
                    );
                }
                _ => {}
            }
        }
        records.begin(repository.world.salt(), question)?;
        records.append(&[&[KIND_RUN][..], &now.to_le_bytes()].concat());
        Some(Self { records, name, before: HashMap::new(), begun_nanos: now, has_doubts: AtomicBool::new(false) })
    }

    /// When the first of the interrupted runs began, and how many packs they read; none when this run goes on from nothing.
    pub fn before(&self) -> Option<(i64, usize)> {
        (!self.before.is_empty()).then_some((self.begun_nanos, self.before.len()))
    }

    /// Whether these frames of a pack, which has this size now, were read and good.
    pub fn knows(&self, pack: PackName, size_bytes: u64, sum: u64) -> bool {
        self.before.get(&pack).is_some_and(|known| *known == (size_bytes, sum))
    }

    /// Notes that they were.
    pub fn note(&self, pack: PackName, size_bytes: u64, sum: u64) {
        let mut body = vec![KIND_PACK];
        body.extend_from_slice(&pack.session.0);
        body.extend_from_slice(&pack.number.to_le_bytes());
        body.extend_from_slice(&size_bytes.to_le_bytes());
        body.extend_from_slice(&sum.to_le_bytes());
        self.records.append(&body);
    }

    /// Damage was found: what other questions' runs read before is not to be believed.
    pub fn doubt(&self, repository: &Repository) {
        if !self.has_doubts.swap(true, Relaxed) {
            Self::forget_others(repository, &self.name);
        }
    }

    /// The same for a run without a journal, or for who wants to read everything.
    pub fn forget_all(repository: &Repository) {
        Self::forget_others(repository, "");
    }

    fn forget_others(repository: &Repository, own: &str) {
        others(repository, own).iter().filter(|name| name.starts_with(PREFIX)).for_each(|name| forget(repository, name));
    }

    /// Removes it: everything was read.
    pub fn remove(&self) {
        self.records.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::cache::Cache;
    use crate::seams::World;
    use longshore_format::keys::{Argon2Cost, Unlock};
    use longshore_store::MemoryStore;
    use std::sync::Arc;

    fn repository(folder: &std::path::Path) -> Repository {
        let (store, secret) = (Arc::new(MemoryStore::new()), Unlock::Secret([1; 32]));
        Repository::init(store, World::system(), &secret, "", Argon2Cost::default(), Cache::at(folder)).unwrap()
    }

    #[test]
    fn a_record_stands_for_the_same_frames_of_a_pack_of_the_same_size() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path());
        let pack = |number| PackName { session: SessionId([5; 16]), number };
        let first = Checked::open(&repository, "question", false).unwrap();
        first.note(pack(1), 1000, 77);
        first.note(pack(2), 2000, 88);
        assert!(!first.knows(pack(1), 1000, 77), "a run believes what others read before it, and reads by itself");
        assert!(Checked::open(&repository, "question", false).is_none(), "another process asks the same");
        assert!(Checked::open(&repository, "another", false).is_some());
        drop(first);
        let next = Checked::open(&repository, "question", false).unwrap();
        assert_eq!(next.before().unwrap().1, 2);
        assert!(next.knows(pack(1), 1000, 77) && next.knows(pack(2), 2000, 88));
        for (number, size, sum) in [(1, 1001, 77), (1, 1000, 78), (1, 2000, 88), (3, 1000, 77)] {
            assert!(!next.knows(pack(number), size, sum), "{number} {size} {sum}");
        }
        next.remove();
        drop(next);
        assert!(Checked::open(&repository, "question", false).unwrap().before().is_none());
        assert!(Checked::open(&repository.with_cache(&Cache::none()), "question", false).is_none(), "without a cache");
    }
}
