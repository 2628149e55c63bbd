//! Power cuts of a repository in a folder.
//!
//! A real process makes a repository with the store of folders and lets it live: backups, a deletion, prunes, a lost index and its repair.
//! What it asked of the kernel is recorded ([`crate::trace`]); a cut is a moment in that and what is then lost of all that was not
//! synced ([`crate::disk`]). What is left is laid into a folder, and a new process opens it there: all that was acknowledged
//! counts, and prunes, restores and a backup work with nothing done by hand. What is true of one sync less is asked by the museum.

use crate::disk::{Disk, Loss};
use crate::draw::Draw;
use crate::link::Link;
use crate::oracle::Ledger;
use crate::oracle::format::Reader;
use crate::process::{Birth, Process, SECRET, bytes_at};
use crate::scene::{BEGIN, prune_options};
use crate::schedule::settle;
use crate::sea::Sea;
use crate::stage::{DAY, Stage};
use crate::trace::{Op, record};
use crate::volume::{Tree, Volume};
use bytes::Bytes;
use longshore_engine::prune::PruneOptions;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::{Key, Page, Put, Store, StoreError};
use longshore_store::{LocalSettings, LocalStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Longest file of its volumes.
const FILE_BYTES_MAX: u64 = 6000;
/// Where folders are made when it is there: nothing of a cut needs a disk.
const MEMORY: &str = "/dev/shm";

/// A store of folders, and beside it the sea in which the oracle sees what was done.
#[derive(Debug)]
struct Watched {
    disk: LocalStore,
    link: Arc<Link>,
}

impl Store for Watched {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let put = self.disk.put_new(key, body.clone())?;
        if put == Put::Created {
            self.link.put_new(key, body)?;
        }
        Ok(put)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.disk.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.disk.get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.disk.head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.disk.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.disk.delete(key)?;
        self.link.delete(key)
    }
    fn describe(&self) -> String {
        self.disk.describe()
    }
}

fn folder() -> TempDir {
    let memory = Path::new(MEMORY).is_dir().then(|| tempfile::tempdir_in(MEMORY).ok()).flatten();
    memory.unwrap_or_else(|| tempfile::tempdir().expect("a folder"))
}

/// A process over a folder; what it does is seen in `sea`.
fn process(sea: &Arc<Sea>, folder: &Path, stage: &Arc<Stage>, seed: u64) -> Process {
    let plain = Process::new(sea, stage, Birth::quiet(seed));
    let disk = LocalStore::open(folder, LocalSettings::default()).expect("a folder that is there");
    let link = Arc::clone(&plain.link);
    plain.over(Arc::new(Watched { disk, link }))
}

/// The volumes that the process backs up, one after another.
fn volumes() -> Vec<Volume> {
    (0..5)
        .map(|state| {
            let mut draw = Draw::new(9, 1);
            let mut volume = Volume::random(&mut draw, 5, FILE_BYTES_MAX);
            // Long enough to be written past the page cache.
            volume.put("large", 4, 1_100_000);
            for _ in 0..state {
                volume.live(&mut draw, 5, FILE_BYTES_MAX);
            }
            if state > 2 {
                volume.remove("large");
            }
            volume
        })
        .collect()
}

/// Prunes the repository in a folder.
///
/// # Errors
/// What the engine says.
pub fn prune(folder: &Path) -> longshore_engine::Result<()> {
    let sea = Sea::new();
    let process = process(&sea, folder, &Stage::alone(BEGIN), 77);
    process.prune(&PruneOptions { waste_percent: 1, ..prune_options() }).map(drop)
}

/// What the recorded process does; `say` prints a line. When `ripe` it ends where a prune has most to do.
pub fn act(folder: &Path, ripe: bool, mut say: impl FnMut(&str)) {
    let stage = Stage::alone(BEGIN - 20 * DAY);
    let sea = Sea::new();
    let born = |seed: u64| {
        stage.advance(DAY);
        process(&sea, folder, &stage, seed)
    };
    born(1).init().expect("a repository can be made");
    sea.watch(Ledger::new(reader(&sea).expect("a slot opens")));
    say("made");
    let volumes = volumes();
    let mut sessions = vec![];
    let prune = || born(60).prune(&PruneOptions { waste_percent: 1, ..prune_options() }).map(drop).expect("a prune");
    for (state, volume) in volumes.iter().enumerate() {
        let session = born(2 + state as u64).back_up(volume, "a").expect("a backup");
        say(&format!("acknowledged {state} {session}"));
        sessions.push(session);
        if state == 3 {
            for session in &sessions[..2] {
                say(&format!("deletes {session}"));
                born(20).delete(session).expect("a deletion");
            }
            if ripe {
                return;
            }
            prune();
            prune();
        }
    }
    // The index is lost, and a repair makes it again.
    let lost = LocalStore::open(folder, LocalSettings::default()).expect("a folder");
    for key in sea.keys("index/") {
        lost.delete(&Key::new(key).expect("a key")).expect("a deletion");
    }
    say("repairs");
    born(40).repair().expect("a repair");
    say("repaired");
    prune();
    sea.oracle(|ledger| assert_eq!(ledger.violation(), None));
}

fn reader(sea: &Sea) -> Option<Reader> {
    let slot = sea.keys("keys/").into_iter().next()?;
    Reader::from_slot(&slot, &bytes_at(sea.objects(), &slot), &SECRET)
}

/// For what a sync is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// For the bytes of an object, before it gets its name.
    Bytes,
    /// For the name that an object has just got.
    Name,
    /// For a folder that has just been made, or was there.
    Folder,
    /// For what a listing is about to show.
    Listing,
}

impl Site {
    fn of(op: &Op, previous: Option<&Op>) -> Self {
        match (op, previous) {
            (Op::Sync(path), _) if path.starts_with(".tmp/") => Self::Bytes,
            (_, Some(Op::Link(..))) => Self::Name,
            (Op::Sync(path), _) if path.is_empty() => Self::Folder,
            _ => Self::Listing,
        }
    }
}

/// Whether a sync is left out: for what it is asked, and its path.
pub type LeavesOut<'a> = &'a dyn Fn(Site, &str) -> bool;

/// What a process had said.
#[derive(Debug, Default)]
struct Said {
    /// Snapshots that it acknowledged, and of which state of the volume.
    acknowledged: BTreeMap<String, usize>,
    /// Snapshots that it was about to delete.
    intended: BTreeSet<String>,
}

/// A recorded life.
#[derive(Debug)]
pub struct Power {
    ops: Vec<Op>,
    /// The first call after the repository is made.
    begin: usize,
    truths: Vec<Tree>,
    last: Volume,
}

impl Power {
    /// Records it; `program` is one that calls [`act`] when told `--act FOLDER`.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn record(program: &Path) -> Result<Self, String> {
        Self::record_how(program, "--act")
    }

    /// The same of a life that ends where a prune has most to do; `program` calls [`act`] so when told `--ripe FOLDER`.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn record_ripe(program: &Path) -> Result<Self, String> {
        Self::record_how(program, "--ripe")
    }

    fn record_how(program: &Path, how: &str) -> Result<Self, String> {
        let folder = folder();
        let text = folder.path().to_str().ok_or("a folder without a plain name")?;
        let ops = record(program, &[how, text], folder.path())?;
        let begin = ops.iter().position(|op| *op == Op::Say("made".to_owned())).ok_or("no repository was made")? + 1;
        let mut volumes = volumes();
        let truths = volumes.iter().map(|volume| volume.truth().clone()).collect();
        Ok(Self { ops, begin, truths, last: volumes.pop().ok_or("no volume")? })
    }

    /// Moments at which the power may go.
    #[must_use]
    pub fn moments(&self) -> u64 {
        (self.ops.len() + 1 - self.begin) as u64
    }

    /// A moment and a loss that a seed decides.
    #[must_use]
    pub fn draw(&self, seed: u64) -> (u64, Loss) {
        let mut draw = Draw::new(seed, 0x9077);
        (draw.below(self.moments()), Loss::Some(draw.number()))
    }

    /// Cuts the power at a moment; `forgets` names syncs that are not done.
    ///
    /// # Errors
    /// What is then not as it must be.
    pub fn cut(&self, moment: u64, loss: Loss, forgets: LeavesOut<'_>) -> Result<(), String> {
        let (files, folders, said) = self.until(moment, loss, forgets)?;
        let folder = folder();
        lay(folder.path(), &files, &folders).map_err(|error| error.to_string())?;
        self.recover(folder.path(), &files, &said)
    }

    /// Lets `job` change the folder as it stands at the end, whole; then everything must come right.
    ///
    /// # Errors
    /// What is then not as it must be.
    pub fn after(&self, job: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
        let (files, folders, said) = self.until(self.moments() - 1, Loss::Nothing, &|_, _| false)?;
        let folder = folder();
        lay(folder.path(), &files, &folders).map_err(|error| error.to_string())?;
        job(folder.path())?;
        let mut files = BTreeMap::new();
        gather(folder.path(), "", &mut files).map_err(|error| error.to_string())?;
        self.recover(folder.path(), &files, &said)
    }

    #[allow(clippy::type_complexity, reason = "files and folders of a disk, and what was said")]
    fn until(
        &self,
        moment: u64,
        loss: Loss,
        forgets: LeavesOut<'_>,
    ) -> Result<(BTreeMap<String, Vec<u8>>, Vec<String>, Said), String> {
        let (mut disk, mut said) = (Disk::default(), Said::default());
        let mut previous = None;
        for op in &self.ops[..self.begin + moment as usize] {
            let site = Site::of(op, previous.replace(op));
            match op {
                Op::Sync(path) if forgets(site, path) => {}
                Op::Say(text) => {
                    let mut words = text.split(' ');
                    match (words.next(), words.next(), words.next()) {
                        (Some("acknowledged"), Some(state), Some(session)) => {
                            let state = state.parse::<usize>().map_err(|error| error.to_string())?;
                            said.acknowledged.insert(session.to_owned(), state);
                        }
                        (Some("deletes"), Some(session), None) => {
                            said.intended.insert(session.to_owned());
                        }
                        _ => {}
                    }
                }
                op => disk.apply(op),
            }
        }
        let (files, folders) = disk.cut(loss);
        Ok((files, folders, said))
    }

    fn recover(&self, folder: &Path, files: &BTreeMap<String, Vec<u8>>, said: &Said) -> Result<(), String> {
        let Said { acknowledged, intended } = said;
        let sea = Sea::new();
        for (path, bytes) in files.iter().filter(|(path, _)| !path.starts_with('.')) {
            sea.objects().overwrite(&Key::new(path.as_str()).map_err(|error| error.to_string())?, Bytes::from(bytes.clone()));
        }
        let mut ledger = Ledger::new(reader(&sea).ok_or("I1: no key slot opens")?);
        intended.iter().for_each(|session| ledger.intend(session));
        let keys = sea.keys("");
        // What snapshots need is shown to the oracle before them.
        let (snapshots, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.starts_with("snapshots/"));
        for key in others.iter().chain(&snapshots) {
            ledger.created(key, &bytes_at(sea.objects(), key));
        }
        for (session, state) in acknowledged {
            ledger.acknowledge(session, &self.truths[*state]);
        }
        if let Some(what) = ledger.violation() {
            return Err(what.to_owned());
        }
        sea.watch(ledger);
        let process = process(&sea, folder, &Stage::alone(BEGIN), 0xbeef);
        settle(&sea, &process, &self.last)?;
        for session in acknowledged.keys().filter(|session| !intended.contains(*session)) {
            process.restore(session, &MadeUpFs::default()).map_err(|error| format!("I1: {session}: {error}"))?;
        }
        if let Some(what) = sea.oracle(|ledger| ledger.violation().map(str::to_owned)) {
            return Err(format!("afterwards: {what}"));
        }
        let left = std::fs::read_dir(folder.join(".tmp")).map(Iterator::count).unwrap_or(0);
        if left > 0 { Err(format!("I5: temporary files stay: {left}")) } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "lays a folder that only this process knows")]
fn lay(root: &Path, files: &BTreeMap<String, Vec<u8>>, folders: &[String]) -> std::io::Result<()> {
    for folder in folders {
        std::fs::create_dir(root.join(folder))?;
    }
    files.iter().try_for_each(|(path, bytes)| std::fs::write(root.join(path), bytes))
}

#[expect(clippy::disallowed_methods, reason = "reads a folder that only this process knows")]
fn gather(root: &Path, at: &str, out: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(at))? {
        let (name, path) = (entry?.file_name(), root.join(at));
        let name = name.to_string_lossy();
        let (path, at) = (path.join(&*name), if at.is_empty() { name.to_string() } else { format!("{at}/{name}") });
        if path.is_dir() {
            gather(root, &at, out)?;
        } else {
            out.insert(at, std::fs::read(path)?);
        }
    }
    Ok(())
}
