//! The rules of a prune by name, so that tests can take one away and see what breaks.
//!
//! A release has no way to take one away: [`Rules::without`] exists in the test build alone.

/// A rule on which safety rests (docs/format.md chapter 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is decided before every writer of `open/<g>` has ended.
    WaitForWriters,
    /// What is needed is looked at again before the decision.
    LookAgain,
    /// Frames that a reader's marker names are needed.
    ReadersCount,
    /// Snapshots are listed before removals, and these before markers.
    SnapshotsFirst,
    /// A copy in a pack of another generation's tombstone is no copy.
    OtherTombstones,
    /// A tombstone goes only when its packs are gone.
    PacksGoFirst,
    /// The first decision of a generation holds.
    OneDecision,
    /// The tombstone is there before open writers are listed.
    TombstoneFirst,
    /// A copy counts only when the header of its pack names it.
    HeaderProof,
    /// What lies in a pack is known before it is chosen.
    KnownPacks,
    /// Usage tables go by the same generations as packs.
    DoomedTables,
    /// A copy in a pack that a decision named is no copy: it came again after it was deleted.
    SpentPacks,
}

/// The rules that a prune keeps: all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    without: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { without: Some(rule) }
    }

    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
