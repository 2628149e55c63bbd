//! Checks, verifies and repairs that were killed while they read: the next one goes on, and believes nothing that may have changed.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::pruned::back_up_alone;
use common::watched::Watched;
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::check::{self, CheckOptions, CheckReport, Share};
use longshore_engine::job::Job;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_format::id::SessionId;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, SeededRng, Store, VirtualClock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const FILE_BYTES: usize = 300_000;
/// Reading a header asks for less than this of a pack.
const HEADER_BYTES: u64 = 100_000;

/// What somebody asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Question {
    Check,
    CheckPart,
    Verify,
    VerifySeals,
    VerifyPart,
    Repair,
}

use Question::{Check, CheckPart, Repair, Verify, VerifyPart, VerifySeals};

const ALL: [Question; 6] = [Check, CheckPart, Verify, VerifySeals, VerifyPart, Repair];

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    clock: Arc<VirtualClock>,
    snapshot: SessionId,
    /// Packs of file data, in the order in which one thread reads them.
    packs: Vec<Key>,
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    outcome: longshore_engine::Result<CheckReport>,
    /// Packs of which more than the header was read.
    read: Vec<String>,
    /// What the job says while it runs.
    packs_known: u64,
}

impl Ran {
    fn report(&self) -> &CheckReport {
        self.outcome.as_ref().unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let store = Arc::new(MemoryStore::new());
        // Names of packs say which part they belong to, and in which order they are read: always the same ones.
        let world = World { rng: Arc::new(SeededRng::new(7)), ..World::system() };
        let repository = init(Arc::clone(&store) as _).with_world(world);
        let mut snapshot = None;
        for n in 0..8u64 {
            write(&source.join(format!("f{n}")), &noise(n, FILE_BYTES));
            snapshot = back_up_alone(&repository, &source).unwrap().snapshot;
        }
        let listed = store.list("packs/", None, 1000).unwrap().entries;
        let packs = listed.into_iter().filter(|entry| entry.size_bytes > FILE_BYTES as u64).map(|entry| entry.key).collect();
        // Not at zero: no run begins before time did.
        let clock = Arc::new(VirtualClock::new());
        clock.advance(30 * DAY);
        Self { folder, store, clock, snapshot: snapshot.unwrap(), packs }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn journals(&self) -> Vec<PathBuf> {
        let Ok(of_repository) = std::fs::read_dir(self.cache()) else { return vec![] };
        let folders = of_repository.map(|entry| entry.unwrap().path().join("journal"));
        folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().map(|entry| entry.unwrap().path()).collect()
    }

    fn open(&self, store: Arc<dyn Store>) -> Repository {
        let world = World { clock: Arc::clone(&self.clock) as _, ..World::system() };
        open(store).unwrap().with_world(world).with_cache(&Cache::at(self.cache()))
    }

    /// Asks through `store`, on this thread.
    fn ask_through(&self, store: Arc<dyn Store>, question: Question, fresh: bool) -> Ran {
        let watched = Watched::new(store, 0);
        let seen = Arc::clone(&watched.seen);
        let repository = self.open(Arc::new(watched));
        let job = Arc::new(Job::new());
        let options = CheckOptions { workers: 0, fresh, ..CheckOptions::default() };
        let half = Some(Share { part: 1, parts: 2 });
        let outcome = match question {
            Check => check::run(&repository, &job, &CheckOptions { read_percent: 100, ..options }),
            CheckPart => check::run(&repository, &job, &CheckOptions { share: half, ..options }),
            Verify | VerifySeals => check::verify_snapshot(&repository, self.snapshot, question == Verify, &job, &options),
            VerifyPart => {
                check::verify_snapshot(&repository, self.snapshot, true, &job, &CheckOptions { share: half, ..options })
            }
            Repair => {
                let options = RepairOptions { read_data: true, workers: 0, fresh, ..RepairOptions::default() };
                repair::run(&repository, &job, &options).map(|report| CheckReport {
                    errors: report.errors,
                    packs_resumed: report.packs_resumed,
                    bytes_resumed: report.bytes_resumed,
                    begun_nanos: report.begun_nanos,
                    bytes_read: report.bytes_read,
                    exit_code: report.exit_code,
                    ..CheckReport::default()
                })
            }
        };
        let packs = seen.packs.lock().unwrap().clone();
        let read = packs.into_iter().filter(|(_, bytes)| *bytes > HEADER_BYTES + HEADER_BYTES).map(|(key, _)| key).collect();
        Ran { outcome, read, packs_known: job.progress().packs_known }
    }

    fn ask(&self, question: Question) -> Ran {
        self.ask_through(Arc::clone(&self.store) as _, question, false)
    }

    /// Asks, and is killed before pack number `whole` is read: so many were read to their ends.
    fn killed(&self, question: Question, whole: usize) -> Vec<String> {
        let at = self.packs[whole].as_str().to_owned();
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::GetRange && call.key == at { Effect::StopBefore } else { Effect::Pass }
        };
        let ran = self.ask_through(Arc::new(Fault::new(Arc::clone(&self.store), plan)), question, false);
        assert_eq!(ran.outcome.unwrap_err().kind(), ErrorKind::StoreUnavailable);
        ran.read
    }

    fn rot(&self, pack: &Key) {
        let mut body = self.store.get(pack, 1 << 30).unwrap().to_vec();
        // Within the file's data: the header is at the end.
        body[100_000] ^= 1;
        self.store.overwrite(pack, Bytes::from(body));
    }
}

#[test]
fn what_was_read_before_a_kill_is_not_read_again() {
    for question in ALL {
        let bench = Bench::new();
        let undisturbed = bench.ask(question);
        assert_eq!((undisturbed.report().packs_resumed, undisturbed.packs_known), (0, 0), "{question:?}");
        assert_eq!(bench.journals(), Vec::<PathBuf>::new(), "{question:?}: one that came to its end leaves nothing");
        let begun = longshore_store::Clock::wall_nanos(&*bench.clock);
        // At its last pack but one: the more was read, the more is to be gained.
        let last = bench.packs.iter().rposition(|key| undisturbed.read.contains(&key.as_str().to_owned())).unwrap();
        bench.killed(question, last);
        bench.clock.advance(DAY);
        let ran = bench.ask(question);
        let report = ran.report();
        assert_eq!(ran.read, [bench.packs[last].as_str()], "{question:?}: what is left");
        assert!(report.packs_resumed as usize >= undisturbed.read.len() - 1 && undisturbed.read.len() > 2, "{question:?}");
        assert_eq!(ran.packs_known, report.packs_resumed, "{question:?}");
        assert_eq!(report.begun_nanos, begun, "{question:?}");
        assert!(report.bytes_resumed > (undisturbed.read.len() as u64 - 1) * FILE_BYTES as u64, "{question:?}: {report:?}");
        // Nothing else differs from a run that was not disturbed.
        let whole = undisturbed.report();
        assert_eq!((report.exit_code, report.errors, report.warnings), (0, 0, 0), "{question:?}");
        assert_eq!((report.packs, report.trees, &report.findings), (whole.packs, whole.trees, &whole.findings), "{question:?}");
        // Asked once more, everything is read once more.
        let again = bench.ask(question);
        assert_eq!((again.report().packs_resumed, again.read), (0, undisturbed.read), "{question:?}");
        assert_eq!(bench.journals(), Vec::<PathBuf>::new(), "{question:?}");
    }
}

#[test]
fn many_kills_read_each_pack_once() {
    let bench = Bench::new();
    let whole = bench.ask(Check).read;
    let mut read = Vec::new();
    for kill in 1..bench.packs.len() {
        read.extend(bench.killed(Check, kill));
        assert_eq!(bench.journals().len(), 1);
    }
    read.extend(bench.ask(Check).read);
    read.sort();
    assert_eq!(read, whole);
}

#[test]
fn each_question_has_a_journal_of_its_own() {
    for question in ALL {
        let bench = Bench::new();
        let whole = bench.ask(question).read;
        for other in ALL.into_iter().filter(|other| *other != question) {
            let of_other = bench.ask(other).read;
            let last = bench.packs.iter().rposition(|key| of_other.contains(&key.as_str().to_owned())).unwrap();
            bench.killed(other, last);
        }
        let ran = bench.ask(question);
        assert_eq!((ran.report().packs_resumed, ran.read), (0, whole), "{question:?}");
    }
}

#[test]
fn who_says_fresh_begins_anew() {
    for question in [Check, Verify, Repair] {
        let bench = Bench::new();
        bench.killed(question, 5);
        let ran = bench.ask_through(Arc::clone(&bench.store) as _, question, true);
        assert_eq!((ran.report().packs_resumed, ran.report().begun_nanos), (0, 0), "{question:?}");
        assert!(ran.read.len() >= bench.packs.len(), "{question:?}: {:?}", ran.read);
    }
}

#[test]
fn what_was_read_more_than_a_week_ago_is_read_again() {
    for (days, is_believed) in [(7, true), (8, false)] {
        let bench = Bench::new();
        bench.killed(Check, 5);
        // Going on does not make what was read first any younger.
        bench.clock.advance(3 * DAY);
        bench.killed(Check, 6);
        bench.clock.advance((days - 3) * DAY);
        let ran = bench.ask(Check);
        assert_eq!((ran.report().packs_resumed > 0, ran.read.len() <= 2), (is_believed, is_believed), "{days} days: {ran:?}");
    }
    // By a clock that was ahead.
    let bench = Bench::new();
    bench.killed(Check, 5);
    let behind = Bench { clock: Arc::new(VirtualClock::new()), ..bench };
    behind.clock.advance(DAY);
    assert_eq!(behind.ask(Check).report().packs_resumed, 0);
}

#[test]
fn a_journal_of_another_version_or_repository_or_a_damaged_one_is_left_aside() {
    let whole = Bench::new().packs.len();
    let with_journal = |change: &dyn Fn(&mut Vec<u8>)| {
        let bench = Bench::new();
        bench.killed(Check, 5);
        let [journal] = &bench.journals()[..] else { panic!("one journal") };
        let mut bytes = std::fs::read(journal).unwrap();
        change(&mut bytes);
        std::fs::write(journal, bytes).unwrap();
        let ran = bench.ask(Check);
        assert_eq!(ran.report().exit_code, 0);
        assert_eq!(bench.journals(), Vec::<PathBuf>::new());
        (ran.report().packs_resumed, ran.read.len())
    };
    let (known, rest) = with_journal(&|_| ());
    assert!(known >= 5 && rest < whole, "{known}, {rest}");
    let none = (0, with_journal(&|bytes| bytes.clear()).1);
    assert!(none.1 >= whole, "{none:?}");
    // Magic, version, salt, sum, and the first record, without which nobody knows how old the others are.
    for at in [0, 7, 20, 50, 72, 80, 95] {
        assert_eq!(with_journal(&|bytes| bytes[at] ^= 1), none, "byte {at}");
    }
    // What was written before the damage holds.
    let (torn, _) = with_journal(&|bytes| bytes.truncate(bytes.len() - 3));
    assert_eq!(torn, known - 1);
    let (flipped, _) = with_journal(&|bytes| {
        let middle = bytes.len() - 100;
        bytes[middle] ^= 1;
    });
    assert!(0 < flipped && flipped < known, "{flipped}");
    // One that another repository's check left.
    let (bench, other) = (Bench::new(), Bench::new());
    bench.killed(Check, 5);
    other.killed(Check, 5);
    std::fs::copy(&other.journals()[0], &bench.journals()[0]).unwrap();
    assert_eq!(bench.ask(Check).report().packs_resumed, 0);
}

#[test]
fn damage_that_was_found_before_a_kill_is_found_again() {
    for question in ALL {
        let bench = Bench::new();
        let whole = bench.ask(question).read;
        let of_question: Vec<usize> =
            (0..bench.packs.len()).filter(|at| whole.contains(&bench.packs[*at].as_str().to_owned())).collect();
        let damaged = &bench.packs[of_question[0]];
        bench.rot(damaged);
        bench.killed(question, *of_question.last().unwrap());
        let ran = bench.ask(question);
        assert_eq!(ran.report().exit_code, 4, "{question:?}");
        assert!(ran.read.contains(&damaged.as_str().to_owned()), "{question:?}");
        assert!(ran.report().packs_resumed > 0, "{question:?}: the others are known");
    }
}

#[test]
fn a_pack_that_is_not_what_it_was_is_read_again() {
    for question in [Check, Verify, Repair] {
        let bench = Bench::new();
        bench.killed(question, 5);
        // One is longer than it was, of another the header is damaged, a third is gone.
        let body = |at: usize| bench.store.get(&bench.packs[at], 1 << 30).unwrap().to_vec();
        bench.store.overwrite(&bench.packs[0], Bytes::from([body(0), vec![0; 64]].concat()));
        let mut headless = body(1);
        let at = headless.len() - 40;
        headless[at] ^= 1;
        bench.store.overwrite(&bench.packs[1], Bytes::from(headless));
        bench.store.delete(&bench.packs[2]).unwrap();
        let ran = bench.ask(question);
        assert_eq!(ran.report().exit_code, 4, "{question:?}");
        for pack in &bench.packs[..2] {
            assert!(ran.read.contains(&pack.as_str().to_owned()), "{question:?}: {pack} is believed");
        }
        assert!(ran.report().errors >= 2 && ran.report().packs_resumed >= 2, "{question:?}: {ran:?}");
    }
}

#[test]
fn damage_that_anybody_finds_ends_what_others_believe() {
    for question in [Check, Verify, VerifySeals, Repair] {
        let bench = Bench::new();
        bench.killed(question, 5);
        // It rots after it was read.
        bench.rot(&bench.packs[1]);
        let finder = if question == Check { Verify } else { Check };
        assert_eq!(bench.ask(finder).report().exit_code, 4);
        let ran = bench.ask(question);
        assert_eq!((ran.report().exit_code, ran.report().packs_resumed), (4, 0), "{question:?}");
    }
    // Without a journal of one's own as well: a header is damaged, and nobody asked for data.
    let bench = Bench::new();
    bench.killed(Repair, 5);
    let mut body = bench.store.get(&bench.packs[1], 1 << 30).unwrap().to_vec();
    let at = body.len() - 40;
    body[at] ^= 1;
    bench.store.overwrite(&bench.packs[1], Bytes::from(body));
    let repository = bench.open(Arc::clone(&bench.store) as _);
    let report = check::run(&repository, &Arc::new(Job::new()), &CheckOptions { workers: 0, ..CheckOptions::default() });
    assert_eq!((report.unwrap().exit_code, bench.journals()), (4, vec![]));
}

#[test]
fn one_of_several_verifies_keeps_what_it_read_until_all_are_done() {
    let bench = Bench::new();
    let options = CheckOptions { workers: 0, keep_journal: true, ..CheckOptions::default() };
    let resumed = || {
        let repository = bench.open(Arc::clone(&bench.store) as _);
        let report = check::verify_snapshot(&repository, bench.snapshot, false, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!((report.exit_code, report.errors), (0, 0));
        report.packs_resumed
    };
    let packs = bench.ask(VerifySeals).report().packs;
    assert_eq!((resumed(), resumed(), resumed()), (0, packs, packs));
    check::forget_journals(&bench.open(Arc::clone(&bench.store) as _));
    assert_eq!(resumed(), 0);
}

#[test]
fn a_part_that_chance_chooses_leaves_no_journal() {
    let bench = Bench::new();
    let plan = |call: &Call<'_>| {
        if call.verb == Verb::GetRange && call.nth > 20 { Effect::StopBefore } else { Effect::Pass }
    };
    let repository = bench.open(Arc::new(Fault::new(Arc::clone(&bench.store), plan)));
    let options = CheckOptions { read_percent: 99, workers: 0, ..CheckOptions::default() };
    assert!(check::run(&repository, &Arc::new(Job::new()), &options).is_err());
    assert_eq!(bench.journals(), Vec::<PathBuf>::new());
}
