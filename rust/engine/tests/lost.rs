//! Snapshots whose objects are gone and that nobody deleted: prunes refuse, checks name them, an operator brings them back or gives them up. And all
//! that looks like it and is not.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, orphans, prune, small_packs, whole};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::check::{self, CheckOptions, CheckReport, Severity};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair;
use longshore_engine::repository::Repository;
use longshore_format::id::SessionId;
use longshore_format::snapshot::public_id;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// A check's exit code, its errors, and what its first finding is of.
fn told(report: &CheckReport) -> (i32, u64, &str) {
    (report.exit_code, report.errors, report.findings[0].object.as_str())
}

struct Case {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    made: Vec<SessionId>,
}

impl Case {
    /// Backups of which each holds something that no other does.
    fn new(backups: u64) -> Self {
        let store = Arc::new(MemoryStore::new());
        init(Arc::<MemoryStore>::clone(&store));
        let mut case = Self { folder: tempfile::tempdir().unwrap(), store, made: vec![] };
        for seed in 0..backups {
            case.back_up(seed);
        }
        case
    }

    fn back_up(&mut self, seed: u64) {
        write(&self.folder.path().join("changes"), &noise(seed, 30_000));
        write(&self.folder.path().join("stays"), &noise(99, 30_000));
        self.made.push(back_up_alone(&self.repository(), self.folder.path()).unwrap().snapshot.unwrap());
    }

    fn repository(&self) -> Repository {
        open(Arc::<MemoryStore>::clone(&self.store)).unwrap()
    }

    fn check(&self) -> CheckReport {
        let options = CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() };
        check::run(&self.repository(), &Arc::new(Job::new()), &options).unwrap()
    }

    /// Takes an object away behind everybody's back.
    fn lose(&self, name: &str) -> bytes::Bytes {
        let at = Key::new(name).unwrap();
        let bytes = self.store.get(&at, 1 << 30).unwrap();
        self.store.delete(&at).unwrap();
        bytes
    }

    /// All but the room that is kept back, which prunes come and go by.
    fn there(&self) -> Vec<String> {
        names(&*self.store, "").into_iter().filter(|name| name != "reserve").collect()
    }

    /// That a prune refuses for the sake of this snapshot and changes nothing.
    fn refuses(&self, lost: SessionId) {
        let before = self.there();
        for options in [PruneOptions::default(), PruneOptions { fence_now: true, allow_empty: true, ..small_packs() }] {
            let error = prune(&self.repository(), &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.message().contains(&public_id(lost)), "{error}");
            let step = error.next_step().unwrap();
            assert!(
                step.contains("bring the object back") && step.contains(&format!("volume delete {}", public_id(lost))),
                "{step}"
            );
        }
        assert_eq!(self.there(), before);
    }
}

#[test]
fn the_newest_snapshot_is_missed_though_no_other_names_it_and_comes_back_whole() {
    let case = Case::new(2);
    let newest = format!("snapshots/{}", case.made[1]);
    let bytes = case.lose(&newest);
    case.refuses(case.made[1]);
    let report = case.check();
    let first = &report.findings[0];
    assert_eq!((report.exit_code, first.severity, &first.object), (4, Severity::Error, &newest));
    assert_eq!(first.snapshots, [public_id(case.made[1])]);
    assert!(first.message.contains("bring the object back"), "{first:?}");
    case.store.put_new(&Key::new(newest).unwrap(), bytes).unwrap();
    assert_eq!(case.check().exit_code, 0);
    prune(&case.repository(), &PruneOptions::default()).unwrap();
    assert_eq!(whole(&case.store).unwrap().len(), 2);
}

#[test]
fn a_lost_snapshot_is_given_up_by_its_whole_identifier_and_then_freed() {
    let mut case = Case::new(2);
    let (lost, id) = (case.made[1], public_id(case.made[1]));
    let repository = case.repository();
    case.lose(&format!("snapshots/{lost}"));
    assert_eq!(repository.delete_snapshot(&id[..12], "test").unwrap_err().kind(), ErrorKind::SnapshotNotFound, "not by a part");
    let nobody = public_id(SessionId([7; 16]));
    assert_eq!(repository.delete_snapshot(&nobody, "test").unwrap_err().kind(), ErrorKind::SnapshotNotFound, "nothing names it");
    assert_eq!(repository.delete_snapshot(&id, "test").unwrap(), lost);
    assert_eq!(names(&*case.store, "removed/"), [format!("removed/{lost}")]);
    assert_eq!(repository.delete_snapshot(&id, "test").unwrap_err().kind(), ErrorKind::SnapshotNotFound, "it is done");
    assert_eq!(case.check().exit_code, 0);
    let report = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(report.packs_deleted > 0 && report.tables_deleted > 0, "{report:?}");
    assert_eq!(orphans(&case.store), Vec::<String>::new());
    case.back_up(5);
    assert_eq!(whole(&case.store).unwrap().len(), 2);
}

#[test]
fn where_all_snapshots_are_gone_a_check_tells_that_from_all_being_deleted() {
    let case = Case::new(2);
    let lost: Vec<_> = names(&*case.store, "snapshots/").into_iter().map(|name| (case.lose(&name), name)).collect();
    let report = case.check();
    assert_eq!((report.exit_code, report.errors), (4, 2), "{:?}", report.findings);
    // Without the tables nothing names a snapshot, but packs that nobody writes are those of backups: no prune ever moved anything.
    let tables: Vec<_> = names(&*case.store, "usage/").into_iter().map(|name| (case.lose(&name), name)).collect();
    let report = case.check();
    assert_eq!(told(&report), (4, 1, "snapshots/"), "{:?}", report.findings);
    assert_eq!(prune(&case.repository(), &PruneOptions::default()).unwrap_err().kind(), ErrorKind::Usage);
    for (bytes, name) in tables.into_iter().chain(lost) {
        case.store.put_new(&Key::new(name).unwrap(), bytes).unwrap();
    }
    assert_eq!(case.check().exit_code, 0);
    for session in &case.made {
        case.repository().remove_snapshot(*session, "test").unwrap();
    }
    let report = case.check();
    assert_eq!(told(&report), (0, 0, "snapshots/"), "{:?}", report.findings);
    assert!(report.findings[0].message.contains("a prune frees the packs"), "{:?}", report.findings);
}

#[test]
fn a_backup_that_died_before_its_commit_is_not_taken_for_a_lost_snapshot() {
    let case = Case::new(1);
    write(&case.folder.path().join("changes"), &noise(50, 30_000));
    // Its table is there, its snapshot is not, its marker is.
    let stops = |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("snapshots/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    let dying = case.repository().with_store(Arc::new(Fault::new(Arc::clone(&case.store), stops)));
    back_up_alone(&dying, case.folder.path()).unwrap_err();
    assert_eq!((names(&*case.store, "usage/").len(), names(&*case.store, "sessions/").len()), (2, 1));
    assert_eq!(case.check().errors, 0);
    prune(&case.repository(), &PruneOptions::default()).unwrap();
    let session = SessionId::from_hex(names(&*case.store, "sessions/")[0].strip_prefix("sessions/").unwrap()).unwrap();
    let refused = case.repository().delete_snapshot(&public_id(session), "test").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SnapshotNotFound, "it may still commit: {refused}");
    // Fenced: its table is garbage, and goes.
    let report = prune(&case.repository(), &PruneOptions { fence_now: true, ..PruneOptions::default() }).unwrap();
    assert_eq!((report.fenced, report.tables_deleted), (vec![session], 1));
    assert_eq!(case.check().exit_code, 0);
    assert_eq!(orphans(&case.store), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_is_committed_while_a_prune_looks_is_seen_at_its_next_look() {
    let mut case = Case::new(3);
    case.repository().remove_snapshot(case.made[0], "test").unwrap();
    // It commits, and its marker goes, when snapshots were listed and sessions were not.
    case.back_up(9);
    let newest = format!("snapshots/{}", case.made[3]);
    let bytes = case.lose(&newest);
    let at = Key::new(newest).unwrap();
    let (inner, looks, counted) = (Arc::clone(&case.store), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let listings = Arc::clone(&counted);
    let commits = move |call: &Call<'_>| {
        match (call.verb, call.key) {
            (Verb::List, "usage/") => looks.store(true, SeqCst),
            (Verb::List, "sessions/") if looks.load(SeqCst) && listings.fetch_add(1, SeqCst) == 0 => {
                inner.put_new(&at, bytes.clone()).unwrap();
            }
            _ => {}
        }
        Effect::Pass
    };
    let beside = case.repository().with_store(Arc::new(Fault::new(Arc::clone(&case.store), commits)));
    let report = prune(&beside, &PruneOptions::default()).unwrap();
    assert!(report.packs_deleted > 0 && counted.load(SeqCst) > 1, "{report:?}");
    assert_eq!((report.snapshots, whole(&case.store).unwrap().len()), (3, 3), "the first look began again");
}

/// The newest snapshot, which added nothing: an older one's table says all that it needs, and that one was deleted since. One of something else counts,
/// too, and there is something to free.
fn nothing_added() -> (Case, SessionId) {
    let mut case = Case::new(1);
    for seed in [6, 7] {
        case.folder = tempfile::tempdir().unwrap();
        case.back_up(seed);
    }
    let same = back_up_alone(&case.repository(), case.folder.path()).unwrap().snapshot.unwrap();
    let tables = names(&*case.store, "usage/");
    let own: Vec<_> = tables.iter().filter(|name| name.ends_with(&same.to_string())).collect();
    assert_eq!((tables.len(), own.len()), (4, 1), "it has the older one's, and one that bears its name");
    for at in [0, 2] {
        case.repository().remove_snapshot(case.made[at], "test").unwrap();
    }
    (case, same)
}

#[test]
fn a_snapshot_that_added_nothing_is_missed_too() {
    let (case, same) = nothing_added();
    let newest = format!("snapshots/{same}");
    let bytes = case.lose(&newest);
    case.refuses(same);
    let report = case.check();
    assert_eq!((report.exit_code, report.findings[0].severity, &report.findings[0].object), (4, Severity::Error, &newest));
    case.store.put_new(&Key::new(newest).unwrap(), bytes).unwrap();
    // What bears its name holds nothing: a prune does not read it.
    let (read, own) = (Arc::new(AtomicU64::new(0)), same.to_string());
    let counted = Arc::clone(&read);
    let counting = beside(&case, move |call| {
        if call.verb == Verb::Get && call.key.starts_with("usage/") {
            assert!(!call.key.ends_with(&own), "{}", call.key);
            counted.fetch_add(1, SeqCst);
        }
        Effect::Pass
    });
    assert!(prune(&counting, &PruneOptions::default()).unwrap().packs_deleted > 0);
    assert!(read.load(SeqCst) > 0);
    assert_eq!((case.check().exit_code, whole(&case.store).unwrap().len()), (0, 2));
    case.repository().remove_snapshot(same, "test").unwrap();
    prune(&case.repository(), &PruneOptions::default()).unwrap();
    assert_eq!((names(&*case.store, "usage/").len(), orphans(&case.store)), (1, Vec::<String>::new()));
}

/// The repository to a prune, and what becomes of each of its calls.
fn beside(case: &Case, plan: impl Fn(&Call<'_>) -> Effect + Send + Sync + 'static) -> Repository {
    case.repository().with_store(Arc::new(Fault::new(Arc::clone(&case.store), plan)))
}

#[test]
fn what_an_earlier_listing_of_the_same_prune_showed_is_missed_when_a_later_one_leaves_it_out() {
    let (case, same) = nothing_added();
    let all = names(&*case.store, "snapshots/");
    let shown = |seed| names(&Fault::new(Arc::clone(&case.store), move |_: &Call<'_>| Effect::Hide { seed }), "snapshots/");
    let hides = |seed| shown(seed).len() + 1 == all.len() && !shown(seed).contains(&format!("snapshots/{same}"));
    let seed = (0..).find(|seed| hides(*seed)).unwrap();
    let before = case.there();
    // From some listing on, the first of all aside: what no listing shows nobody can miss.
    for from in 1..5 {
        let case = Case { store: Arc::new(case.store.fork()), folder: tempfile::tempdir().unwrap(), made: vec![] };
        let listings = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&listings);
        let short = beside(&case, move |call| match call.verb == Verb::List && call.key == "snapshots/" {
            true if counted.fetch_add(1, SeqCst) >= from => Effect::Hide { seed },
            _ => Effect::Pass,
        });
        match prune(&short, &PruneOptions::default()) {
            Ok(_) => assert!(listings.load(SeqCst) <= from, "nothing was left out before it ended"),
            Err(error) => {
                assert!(
                    error.message().contains("that was listed a moment ago") && error.message().contains(&public_id(same)),
                    "{error}"
                );
                assert!(error.next_step().unwrap().contains("listing is short"), "{error}");
            }
        }
        assert_eq!(whole(&case.store).unwrap().len(), 2, "from listing {from}");
        if from == 1 {
            assert_eq!(case.there(), before);
        }
    }
}

#[test]
fn a_snapshot_that_goes_behind_the_back_of_a_prune_is_missed_and_one_that_is_deleted_meanwhile_is_not() {
    let (case, same) = nothing_added();
    let (base, at) = (case.store, Key::new(format!("snapshots/{same}")).unwrap());
    // When, whether anybody deleted it, and whether the listing of removals shows that.
    for (when, is_deleted, is_shown) in [
        ("tombstones/", false, true),
        ("usage/", false, true),
        ("tombstones/", true, true),
        ("usage/", true, true),
        ("usage/", true, false),
    ] {
        let case = Case { store: Arc::new(base.fork()), folder: tempfile::tempdir().unwrap(), made: vec![] };
        let (plain, inner, at, once) = (case.repository(), Arc::clone(&case.store), at.clone(), AtomicBool::new(true));
        let packs = names(&*case.store, "packs/").len();
        let meanwhile = beside(&case, move |call| {
            let is_time = matches!(call.verb, Verb::PutNew | Verb::List) && call.key.starts_with(when);
            if is_time && once.swap(false, SeqCst) {
                match is_deleted {
                    true => plain.remove_snapshot(same, "beside").unwrap(),
                    false => inner.delete(&at).unwrap(),
                }
            }
            match !is_shown && call.verb == Verb::List && call.key == "removed/" {
                true => Effect::Short { keep_entries: 0 },
                false => Effect::Pass,
            }
        });
        let outcome = prune(&meanwhile, &PruneOptions::default());
        assert_eq!(whole(&case.store).unwrap().len(), 1);
        if is_deleted {
            assert!(outcome.unwrap().packs_deleted > 0, "{when}");
            continue;
        }
        let error = outcome.unwrap_err();
        assert!(
            error.message().contains("that was listed a moment ago") && error.message().contains(&public_id(same)),
            "{error}"
        );
        assert!(error.next_step().unwrap().contains("bring the object back from a copy"), "{error}");
        assert_eq!(names(&*case.store, "packs/").len(), packs, "{when}");
    }
}

#[test]
fn a_backup_that_a_prune_saw_and_whose_snapshot_is_lost_is_not_fenced_in_its_place() {
    let mut case = Case::new(1);
    // A prune sees it as it runs: the watch names it from then on.
    let (plain, once) = (case.repository(), AtomicBool::new(true));
    let watched = beside(&case, move |call| {
        if call.verb == Verb::PutNew && call.key.starts_with("usage/") && once.swap(false, SeqCst) {
            prune(&plain, &PruneOptions::default()).unwrap();
        }
        Effect::Pass
    });
    write(&case.folder.path().join("changes"), &noise(70, 30_000));
    let lost = back_up_alone(&watched, case.folder.path()).unwrap().snapshot.unwrap();
    let at = format!("snapshots/{lost}");
    let bytes = case.lose(&at);
    let before = case.there();
    for options in [
        PruneOptions::default(),
        PruneOptions { fence_now: true, ..PruneOptions::default() },
        PruneOptions { fence: vec![lost], ..PruneOptions::default() },
    ] {
        let error = prune(&case.repository(), &options).unwrap_err();
        assert!(error.message().contains("a writer that ran is neither listed nor ended"), "{error}");
        let step = error.next_step().unwrap();
        assert!(step.contains("bring the object back") && step.contains(&format!("volume delete {}", public_id(lost))), "{step}");
        assert_eq!(case.there(), before);
    }
    let store = Arc::new(case.store.fork());
    store.put_new(&Key::new(at).unwrap(), bytes).unwrap();
    prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &PruneOptions::default()).unwrap();
    assert_eq!(whole(&store).unwrap().len(), 2, "brought back");
    case.repository().delete_snapshot(&public_id(lost), "test").unwrap();
    prune(&case.repository(), &PruneOptions::default()).unwrap();
    case.made.push(lost);
    assert_eq!((whole(&case.store).unwrap(), orphans(&case.store)), (vec![case.made[0]], vec![]), "given up");
}

#[test]
fn a_snapshot_that_only_a_reader_names_is_missed_by_checks_too_and_repairs_do_not_end_well_without_one() {
    let mut case = Case::new(2);
    // Nothing has changed: its own table says nothing, and where that is lost, too, nothing else names it.
    case.made.push(back_up_alone(&case.repository(), case.folder.path()).unwrap().snapshot.unwrap());
    let (repository, lost) = (case.repository(), case.made[2]);
    let mut tables = repository.find_snapshot(&public_id(lost), None).unwrap().snapshot.usage;
    let own: Vec<_> = tables.extract_if(.., |table| table.session() == lost).map(|table| format!("usage/{table}")).collect();
    assert_eq!((tables.len(), own.len()), (1, 1));
    let reader = repository.open_reader(lost, &tables, "test").unwrap();
    let gone = [format!("snapshots/{lost}"), own[0].clone()].map(|name| (case.lose(&name), name));
    let report = case.check();
    assert_eq!(told(&report), (4, 1, &*format!("snapshots/{lost}")), "{:?}", report.findings);
    assert!(report.findings[0].message.contains("bring the object back"));
    for dry_run in [true, false] {
        let options = repair::RepairOptions { workers: 0, dry_run, ..repair::RepairOptions::default() };
        let report = repair::run(&case.repository(), &Arc::new(Job::new()), &options).unwrap();
        assert_eq!((report.exit_code, report.snapshots_lost, report.recorded), (4, 1, false), "{report:?}");
        assert_eq!(report.findings[0].object, format!("snapshots/{lost}"));
    }
    for (bytes, name) in gone {
        case.store.put_new(&Key::new(name).unwrap(), bytes).unwrap();
    }
    assert_eq!(case.check().exit_code, 0);
    drop(reader);
}
