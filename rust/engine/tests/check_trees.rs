//! How check and repair go through the trees of many snapshots: each distinct subtree once, those that are hurt for everybody whom it
//! hurts. What a look costs is counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::made::Made;
use common::pruned::prune;
use longshore_engine::check::{self, CheckOptions, CheckReport, HURT_NAMED_MAX, HurtItem};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions, RepairReport};
use longshore_format::id::{ChunkKind, PackName, SessionId};
use longshore_format::snapshot::public_id;
use longshore_format::tree::{Item, Node};
use longshore_format::usage::Usage;
use longshore_store::{Key, Store};
use std::collections::BTreeSet;
use std::sync::Arc;

const SNAPSHOTS: u8 = 40;
const DIRECTORIES: usize = 20;
const FILES: usize = 50;
const MAKER: SessionId = SessionId([7; 16]);
const DATA: PackName = PackName { session: MAKER, number: 0 };
const TREES: PackName = PackName { session: MAKER, number: 1 };

fn session(number: u8) -> SessionId {
    SessionId([100 + number; 16])
}

fn bytes_of(directory: usize, file: usize) -> Vec<u8> {
    format!("content of {directory}/{file}").into_bytes()
}

fn check(made: &Made, read_percent: u8) -> CheckReport {
    let options = CheckOptions { read_percent, workers: 0, ..CheckOptions::default() };
    check::run(&made.repository, &Arc::new(Job::new()), &options).unwrap()
}

fn mend(made: &Made) -> RepairReport {
    let options = RepairOptions { workers: 0, ..RepairOptions::default() };
    repair::run(&made.repository, &Arc::new(Job::new()), &options).unwrap()
}

/// Forty snapshots of one volume that never changes: directories of files of one chunk, each chunk and tree in a frame of its own.
fn equal_snapshots() -> Made {
    let (mut made, mut usage) = (Made::new(), Usage::new());
    let files = |directory| (0..FILES).map(move |file| vec![bytes_of(directory, file)]);
    let data: Vec<Vec<Vec<u8>>> = (0..DIRECTORIES).flat_map(files).collect();
    made.pack(DATA, ChunkKind::Data, &data, &mut usage);
    let (mut trees, mut entries) = (Vec::new(), Vec::new());
    for directory in 0..DIRECTORIES {
        let files = (0..FILES).map(|file| (format!("f{file:02}"), made.file(&[bytes_of(directory, file)])));
        let (chunk, node) = made.directory(files.collect());
        trees.push(vec![chunk]);
        entries.push((format!("d{directory:02}"), node));
    }
    let (chunk, root) = made.directory(entries);
    trees.push(vec![chunk]);
    made.pack(TREES, ChunkKind::Tree, &trees, &mut usage);
    (0..SNAPSHOTS).for_each(|number| made.commit(session(number), root.clone(), &usage));
    made
}

fn assert_all_hurt(hurt: &[HurtItem], path: &[u8]) {
    let named: BTreeSet<&str> = hurt.iter().map(|item| item.snapshot.as_str()).collect();
    let all: Vec<String> = (0..SNAPSHOTS).map(|number| public_id(session(number))).collect();
    assert_eq!((hurt.len(), named), (all.len(), all.iter().map(String::as_str).collect()));
    assert!(hurt.iter().all(|item| item.path == path), "{:?}", hurt[0]);
}

/// The root, every directory, every file.
const ALL: usize = 1 + DIRECTORIES + DIRECTORIES * FILES;

#[test]
fn forty_equal_snapshots_cost_one_and_each_the_way_to_the_one_chunk_that_is_damaged() {
    let mut made = equal_snapshots();
    let whole = check(&made, 100);
    assert_eq!((whole.exit_code, whole.lookups as usize, whole.trees as usize), (0, ALL, 1 + DIRECTORIES));
    made.damage(DATA, 3 * FILES + 7);
    let report = check(&made, 100);
    assert_all_hurt(&report.hurt, b"d03/f07");
    let others = usize::from(SNAPSHOTS) - 1;
    assert_eq!(report.lookups as usize, ALL + others * (2 + FILES));
    made.store.delete(&Key::new(DATA.key()).unwrap()).unwrap();
    let lost = check(&made, 100);
    assert_eq!((lost.items_hurt as usize, lost.hurt.len()), (usize::from(SNAPSHOTS) * DIRECTORIES * FILES, HURT_NAMED_MAX));
}

#[test]
fn a_directory_that_cannot_be_read_is_named_for_each_of_forty_snapshots() {
    let mut made = equal_snapshots();
    made.damage(TREES, 5);
    // The header is whole: that the tree is not, who walks finds out.
    let report = check(&made, 0);
    assert_all_hurt(&report.hurt, b"d05");
    let others = usize::from(SNAPSHOTS) - 1;
    assert_eq!(report.lookups as usize, ALL - FILES + others * 2);
}

#[test]
fn a_repair_names_all_forty_and_looks_up_once_what_they_share() {
    let mut made = equal_snapshots();
    made.damage(DATA, 3 * FILES + 7);
    let options = RepairOptions { read_data: true, workers: 0, ..RepairOptions::default() };
    let report = repair::run(&made.repository, &Arc::new(Job::new()), &options).unwrap();
    assert_all_hurt(&report.hurt, b"d03/f07");
    let others = usize::from(SNAPSHOTS) - 1;
    assert_eq!((report.lookups as usize, report.chunks_missing), (ALL + others * (2 + FILES), 1));
}

#[test]
fn what_is_hurt_in_one_snapshot_is_no_matter_of_those_that_share_the_rest() {
    let (mut made, mut usage) = (Made::new(), Usage::new());
    made.pack(DATA, ChunkKind::Data, &[vec![b"one".to_vec()], vec![b"two".to_vec()]], &mut usage);
    let file = |made: &Made, text: &[u8]| made.directory(vec![("f".into(), made.file(&[text.to_vec()]))]);
    let ((shared, shared_node), (hurt, hurt_node)) = (file(&made, b"one"), file(&made, b"two"));
    let (plain, plain_root) = made.directory(vec![("a".into(), shared_node.clone())]);
    let (both, both_root) = made.directory(vec![("a".into(), shared_node.clone()), ("b".into(), hurt_node.clone())]);
    // The same two again, other way round: the hurt one comes first.
    let (back, back_root) = made.directory(vec![("0".into(), hurt_node), ("a".into(), shared_node)]);
    let trees: Vec<_> = [shared, hurt, plain, both, back].into_iter().map(|chunk| vec![chunk]).collect();
    made.pack(TREES, ChunkKind::Tree, &trees, &mut usage);
    for (number, root) in [(0, plain_root), (1, both_root), (2, back_root)] {
        made.commit(session(number), root, &usage);
    }
    made.damage(DATA, 1);
    let report = check(&made, 100);
    let hurt: Vec<(String, Vec<u8>)> = report.hurt.into_iter().map(|item| (item.snapshot, item.path)).collect();
    assert_eq!(hurt, [(public_id(session(1)), b"b/f".to_vec()), (public_id(session(2)), b"0/f".to_vec())]);
}

#[test]
fn a_tree_that_is_sound_is_not_so_for_a_snapshot_that_says_something_else_of_it() {
    let (mut made, mut usage) = (Made::new(), Usage::new());
    made.pack(DATA, ChunkKind::Data, &[vec![b"one".to_vec()]], &mut usage);
    let (chunk, root) = made.directory(vec![("f".into(), made.file(&[b"one".to_vec()]))]);
    made.pack(TREES, ChunkKind::Tree, &[vec![chunk]], &mut usage);
    let Node::Directory { content } = &root else { unreachable!() };
    let Item::Piece { id, .. } = content[0] else { unreachable!() };
    made.commit(session(0), root.clone(), &usage);
    made.commit(session(1), Node::Directory { content: vec![Item::Piece { id, span: 2 }] }, &usage);
    let report = check(&made, 100);
    assert_eq!((report.items_hurt, report.hurt[0].snapshot.clone()), (1, public_id(session(1))));
    assert!(report.hurt[0].message.contains("another number of entries"), "{:?}", report.hurt);
}

/// A directory that stands twice in one that stands twice, and so on: more paths than anybody can walk.
fn doubled(deep: usize) -> Made {
    let (mut made, mut usage) = (Made::new(), Usage::new());
    made.pack(DATA, ChunkKind::Data, &[vec![b"one".to_vec()]], &mut usage);
    let (mut chunk, mut node) = made.directory(vec![("f".into(), made.file(&[b"one".to_vec()]))]);
    let mut trees = vec![vec![chunk]];
    for _ in 0..deep {
        (chunk, node) = made.directory(vec![("a".into(), node.clone()), ("b".into(), node)]);
        trees.push(vec![chunk]);
    }
    made.pack(TREES, ChunkKind::Tree, &trees, &mut usage);
    made.commit(session(0), node, &usage);
    made
}

#[test]
fn who_stands_at_many_paths_is_named_at_each_as_long_as_there_is_room() {
    let mut made = doubled(3);
    assert_eq!((check(&made, 100).exit_code, check(&made, 100).lookups), (0, 5));
    made.damage(DATA, 0);
    let report = check(&made, 100);
    let paths: BTreeSet<Vec<u8>> = report.hurt.iter().map(|item| item.path.clone()).collect();
    assert_eq!((report.items_hurt, paths.len()), (8, 8));
    assert!(paths.contains(b"a/b/a/f".as_slice()), "{paths:?}");
    // 2^60 paths.
    let mut made = doubled(60);
    assert_eq!((check(&made, 100).exit_code, check(&made, 100).lookups), (0, 62));
    made.damage(DATA, 0);
    let report = check(&made, 100);
    assert_eq!((report.exit_code, report.hurt.len()), (4, HURT_NAMED_MAX));
    assert!(report.lookups < 4 * HURT_NAMED_MAX as u64, "{}", report.lookups);
}

#[test]
fn what_was_passed_over_for_lack_of_room_is_not_taken_for_sound() {
    let (mut made, mut usage) = (Made::new(), Usage::new());
    made.pack(DATA, ChunkKind::Data, &[vec![b"one".to_vec()]], &mut usage);
    let files = (0..HURT_NAMED_MAX).map(|file| (format!("f{file:04}"), made.file(&[b"one".to_vec()])));
    let (many, many_node) = made.directory(files.collect());
    let (around, around_node) = made.directory(vec![("z".into(), many_node.clone())]);
    let (first, first_root) = made.directory(vec![("x".into(), around_node.clone()), ("y".into(), many_node)]);
    let (second, second_root) = made.directory(vec![("x".into(), around_node)]);
    made.pack(TREES, ChunkKind::Tree, &[many, around, first, second].map(|chunk| vec![chunk]), &mut usage);
    made.commit(session(0), first_root, &usage);
    made.commit(session(1), second_root, &usage);
    made.damage(DATA, 0);
    let report = check(&made, 100);
    // Of the first snapshot those below `y`, of the second all.
    assert_eq!((report.items_hurt as usize, report.hurt.len()), (2 * HURT_NAMED_MAX, HURT_NAMED_MAX));
}

/// A tree lies in a frame that rots and, by another backup, in a frame of its own. The older snapshot, which is asked first, has only the
/// first in its table, and is answered out of it before the younger one comes upon the rot.
#[test]
fn a_snapshot_that_was_asked_before_rot_was_found_keeps_the_copy_that_is_left() {
    let (mut made, mut older, mut younger, mut other) = (Made::new(), Usage::new(), Usage::new(), Usage::new());
    let data = PackName { session: MAKER, number: 2 };
    made.pack(DATA, ChunkKind::Data, &[vec![b"here".to_vec()]], &mut older);
    made.pack(data, ChunkKind::Data, &[vec![b"gone".to_vec()]], &mut older);
    let file = |made: &Made, text: &[u8]| made.directory(vec![("f".into(), made.file(&[text.to_vec()]))]);
    let (gone, gone_node) = made.directory(vec![("g".into(), made.file(&[b"gone".to_vec()]))]);
    let (tree, node) = file(&made, b"here");
    let (rotten, rotten_node) = made.directory(vec![("r".into(), made.file(&[b"here".to_vec()]))]);
    let root_of = |made: &Made, nodes: Vec<(String, Node)>| made.directory(nodes);
    let (first, first_root) = root_of(&made, vec![("g".into(), gone_node.clone()), ("t".into(), node.clone())]);
    let (second, second_root) =
        root_of(&made, vec![("g".into(), gone_node), ("r".into(), rotten_node), ("t".into(), node.clone())]);
    // One frame of two trees; every root and the other tree for themselves.
    let frames = [vec![tree.clone(), rotten], vec![gone], vec![first], vec![second]];
    made.pack(TREES, ChunkKind::Tree, &frames, &mut older);
    younger.merge(&older);
    let copy = PackName { session: SessionId([8; 16]), number: 0 };
    made.pack(copy, ChunkKind::Tree, &[vec![tree]], &mut other);
    made.commit(session(0), first_root, &older);
    made.commit(session(1), second_root, &younger);
    other.merge(&older);
    made.commit(session(2), node, &other);
    made.damage(TREES, 0);
    made.store.delete(&Key::new(data.key()).unwrap()).unwrap();
    let report = mend(&made);
    let hurt: BTreeSet<(&str, &[u8])> = report.hurt.iter().map(|item| (item.snapshot.as_str(), item.path.as_slice())).collect();
    let (one, two) = (public_id(session(0)), public_id(session(1)));
    let expected: BTreeSet<(&str, &[u8])> =
        [(one.as_str(), b"g/g".as_slice()), (two.as_str(), b"g/g".as_slice()), (two.as_str(), b"r".as_slice())].into();
    assert_eq!((hurt, report.items_hurt), (expected, 3));
    // Whose table names the copy goes; the copy stays for those who need it now.
    made.repository.remove_snapshot(session(2), "test").unwrap();
    for _ in 0..3 {
        prune(&made.repository, &PruneOptions { waste_percent: 0, pack_size_bytes: 1 << 10, ..PruneOptions::default() }).unwrap();
    }
    let left = check(&made, 100);
    let paths: BTreeSet<&[u8]> = left.hurt.iter().map(|item| item.path.as_slice()).collect();
    assert_eq!(paths, [b"g/g".as_slice(), b"r"].into(), "{:?}", left.hurt);
}
