//! What is explored: each scene with all rules, and each rule taken away where that shows, or where one sees why it need not.

use super::explore::{Explored, explore, wander};
use super::rule::{Kept, Rule};
use super::scene::{self, Scene};

/// What must come of taking a rule away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A violation is found.
    Shows,
    /// None is: the rule is a second belt, or saves work; this is why.
    Spared(&'static str),
}

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Who meets.
    pub scene: &'static Scene,
    /// The rule that is taken away, if any, and what must come of it.
    pub without: Option<(Rule, Expected)>,
}

/// Most states that are gone through in `make sim` and in `make sim-long`.
const STATES_MAX: [usize; 2] = [1_100_000, 40_000_000];
/// Random ways through the crowd.
const WALKS: [u64; 2] = [5_000, 500_000];
/// So many are enough for every rule that shows, with room for changes of the model.
const SHOWN_MAX: usize = 6_000_000;

/// The scenes.
pub const SCENES: [&Scene; 19] = [
    &scene::CROWD,
    &scene::PAIRS,
    &scene::TOMBSTONES_TWICE,
    &scene::PACKS_TWICE,
    &scene::COPY_AGAIN,
    &scene::LOSSY_REPEATS,
    &scene::PRUNES,
    &scene::COPIES,
    &scene::SHORT,
    &scene::REPEATS,
    &scene::LATE,
    &scene::WRITERS_MEET,
    &scene::RESUME,
    &scene::LOSSY_PRUNES,
    &scene::LOSSY_WRITERS,
    &scene::READER,
    &scene::LOSSY,
    &scene::LYING,
    &scene::HIDES,
];

const fn shows(rule: Rule, scene: &'static Scene) -> Trial {
    Trial { scene, without: Some((rule, Expected::Shows)) }
}

const fn spared(rule: Rule, scene: &'static Scene, why: &'static str) -> Trial {
    Trial { scene, without: Some((rule, Expected::Spared(why))) }
}

/// Rules taken away.
pub const WITHOUT: [Trial; Rule::ALL.len()] = [
    shows(Rule::WaitForWriters, &scene::READER),
    shows(Rule::LookAgain, &scene::READER),
    shows(Rule::ReadersCount, &scene::READER),
    shows(Rule::SnapshotsFirst, &scene::READER),
    shows(Rule::OtherTombstones, &scene::COPIES),
    spared(
        Rule::PacksGoFirst,
        &scene::LOSSY_PRUNES,
        "the decision, which stays, says of the packs what the tombstone said: it matters where a decision cannot be read, which no scene has",
    ),
    shows(Rule::OneDecision, &scene::REPEATS),
    shows(Rule::TombstoneFirst, &scene::READER),
    shows(Rule::HeaderProof, &scene::LYING),
    shows(Rule::KnownPacks, &scene::COPIES),
    shows(Rule::DoomedTables, &scene::READER),
    shows(Rule::SpentPacks, &scene::COPY_AGAIN),
    shows(Rule::MarkerFirst, &scene::READER),
    shows(Rule::DeadPacks, &scene::READER),
    shows(Rule::DeadTables, &scene::RESUME),
    shows(Rule::SpentUnused, &scene::PACKS_TWICE),
    spared(
        Rule::WriterPacksLast,
        &scene::READER,
        "decisions are read after packs are listed, and what was deleted in between stands in one",
    ),
    shows(Rule::ListedPacks, &scene::LOSSY_WRITERS),
    shows(Rule::CommitLast, &scene::READER),
    shows(Rule::Prove, &scene::LOSSY),
    shows(Rule::CreateOnly, &scene::LOSSY),
    shows(Rule::ReadBack, &scene::LOSSY),
    shows(Rule::GiveUpAborts, &scene::LATE),
    shows(Rule::BeginAgain, &scene::RESUME),
    shows(Rule::AdoptedProved, &scene::RESUME),
    spared(
        Rule::OpenSpared,
        &scene::RESUME,
        "the prune would wait for those writers and look again: the rule spares them from losing to a tombstone what they may use",
    ),
    spared(
        Rule::AdoptedEnded,
        &scene::RESUME,
        "two sessions with the same packs harm nobody: without the end prunes would wait for the dead one until it is fenced",
    ),
    shows(Rule::RemovalFirst, &scene::LATE),
    shows(Rule::ReaderMarker, &scene::READER),
    shows(Rule::ReaderLooks, &scene::READER),
    shows(Rule::FirstLook, &scene::READER),
    spared(
        Rule::OneOpen,
        &scene::REPEATS,
        "any list that was made after the tombstone is as good: who follows his own has seen every writer that the tombstone had not",
    ),
    spared(Rule::PrunePacksLast, &scene::COPIES, "the same, for what another prune deletes"),
    shows(Rule::LastLook, &scene::HIDES),
    shows(Rule::OrphansEnd, &scene::LYING),
    shows(Rule::MarkerKept, &scene::LOSSY),
    shows(Rule::ReaderKept, &scene::LOSSY),
    shows(Rule::TableKept, &scene::LOSSY),
    shows(Rule::FenceKept, &scene::LOSSY),
    shows(Rule::RemovalKept, &scene::LOSSY),
    shows(Rule::TombstoneKept, &scene::LOSSY),
    spared(Rule::OpenKept, &scene::LOSSY_PRUNES, "whoever carries the generation on makes a later list"),
    shows(Rule::DecisionKept, &scene::LOSSY_REPEATS),
    shows(Rule::DecisionRead, &scene::LOSSY_REPEATS),
];

/// All trials: what a seed of the row is.
#[must_use]
pub fn trials() -> Vec<Trial> {
    SCENES.iter().map(|scene| Trial { scene, without: None }).chain(WITHOUT).collect()
}

impl Trial {
    /// Explores.
    #[must_use]
    pub fn run(&self, long: bool) -> Explored {
        if self.scene.name == scene::CROWD.name {
            return wander(self.scene, Kept::default(), WALKS[usize::from(long)]);
        }
        let states_max = match self.without {
            Some((_, Expected::Shows)) => SHOWN_MAX,
            _ => STATES_MAX[usize::from(long)],
        };
        explore(self.scene, Kept { without: self.without.map(|(rule, _)| rule) }, states_max)
    }

    /// What was found, in a line; an error when it is not what must come of it.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn judge(&self, found: &Explored) -> Result<String, String> {
        let size = format!(
            "{} states, {} of the store, {} steps deep{}",
            found.states,
            found.stores,
            found.depth,
            if found.cut { ", not all of them" } else { "" }
        );
        let name = self.scene.name;
        match (self.without, &found.violation) {
            (None, None) => Ok(format!("scene {name}: {}: {size}", self.scene.what)),
            (None, Some((what, way))) => Err(format!("scene {name}: {what}, after {} steps", way.len())),
            (Some((rule, Expected::Shows)), Some((what, way))) => {
                Ok(format!("without {rule:?}, scene {name}: after {} steps, {what}", way.len()))
            }
            (Some((rule, Expected::Shows)), None) => Err(format!("{rule:?} is not missed in scene {name}: {size}")),
            (Some((rule, Expected::Spared(why))), None) => {
                Ok(format!("without {rule:?}, scene {name}: nothing breaks, {why}: {size}"))
            }
            (Some((rule, Expected::Spared(_))), Some((what, way))) => {
                Err(format!("{rule:?} is more than a second belt in scene {name}: {what}, after {} steps", way.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::twin;
    use longshore_engine::prune;

    const SMALL: usize = 60_000;

    #[test]
    fn every_rule_is_taken_away_once() {
        for rule in Rule::ALL {
            assert_eq!(WITHOUT.iter().filter(|t| t.without.is_some_and(|(r, _)| r == rule)).count(), 1, "{rule:?}");
        }
        for rule in [
            prune::Rule::WaitForWriters,
            prune::Rule::LookAgain,
            prune::Rule::ReadersCount,
            prune::Rule::SnapshotsFirst,
            prune::Rule::OtherTombstones,
            prune::Rule::PacksGoFirst,
            prune::Rule::OneDecision,
            prune::Rule::TombstoneFirst,
            prune::Rule::HeaderProof,
            prune::Rule::KnownPacks,
            prune::Rule::DoomedTables,
            prune::Rule::SpentPacks,
        ] {
            let trial = WITHOUT.iter().find(|t| t.without.is_some_and(|(r, _)| r == twin(rule))).unwrap();
            // What a decision that cannot be read would show, a test of the engine does.
            let shows = trial.without.unwrap().1 == Expected::Shows || rule == prune::Rule::PacksGoFirst;
            assert!(shows, "a rule of the engine that nobody misses: {rule:?}");
        }
    }

    #[test]
    fn small_scenes_hold_and_are_seen_whole() {
        for scene in [&scene::READER, &scene::LOSSY, &scene::LYING, &scene::HIDES] {
            let found = explore(scene, Kept::default(), SMALL);
            assert_eq!((found.violation, found.cut), (None, false), "{}", scene.name);
        }
    }

    #[test]
    fn what_breaks_without_a_rule_is_told_step_by_step() {
        for rule in [Rule::LookAgain, Rule::ReaderLooks, Rule::TableKept] {
            let trial = WITHOUT.iter().find(|t| t.without.is_some_and(|(r, _)| r == rule)).unwrap();
            let found = trial.run(false);
            trial.judge(&found).unwrap();
            assert!(found.violation.unwrap().1.iter().all(|step| !step.is_empty()));
        }
    }
}
