//! What tests of the engine share: repositories in memory, volumes to back up, and a comparer that asks the kernel itself.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod counted;
pub mod made;
pub mod memory;
pub mod portrait;
pub mod pruned;
pub mod scale;
pub mod watched;

use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions, RestoreSummary};
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::id::SessionId;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_store::{Rng, Store};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

pub fn backup_options(path: &Path, workers: usize) -> BackupOptions {
    BackupOptions {
        path: PathBuf::from(path),
        source: "test".into(),
        host: "here".into(),
        tags: vec![],
        parent: ParentChoice::Auto,
        excludes: vec![],
        exclude_root_names: vec![],
        one_file_system: true,
        dry_run: false,
        strict: false,
        paranoid: false,
        workers,
        upload_threads: 2,
        memory_budget_bytes: 128 << 20,
        compression: CompressionChoice::Auto,
        verify: VerifyUpload::Full,
    }
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

pub fn secret() -> Unlock {
    Unlock::Secret([1; 32])
}

pub fn init(store: Arc<dyn Store>) -> Repository {
    Repository::init(store, World::system(), &secret(), "", Argon2Cost::default(), Cache::none()).unwrap()
}

/// Numbers that are the same in each run, and never the same twice in one.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Rng for Counted {
    fn fill(&self, out: &mut [u8]) {
        let mut state = self.0.fetch_add(1, SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for part in out.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..part.len()]);
        }
    }
}

/// A repository with the same keys in each run, for tests of what depends on where they cut a directory: with chance ones, a piece of a
/// directory that changed may be as it was in one run of five hundred, and keep the pack that holds it.
pub fn init_alike(store: Arc<dyn Store>) -> Repository {
    let world = World { rng: Arc::new(Counted::default()), ..World::system() };
    Repository::init(store, world, &secret(), "", Argon2Cost::default(), Cache::none()).unwrap()
}

pub fn open(store: Arc<dyn Store>) -> longshore_engine::Result<Repository> {
    Repository::open(store, World::system(), &secret(), Cache::none())
}

pub fn back_up(repository: &Repository, path: &Path) -> SessionId {
    let summary = backup::run(repository, &LinuxFs, &Arc::new(Job::new()), &backup_options(path, 2)).unwrap();
    assert_eq!(summary.exit_code, 0, "{:?}", summary.lost);
    summary.snapshot.unwrap()
}

pub fn restore_with(repository: &Repository, options: &RestoreOptions) -> longshore_engine::Result<RestoreSummary> {
    restore::run(repository, &LinuxFs, &Arc::new(Job::new()), options)
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// What the kernel says of one entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub rdev: u64,
    /// The first path with the same inode, when there are several.
    pub first_name: Option<PathBuf>,
    pub target: Option<PathBuf>,
    pub content: Option<[u8; 32]>,
    pub size_bytes: u64,
    pub allocated_bytes: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {:o} {:?} {:?} rdev={} first={:?} target={:?} size={} allocated={} xattrs={} content={:02x?}",
            self.kind,
            self.mode,
            self.owner,
            self.mtime,
            self.rdev,
            self.first_name,
            self.target,
            self.size_bytes,
            self.allocated_bytes,
            self.xattrs.len(),
            self.content.map(|c| [c[0], c[1]])
        )
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut list[..]) else { return vec![] };
    let mut out: Vec<_> = list[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    out.sort();
    out
}

/// Everything below `root`, the root itself under the empty path.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut out = BTreeMap::new();
    let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let is_file = kind.is_file();
        if kind.is_dir() {
            let mut names: Vec<OsString> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort_by(|a, b| b.cmp(a));
            todo.extend(names.into_iter().map(|name| relative.join(name)));
        }
        let linked = !kind.is_dir() && meta.nlink() > 1;
        let seen = Seen {
            kind: match () {
                () if kind.is_dir() => 'd',
                () if is_file => 'f',
                () if kind.is_symlink() => 'l',
                () if kind.is_fifo() => 'p',
                () if kind.is_socket() => 's',
                () if kind.is_block_device() => 'b',
                () => 'c',
            },
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            rdev: meta.rdev(),
            first_name: linked.then(|| first.entry((meta.dev(), meta.ino())).or_insert_with(|| relative.clone()).clone()),
            target: kind.is_symlink().then(|| std::fs::read_link(&path).unwrap()),
            content: is_file.then(|| *blake3::hash(&read(&path)).as_bytes()),
            size_bytes: if is_file { meta.len() } else { 0 },
            allocated_bytes: if is_file { meta.blocks() * 512 } else { 0 },
            xattrs: xattrs(&path),
        };
        out.insert(relative, seen);
    }
    out
}

/// That two trees are equal in content and every attribute; holes may differ by a block's rounding.
pub fn assert_same(expected: &Path, actual: &Path) {
    let (expected, actual) = (look(expected), look(actual));
    let names = |tree: &BTreeMap<PathBuf, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&actual));
    for (path, want) in &expected {
        let got = &actual[path];
        let close = want.allocated_bytes.abs_diff(got.allocated_bytes) <= 128 << 10;
        assert!(close, "allocation of {path:?}: {want:?} became {got:?}");
        let mut got = got.clone();
        got.allocated_bytes = want.allocated_bytes;
        assert!(*want == got, "{path:?}\n  {want:?}\nbecame\n  {got:?}");
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let stamp = rustix::fs::Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: stamp, last_modification: stamp };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A volume with one of everything; what needs root only as root.
pub fn varied_volume(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for d in 0..4u64 {
        let dir = root.join(format!("d{d}/e"));
        std::fs::create_dir_all(&dir).unwrap();
        for f in 0..30 {
            write(&dir.join(format!("f{f}")), &noise(d * 100 + f, (f * f * 9) as usize));
        }
    }
    std::fs::create_dir(root.join("empty")).unwrap();
    write(&root.join("nothing"), b"");
    write(&root.join("text"), &b"again and again ".repeat(20_000));
    write(&root.join("large"), &noise(7, 21 << 20));
    let odd = OsString::from_vec(b"odd \xff\xfe\n\x01 *?".to_vec());
    write(&root.join(&odd), b"odd");
    symlink("nowhere/at/all", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("d1/absolute")).unwrap();
    // Holes, and zeros that are there.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    rustix::io::pwrite(&sparse, &noise(9, 300_000), 12 << 20).unwrap();
    drop(sparse);
    let mut zeros = vec![0; 2 << 20];
    zeros.extend(noise(8, 200_000));
    zeros.extend(vec![0; 300_000]);
    write(&root.join("zeros"), &zeros);
    // Names of one file in several directories, one of them the root; and of a link.
    write(&root.join("d2/one"), &noise(11, 70_000));
    std::fs::hard_link(root.join("d2/one"), root.join("d2/two")).unwrap();
    std::fs::hard_link(root.join("d2/one"), root.join("a-first-in-order")).unwrap();
    std::fs::hard_link(root.join("d2/one"), root.join("d3/e/three")).unwrap();
    std::fs::hard_link(root.join("link"), root.join("d0/link-again")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("d0/socket")).unwrap());
    for (name, value) in [(c"user.one", b"1".to_vec()), (c"user.big", noise(5, 2000))] {
        rustix::fs::setxattr(root.join("text"), name, &value, rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(root.join("d1"), name, &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let mode = |path: &str, bits: u32| std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(bits)).unwrap();
    mode("text", 0o4711);
    mode("d3/e/f3", 0o400);
    mode("d1", 0o2775);
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o666),
            device,
        )
        .unwrap();
        std::os::unix::fs::lchown(root.join("d0/e/f1"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(root.join("link"), Some(77), Some(78)).unwrap();
        std::os::unix::fs::lchown(root.join("d2"), Some(999), Some(1000)).unwrap();
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(root.join("large"), c"security.capability", &capability, rustix::fs::XattrFlags::empty()).unwrap();
    }
    mode("d2", 0o500);
    // Times last, deepest first.
    for (number, path) in look_paths(root).into_iter().rev().enumerate() {
        set_mtime(&root.join(path), 1_000_000_000 - 7_777 * number as i64, 123_456_789 + number as i64);
    }
    set_mtime(&root.join("d3/e"), -5, 999_999_999);
}

fn look_paths(root: &Path) -> Vec<PathBuf> {
    look(root).into_keys().collect()
}
