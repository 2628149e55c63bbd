//! Everything that can be read of a directory tree, in words: what [`crate::volume::Tree`] compares, and owners, times, attributes and second
//! names besides.
//!
//! Two trees are the same when their portraits are. Knows the engine by its seam to filesystems alone.

use longshore_engine::volume::{Dir, Kind};
use std::collections::BTreeMap;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness {
    /// Kind, mode, owner, time, attributes.
    pub looks: String,
    /// Content of a file, target of a link, numbers of a device.
    pub content: String,
    /// Of a thing with several names: the first that was seen.
    pub first: Option<Vec<u8>>,
}

/// What lies at each path below a root (which is not in it).
pub type Portrait = BTreeMap<Vec<u8>, Likeness>;

/// Draws a directory as it is.
#[must_use]
pub fn portrait(dir: &dyn Dir) -> Portrait {
    let (mut out, mut first) = (Portrait::new(), BTreeMap::new());
    below(dir, b"", &mut out, &mut first);
    out
}

fn below(dir: &dyn Dir, at: &[u8], out: &mut Portrait, first: &mut BTreeMap<u64, Vec<u8>>) {
    for name in dir.names().unwrap() {
        let stat = dir.stat(&name).unwrap();
        let path = if at.is_empty() { name.clone() } else { [at, b"/", &name].concat() };
        let content = match stat.kind {
            Kind::Directory => {
                below(&*dir.open_dir(&name).unwrap(), &path, out, first);
                String::new()
            }
            Kind::File => {
                let mut bytes = vec![0; stat.size_bytes as usize];
                assert_eq!(dir.open_file(&name).unwrap().read_at(0, &mut bytes).unwrap(), bytes.len());
                format!("{} bytes {}", bytes.len(), blake3::hash(&bytes).to_hex())
            }
            Kind::Symlink => format!("{:?}", dir.read_link(&name).unwrap()),
            _ => format!("{:?}", stat.rdev),
        };
        let linked = stat.kind != Kind::Directory && stat.links > 1;
        let first = linked.then(|| first.entry(stat.inode).or_insert_with(|| path.clone()).clone());
        let xattrs = dir.xattrs(&name, stat.kind).unwrap();
        let looks = format!("{:?} {:o} {}:{} {:?} {xattrs:?}", stat.kind, stat.mode, stat.uid, stat.gid, stat.mtime);
        out.insert(path, Likeness { looks, content, first });
    }
}
