//! Which files are written in place, a page at a time: databases and disk images.
//!
//! Such a file never shifts its content, so it is cut into blocks of fixed length and position (docs/format.md chapter 14), and a
//! changed page costs one small block. The evidence is what the file's first 64 KiB say, so that two runs decide alike without a
//! record. Promises nothing about files that carry no mark (an encrypted database): they are cut by content. A wrong guess costs
//! deduplication and nothing else.

/// Length of a fixed block; the blocks lie at multiples of it.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Smaller files are cut by content: all of one costs as little as a few chunks.
pub const FROM_BYTES: u64 = 1 << 20;

const POSTGRES_PAGE_BYTES: usize = 8192;
/// Size and layout version as the header of each page says them: 8192 and 4.
const POSTGRES_PAGE_MARK: u16 = 0x2004;

/// Marks that stand at a fixed place: of a database or an image that is updated in place.
const MARKS: &[(usize, &[u8])] = &[
    (0, b"SQLite format 3\0"),
    // WiredTiger (MongoDB).
    (0, &[0x41, 0xd8, 0x01, 0x00, 0x01, 0x00]),
    // LMDB, bbolt (etcd), Berkeley DB as B-tree and hash.
    (16, &[0xde, 0xc0, 0xef, 0xbe]),
    (16, &[0xed, 0xda, 0x0c, 0xed]),
    (12, &[0x62, 0x31, 0x05, 0x00]),
    (12, &[0x61, 0x15, 0x06, 0x00]),
    // Disk images: qcow2, VMDK, VHDX, GPT, XFS.
    (0, b"QFI\xfb"),
    (0, b"KDMV"),
    (0, b"vhdxfile"),
    (512, b"EFI PART"),
    (0, b"XFSB"),
];

/// Whether a file that begins with `head` (its first 64 KiB) is written a page at a time.
#[must_use]
pub fn is_paged(head: &[u8]) -> bool {
    MARKS.iter().any(|(at, mark)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)))
        || is_innodb(head)
        || is_postgres(head)
        || is_ext(head)
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..)?.first_chunk().copied()
}

/// Page 0 is a space header that names its space twice, and some page size puts page 1 where it says that it is page 1.
fn is_innodb(head: &[u8]) -> bool {
    const SPACE_HEADER: u16 = 8;
    let number = |at| bytes(head, at).map(u32::from_be_bytes);
    let first = number(4) == Some(0)
        && bytes(head, 24).map(u16::from_be_bytes) == Some(SPACE_HEADER)
        && number(34).is_some()
        && number(34) == number(38);
    first && (12..16).any(|bits| number((1 << bits) + 4) == Some(1) && number((1 << bits) + 34) == number(34))
}

/// Every page has a page's header or is all zero, and the first has one.
fn is_postgres(head: &[u8]) -> bool {
    let is_page = |page: &[u8]| {
        let word = |at| bytes(page, at).map_or(0, u16::from_le_bytes);
        let (lower, upper, special) = (word(12), word(14), word(16));
        word(18) == POSTGRES_PAGE_MARK && 24 <= lower && lower <= upper && upper <= special && special as usize <= page.len()
    };
    let (pages, _) = head.as_chunks::<POSTGRES_PAGE_BYTES>();
    pages.first().is_some_and(|page| is_page(page)) && pages.iter().all(|page| is_page(page) || super::is_zero(page))
}

/// The superblock of ext2 to ext4: its mark, block size and revision.
fn is_ext(head: &[u8]) -> bool {
    let number = |at| bytes(head, at).map_or(u32::MAX, u32::from_le_bytes);
    bytes(head, 1080) == Some([0x53, 0xef]) && number(1048) <= 6 && number(1100) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lower: u16, upper: u16, special: u16, mark: u16) -> Vec<u8> {
        let mut page = vec![7; POSTGRES_PAGE_BYTES];
        for (at, word) in [(12, lower), (14, upper), (16, special), (18, mark)] {
            page[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    fn innodb(page_bytes: usize) -> Vec<u8> {
        let mut head = vec![9; 64 << 10];
        for n in 0..2u32 {
            let at = n as usize * page_bytes;
            head[at + 4..at + 8].copy_from_slice(&n.to_be_bytes());
            head[at + 34..at + 38].copy_from_slice(&77u32.to_be_bytes());
        }
        head[24..26].copy_from_slice(&8u16.to_be_bytes());
        head[38..42].copy_from_slice(&77u32.to_be_bytes());
        head
    }

    #[test]
    fn databases_and_images_are_known_by_their_marks() {
        assert!(is_paged(b"SQLite format 3\0rest"));
        for (at, mark) in MARKS {
            let mut head = vec![0x5a; 64 << 10];
            assert!(!is_paged(&head));
            head[*at..at + mark.len()].copy_from_slice(mark);
            assert!(is_paged(&head), "{mark:?}");
            assert!(!is_paged(&head[..at + mark.len() - 1]), "{mark:?} cut short");
        }
        for page_bytes in [4096, 8192, 16384, 32768] {
            let mut head = innodb(page_bytes);
            assert!(is_paged(&head), "InnoDB with pages of {page_bytes}");
            head[page_bytes + 7] = 2;
            assert!(!is_paged(&head));
        }
        let mut image = vec![0x5a; 4096];
        image[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert!(!is_paged(&image), "two bytes alone are no evidence");
        image[1048..1052].copy_from_slice(&2u32.to_le_bytes());
        image[1100..1104].copy_from_slice(&1u32.to_le_bytes());
        assert!(is_paged(&image));
    }

    #[test]
    fn a_heap_of_postgres_is_known_by_all_its_pages() {
        let good = page(40, 7000, 8192, POSTGRES_PAGE_MARK);
        assert!(is_paged(&good));
        assert!(is_paged(&[&good[..], &[0; POSTGRES_PAGE_BYTES][..], &good[..]].concat()));
        assert!(!is_paged(&[&good[..], &[1; POSTGRES_PAGE_BYTES][..]].concat()));
        assert!(!is_paged(&good[..8191]));
        for bad in
            [page(23, 7000, 8192, 0x2004), page(7001, 7000, 8192, 0x2004), page(40, 7000, 8193, 0x2004), page(40, 70, 80, 1)]
        {
            assert!(!is_paged(&bad));
        }
        assert!(!is_paged(&[0; 64 << 10]) && !is_paged(b""));
    }
}
