//! What any prune ever decided to delete: packs and usage tables on which nobody may come to rest, should they be there.
//!
//! A put that was given up, and sent again since, may land after a prune deleted what it put (docs/format.md chapter 12, what was deleted stays
//! deleted). Decisions are kept for ever and never change, so each is read once: opened ones are remembered as long as the repository is held,
//! sealed ones in the cache's folder. Memory: 8 bytes a pack that was ever deleted, 16 a usage table. Knows nothing of who asks.

use super::cursor::is_damage;
use super::lookups::Kept;
use super::{Repository, list, opened};
use crate::error::Result;
use crate::job::Job;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, Role};
use longshore_format::id::{PackName, RandomName, UsageName};
use longshore_format::limits;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Everything that the decisions read so far name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    read: BTreeSet<RandomName>,
    packs: HashSet<u64>,
    tables: HashSet<UsageName>,
}

impl Spent {
    /// Whether a decision names a pack.
    pub fn has_pack(&self, pack: &PackName) -> bool {
        self.packs.contains(&short(pack))
    }

    /// The usage tables that decisions name.
    pub fn tables(&self) -> impl Iterator<Item = UsageName> {
        self.tables.iter().copied()
    }

    fn add(&mut self, decision: RandomName, doomed: &Doomed) {
        self.read.insert(decision);
        self.packs.extend(doomed.packs.iter().map(short));
        self.tables.extend(&doomed.tables);
    }
}

/// Packs of one session never share it. Those of two do once in 2⁶⁴: then one is stored again that need not have been.
fn short(pack: &PackName) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = pack.session.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_add(u64::from(pack.number))
}

impl Repository {
    /// Lists decisions and reads those that were not read before. One that cannot be read is left out: what it named is gone, or in its tombstone.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn spent(&self, job: &Job, codec: &mut Codec) -> Result<Arc<Spent>> {
        let before = self.cache.spent();
        let mut unread = Vec::new();
        list(&*self.store, "decisions/", |entry| {
            let name = entry.key.as_str().strip_prefix("decisions/").and_then(|n| RandomName::from_hex(n).ok());
            unread.extend(name.filter(|name| !before.read.contains(name)));
            Ok(())
        })?;
        if unread.is_empty() {
            return Ok(before);
        }
        let mut spent = Spent::clone(&before);
        for name in unread {
            job.check()?;
            match self.decision(name, codec) {
                Ok(doomed) => spent.add(name, &doomed),
                Err(error) if is_damage(&error) => {
                    tracing::warn!(generation = %name, error = %error, "Cannot read a decision of a prune");
                    spent.add(name, &Doomed::default());
                }
                Err(error) => return Err(error),
            }
        }
        let spent = Arc::new(spent);
        self.cache.remember_spent(&spent);
        Ok(spent)
    }

    fn decision(&self, name: RandomName, codec: &mut Codec) -> Result<Doomed> {
        let text = Role::Decision.key(name);
        if let Some(copy) = self.cache.get(&text) {
            if let Ok(doomed) = Doomed::decode(&self.keys, Role::Decision, name, &copy, codec) {
                self.cache.note(Kept::Decisions, true);
                return Ok(doomed);
            }
            self.cache.delete(&text);
        }
        self.cache.note(Kept::Decisions, false);
        let read = || self.get(text.clone(), limits::RECORD_BYTES_MAX);
        let (doomed, bytes) = opened(read, |read| match read {
            // Gone between listing and reading, which nobody does: it names nothing that is there.
            None => Ok((Doomed::default(), None)),
            Some(bytes) => Ok((Doomed::decode(&self.keys, Role::Decision, name, bytes, codec)?, Some(bytes.clone()))),
        })?;
        if let Some(bytes) = bytes {
            self.cache.put(&text, &bytes);
        }
        Ok(doomed)
    }
}
