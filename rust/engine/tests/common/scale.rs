//! What tests of a million chunks share: a repository on a disk, and how much memory the process has taken.

use super::init;
use super::pruned::back_up_alone;
use longshore_engine::repository::Repository;
use longshore_format::envelope::Codec;
use longshore_format::id::{RandomName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::snapshot::{Snapshot, SnapshotObject, snapshot_key};
use longshore_store::{Key, LocalSettings, LocalStore, Store};
use std::path::Path;
use std::sync::Arc;

/// Most that such a process may take.
pub const BOUND_BYTES: u64 = 200_000_000;

/// Most memory that this process has taken.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

pub struct OnDisk {
    _folder: tempfile::TempDir,
    pub store: Arc<dyn Store>,
    pub repository: Repository,
    /// A real snapshot, which made ones are like in all that does not matter.
    pub model: Snapshot,
}

impl OnDisk {
    /// With one snapshot, of this volume.
    pub fn new(volume: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path(), LocalSettings { create: true, ..LocalSettings::default() }).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let repository = init(Arc::clone(&store));
        back_up_alone(&repository, volume).unwrap();
        let model = repository.snapshots().unwrap().0.remove(0).snapshot;
        Self { _folder: folder, store, repository, model }
    }

    pub fn put(&self, key: String, bytes: Vec<u8>) {
        self.store.put_new(&Key::new(key).unwrap(), bytes.into()).unwrap();
    }

    /// Stores what an index says, under a name of its own.
    pub fn put_segment(&self, builder: SegmentBuilder, codec: &mut Codec) -> RandomName {
        let (world, name) = (self.repository.world(), RandomName(self.repository.world().random16()));
        let payload = builder.payload().unwrap();
        self.put(index_key(name), seal_segment(self.repository.keys(), name, world.salt(), &payload, codec).unwrap());
        name
    }

    pub fn put_snapshot(&self, made: SessionId, snapshot: Snapshot, codec: &mut Codec) {
        let salt = self.repository.world().salt();
        let object = SnapshotObject::Committed(Box::new(snapshot));
        self.put(snapshot_key(made), object.encode(self.repository.keys(), made, salt, codec).unwrap());
    }
}
