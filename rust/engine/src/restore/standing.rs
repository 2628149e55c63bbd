//! What stands already: whether an entry's content is there, and how it is left alone.
//!
//! Content is compared byte for byte, or, where times are trusted, taken for unchanged by length and modification time. Of what stands
//! nothing is written but metadata that differs. Promises that a file with a name that the snapshot does not know is never taken for
//! ours: who holds the other name keeps what they have. Does not know how anything is written.

use super::Context;
use super::file::{FileWork, Tried, Trouble, parts, whole};
use super::place::{Directory, name_losses};
use super::tally::{LossKind, kind_of, metadata_of};
use crate::chunker::is_zero;
use crate::repository::cursor::is_damage;
use crate::volume::{Dir, Kind, Metadata, ReadFile, Stat};
use longshore_format::id::ChunkKind;
use longshore_format::tree::{Entry, Item, Node, Owner};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Whether an entry that was just seen needs nothing of this metadata, as far as one call tells: attributes that are wanted or there
/// are for those who set them to compare.
pub(super) fn needs_nothing(dir: &dyn Dir, name: &[u8], seen: &Stat, metadata: &Metadata) -> bool {
    metadata.xattrs.is_empty() && metadata.is_of(seen) && dir.is_without_xattrs(name)
}

/// A file that has other names in the snapshot may have got them already; of any other, those who hold another name keep what they have.
fn is_ours(seen: &Stat, entry: &Entry) -> bool {
    seen.links == 1 || entry.link_device.is_some()
}

/// Leaves a file whose content stands as it is, and gives it its metadata. False: it does not stand.
pub(super) fn keep(context: &Context, directory: &Arc<Directory>, work: &FileWork, dir: &dyn Dir) -> Tried<bool> {
    let entry = &work.entry;
    let (size_bytes, _) = parts(entry);
    let Ok(seen) = dir.stat(&entry.name) else { return Ok(false) };
    if seen.kind != Kind::File || seen.size_bytes != size_bytes || !is_ours(&seen, entry) {
        return Ok(false);
    }
    let wanted = metadata_of(entry);
    let stands =
        if context.options.trust_times && seen.mtime == wanted.mtime { Stands::Untouched } else { compare(context, dir, entry)? };
    if stands == Stands::No {
        return Ok(false);
    }
    let (allowed, dropped) = context.options.policy.filter(&wanted, Kind::File);
    name_losses(context, directory, &entry.name, LossKind::Dropped, dropped);
    if stands == Stands::Mended || !needs_nothing(dir, &entry.name, &seen, &allowed) {
        let losses = dir.set_metadata(&entry.name, Kind::File, &allowed)?;
        name_losses(context, directory, &entry.name, LossKind::Attribute, losses);
    }
    context.tally.files_unchanged.fetch_add(1, Relaxed);
    context.tally.bytes_unchanged.fetch_add(size_bytes, Relaxed);
    whole(context, work, size_bytes);
    Ok(true)
}

/// How the content of a file stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It is another, or nobody can tell.
    No,
    /// Byte for byte, and nothing was done to it.
    Untouched,
    /// Byte for byte, and holes were made holes again, which moves the file's times.
    Mended,
}

/// Compares the content of a file of the right length byte for byte.
fn compare(context: &Context, dir: &dyn Dir, entry: &Entry) -> Tried<Stands> {
    let (_, content) = parts(entry);
    let Ok(file) = dir.open_file(&entry.name) else { return Ok(Stands::No) };
    let (mut offset, mut same, mut buffer, mut empty) = (0, true, Vec::new(), Vec::new());
    let visited = context.reader.for_each_item(content, Owner::File, &mut |item| {
        context.check()?;
        same = match item {
            Item::Data { id, span } => {
                buffer.resize(*span as usize, 0);
                let full = read_exactly(&*file, offset, &mut buffer);
                full && context.reader.repository().keys.chunk_id(ChunkKind::Data, &buffer) == *id
            }
            Item::Hole { span } | Item::Zeros { span } => {
                empty.push((offset, *item));
                reads_as_zeros(&*file, offset, *span, &mut buffer)
            }
            _ => false,
        };
        offset += item.span();
        Ok(same)
    });
    match visited {
        Ok(_) if same && !empty.is_empty() => {
            let file = dir.open_file_for_update(&entry.name)?;
            for (offset, item) in empty {
                match item {
                    Item::Hole { span } => file.punch_hole(offset, span)?,
                    item => file.allocate_zeros(offset, item.span())?,
                }
            }
            Ok(Stands::Mended)
        }
        Ok(_) => Ok(if same { Stands::Untouched } else { Stands::No }),
        Err(error) if is_damage(&error) => Ok(Stands::No),
        Err(error) => Err(Trouble::Job(error)),
    }
}

fn reads_as_zeros(file: &dyn ReadFile, start: u64, span: u64, buffer: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while at < span {
        buffer.resize((span - at).min(1 << 20) as usize, 0);
        if !read_exactly(file, start + at, buffer) || !is_zero(buffer) {
            return false;
        }
        at += buffer.len() as u64;
    }
    true
}

fn read_exactly(file: &dyn ReadFile, offset: u64, buffer: &mut [u8]) -> bool {
    file.read_at(offset, buffer).is_ok_and(|read| read == buffer.len())
}

/// Whether a large file stands that is not to be read, or that has its other names already: such a one is not written in place, since
/// nobody knows whose names they are, but neither is it written again when it is whole.
pub(super) fn keep_large(context: &Context, directory: &Arc<Directory>, work: &FileWork) -> Tried<bool> {
    if !work.exists {
        return Ok(false);
    }
    let dir = directory.open(context)?;
    let trusted = |stat: &Stat| context.options.trust_times && stat.mtime == metadata_of(&work.entry).mtime;
    let linked = |stat: &Stat| work.entry.link_device.is_some() && stat.links > 1;
    match dir.stat(&work.entry.name) {
        Ok(stat) if trusted(&stat) || linked(&stat) => keep(context, directory, work, &*dir),
        _ => Ok(false),
    }
}

/// The state of a link, device, FIFO or socket that is there already as it is to be.
pub(super) fn other(dir: &dyn Dir, entry: &Entry) -> Option<Stat> {
    let seen = dir.stat(&entry.name).ok().filter(|seen| seen.kind == kind_of(&entry.node))?;
    let equal = match &entry.node {
        Node::Symlink { target } => dir.read_link(&entry.name).is_ok_and(|there| there == *target),
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => seen.rdev == (*major, *minor),
        _ => true,
    };
    (is_ours(&seen, entry) && equal).then_some(seen)
}
