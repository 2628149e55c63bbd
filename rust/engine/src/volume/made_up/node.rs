//! One inode of the made-up filesystem: its state and its content as blocks.
//!
//! Promises that what was cut off or punched never comes back, and that a block that was never written is a hole. Does not know names.

use std::collections::BTreeMap;

use super::{BLOCK_BYTES, DEVICE};
use crate::volume::{Extent, Kind, Name, Stat, Time};

/// One inode.
pub(super) struct Node {
    pub(super) stat: Stat,
    pub(super) xattrs: BTreeMap<Name, Vec<u8>>,
    pub(super) entries: BTreeMap<Name, u64>,
    pub(super) target: Name,
    pub(super) blocks: BTreeMap<u64, Vec<u8>>,
    /// A seed and how many blocks from the start read as its bytes where nothing was written over them.
    pub(super) seeded: Option<(u64, u64)>,
}

impl Node {
    pub(super) fn new(inode: u64, kind: Kind, mode: u32, now: Time) -> Self {
        let stat = Stat {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            allocated_bytes: 0,
            mtime: now,
            ctime: now,
            inode,
            device: DEVICE,
            links: 1,
            rdev: (0, 0),
        };
        Self {
            stat,
            xattrs: BTreeMap::new(),
            entries: BTreeMap::new(),
            target: Name::new(),
            blocks: BTreeMap::new(),
            seeded: None,
        }
    }

    pub(super) fn xattrs(&self) -> Vec<(Name, Vec<u8>)> {
        self.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn seeded_blocks(&self) -> u64 {
        self.seeded.map_or(0, |(_, blocks)| blocks)
    }

    fn is_data(&self, block: u64) -> bool {
        block < self.seeded_blocks() || self.blocks.contains_key(&block)
    }

    fn block(&self, block: u64) -> Vec<u8> {
        if let Some(written) = self.blocks.get(&block) {
            return written.clone();
        }
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        if let Some((seed, blocks)) = self.seeded
            && block < blocks
        {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&block.to_le_bytes()).finalize_xof().fill(&mut bytes);
        }
        bytes
    }

    pub(super) fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> usize {
        let left_bytes = self.stat.size_bytes.saturating_sub(offset_bytes);
        let wanted = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(buf.len());
        let mut filled = 0;
        while filled < wanted {
            let at = offset_bytes + filled as u64;
            let block = self.block(at / BLOCK_BYTES);
            let rest = block.get((at % BLOCK_BYTES) as usize..).unwrap_or_default();
            let step = rest.len().min(wanted - filled);
            if let (Some(into), Some(from)) = (buf.get_mut(filled..filled + step), rest.get(..step)) {
                into.copy_from_slice(from);
            }
            filled += step;
        }
        filled
    }

    /// Writes `data`, or zeros where it is `None`.
    pub(super) fn write(&mut self, offset_bytes: u64, length_bytes: u64, data: Option<&[u8]>, now: Time) {
        let end_bytes = offset_bytes.saturating_add(length_bytes);
        let mut at = offset_bytes;
        while at < end_bytes {
            let number = at / BLOCK_BYTES;
            let start = (at % BLOCK_BYTES) as usize;
            let step = (BLOCK_BYTES - at % BLOCK_BYTES).min(end_bytes - at) as usize;
            let mut block = self.block(number);
            if let Some(into) = block.get_mut(start..start + step) {
                let done = usize::try_from(at - offset_bytes).unwrap_or(usize::MAX);
                match data.and_then(|data| data.get(done..done + step)) {
                    Some(from) => into.copy_from_slice(from),
                    None => into.fill(0),
                }
            }
            self.blocks.insert(number, block);
            at += step as u64;
        }
        if length_bytes > 0 {
            self.stat.size_bytes = self.stat.size_bytes.max(end_bytes);
        }
        self.changed(now);
    }

    pub(super) fn set_len(&mut self, length_bytes: u64, now: Time) {
        let whole = length_bytes.div_ceil(BLOCK_BYTES);
        self.blocks.retain(|number, _| *number < whole);
        self.seeded = self.seeded.map(|(seed, blocks)| (seed, blocks.min(whole)));
        // What stood behind the new end must not come back when the file grows again.
        if length_bytes < self.stat.size_bytes && !length_bytes.is_multiple_of(BLOCK_BYTES) && self.is_data(whole - 1) {
            self.write(length_bytes, whole * BLOCK_BYTES - length_bytes, None, now);
        }
        self.stat.size_bytes = length_bytes;
        self.changed(now);
    }

    pub(super) fn punch(&mut self, offset_bytes: u64, length_bytes: u64, now: Time) {
        let end_bytes = offset_bytes.saturating_add(length_bytes).min(self.stat.size_bytes);
        if offset_bytes >= end_bytes {
            return;
        }
        let size_bytes = self.stat.size_bytes;
        let first = offset_bytes.div_ceil(BLOCK_BYTES);
        let last = if end_bytes == size_bytes { end_bytes.div_ceil(BLOCK_BYTES) } else { end_bytes / BLOCK_BYTES };
        if self.seeded_blocks() > first || first >= last {
            // Seeded blocks cannot be taken away one by one, nor parts of a block: they become zeros.
            self.write(offset_bytes, end_bytes - offset_bytes, None, now);
            return;
        }
        self.write(offset_bytes, first * BLOCK_BYTES - offset_bytes, None, now);
        self.write(last * BLOCK_BYTES, end_bytes.saturating_sub(last * BLOCK_BYTES), None, now);
        self.blocks.retain(|number, _| *number < first || *number >= last);
        self.stat.size_bytes = size_bytes;
        self.changed(now);
    }

    fn changed(&mut self, now: Time) {
        let over = self.blocks.keys().filter(|number| **number >= self.seeded_blocks()).count() as u64;
        self.stat.allocated_bytes = (self.seeded_blocks() + over) * BLOCK_BYTES;
        self.stat.mtime = now;
        self.stat.ctime = now;
    }

    pub(super) fn next_extent(&self, offset_bytes: u64) -> Option<Extent> {
        let size_bytes = self.stat.size_bytes;
        if offset_bytes >= size_bytes {
            return None;
        }
        let first = offset_bytes / BLOCK_BYTES;
        let hole = !self.is_data(first);
        let end = if hole {
            self.blocks.range(first..).next().map_or(u64::MAX / BLOCK_BYTES, |(number, _)| *number)
        } else {
            let mut end = first.max(self.seeded_blocks());
            while self.blocks.contains_key(&end) {
                end += 1;
            }
            end
        };
        let end_bytes = (end * BLOCK_BYTES).min(size_bytes);
        Some(Extent { offset_bytes, length_bytes: end_bytes - offset_bytes, hole })
    }
}
