//! Who meets in a schedule, what each of them does, and what it may come to.
//!
//! Promises to take for a violation whatever neither the process's own faults nor a lie of the store explain: calls that fail or are late
//! explain that a job fails, and never that it calls damaged what is sound. Does not know orders nor faults: the seed chooses them elsewhere.

use crate::draw::Draw;
use crate::process::Process;
use crate::scene::{Scene, prune_options};
use crate::schedule::Weather;
use longshore_engine::check::{CheckOptions, CheckReport};
use longshore_engine::prune::{PruneOptions, Rules};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::{Error, ErrorKind, Result};

/// A process of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Backs a volume up.
    Writer(usize),
    /// Prunes.
    Prune,
    /// Restores.
    Reader,
    /// Deletes a snapshot.
    Remover,
    /// Looks at everything, and reads all of it or headers alone.
    Checker,
    /// Reads what one snapshot needs.
    Verifier,
    /// Repairs what needs no repair.
    Repairer,
    /// Adds a key of its own, opens by it, and takes the one away that it came with, or all others.
    Locksmith,
}

/// Those who write, free, read and delete.
pub fn crew(draw: &mut Draw) -> Vec<Role> {
    let mut roles = vec![Role::Writer(0), Role::Writer(1), Role::Prune, Role::Prune, Role::Reader, Role::Remover];
    if draw.in_thousand(250) {
        roles.push(Role::Writer(0));
    }
    if draw.in_thousand(250) {
        roles.push(Role::Prune);
    }
    roles
}

/// Those who keep a repository, beside the others; in half of all schedules nobody. Never more than three: each reads all there is.
pub fn keepers(draw: &mut Draw) -> Vec<Role> {
    if draw.in_thousand(500) {
        return vec![];
    }
    let mut roles = vec![draw.one_of(&[Role::Checker, Role::Verifier, Role::Repairer, Role::Locksmith])];
    if draw.in_thousand(400) {
        roles.push(draw.one_of(&[Role::Checker, Role::Verifier, Role::Repairer, Role::Locksmith]));
    }
    if roles.contains(&Role::Locksmith) {
        roles.push(Role::Locksmith);
    }
    roles
}

/// One process's part of a schedule.
pub(crate) struct Part<'a> {
    pub scene: &'a Scene,
    pub process: &'a Process,
    pub weather: Weather,
    pub draw: Draw,
    pub rules: Rules,
}

impl Part<'_> {
    pub(crate) fn act(mut self, role: Role) {
        match role {
            Role::Writer(volume) => {
                for _ in 0..=self.draw.below(2) {
                    let source = if self.draw.in_thousand(500) { "a" } else { "b" };
                    self.process.link.begin_job();
                    let _ = self.process.back_up(&self.scene.volumes[volume], source);
                }
            }
            Role::Prune => (0..=self.draw.below(3)).for_each(|_| self.prune()),
            Role::Reader => self.restore(),
            Role::Remover => {
                let _ = self.process.delete(&self.snapshot());
            }
            Role::Checker => {
                let read_percent = self.draw.one_of(&[0, 100]);
                let outcome = self.process.look_over(&CheckOptions { read_percent, ..self.process.check_options() });
                self.judge("a check", None, outcome);
            }
            Role::Verifier => {
                let (session, ids) = (self.snapshot(), self.draw.in_thousand(500));
                let outcome = self.process.verify(&session, ids);
                self.judge("a verification", Some(&session), outcome);
            }
            Role::Repairer => self.repair(),
            Role::Locksmith => self.change_key(),
        }
    }

    fn violated(&self, what: String) {
        self.process.sea.oracle(|ledger| ledger.violated(what));
    }

    /// One that counted when the schedule began.
    fn snapshot(&mut self) -> String {
        self.scene.counted[self.draw.below(self.scene.counted.len() as u64) as usize].clone()
    }

    /// Whether somebody else ended its session.
    fn was_fenced(&self) -> bool {
        self.process.sea.was_fenced(self.process.link.process())
    }

    /// Whether it was shown what is not, or the store keeps less than it says: then damage may be what it sees.
    fn was_lied_to(&self) -> bool {
        self.process.link.was_misled() || self.process.sea.has_lied()
    }

    fn prune(&mut self) {
        let options = PruneOptions {
            fence_now: self.weather.fences && self.draw.in_thousand(400),
            pack_size_bytes: self.draw.magnitude(8 << 10, 128 << 10) as usize,
            waste_percent: self.draw.one_of(&[0, 20, 60, 100]),
            rules: self.rules,
            ..prune_options()
        };
        self.process.link.begin_job();
        // A store that lies may be refused; one that only fails or is slow never looks damaged.
        match self.process.prune(&options) {
            Err(error) if error.kind() == ErrorKind::Corrupt && !self.weather.lists_wrongly() && !self.weather.puts_lost => {
                self.violated(format!("I7: a prune finds something missing: {error}"));
            }
            _ => {}
        }
    }

    fn restore(&mut self) {
        let session = self.snapshot();
        let outcome = self.process.restore(&session, &MadeUpFs::default());
        let disturbed = self.process.link.was_disturbed();
        let excused = disturbed || self.was_fenced() || self.process.sea.oracle(|ledger| ledger.may_go(&session));
        match outcome {
            // Who was accepted as a reader misses nothing, unless it was fenced or the store lied to it.
            Err(error) if error.kind() == ErrorKind::Corrupt && !disturbed && !self.was_fenced() => {
                self.violated(format!("I7: an accepted reader misses something: {error}"));
            }
            Err(error) if !excused => self.violated(format!("I4: a restore failed for nothing: {error}")),
            _ => {}
        }
    }

    /// That who looks finds nothing, or is told that what it looks at was deleted.
    fn judge(&self, what: &str, session: Option<&str>, outcome: Result<CheckReport>) {
        let outcome = outcome.and_then(|report| match report.exit_code {
            0 => Ok(()),
            _ => Err(Error::corrupt(format!("{:?} {:?}", report.findings, report.hurt))),
        });
        let Err(error) = outcome else { return };
        // Only who reads one snapshot has a marker that somebody can take away.
        let is_lawless = session.is_some() && self.was_fenced();
        let may_go = session.is_some_and(|session| self.process.sea.oracle(|ledger| ledger.may_go(session)));
        match error.kind() {
            ErrorKind::Corrupt if !self.was_lied_to() && !is_lawless => {
                self.violated(format!("I7: {what} calls damaged what is sound: {error}"));
            }
            ErrorKind::SnapshotNotFound if may_go => {}
            _ if !self.process.link.was_disturbed() && !is_lawless && !self.process.sea.has_lied() => {
                self.violated(format!("I4: {what} failed for nothing: {error}"));
            }
            _ => {}
        }
    }

    /// That a repair of what is sound writes nothing down, and that all that was readable is.
    fn repair(&mut self) {
        let outcome = self.process.repair_reading(self.draw.in_thousand(500));
        match outcome {
            Ok(report) if (report.exit_code != 0 || report.recorded) && !self.was_lied_to() => {
                self.violated(format!("I7: a repair finds damage in what is sound: {report:?}"));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt && !self.was_lied_to() && !self.was_fenced() => {
                self.violated(format!("I7: a repair calls damaged what is sound: {error}"));
            }
            Err(error) if !self.process.link.was_disturbed() && !self.was_fenced() && !self.process.sea.has_lied() => {
                self.violated(format!("I4: a repair failed for nothing: {error}"));
            }
            _ => {}
        }
    }

    /// That who was given a key opens by it until somebody takes it away.
    fn change_key(&mut self) {
        let takes_all = self.draw.in_thousand(500);
        let Ok((old, secret, slot)) = self.process.add_key() else { return };
        let excused = || self.process.link.was_disturbed() || self.process.sea.oracle(|ledger| ledger.was_given_up(&slot));
        match self.process.open_anew(secret) {
            Err(error) if !excused() => self.violated(format!("I4: a key that was handed out does not open: {error}")),
            Err(_) => {}
            Ok(opened) => {
                let others = if takes_all { opened.slots().unwrap_or_default() } else { vec![] };
                let others = others.into_iter().map(|row| row.name).filter(|name| name.to_string() != slot);
                let away: Vec<_> = if takes_all { others.collect() } else { vec![old] };
                for slot in away {
                    let _ = self.process.take_away(&opened, slot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Birth;
    use crate::scene::BEGIN;
    use crate::sea::Sea;
    use crate::stage::Stage;
    use longshore_store::{Key, Store};
    use std::sync::Arc;

    /// Plays one role alone over a scene to which something was done, and tells what it violates.
    fn play(role: Role, harm: impl FnOnce(&Arc<Sea>)) -> Option<String> {
        let scene = Scene::new(1);
        let sea = scene.sea.fork();
        harm(&sea);
        let process = Process::new(&sea, &Stage::alone(BEGIN), Birth::quiet(3)).at_home(&scene.repository);
        let part =
            Part { scene: &scene, process: &process, weather: Weather::of(0), draw: Draw::new(0, 9), rules: Rules::default() };
        part.act(role);
        sea.oracle(|ledger| ledger.violation().map(str::to_owned))
    }

    /// Every pack goes behind everybody's back.
    fn lose_packs(sea: &Arc<Sea>) {
        for key in sea.keys("packs/") {
            sea.objects().delete(&Key::new(key).unwrap()).unwrap();
        }
    }

    #[test]
    fn who_calls_something_damaged_is_judged() {
        for (role, says) in [
            (Role::Checker, "I7: a check calls damaged"),
            (Role::Verifier, "I7: a verification calls damaged"),
            (Role::Repairer, "I7: a repair finds damage"),
        ] {
            assert_eq!(play(role, |_| ()), None, "{role:?}");
            let violation = play(role, lose_packs).unwrap_or_default();
            assert!(violation.starts_with(says), "{role:?}: {violation}");
            // Where the store has lied that is what it sees.
            let excused = play(role, |sea| {
                sea.note_lie();
                lose_packs(sea);
            });
            assert_eq!(excused, None, "{role:?}");
        }
    }

    #[test]
    fn a_key_that_goes_by_itself_is_missed() {
        assert_eq!(play(Role::Locksmith, |_| ()), None);
        let lost = play(Role::Remover, |sea| {
            let slot = Key::new(sea.keys("keys/").remove(0)).unwrap();
            sea.delete(0, &slot).unwrap();
            assert!(crate::schedule::opens(sea).is_err());
        });
        assert!(lost.is_some_and(|what| what.starts_with("I1: a key slot went")));
    }
}
