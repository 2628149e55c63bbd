//! The rules of the protocol, each of which the model can do without (docs/format.md chapter 12).
//!
//! The first twelve are those of the engine's prune, and [`twin`] does not compile when one is added there and not here.

use longshore_engine::prune;

/// Something the protocol says, as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Nothing is decided before every writer of `open/<g>` has ended.
    WaitForWriters,
    /// What is needed is looked at again before the decision, and before the deletion.
    LookAgain,
    /// Frames that a reader's marker names are needed.
    ReadersCount,
    /// Snapshots are listed before removals, and these before markers.
    SnapshotsFirst,
    /// A copy in a pack of another generation's tombstone or decision is no copy.
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
    /// A copy in a pack that any decision named is no copy.
    SpentPacks,
    /// A writer's marker is there before it looks at anything.
    MarkerFirst,
    /// A writer uses no frame whose pack is in a tombstone.
    DeadPacks,
    /// A writer names no older usage table that is in a tombstone.
    DeadTables,
    /// A writer uses no frame whose pack any decision named, and no such usage table.
    SpentUnused,
    /// A writer reads tombstones before it lists packs.
    WriterPacksLast,
    /// A writer uses no frame whose pack is not listed, whatever the index says.
    ListedPacks,
    /// What a snapshot needs is there before the snapshot.
    CommitLast,
    /// Before its commit a writer lists its own packs.
    Prove,
    /// A snapshot's key is taken once.
    CreateOnly,
    /// A writer reads what lies under its commit key before it tells anybody.
    ReadBack,
    /// Who gives up takes his own commit key.
    GiveUpAborts,
    /// A fenced writer begins again from the start.
    BeginAgain,
    /// A frame in an adopted pack is used under the conditions of any other.
    AdoptedProved,
    /// Packs of open writers, and of those whom they adopt, are no candidates.
    OpenSpared,
    /// Who adopts a session ends it before he looks at anything.
    AdoptedEnded,
    /// `removed/<s>` is there before the snapshot goes.
    RemovalFirst,
    /// A reader puts a marker.
    ReaderMarker,
    /// A reader looks for the removal of its snapshot after it has put the marker.
    ReaderLooks,
    /// Only what nobody needs goes into a tombstone.
    FirstLook,
    /// The first `open/<g>` of a generation holds.
    OneOpen,
    /// A prune reads the other tombstones before it lists packs.
    PrunePacksLast,
    /// Before anything of a decision is deleted, it is looked once more that no snapshot needs it.
    LastLook,
    /// `open/<g>` without a tombstone is ended.
    OrphansEnd,
    /// Who puts a writer's marker looks whether it is there.
    MarkerKept,
    /// The same of a reader's marker.
    ReaderKept,
    /// The same of a usage table.
    TableKept,
    /// The same of the end that a fence is.
    FenceKept,
    /// The same of a removal.
    RemovalKept,
    /// The same of a tombstone.
    TombstoneKept,
    /// The same of `open/<g>`.
    OpenKept,
    /// The same of a decision.
    DecisionKept,
    /// Who puts a decision reads what lies under its key, and follows that, whatever the store answered.
    DecisionRead,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 44] = [
        Self::WaitForWriters,
        Self::LookAgain,
        Self::ReadersCount,
        Self::SnapshotsFirst,
        Self::OtherTombstones,
        Self::PacksGoFirst,
        Self::OneDecision,
        Self::TombstoneFirst,
        Self::HeaderProof,
        Self::KnownPacks,
        Self::DoomedTables,
        Self::SpentPacks,
        Self::MarkerFirst,
        Self::DeadPacks,
        Self::DeadTables,
        Self::SpentUnused,
        Self::WriterPacksLast,
        Self::ListedPacks,
        Self::CommitLast,
        Self::Prove,
        Self::CreateOnly,
        Self::ReadBack,
        Self::GiveUpAborts,
        Self::BeginAgain,
        Self::AdoptedProved,
        Self::OpenSpared,
        Self::AdoptedEnded,
        Self::RemovalFirst,
        Self::ReaderMarker,
        Self::ReaderLooks,
        Self::FirstLook,
        Self::OneOpen,
        Self::PrunePacksLast,
        Self::LastLook,
        Self::OrphansEnd,
        Self::MarkerKept,
        Self::ReaderKept,
        Self::TableKept,
        Self::FenceKept,
        Self::RemovalKept,
        Self::TombstoneKept,
        Self::OpenKept,
        Self::DecisionKept,
        Self::DecisionRead,
    ];
}

/// The rule of the model that a rule of the engine's prune is.
#[must_use]
pub const fn twin(rule: prune::Rule) -> Rule {
    match rule {
        prune::Rule::WaitForWriters => Rule::WaitForWriters,
        prune::Rule::LookAgain => Rule::LookAgain,
        prune::Rule::ReadersCount => Rule::ReadersCount,
        prune::Rule::SnapshotsFirst => Rule::SnapshotsFirst,
        prune::Rule::OtherTombstones => Rule::OtherTombstones,
        prune::Rule::PacksGoFirst => Rule::PacksGoFirst,
        prune::Rule::OneDecision => Rule::OneDecision,
        prune::Rule::TombstoneFirst => Rule::TombstoneFirst,
        prune::Rule::HeaderProof => Rule::HeaderProof,
        prune::Rule::KnownPacks => Rule::KnownPacks,
        prune::Rule::DoomedTables => Rule::DoomedTables,
        prune::Rule::SpentPacks => Rule::SpentPacks,
    }
}

/// All rules but one, or all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// The one that is taken away.
    pub without: Option<Rule>,
}

impl Kept {
    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
