//! Repositories put together by hand: packs of chosen frames, trees of chosen chunks, snapshots that no backup would make.

use super::pruned::back_up_alone;
use super::{init, write};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::reader::ChunkReader;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkId, ChunkKind, PackName, RandomName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::PackWriter;
use longshore_format::snapshot::{Snapshot, SnapshotObject, snapshot_key};
use longshore_format::tree::{Entry, Item, Node};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::{Key, MemoryStore, Store};
use std::sync::Arc;

pub struct Made {
    pub store: Arc<MemoryStore>,
    pub repository: Repository,
    model: Snapshot,
    file: Entry,
    codec: Codec,
}

impl Made {
    /// An empty repository; what every snapshot has besides its content is a real one's, which is deleted.
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let repository = init(Arc::<MemoryStore>::clone(&store));
        let volume = tempfile::tempdir().unwrap();
        write(&volume.path().join("file"), b"content");
        let session = back_up_alone(&repository, volume.path()).unwrap().snapshot.unwrap();
        let model = repository.snapshots().unwrap().0.remove(0).snapshot;
        let job = Arc::new(Job::new());
        let reader = ChunkReader::new(repository.clone(), Arc::new(repository.load_index(&job).unwrap()), job, 1 << 20);
        let file = reader.entry_at(&model.root, b"file").unwrap();
        repository.remove_snapshot(session, "test").unwrap();
        for prefix in ["packs/", "index/", "usage/"] {
            for entry in store.list(prefix, None, 100).unwrap().entries {
                store.delete(&entry.key).unwrap();
            }
        }
        let model = Snapshot::clone(&model);
        Self { store, repository, model, file, codec: Codec::new().unwrap() }
    }

    fn put(&self, key: String, bytes: Vec<u8>) {
        self.store.put_new(&Key::new(key).unwrap(), bytes.into()).unwrap();
    }

    fn id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        self.repository.keys().chunk_id(kind, bytes)
    }

    /// Stores a pack of a session's, each inner list a frame, and its index; what a table says of it is added to `usage`.
    pub fn pack(&mut self, name: PackName, kind: ChunkKind, frames: &[Vec<Vec<u8>>], usage: &mut Usage) {
        let world = self.repository.world().clone();
        let mut pack = PackWriter::new(self.repository.keys(), name, world.salt(), Vec::new()).unwrap();
        for frame in frames {
            let chunks = frame.iter().map(|chunk| (self.id(kind, chunk), chunk.len() as u32)).collect();
            pack.push(kind, &frame.concat(), chunks, Compression::None, &mut self.codec).unwrap();
        }
        let done = pack.finish(&mut self.codec).unwrap();
        done.frames.iter().for_each(|frame| usage.insert(frame.birth));
        let mut builder = SegmentBuilder::new();
        builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        self.put(done.name.key(), done.bytes);
        let segment = RandomName(world.random16());
        let sealed =
            seal_segment(self.repository.keys(), segment, world.salt(), &builder.payload().unwrap(), &mut self.codec).unwrap();
        self.put(index_key(segment), sealed);
    }

    /// A file of these chunks.
    pub fn file(&self, chunks: &[Vec<u8>]) -> Node {
        let content: Vec<Item> =
            chunks.iter().map(|c| Item::Data { id: self.id(ChunkKind::Data, c), span: c.len() as u64 }).collect();
        Node::File { size_bytes: content.iter().map(Item::span).sum(), content }
    }

    /// The one chunk of a directory with these entries, names ascending, and the directory.
    pub fn directory(&self, entries: Vec<(String, Node)>) -> (Vec<u8>, Node) {
        let (mut scratch, mut chunk, span) = (Vec::new(), Vec::new(), entries.len() as u64);
        for (name, node) in entries {
            Entry { name: name.into_bytes(), node, ..self.file.clone() }.encode(&mut scratch, &mut chunk);
        }
        let id = self.id(ChunkKind::Tree, &chunk);
        (chunk, Node::Directory { content: vec![Item::Piece { id, span }] })
    }

    /// Commits a snapshot.
    pub fn commit(&mut self, session: SessionId, root: Node, usage: &Usage) {
        let world = self.repository.world().clone();
        let (table, bytes) = usage.encode(self.repository.keys(), session, world.salt(), &mut self.codec).unwrap();
        self.put(usage_key(table), bytes);
        let root = Entry { node: root, ..self.model.root.clone() };
        let snapshot = Snapshot { nonce: session.0, usage: vec![table], root, parent: None, ..self.model.clone() };
        let object = SnapshotObject::Committed(Box::new(snapshot));
        let bytes = object.encode(self.repository.keys(), session, world.salt(), &mut self.codec).unwrap();
        self.put(snapshot_key(session), bytes);
    }

    /// Damages one frame of a pack; its header stays whole.
    pub fn damage(&mut self, pack: PackName, frame: usize) {
        let key = Key::new(pack.key()).unwrap();
        let mut bytes = self.store.get(&key, 1 << 30).unwrap().to_vec();
        let (_, frames) = self.repository.pack_header(pack, bytes.len() as u64, &mut self.codec).unwrap();
        let frame = &frames[frame];
        bytes[frame.offset_bytes as usize + frame.stored_bytes as usize / 2] ^= 1;
        self.store.overwrite(&key, bytes.into());
    }
}
