//! Every bound of a format or a protocol, with the reason for its value.

/// Bytes of one file in one chunk, at most: large enough that a big file needs
/// few, small enough that a write moves to another set quickly.
pub const CHUNK_LEN_MAX: u32 = 4 * 1024 * 1024;
/// Bytes that one CRC covers, in a chunk's record and in a read's answer.
pub const BLOCK_LEN: u32 = 64 * 1024;
/// Chunk ids in one block: what a session is granted at a time.
pub const BLOCK_IDS: u16 = 1024;
/// Blocks that one session may hold open.
pub const SESSION_BLOCKS_MAX: usize = 16;
/// Bytes of a name in a directory (POSIX NAME_MAX).
pub const NAME_LEN_MAX: usize = 255;
/// Bytes of a symbolic link's target (Linux PATH_MAX less its NUL).
pub const SYMLINK_LEN_MAX: usize = 4095;
/// Bytes of a file, at most: what a signed 64-bit offset leaves with room to add.
pub const FILE_LEN_MAX: u64 = 1 << 62;
/// Hard links to one inode.
pub const LINKS_MAX: u32 = 65_000;
/// Bytes of an extended attribute's name (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_LEN_MAX: usize = 255;
/// Bytes of an extended attribute's value (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_LEN_MAX: usize = 64 * 1024;
/// Bytes of all names that listxattr returns (Linux XATTR_LIST_MAX).
pub const XATTR_LIST_LEN_MAX: usize = 64 * 1024;
/// Mutations that one session may have unanswered.
pub const SESSION_WINDOW: u64 = 1024;
/// Edits in one commit.
pub const COMMIT_EDITS_MAX: usize = 256;
/// Extents that one copy shares: a few milliseconds of one command; 2 GiB of
/// whole chunks, the most that Linux copies in one call.
pub const COPY_EXTENTS_MAX: usize = 512;
/// Extents that one rewrite makes one of.
pub const REWRITE_EXTENTS_MAX: usize = 1024;
/// Reads that one command tells: a millisecond or two of everybody's time.
pub const ACCESSES_MAX: usize = 512;
/// Extents in one answer.
pub const EXTENTS_PAGE_MAX: usize = 512;
/// Extents that open returns with the attributes.
pub const OPEN_EXTENTS: usize = 64;
/// Directory entries in one answer.
pub const READDIR_PAGE_MAX: usize = 4096;
/// Bytes of an S3 object, at most (S3 itself: 5 TiB).
pub const OBJECT_LEN_MAX: u64 = 5 << 40;
/// Bytes of holes in a file that goes to S3, at most: an object has none, they are
/// sent and stored as zeros, and nobody wants to pay for terabytes of them unasked.
pub const OBJECT_HOLES_LEN_MAX: u64 = 64 << 30;
/// Inodes in one question for attributes: some 100 bytes each.
pub const ATTRS_PAGE_MAX: usize = 1024;
/// Files in one question for what an open shows: some 200 bytes each, and their bytes.
pub const OPENS_PAGE_MAX: usize = 64;
/// Bytes of one file that come along with the answer to an open, at most: a second round trip
/// costs less than sending more of a file of which perhaps only the start is read.
pub const ALONG_LEN_MAX: u32 = BLOCK_LEN;
/// Bytes of all files that come along with one answer, at most: 4 ms of a gigabit link, in
/// which other answers wait.
pub const ALONG_ALL_LEN_MAX: u32 = 512 * 1024;
/// A last extent up to this length is rewritten by an append instead of
/// getting a neighbour.
pub const APPEND_MERGE_LEN_MAX: u32 = 256 * 1024;
/// Commands in one log entry.
pub const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of commands in one log entry.
pub const BATCH_LEN_MAX: usize = 4 * 1024 * 1024;
/// Bytes that come with one commit, at most: what is longer goes to the chunk stores first, so
/// that the log does not carry it. One block of a chunk: its CRC is the chunk's.
pub const INLINE_LEN_MAX: usize = BLOCK_LEN as usize;
/// Bytes of a frame's head (everything but bulk data).
pub const FRAME_HEAD_LEN_MAX: u32 = 8 * 1024 * 1024;
/// Bytes of a frame's bulk data: one chunk and its block CRCs.
pub const FRAME_DATA_LEN_MAX: u32 = CHUNK_LEN_MAX + BLOCK_LEN;
/// Nodes in a cluster map.
pub const NODES_MAX: usize = 256;
/// Members of a replica set.
pub const SET_MEMBERS_MAX: usize = 8;

/// Protocol versions that this build speaks, lowest and highest.
pub const PROTOCOL_VERSIONS: (u16, u16) = (9, 9);

const _: () = assert!(CHUNK_LEN_MAX.is_multiple_of(BLOCK_LEN));
const _: () = assert!((BATCH_LEN_MAX as u64) < crate::codec::DECODE_LIMIT_BYTES as u64);
const _: () = assert!((FRAME_HEAD_LEN_MAX as u64) < crate::codec::DECODE_LIMIT_BYTES as u64);
