//! All that can be seen of a directory through the seam to its filesystem, to be compared with another.

use longshore_engine::volume::{Dir, Kind, Time};
use std::collections::BTreeMap;

/// By path: kind, mode, mtime, number of names, content or target, extended attributes.
pub type Seen = BTreeMap<Vec<u8>, (Kind, u32, Time, u64, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>)>;

pub fn look(dir: &dyn Dir, path: &[u8], out: &mut Seen) {
    for name in dir.names().unwrap() {
        let stat = dir.stat(&name).unwrap();
        let below = [path, b"/", &name].concat();
        let content = match stat.kind {
            Kind::File => {
                let mut bytes = vec![0; stat.size_bytes as usize];
                let read = dir.open_file(&name).unwrap().read_at(0, &mut bytes).unwrap();
                bytes.truncate(read);
                bytes
            }
            Kind::Symlink => dir.read_link(&name).unwrap(),
            _ => vec![],
        };
        if stat.kind == Kind::Directory {
            look(&*dir.open_dir(&name).unwrap(), &below, out);
        }
        let xattrs = dir.xattrs(&name, stat.kind).unwrap();
        out.insert(below, (stat.kind, stat.mode, stat.mtime, stat.links, content, xattrs));
    }
}
