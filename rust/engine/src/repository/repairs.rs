//! What earlier repairs wrote down: `repairs/<r>`, all of them together.
//!
//! Everything in them asks to keep more or to rely on less (docs/format.md chapter 11), so that all are believed at once and none has
//! to be the newest. Knows frames and chunks by name; it finds no damage itself.

use super::cursor::is_damage;
use super::index::Index;
use super::{Repository, opened};
use crate::error::{Error, ErrorKind, Result};
use longshore_format::envelope::Codec;
use longshore_format::id::{PackName, SessionId, UsageName};
use longshore_format::limits;
use longshore_format::pack::BirthName;
use longshore_format::repair::{Repair, repair_key};
use longshore_format::usage::Usage;
use std::collections::{BTreeMap, HashMap};

/// All records of repairs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repairs {
    /// By the session that wrote them.
    pub known: BTreeMap<SessionId, Repair>,
    /// Those that cannot be read.
    pub unreadable: Vec<(SessionId, Error)>,
}

impl Repository {
    /// Every record that is listed. One that goes while it is read was replaced by a younger one, which the next listing shows.
    pub(crate) fn repairs(&self, codec: &mut Codec) -> Result<Repairs> {
        for _ in 0..20 {
            if let Some(repairs) = self.try_repairs(codec)? {
                return Ok(repairs);
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "records of repairs were replaced each time they were read")
            .with_next_step("try again later"))
    }

    fn try_repairs(&self, codec: &mut Codec) -> Result<Option<Repairs>> {
        let mut repairs = Repairs::default();
        for session in self.sessions_under("repairs/")? {
            let read = || self.get(repair_key(session), limits::REPAIR_BYTES_MAX);
            let repair = opened(read, |read| match read {
                None => Ok(None),
                Some(bytes) => Ok(Some(Repair::decode(&self.keys, session, bytes, codec)?)),
            });
            match repair {
                Ok(Some(repair)) => {
                    repairs.known.insert(session, repair);
                }
                Ok(None) => return Ok(None),
                Err(error) if is_damage(&error) => {
                    tracing::warn!(session = %session, error = %error, "Cannot read the record of a repair");
                    repairs.unreadable.push((session, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(repairs))
    }
}

impl Repairs {
    /// Packs in which something is damaged, with the frames that are.
    pub fn damaged(&self) -> HashMap<PackName, Usage> {
        let mut all: HashMap<PackName, Usage> = HashMap::new();
        for (pack, frames) in self.known.values().flat_map(|repair| &repair.damaged) {
            all.entry(*pack).or_default().merge(frames);
        }
        all
    }

    /// Whether a repair found this frame nowhere whole.
    pub fn is_lost(&self, frame: BirthName) -> bool {
        self.known.values().any(|repair| repair.lost.contains(frame))
    }

    /// Whether a repair speaks in the place of a table that cannot be read.
    pub fn speaks_for(&self, table: &UsageName, snapshot: SessionId) -> bool {
        self.known.values().any(|repair| repair.tables.contains(table) && repair.needs.contains_key(&snapshot))
    }

    /// Frames that a snapshot needs besides what its tables say.
    pub fn needs(&self, snapshot: SessionId) -> impl Iterator<Item = &Usage> {
        self.known.values().filter_map(move |repair| repair.needs.get(&snapshot))
    }

    /// Frames that hold chunks which were nowhere when a repair looked: somebody stored them again. Of a damaged place nothing is said.
    pub fn found_again(&self, index: &Index) -> Usage {
        let (mut found, damaged) = (Usage::new(), self.damaged());
        for prefix in self.known.values().flat_map(|repair| &repair.wanted) {
            for place in index.frames_with_prefix(*prefix) {
                if !damaged.get(&place.pack).is_some_and(|frames| frames.contains(place.birth)) {
                    found.insert(place.birth);
                }
            }
        }
        found
    }

    /// Whether some chunk is waited for.
    pub fn want_chunks(&self) -> bool {
        self.known.values().any(|repair| !repair.wanted.is_empty())
    }
}
