//! Where in a journal a path stands.
//!
//! A table of (hash, place), sorted in runs. Only the last run and every [`EACH`]th hash of the others are in memory; the rest lies in a
//! nameless file, read a page at a time. So ten million paths take 8 MiB and 300 KiB, and looking one up costs a read for each run. Hashes meet now and then: who looks
//! compares the path itself. Without a file to put runs in, what does not fit into memory is not known, and is read from the volume again.

use crate::system::Draft;

/// Rows in a run: 8 MiB.
const RUN_ROWS: usize = if cfg!(test) { 600 } else { 1 << 19 };
const ROW_BYTES: usize = 16;
/// One of so many hashes of a run is in memory, and so many rows are one read.
const EACH: usize = 256;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Places {
    draft: Option<Draft>,
    runs: Vec<Vec<u64>>,
    last: Vec<(u64, u64)>,
    is_full: bool,
}

/// What stands for a path of one kind of record.
pub(super) fn hash(kind: u8, path: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(path);
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(out)
}

impl Places {
    /// Adds a row; `draft` makes the file for those that do not fit into memory.
    pub fn push(&mut self, hash: u64, at: u64, draft: &impl Fn() -> Option<Draft>) {
        if self.is_full {
            return;
        }
        self.last.push((hash, at));
        if self.last.len() < RUN_ROWS {
            return;
        }
        if self.draft.is_none() {
            self.draft = draft();
        }
        self.last.sort_unstable();
        let rows: Vec<u8> = self.last.iter().flat_map(|(h, at)| [h.to_le_bytes(), at.to_le_bytes()].concat()).collect();
        let offset = (self.runs.len() * RUN_ROWS * ROW_BYTES) as u64;
        match &self.draft {
            Some(draft) if draft.write_all_at(&rows, offset).is_ok() => {
                self.runs.push(self.last.iter().step_by(EACH).map(|(h, _)| *h).collect());
                self.last.clear();
            }
            _ => self.is_full = true,
        }
    }

    /// No row comes any more.
    pub fn finish(&mut self) {
        self.last.sort_unstable();
    }

    /// All places of a hash, ascending.
    pub fn find(&self, hash: u64) -> Vec<u64> {
        let mut out: Vec<u64> = Vec::new();
        for (number, samples) in self.runs.iter().enumerate() {
            // The rows of a hash may begin in the page before the first sample that is not below it.
            let mut page = samples.partition_point(|sample| *sample < hash).saturating_sub(1);
            while page < samples.len() && samples[page] <= hash {
                let mut bytes = vec![0; EACH.min(RUN_ROWS - page * EACH) * ROW_BYTES];
                let offset = ((number * RUN_ROWS + page * EACH) * ROW_BYTES) as u64;
                if self.draft.as_ref().is_none_or(|draft| draft.read_exact_at(&mut bytes, offset).is_err()) {
                    break;
                }
                let (rows, _) = bytes.as_chunks::<8>();
                out.extend(
                    rows.chunks_exact(2).filter(|row| u64::from_le_bytes(row[0]) == hash).map(|row| u64::from_le_bytes(row[1])),
                );
                page += 1;
            }
        }
        let from = self.last.partition_point(|(h, _)| *h < hash);
        out.extend(self.last[from..].iter().take_while(|(h, _)| *h == hash).map(|(_, at)| *at));
        out.sort_unstable();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_in_memory_and_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for rows in [0, 1, 599, 600, 601, 2500] {
            let mut places = Places::default();
            let draft = || Draft::new(folder.path(), "d").ok();
            // Few hashes, so that many rows share one, across pages and runs.
            let hash_of = |row: u64| hash(2, &(row * row % 7).to_le_bytes());
            (0..rows).for_each(|row| places.push(hash_of(row), row, &draft));
            places.finish();
            for wanted in (0..7).map(|n: u64| hash(2, &n.to_le_bytes())) {
                let expected: Vec<u64> = (0..rows).filter(|row| hash_of(*row) == wanted).collect();
                assert_eq!(places.find(wanted), expected, "{rows}");
            }
            assert_eq!(places.find(hash(3, &0u64.to_le_bytes())), Vec::<u64>::new());
        }
    }

    #[test]
    fn every_row_of_many_is_found_and_without_a_file_few_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let (mut places, mut short) = (Places::default(), Places::default());
        for row in 0..5000u64 {
            let name = hash(1, &row.to_le_bytes());
            places.push(name, row, &|| Draft::new(folder.path(), "d").ok());
            short.push(name, row, &|| None);
        }
        places.finish();
        short.finish();
        let found = |places: &Places| (0..5000u64).filter(|row| places.find(hash(1, &row.to_le_bytes())) == [*row]).count();
        assert_eq!((found(&places), found(&short)), (5000, 600));
    }
}
