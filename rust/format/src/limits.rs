//! Limits of docs/format.md chapter 13, checked before anything is allocated.

/// Largest chunk, plaintext bytes.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;
/// Largest payload of a frame.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// What a stored form may be longer than its payload.
pub const STORED_EXTRA_BYTES_MAX: usize = 1 << 20;
/// Most key slots of a repository that a reader looks at.
pub const SLOTS_MAX: usize = 64;
/// Most objects among which it looks for them.
pub const SLOTS_LISTED_MAX: usize = 1024;
/// Most frames in a pack.
pub const PACK_FRAMES_MAX: usize = 1 << 20;
/// Largest pack.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Largest payload of a pack's header.
pub const PACK_HEADER_BYTES_MAX: usize = 64 << 20;
/// Largest payload of an index segment.
pub const INDEX_BYTES_MAX: usize = 256 << 20;
/// Largest payload of a usage table.
pub const USAGE_BYTES_MAX: usize = 256 << 20;
/// Largest payload of the record of a repair.
pub const REPAIR_BYTES_MAX: usize = 256 << 20;
/// Largest payload of any other sealed object.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Largest tree entry.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Longest name of an entry.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest target of a symbolic link.
pub const TARGET_BYTES_MAX: usize = 65_536;
/// Longest name of an extended attribute.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value of an extended attribute.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Most extended attributes of one entry.
pub const XATTRS_MAX: usize = 4096;
/// Deepest nesting of list chunks.
pub const LIST_DEPTH_MAX: usize = 8;
/// Largest file.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Largest window that a zstd frame may ask for, as a power of two.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
