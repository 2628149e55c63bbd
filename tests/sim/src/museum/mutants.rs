//! Bugs made again inside: each trial is run without the bug, when it must be sound, and with it, when it must be seen.

use super::{born, brief, fates, quiet, sound};
use crate::link::{Call, Fate, Link};
use crate::power::{LeavesOut, Power, Site};
use crate::process::Process;
use crate::scene::{Scene, prune_options};
use crate::sea::Sea;
use crate::volume::Volume;
use bytes::Bytes;
use longshore_engine::prune::{PruneOptions, WRONG_REPACK};
use longshore_engine::repository::session::FENCE_UNSEEN;
use longshore_format::envelope::WRONG_ENCODER;
use longshore_format::pack::VerifyUpload;
use longshore_store::layers::Verb;
use longshore_store::{Key, Page, Put, Store, StoreError};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

fn all_away() -> PruneOptions {
    PruneOptions { fence_now: true, waste_percent: 1, ..prune_options() }
}

/// Holds puts of the index back until the snapshot is there.
#[derive(Debug)]
struct IndexLast {
    link: Arc<Link>,
    held: Mutex<Vec<(Key, Bytes)>>,
}

impl Store for IndexLast {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if key.as_str().starts_with("index/") {
            held.push((key.clone(), body));
            return Ok(Put::Created);
        }
        let put = self.link.put_new(key, body)?;
        if key.as_str().starts_with("snapshots/") {
            for (key, body) in held.drain(..) {
                self.link.put_new(&key, body)?;
            }
        }
        Ok(put)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.link.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.link.get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.link.head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.link.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.link.delete(key)
    }
    fn describe(&self) -> String {
        self.link.describe()
    }
}

/// A backup that dies behind its commit; with the bug its index is not there then, and a check says so.
pub fn commit_before_index(scenes: &[Scene]) -> Result<String, String> {
    let scene = &scenes[0];
    let check = |with: bool| {
        let sea = scene.sea.fork();
        let commit =
            |call: &Call<'_>| (call.verb == Verb::PutNew && call.key.starts_with("snapshots/")).then_some(Fate::DieAfter);
        let mut process = born(&sea, 1, fates(commit));
        if with {
            let link = Arc::clone(&process.link);
            process = process.over(Arc::new(IndexLast { link, held: Mutex::new(vec![]) }));
        }
        let _ = process.back_up(&scene.volumes[0], "b");
        quiet(&sea, 2).check()
    };
    check(false).map_err(|error| format!("without the bug: {error}"))?;
    match check(true) {
        Ok(()) => Err("a check finds nothing".to_owned()),
        Err(error) if error.to_string().contains("in no index") => Ok("the check names the packs that no index lists".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Every compressed payload has a wrong byte: no pack leaves; where packs are not looked at before they are sent, the oracle sees it.
pub fn wrong_encoder(scenes: &[Scene]) -> Result<String, String> {
    let scene = &scenes[0];
    let back_up = |wrong: bool, verify: VerifyUpload| {
        let sea = scene.sea.fork();
        WRONG_ENCODER.store(wrong, Relaxed);
        let outcome = quiet(&sea, 1).verifying(verify).back_up(&scene.volumes[0], "b");
        WRONG_ENCODER.store(false, Relaxed);
        (outcome, sea)
    };
    let (outcome, sea) = back_up(false, VerifyUpload::Full);
    outcome.map_err(|error| format!("without the bug: {error}"))?;
    sound(&sea, "without the bug")?;
    let (outcome, sea) = back_up(true, VerifyUpload::Full);
    let Err(error) = outcome else { return Err("a backup is acknowledged".to_owned()) };
    sound(&sea, "with the bug")?;
    if let Some(pack) = sea.oracle(|ledger| ledger.torn().first().cloned()) {
        return Err(format!("a pack with wrong bytes was sent: {pack}"));
    }
    let (_, sea) = back_up(true, VerifyUpload::None);
    match sound(&sea, "not verified") {
        Ok(()) => Err("the oracle sees nothing when packs are not verified".to_owned()),
        Err(what) => {
            let (error, what) = (brief(&error.to_string()), brief(&what));
            Ok(format!("no pack with wrong bytes is sent ({error}); unverified, the oracle sees it ({what})"))
        }
    }
}

/// A writer is frozen before its commit while prunes fence it and take what it relies on; with the bug its commit lands all the same, or
/// does not and the writer takes it for done.
pub fn fence_ignored(scenes: &[Scene]) -> Result<String, String> {
    let run = |scene: &Scene, with: bool| {
        let sea = scene.sea.fork();
        let (beside, mut frozen) = (Arc::clone(&sea), false);
        let plan = move |call: &Call<'_>| {
            if call.verb != Verb::PutNew || !call.key.starts_with("snapshots/") || frozen {
                return (1_000_000, Fate::Pass);
            }
            frozen = true;
            for seed in 0..3 {
                let _ = quiet(&beside, 50 + seed).prune(&all_away());
            }
            (1_000_000, if with { Fate::Overwrite } else { Fate::Pass })
        };
        let _ = born(&sea, 1, plan).back_up(&scene.volumes[0], "b");
        sound(&sea, "a frozen writer")
    };
    for scene in scenes {
        run(scene, false).map_err(|why| format!("without the bug: {why}"))?;
    }
    let landed =
        scenes.iter().find_map(|scene| run(scene, true).err()).ok_or("the oracle sees nothing of a commit over a fence")?;
    // The store refuses it, and the writer does not look at what lies there.
    FENCE_UNSEEN.store(true, Relaxed);
    let told = scenes.iter().find_map(|scene| run(scene, false).err());
    FENCE_UNSEEN.store(false, Relaxed);
    let told = told.ok_or("the oracle sees nothing of a fenced writer that tells of success")?;
    Ok(format!("the oracle sees it ({}); refused by the store and told as done, too ({})", brief(&landed), brief(&told)))
}

/// Power cuts among which a sync that is left out must show.
const CUTS: u64 = 600;

/// Syncs are left out, those of one line of the store at a time: the power cuts of its row must show each. What a listing syncs is not among
/// them: it guards what another process named and did not live to sync.
pub fn sync_left_out(_: &[Scene]) -> Result<String, String> {
    let power = Power::record(&std::env::current_exe().map_err(|error| error.to_string())?)?;
    let mut shown = vec![];
    let folders = |site: Site| matches!(site, Site::Name | Site::Listing);
    let leave_out: [(&str, LeavesOut<'_>); 6] = [
        ("bytes of objects", &|site, _| site == Site::Bytes),
        ("folders", &|site, _| site == Site::Folder),
        ("names of snapshots", &|site, path| site == Site::Name && path == "snapshots"),
        ("names of usage tables", &|site, path| site == Site::Name && path == "usage"),
        // A writer lists its packs before it commits, and a listing syncs: so names of packs are synced twice.
        ("names of packs, twice", &|site, path| folders(site) && path == "packs"),
        ("names of removals, twice", &|site, path| folders(site) && path == "removed"),
    ];
    for (what, forgets) in leave_out {
        let mut seeds = (0..CUTS).map(|seed| (seed, power.draw(seed)));
        let seen = seeds.find(|(_, (moment, loss))| power.cut(*moment, *loss, forgets).is_err());
        let (seed, (moment, loss)) = seen.ok_or_else(|| format!("no power cut shows that syncs are left out: {what}"))?;
        power.cut(moment, loss, &|_, _| false).map_err(|why| format!("without the bug: {why}"))?;
        shown.push(format!("{what} by cut {seed}"));
    }
    Ok(format!("power cuts show each sync that is left out: {}", shown.join(", ")))
}

/// A prune moves frames: what it reads is wrong, or what it makes of that, or what it sends.
pub fn repack_garbles(scenes: &[Scene]) -> Result<String, String> {
    let run = |sea: &Sea, fate: Fate, verb: Verb| -> (Arc<Sea>, u64, u64) {
        let sea = sea.fork();
        let (mut moved, mut named) = (0, 0);
        for round in 0..3 {
            let garble =
                move |call: &Call<'_>| (round == 0 && call.verb == verb && call.key.starts_with("packs/")).then_some(fate);
            let process: Process = born(&sea, round, fates(garble));
            match process.prune(&all_away()) {
                Ok(report) => {
                    moved += report.packs_repacked;
                    named += report.damaged.len() as u64;
                }
                Err(_) => named += 1,
            }
        }
        (sea, moved, named)
    };
    // Noise of this length stands in a frame of its own: when one of three goes, the pack of the other two is rewritten.
    let sea = scenes[0].sea.fork();
    let mut volume = Volume::new();
    for seed in [1, 4, 7] {
        volume.put(&format!("noise{seed}"), seed, 40_000);
    }
    let first = quiet(&sea, 10).back_up(&volume, "noise").map_err(|error| error.to_string())?;
    volume.remove("noise4");
    quiet(&sea, 11).back_up(&volume, "noise").map_err(|error| error.to_string())?;
    quiet(&sea, 12).delete(&first).map_err(|error| error.to_string())?;
    let (after, moved, _) = run(&sea, Fate::Pass, Verb::PutNew);
    sound(&after, "without the bug")?;
    if moved == 0 {
        return Err("no frame is moved".to_owned());
    }
    let (after, _, named) = run(&sea, Fate::Garbled, Verb::GetRange);
    sound(&after, "a repack that reads wrong bytes")?;
    if named == 0 {
        return Err("no prune names the wrong bytes that it reads".to_owned());
    }
    WRONG_REPACK.store(true, Relaxed);
    let (after, _, named) = run(&sea, Fate::Pass, Verb::PutNew);
    WRONG_REPACK.store(false, Relaxed);
    sound(&after, "a repack that stores something else than it read")?;
    if named != 3 {
        return Err(format!("not every prune names the wrong bytes that it made: prunes=3, named={named}"));
    }
    if let Some(pack) = after.oracle(|ledger| ledger.torn().first().cloned()) {
        return Err(format!("a pack with wrong bytes was sent: {pack}"));
    }
    let (after, ..) = run(&sea, Fate::Garbled, Verb::PutNew);
    match sound(&after, "wrong bytes sent") {
        Ok(()) => Err("the oracle sees nothing of wrong bytes that are sent".to_owned()),
        Err(what) => {
            let what = brief(&what);
            Ok(format!(
                "a prune names what it reads wrong and leaves it, and sends no pack that it made wrong; sent wrong, the oracle sees it ({what})"
            ))
        }
    }
}
