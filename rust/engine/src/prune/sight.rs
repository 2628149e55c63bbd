//! What a prune sees at once: what is needed, and in which of the packs that are there it lies.
//!
//! Promises the order in which it is asked: a look, then tombstones, then packs, then decisions (docs/format.md chapter 12), so that what goes
//! in between is known to have been named before. Packs of which no segment says what they hold are asked for their headers as far as something is
//! not found without them. Does not know what may be deleted.

use super::Prune;
use super::choose::Places;
use super::generation::Generation;
use super::look::{self, Look, refuse};
use super::rules::Rule;
use crate::error::{Error, Result};
use crate::repository::index::Hold;
use crate::repository::list;
use longshore_format::id::PackName;
use std::collections::{HashMap, HashSet};

/// A look, and the packs that are there.
pub(super) struct Sight {
    pub look: Look,
    pub sizes: HashMap<PackName, u64>,
    pub places: Places,
    /// Packs of all tombstones by generation.
    pub generations: Vec<Generation>,
    /// Packs that some decision names and that are there.
    pub spent: HashSet<PackName>,
}

impl Sight {
    pub fn tombstoned(&self) -> HashSet<PackName> {
        self.generations.iter().flat_map(Generation::packs).copied().collect()
    }

    /// Packs in which nothing is a copy of anything.
    pub fn off(&self) -> HashSet<PackName> {
        self.tombstoned().union(&self.spent).copied().collect()
    }
}

impl Prune<'_> {
    /// A look, then tombstones, then packs: in this order.
    pub(super) fn sight(&mut self, last: Option<Look>) -> Result<Sight> {
        let mut look = self.look(last.as_ref())?;
        let generations = self.generations()?;
        let sizes = self.list_packs()?;
        self.shelter_what_came_again(&mut look, &sizes)?;
        let spent = self.spent(&sizes)?;
        let places = self.places(&look, &sizes)?;
        Ok(Sight { look, sizes, places, generations, spent })
    }

    /// The same once more, after what was seen has changed; the last one goes first, for the room that it takes.
    pub(super) fn sight_again(&mut self, last: Sight) -> Result<Sight> {
        let Sight { look, places, .. } = last;
        drop(places);
        self.sight(Some(look))
    }

    /// Chunks that a repair missed and somebody has stored again belong to the snapshots that miss them, wherever they lie now.
    fn shelter_what_came_again(&mut self, look: &mut Look, sizes: &HashMap<PackName, u64>) -> Result<()> {
        if look.repairs.want_chunks() {
            if !self.index.knows_chunks() {
                self.index = self.repository.load_segments(self.job, Hold::All)?;
            }
            self.index_unlisted(sizes)?;
            look.needed.merge(&look.repairs.found_again(&self.index));
        }
        Ok(())
    }

    /// Packs that were deleted by a decision and are there: after they were listed, for each decision comes before what it deletes goes.
    fn spent(&mut self, sizes: &HashMap<PackName, u64>) -> Result<HashSet<PackName>> {
        if !self.keeps(Rule::SpentPacks) {
            return Ok(HashSet::new());
        }
        let spent = self.repository.spent(self.job, &mut self.codec)?;
        Ok(sizes.keys().filter(|pack| spent.has_pack(pack)).copied().collect())
    }

    pub(super) fn list_packs(&self) -> Result<HashMap<PackName, u64>> {
        let mut sizes = HashMap::new();
        list(&*self.repository.store, "packs/", |entry| {
            if let Some(name) = entry.key.as_str().strip_prefix("packs/").and_then(|n| PackName::from_text(n).ok()) {
                sizes.insert(name, entry.size_bytes);
            }
            Ok(())
        })?;
        Ok(sizes)
    }

    /// Where needed frames lie; packs that no segment lists are asked for their headers when something is not found without them.
    pub(super) fn places(&mut self, look: &Look, sizes: &HashMap<PackName, u64>) -> Result<Places> {
        let damaged = look.repairs.damaged();
        let find = |prune: &Self| Places::find(&prune.index, sizes, &look.needed, &prune.distrusted, &damaged);
        let mut places = find(self);
        let missing = look.not_lost(places.missing(&look.needed));
        if !missing.is_empty() {
            let births: HashSet<PackName> = missing.iter().map(|frame| frame.pack).collect();
            let unknown: Vec<PackName> = places.rows.iter().filter(|row| !row.known).map(|row| row.name).collect();
            let (own, others): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|name| births.contains(name));
            self.index_headers(&own, sizes)?;
            places = find(self);
            if !look.not_lost(places.missing(&look.needed)).is_empty() {
                self.index_headers(&others, sizes)?;
                places = find(self);
            }
        }
        Ok(places)
    }

    pub(super) fn refuse_missing(&mut self, sight: &Sight) -> Result<()> {
        self.refuse_missing_in(&sight.look, &sight.places)
    }

    /// Refuses when a frame that snapshots need lies nowhere, `places` being where those of a look lie.
    pub(super) fn refuse_missing_in(&mut self, look: &Look, places: &Places) -> Result<()> {
        let mut missing = look.not_lost(places.missing(&look.counted_frames));
        if missing.is_empty() {
            return Ok(());
        }
        // A snapshot that was deleted since the look may have lost its packs to another prune. What only newer snapshots need was not
        // looked for.
        let again = self.look(None)?;
        missing.retain(|frame| again.counted_frames.contains(*frame));
        if !missing.is_empty() {
            // Or another prune has moved them since packs were listed: the headers say where to.
            let (sizes, damaged) = (self.list_packs()?, again.repairs.damaged());
            self.index_unlisted(&sizes)?;
            let places = Places::find(&self.index, &sizes, &again.counted_frames, &self.distrusted, &damaged);
            let nowhere: HashSet<_> = places.missing(&again.counted_frames).into_iter().collect();
            missing.retain(|frame| nowhere.contains(frame));
        }
        let missing = again.not_lost(missing);
        let Some(first) = missing.first() else { return Ok(()) };
        Err(refuse(Error::corrupt(format!(
            "frames that snapshots need lie in no pack: frames={}, first_pack={}",
            missing.len(),
            first.pack
        )))
        .with_next_step(look::REPAIR_STEP))
    }
}
