//! The same calls on the kernel's filesystem and on the made-up one must answer the same: whatever is tried on the one may be believed
//! of the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::made_up::{BLOCK_BYTES, MadeUpFs};
use super::*;

const NAMES: [&[u8]; 5] = [b"a", b"b", b"\xff", b"..", b"d/"];

#[derive(Clone, Debug)]
enum Step {
    File(usize, usize),
    Dir(usize, usize),
    Link(usize, usize),
    Fifo(usize, usize),
    HardLink(usize, usize, usize, usize),
    Rename(usize, usize, usize),
    Remove(usize, usize),
    Write(usize, usize, u64, u16),
    Length(usize, usize, u64),
    Zeros(usize, usize, u64, u32),
    Punch(usize, usize, u64, u32),
    Mode(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (dir, name) = (0..3_usize, 0..NAMES.len());
    let at = (dir.clone(), name.clone());
    prop_oneof![
        3 => at.clone().prop_map(|(d, n)| Step::File(d, n)),
        1 => at.clone().prop_map(|(d, n)| Step::Dir(d, n)),
        1 => at.clone().prop_map(|(d, n)| Step::Link(d, n)),
        1 => at.clone().prop_map(|(d, n)| Step::Fifo(d, n)),
        2 => (at.clone(), at.clone()).prop_map(|((d, n), (e, m))| Step::HardLink(d, n, e, m)),
        2 => (at.clone(), name).prop_map(|((d, n), m)| Step::Rename(d, n, m)),
        1 => at.clone().prop_map(|(d, n)| Step::Remove(d, n)),
        4 => (at.clone(), 0..40_000_u64, any::<u16>()).prop_map(|((d, n), o, l)| Step::Write(d, n, o, l)),
        2 => (at.clone(), 0..80_000_u64).prop_map(|((d, n), l)| Step::Length(d, n, l)),
        1 => (at.clone(), 0..80_000_u64, 0..20_000_u32).prop_map(|((d, n), o, l)| Step::Zeros(d, n, o, l)),
        2 => (at.clone(), 0..80_000_u64, 0..40_000_u32).prop_map(|((d, n), o, l)| Step::Punch(d, n, o, l)),
        1 => at.prop_map(|(d, n)| Step::Mode(d, n)),
    ]
}

fn plain(mode: u32) -> Metadata {
    let mtime = Time { secs: -5, nanos: 7 };
    Metadata { mode, uid: OWNER_UNCHANGED, gid: OWNER_UNCHANGED, mtime, xattrs: vec![(b"user.x".to_vec(), vec![1])] }
}

fn update(dir: &dyn Dir, name: usize, work: impl FnOnce(&dyn WriteFile) -> Result<(), VolumeError>) -> Result<(), VolumeError> {
    dir.open_file_for_update(NAMES[name]).and_then(|file| work(file.as_ref()))
}

fn apply(dirs: &[Box<dyn Dir>], step: &Step) -> Result<(), VolumeErrorKind> {
    let result = match *step {
        Step::File(d, n) => dirs[d].create_file(NAMES[n]).map(drop),
        Step::Dir(d, n) => dirs[d].create_dir(NAMES[n]).map(drop),
        Step::Link(d, n) => dirs[d].create_symlink(NAMES[n], b"a"),
        Step::Fifo(d, n) => dirs[d].create_special(NAMES[n], Kind::Fifo, (0, 0)),
        Step::HardLink(d, n, e, m) => dirs[d].hard_link(NAMES[n], dirs[e].as_ref(), NAMES[m]),
        Step::Rename(d, n, m) => dirs[d].rename(NAMES[n], NAMES[m]),
        Step::Remove(d, n) => dirs[d].remove_all(NAMES[n]),
        Step::Write(d, n, o, l) => update(dirs[d].as_ref(), n, |file| file.write_at(o, &vec![0x5a; l.into()])),
        Step::Length(d, n, l) => update(dirs[d].as_ref(), n, |file| file.set_len(l)),
        Step::Zeros(d, n, o, l) => update(dirs[d].as_ref(), n, |file| file.allocate_zeros(o, l.into())),
        Step::Punch(d, n, o, l) => update(dirs[d].as_ref(), n, |file| file.punch_hole(o, l.into())),
        Step::Mode(d, n) => dirs[d].set_metadata(NAMES[n], Kind::File, &plain(0o640)).map(drop),
    };
    result.map_err(|error| error.kind)
}

/// Everything that can be seen of a tree but inode numbers and the times of what was not set.
fn seen(dir: &dyn Dir, prefix: &str, out: &mut Vec<String>) {
    for name in dir.names().unwrap() {
        let stat = dir.stat(&name).unwrap();
        let mut line = format!("{prefix}/{name:?} {:?} {:o}", stat.kind, stat.mode);
        match stat.kind {
            Kind::Directory => seen(dir.open_dir(&name).unwrap().as_ref(), &line, out),
            Kind::Symlink => line += &format!(" {:?} {}", dir.read_link(&name).unwrap(), stat.size_bytes),
            Kind::File => {
                let file = dir.open_file(&name).unwrap();
                let mut buf = vec![9; 200_000];
                let read = file.read_at(0, &mut buf).unwrap();
                let xattrs = dir.xattrs(&name, Kind::File).unwrap();
                line += &format!(" {read} {} {} {:?}", stat.links, stat.size_bytes, xattrs);
                line += &format!(" {:?}", blake3::hash(&buf[..read]));
            }
            _ => line += &format!(" {}", stat.links),
        }
        out.push(line);
    }
}

fn start(fs: &dyn Fs, path: &Path) -> Vec<Box<dyn Dir>> {
    let root = fs.create_root(path, RootOptions::default()).unwrap();
    let (one, two) = (root.create_dir(b"one").unwrap(), root.create_dir(b"two").unwrap());
    vec![root, one, two]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn made_up_and_real_answer_alike(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let made_up = start(&MadeUpFs::default(), Path::new("v"));
        let real = start(&LinuxFs, &folder.path().join("v"));
        for step in &steps {
            prop_assert_eq!(apply(&made_up, step), apply(&real, step), "{:?}", step);
        }
        let (mut ours, mut kernels) = (Vec::new(), Vec::new());
        seen(made_up[0].as_ref(), "", &mut ours);
        seen(real[0].as_ref(), "", &mut kernels);
        prop_assert_eq!(ours, kernels);
    }
}

#[test]
fn seeded_files_have_any_length_and_no_room() {
    let fs = MadeUpFs::default();
    let root = fs.root();
    let length = (1 << 40) + 5;
    fs.create_seeded_file(root.as_ref(), b"f", 7, length).unwrap();
    let file = root.open_file(b"f").unwrap();
    let (mut once, mut again) = ([0; 5_000], [0; 5_000]);
    assert_eq!(file.read_at(1 << 39, &mut once).unwrap(), 5_000);
    file.read_at(1 << 39, &mut again).unwrap();
    assert_eq!(once, again);
    assert_eq!(file.read_at(1 << 40, &mut again).unwrap(), 5);
    assert_eq!(file.next_extent(3).unwrap(), Some(Extent { offset_bytes: 3, length_bytes: length - 3, hole: false }));
    let update = root.open_file_for_update(b"f").unwrap();
    update.write_at(BLOCK_BYTES, b"over").unwrap();
    let mut head = [0; 4];
    file.read_at(BLOCK_BYTES, &mut head).unwrap();
    assert_eq!(&head, b"over");
}

#[test]
fn a_hook_fails_calls_and_plays_the_tenant() {
    let fs = MadeUpFs::default();
    let root = fs.root();
    root.create_file(b"f").unwrap().write_at(0, b"before").unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let (counter, tenant) = (Arc::clone(&reads), fs.clone());
    fs.set_hook(Some(Arc::new(move |call: made_up::Call<'_>| match call.call {
        "read file" if counter.fetch_add(1, Ordering::Relaxed) == 1 => Some(VolumeErrorKind::Io),
        "find extents" => {
            tenant.root().remove_all(b"f").unwrap();
            None
        }
        _ => None,
    })));
    let file = root.open_file(b"f").unwrap();
    let mut buf = [0; 6];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 6);
    assert_eq!(file.read_at(0, &mut buf).unwrap_err().kind, VolumeErrorKind::Io);
    assert!(file.next_extent(0).unwrap().is_some());
    assert_eq!(root.open_file(b"f").unwrap_err().kind, VolumeErrorKind::NotFound);
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 6, "an open file outlives its name");
}
