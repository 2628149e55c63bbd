//! What tests of prune share: backups of single files on one thread, and an eye that reads whole snapshots and counts what is left.

use super::{backup_options, open};
use longshore_engine::backup::{self, Summary};
use longshore_engine::job::Job;
use longshore_engine::prune::{self, PruneOptions, PruneReport};
use longshore_engine::repository::Repository;
use longshore_engine::repository::reader::ChunkReader;
use longshore_engine::volume::LinuxFs;
use longshore_format::envelope::Codec;
use longshore_format::id::{ChunkKind, PackName, SessionId};
use longshore_format::tree::{Entry, Item, Node, Owner};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::{Key, MemoryStore, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A backup on the calling thread.
pub fn back_up_alone(repository: &Repository, path: &Path) -> longshore_engine::Result<Summary> {
    let options = backup::BackupOptions { upload_threads: 0, ..backup_options(path, 0) };
    backup::run(repository, &LinuxFs, &Arc::new(Job::new()), &options)
}

pub fn prune(repository: &Repository, options: &PruneOptions) -> longshore_engine::Result<PruneReport> {
    prune::run(repository, &Arc::new(Job::new()), options)
}

pub fn small_packs() -> PruneOptions {
    PruneOptions { pack_size_bytes: 64 << 10, ..PruneOptions::default() }
}

/// Reads all that a directory holds; the number of files.
pub fn read_directory(reader: &ChunkReader, directory: &Entry) -> longshore_engine::Result<u64> {
    let mut files = 0;
    let mut below = Vec::new();
    reader.for_each_entry(directory, &mut |entry| {
        match &entry.node {
            Node::Directory { .. } => below.push(entry),
            Node::File { content, .. } => {
                files += 1;
                reader.for_each_item(content, Owner::File, &mut |item| {
                    if let Item::Data { id, .. } = item {
                        reader.chunk(ChunkKind::Data, id)?;
                    }
                    Ok(true)
                })?;
            }
            _ => {}
        }
        Ok(true)
    })?;
    for directory in below {
        files += read_directory(reader, &directory)?;
    }
    Ok(files)
}

/// Every snapshot that counts, or what is wrong with one of them. Reads every byte, and every usage table against what was read.
pub fn whole(store: &Arc<MemoryStore>) -> Result<Vec<SessionId>, String> {
    let repository = open(Arc::<MemoryStore>::clone(store)).map_err(|e| format!("cannot open: {e}"))?;
    let (rows, damaged) = repository.snapshots().map_err(|e| e.to_string())?;
    if let Some((session, error)) = damaged.first() {
        return Err(format!("snapshot {session} is damaged: {error}"));
    }
    let job = Arc::new(Job::new());
    let index = Arc::new(repository.load_index_and_headers(&job).map_err(|e| e.to_string())?);
    let reader = ChunkReader::new(repository.clone(), index, job, 8 << 20);
    for row in &rows {
        let files =
            read_directory(&reader, &row.snapshot.root).map_err(|e| format!("snapshot {} is not whole: {e}", row.session))?;
        if files != row.snapshot.counts.files {
            return Err(format!("snapshot {} has other files", row.session));
        }
        for table in &row.snapshot.usage {
            let key = Key::new(usage_key(*table)).map_err(|e| e.to_string())?;
            store.get(&key, 1 << 30).map_err(|e| format!("usage of {}: {e}", row.session))?;
        }
    }
    Ok(rows.iter().map(|row| row.session).collect())
}

pub fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    let page = store.list(prefix, None, 100_000).unwrap();
    assert!(!page.more);
    page.entries.iter().map(|e| e.key.as_str().to_owned()).collect()
}

/// What lies in the store and nobody needs: packs of which no snapshot needs a frame, tables that none names, and what prunes leave open.
pub fn orphans(store: &Arc<MemoryStore>) -> Vec<String> {
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    let (rows, _) = repository.snapshots().unwrap();
    let tables: BTreeSet<_> = rows.iter().flat_map(|row| row.snapshot.usage.clone()).collect();
    let mut needed = Usage::new();
    let mut codec = Codec::new().unwrap();
    for table in &tables {
        let bytes = store.get(&Key::new(usage_key(*table)).unwrap(), 1 << 30).unwrap();
        needed.merge(&Usage::decode(repository.keys(), *table, &bytes, &mut codec).unwrap());
    }
    let mut out: Vec<String> = Vec::new();
    for entry in store.list("packs/", None, 100_000).unwrap().entries {
        let name = PackName::from_text(entry.key.as_str().strip_prefix("packs/").unwrap()).unwrap();
        let held = repository.pack_header(name, entry.size_bytes, &mut codec);
        let is_needed = held.is_ok_and(|(_, frames)| frames.iter().any(|frame| needed.contains(frame.birth)));
        if !is_needed {
            out.push(entry.key.to_string());
        }
    }
    out.extend(names(&**store, "usage/").into_iter().filter(|name| !tables.iter().any(|t| usage_key(*t) == *name)));
    for prefix in ["tombstones/", "open/", "sessions/", "watches/"] {
        out.extend(names(&**store, prefix));
    }
    out
}
