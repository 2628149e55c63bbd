//! Bugs made again from outside: the fault is named or ridden out, and nothing is lost.

use super::{SEEDS, born, fates, quiet, sound};
use crate::crash::State;
use crate::crash::{Operation, Tried, after, once, run};
use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::power::Power;
use crate::scene::{FILE_BYTES_MAX, Scene, prune_options};
use crate::volume::Volume;
use longshore_engine::ErrorKind;
use longshore_engine::prune::PruneOptions;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::layers::Verb;
use longshore_store::{Key, Store, StoreErrorKind};
use std::process::{Command, Stdio};
use std::sync::Arc;

fn settled(scene: &Scene, sea: &Arc<crate::sea::Sea>, seed: u64) -> Result<(), String> {
    after(scene, sea, SEEDS + seed, &mut Tried::default())
}

/// Listings that hold nothing, each once and each of a kind always: prunes refuse, or do no harm.
pub fn empty_listings(scenes: &[Scene]) -> Result<String, String> {
    let kinds = ["snapshots/", "packs/", "usage/", "index/"];
    let (mut refused, mut tried) = (0, 0);
    let mut one = |scene: &Scene, which: Option<u64>, kind: &'static str| -> Result<(bool, u64), String> {
        let sea = scene.sea.fork();
        let empty = move |call: &Call<'_>| {
            let chosen = call.key.starts_with(kind) && which.is_none_or(|number| number == call.number);
            (call.verb == Verb::List && chosen).then_some(Fate::Empty)
        };
        let process = born(&sea, 1, fates(empty));
        let outcome = process.prune(&PruneOptions { allow_empty: false, waste_percent: 1, ..prune_options() });
        let what = format!("{kind} empty at {which:?}");
        settled(scene, &sea, 2).map_err(|why| format!("{what}: {why}"))?;
        tried += 1;
        refused += u64::from(outcome.is_err());
        Ok((outcome.is_err(), process.link.calls()))
    };
    for scene in scenes {
        for kind in kinds {
            let (always, _) = one(scene, None, kind)?;
            if kind == "snapshots/" && !always {
                return Err("a prune that sees no snapshot goes on".to_owned());
            }
            let (mut number, mut calls) = (0, 1);
            while number < calls {
                calls = one(scene, Some(number), kind)?.1;
                number += 1;
            }
        }
    }
    Ok(format!("prunes refuse {refused} of {tried} empty listings, and the oracle and all that follows find no harm of any"))
}

/// Each pack goes behind the engine's back.
pub fn pack_gone(scenes: &[Scene]) -> Result<String, String> {
    let mut packs = 0;
    for scene in scenes {
        let garbage = scene.sea.oracle(|ledger| ledger.garbage());
        for pack in scene.sea.keys("packs/").into_iter().filter(|pack| !garbage.contains(pack)) {
            let sea = scene.sea.fork();
            sea.objects().delete(&Key::new(pack.as_str()).expect("a key")).map_err(|error| error.to_string())?;
            sea.oracle(|ledger| ledger.damage(&pack));
            if quiet(&sea, 1).check().is_ok() {
                return Err(format!("a check does not miss {pack}"));
            }
            let outcomes = scene.counted.iter().map(|session| quiet(&sea, 2).restore(session, &MadeUpFs::default()));
            let hurt = outcomes.filter(Result::is_err).count();
            match quiet(&sea, 3).prune(&prune_options()) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                other => return Err(format!("a prune goes on without {pack}: {other:?}")),
            }
            let process = quiet(&sea, 4);
            let session = process.back_up(&scene.volumes[0], "a").map_err(|error| format!("a backup without {pack}: {error}"))?;
            process.restore(&session, &MadeUpFs::default()).map_err(|error| format!("a backup relies on {pack}: {error}"))?;
            if hurt == 0 {
                return Err(format!("no restore says that {pack} is missing"));
            }
            sound(&sea, &pack)?;
            packs += 1;
        }
    }
    Ok(format!("checks, restores and prunes name each of {packs} packs; the next backup stores again what it held"))
}

/// One content many times, by two writers at once, with 10 MiB of zeros; one snapshot goes, prunes run.
pub fn chunk_twice(scenes: &[Scene]) -> Result<String, String> {
    let scene = &scenes[0];
    let mut volume = Volume::new();
    for path in ["d/one", "d/two", "three"] {
        volume.fill(path, 0x5a, 3 << 20);
    }
    volume.fill("zeros", 0, 10 << 20);
    let volume = Arc::new(volume);
    let sea = scene.sea.fork();
    let (beside, again, mut done) = (Arc::clone(&sea), Arc::clone(&volume), false);
    // The second writer sees nothing of what the first has sent: both packs hold the chunks.
    let plan = move |call: &Call<'_>| {
        if !done && call.verb == Verb::PutNew && call.key.starts_with("packs/") {
            done = true;
            let _ = quiet(&beside, 9).back_up(&again, "twice");
        }
        (1_000_000, Fate::Pass)
    };
    let first = born(&sea, 8, plan).back_up(&volume, "once").map_err(|error| error.to_string())?;
    let twice: Vec<String> =
        sea.oracle(|ledger| ledger.counted().keys().filter(|s| **s != first && !scene.counted.contains(s)).cloned().collect());
    let [second] = &twice[..] else { return Err(format!("{} snapshots, not one beside the first", twice.len())) };
    for (seed, gone) in [(20, &first), (30, second)] {
        let sea = sea.fork();
        quiet(&sea, seed).delete(gone).map_err(|error| error.to_string())?;
        for round in 0..3 {
            let options = PruneOptions { waste_percent: 1, fence_now: true, ..prune_options() };
            quiet(&sea, seed + round).prune(&options).map_err(|error| error.to_string())?;
        }
        let kept = if gone == &first { second } else { &first };
        quiet(&sea, seed + 5).restore(kept, &MadeUpFs::default()).map_err(|error| error.to_string())?;
        settled(scene, &sea, seed + 6)?;
    }
    Ok("the oracle sees every deletion: whichever of two equal snapshots goes, the other restores".to_owned())
}

/// Each put is answered and not kept.
pub fn puts_lost(scenes: &[Scene]) -> Result<String, String> {
    let (mut tried, mut named) = (0, 0);
    for scene in scenes {
        let fresh = Volume::random(&mut Draw::new(5, 7), 5, FILE_BYTES_MAX);
        for operation in [Operation::Backup, Operation::Incremental, Operation::Prune] {
            let job = |process: &crate::process::Process, fs: &MadeUpFs| run(operation, process, scene, &fresh, fs);
            let calls = once(&scene.sea, SEEDS, None, job).calls;
            for (number, (_, key)) in (0..).zip(calls).filter(|(_, (verb, _))| *verb == Verb::PutNew) {
                let ran = once(&scene.sea, SEEDS, Some(State::Call(number, Fate::Lose)), job);
                let rests = ["packs/", "usage/", "snapshots/", "sessions/"].iter().any(|kind| key.starts_with(kind));
                if operation != Operation::Prune && rests && ran.outcome.is_ok() {
                    return Err(format!("{operation:?} is acknowledged, and the store lost {key}"));
                }
                settled(scene, &ran.sea, number).map_err(|why| format!("{operation:?}, {key} lost: {why}"))?;
                tried += 1;
                named += u64::from(ran.outcome.is_err());
            }
        }
    }
    Ok(format!("{named} of {tried} lost puts are named; the oracle finds no harm of the others"))
}

/// A prune dies at each of its deletions, and a backup goes on with the cache of before.
pub fn stale_cache(scenes: &[Scene]) -> Result<String, String> {
    let mut tried = 0;
    for scene in &scenes[..scenes.len().min(4)] {
        for death in 0.. {
            let sea = scene.sea.fork();
            let cache = tempfile::tempdir().map_err(|error| error.to_string())?;
            let warm = |seed| quiet(&sea, seed).with_cache(cache.path()).map_err(|error| error.to_string());
            warm(1)?.back_up(&scene.volumes[1], "a").map_err(|error| error.to_string())?;
            let mut deletions = 0;
            let dies = move |call: &Call<'_>| {
                deletions += u64::from(call.verb == Verb::Delete);
                (1_000_000, if call.verb == Verb::Delete && deletions == death + 1 { Fate::DieAfter } else { Fate::Pass })
            };
            let prune = born(&sea, 2, dies);
            let _ = prune.prune(&PruneOptions { fence_now: true, waste_percent: 1, ..prune_options() });
            if !prune.link.is_dead() {
                break;
            }
            let process = warm(3)?;
            let session = process.back_up(&scene.volumes[0], "a").map_err(|error| format!("deletion {death}: {error}"))?;
            process.restore(&session, &MadeUpFs::default()).map_err(|error| format!("deletion {death}: {error}"))?;
            settled(scene, &sea, death).map_err(|why| format!("deletion {death}: {why}"))?;
            tried += 1;
        }
    }
    if tried == 0 {
        Err("no prune deleted anything".to_owned())
    } else {
        Ok(format!("the oracle sees every commit: a backup with a stale cache is whole behind each of {tried} deletions"))
    }
}

/// The store is full at each put of a backup.
pub fn store_full(scenes: &[Scene]) -> Result<String, String> {
    let mut tried = 0;
    for scene in scenes {
        let fresh = Volume::random(&mut Draw::new(6, 7), 5, FILE_BYTES_MAX);
        for operation in [Operation::Backup, Operation::Incremental] {
            let job = |process: &crate::process::Process, fs: &MadeUpFs| run(operation, process, scene, &fresh, fs);
            let calls = once(&scene.sea, SEEDS, None, job).calls;
            for (number, (_, key)) in (0..).zip(calls).filter(|(_, (verb, _))| *verb == Verb::PutNew) {
                let full = Fate::FailBefore(StoreErrorKind::NoSpace);
                let ran = once(&scene.sea, SEEDS, Some(State::Call(number, full)), job);
                match &ran.outcome {
                    Err(error) if error.kind() == ErrorKind::NoSpace => {}
                    // By it a store is only asked something, and this answer says nothing: the next put meets the full store.
                    Ok(()) if key.starts_with("probe/") => continue,
                    other => return Err(format!("{operation:?}, no room for {key}: {other:?}")),
                }
                settled(scene, &ran.sea, number).map_err(|why| format!("{operation:?}, no room for {key}: {why}"))?;
                tried += 1;
            }
        }
    }
    Ok(format!("each of {tried} backups fails with no room, and commits nothing"))
}

/// A real prune of a folder: at its N-th request for memory, or from then on, there is none.
pub fn no_memory(_: &[Scene]) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let power = Power::record_ripe(&program)?;
    let strace = |folder: &std::path::Path, log: &std::path::Path, inject: Option<String>| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-e", "trace=mmap,brk", "-o"]).arg(log);
        if let Some(inject) = inject {
            command.args(["-e", &inject]);
        }
        // Memory is asked of the kernel little by little.
        let tunables = ["mmap_threshold=512", "top_pad=1", "mmap_max=1000000", "tcache_count=0"];
        command.env("GLIBC_TUNABLES", tunables.map(|tunable| format!("glibc.malloc.{tunable}")).join(":"));
        command.arg(&program).arg("--prune").arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().map_err(|error| format!("strace is needed, install it: {error}"))
    };
    let log = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    power.after(|folder| {
        let status = strace(folder, log.path(), None)?;
        if status.success() { Ok(()) } else { Err(format!("undisturbed: {status}")) }
    })?;
    let all = std::fs::read_to_string(log.path()).map_err(|error| error.to_string())?.lines().count() as u64;
    let (mut died, mut tried) = (0, 0);
    for (at, more) in (1..=all).flat_map(|at| [(at, ""), (at, "+")]) {
        power
            .after(|folder| {
                let status = strace(folder, log.path(), Some(format!("inject=mmap,brk:error=ENOMEM:when={at}{more}")))?;
                died += u64::from(!status.success());
                Ok(())
            })
            .map_err(|why| format!("no memory at request {at}{more} of {all}: {why}"))?;
        tried += 1;
    }
    if died == 0 {
        Err("no prune ever missed the memory".to_owned())
    } else {
        Ok(format!(
            "{died} of {tried} prunes stop, at {all} requests for memory; the oracle finds nothing lost, the next prune ends their work"
        ))
    }
}
