//! Mutations that a session asks for.

use super::{NewFile, Op, SetAttr};
use crate::access::Access;
use crate::answer::{Answer, Committed, Copied, Created, GrantedBlock, Renamed, Unlinked};
use crate::ask::asks;
use crate::attr::{Attr, Kind, Time};
use crate::codec::{Decode, Encode};
use crate::data::Data;
use crate::extent::{ChunkRef, Edit, Extent};
use crate::id::{BlockId, Ino};
use crate::lease::Key;
use crate::limits::INLINE_LEN_MAX;
use bytes::Bytes;

asks! {
    /// A mutation that a session asks for.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum FileOp in Op -> Answer {
        // -- the session's own --------------------------------------------------
        /// The session leaves: its locks go and its blocks are closed. A session that is
        /// gone stays so.
        CloseSession -> (),
        /// Grants the session a block of chunk ids.
        GrantBlock -> GrantedBlock,
        /// Closes a block: no more of its ids will be named.
        CloseBlock { block: BlockId } -> (),

        // -- names --------------------------------------------------------------
        /// Makes an inode and its name. A name that is taken is `Exists`; without
        /// `exclusive` a regular file under it is the answer, with `created: false`.
        /// A parent with setgid gives its group, and a directory its bit too.
        Create {
            parent: Ino,
            name: Vec<u8>,
            kind: Kind,
            /// Permission bits before the umask.
            mode: u16,
            /// The caller's umask. A default ACL of the parent takes its place.
            umask: u16,
            uid: u32,
            gid: u32,
            /// Device number of a device node.
            rdev: u32,
            /// A symlink's target; empty for other kinds.
            target: Vec<u8>,
            exclusive: bool,
        } -> Created,
        /// Makes a promised file, unless it is there already. `Exists` and `NotFound` mean
        /// that the name was lost with the leader that promised it.
        CreatePromised { file: NewFile } -> Created,
        /// Makes a promised file as [`CreatePromised`] does and carries out its first commit,
        /// in one step: one replicated command a file.
        CreateCommit { file: NewFile, commit: Commit } -> Committed,
        /// link(2).
        Link { ino: Ino, parent: Ino, name: Vec<u8> } -> Attr,
        /// unlink(2). An inode that loses its last name becomes an orphan.
        Unlink { parent: Ino, name: Vec<u8> } -> Unlinked,
        /// rmdir(2).
        Rmdir { parent: Ino, name: Vec<u8> } -> Unlinked,
        /// renameat2(2). With `no_replace` a new name that is taken is `Exists`; with
        /// `exchange` both names must exist. A directory cannot go into itself
        /// (`Invalid`).
        Rename {
            parent: Ino,
            name: Vec<u8>,
            new_parent: Ino,
            new_name: Vec<u8>,
            no_replace: bool,
            exchange: bool,
        } -> Renamed,

        // -- attributes ---------------------------------------------------------
        /// chmod(2), chown(2), truncate(2), utimensat(2).
        SetAttrs { ino: Ino, set: SetAttr } -> Attr,
        /// setxattr(2). `mode` decides about `Exists` and `NoAttribute`.
        SetXattr { ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode } -> (),
        /// setxattr(2) of an access list by a caller who is neither in the inode's group
        /// nor privileged: takes set-group-id away.
        SetListAsOther { ino: Ino, value: Vec<u8> } -> (),
        /// removexattr(2).
        RemoveXattr { ino: Ino, name: Vec<u8> } -> (),
        /// Inodes were read on a mount. Moves the access times of those that have not changed
        /// since and whose access time still has to move ([`crate::access`]); neither
        /// ctime nor version changes. Inodes that are gone are passed over.
        NoteAccesses {
            /// At most `ACCESSES_MAX`.
            reads: Vec<Access>,
        } -> (),

        // -- content ------------------------------------------------------------
        /// Switches parts of a file's map in one step.
        Commit {
            /// The file.
            ino: Ino,
            /// In order of offset, without overlap, at most `COMMIT_EDITS_MAX`.
            edits: Vec<Edit>,
            /// The edits' offsets count from the file's true end (O_APPEND).
            append: bool,
            /// Raises the size to this if it is less (fallocate, a write that ends in a hole).
            size_min: u64,
            /// `VersionChanged` unless the data version is this one.
            expect_version: Option<u64>,
            /// The writer was unprivileged: clear setuid and setgid.
            kill_suid: bool,
            /// Leaves the time of the content's last change as it is if it is this one: utimensat(2)
            /// has set it after the bytes were written, and nobody has since.
            mtime: Option<Time>,
            /// How the bytes of the chunks that the edits name come to the chunk stores.
            inline: Inline,
        } -> Committed,
        /// copy_file_range(2): a range of one file becomes a copy of a range of the same file or
        /// another one. Both then name the same chunks; no bytes move.
        CopyRange {
            /// The source.
            from: Ino,
            /// First byte in the source.
            from_offset: u64,
            /// The target. It may be the source, but the ranges must not overlap (`Invalid`).
            to: Ino,
            /// First byte in the target.
            to_offset: u64,
            /// Bytes. The copy ends at the source's end, where the bytes are in no chunk, and
            /// after `COPY_EXTENTS_MAX` extents.
            len: u64,
            /// The writer was unprivileged: clear setuid and setgid.
            kill_suid: bool,
        } -> Copied,
        /// One chunk takes the place of many with the same bytes: neither version nor times
        /// change. `VersionChanged` if the range is no longer as it was read.
        Rewrite {
            /// The file.
            ino: Ino,
            /// The range's extents, cut to it: chunks without a gap, at most
            /// `REWRITE_EXTENTS_MAX`. Neighbours that make one extent may be given as one.
            from: Vec<Extent>,
            /// The chunk with the bytes of exactly that range; its `skip` is 0.
            chunk: ChunkRef,
        } -> (),

        // -- locks --------------------------------------------------------------
        /// Takes, changes or (kind `Unlock`) drops an advisory lock. `WouldBlock` if another
        /// owner holds a conflicting one.
        SetLock { ino: Ino, lock: LockRange } -> (),
        /// Drops all locks of that owner on the inode.
        DropLocks { ino: Ino, owner: u64 } -> (),
    }
}

impl FileOp {
    /// The names (directory and name) that it takes, removes or makes (INV-6a).
    pub fn names(&self) -> Vec<(Ino, &[u8])> {
        match self {
            FileOp::Create(op) => vec![(op.parent, &op.name)],
            FileOp::CreatePromised(op) => vec![(op.file.parent, &op.file.name)],
            FileOp::CreateCommit(op) => vec![(op.file.parent, &op.file.name)],
            FileOp::Link(op) => vec![(op.parent, &op.name)],
            FileOp::Unlink(op) => vec![(op.parent, &op.name)],
            FileOp::Rmdir(op) => vec![(op.parent, &op.name)],
            FileOp::Rename(op) => {
                vec![(op.parent, &op.name), (op.new_parent, &op.new_name)]
            }
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => Vec::new(),
        }
    }

    /// Whether the session remembers the answer, so that a repeated command is carried out
    /// once. `CloseSession` removes the session; it is idempotent instead.
    pub fn is_remembered(&self) -> bool {
        match self {
            FileOp::CloseSession(_) => false,
            FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::CreatePromised(_)
            | FileOp::CreateCommit(_)
            | FileOp::Link(_)
            | FileOp::Unlink(_)
            | FileOp::Rmdir(_)
            | FileOp::Rename(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => true,
        }
    }

    /// The effect on names that are promised to somebody else (INV-6a).
    pub fn effect(&self) -> NameEffect<'_> {
        match self {
            FileOp::Create(op) if op.kind == Kind::Directory => NameEffect::TakesForDirectory,
            FileOp::Create(_) | FileOp::Link(_) => NameEffect::Takes,
            FileOp::CreatePromised(op) => NameEffect::Own(op.file.ino),
            FileOp::CreateCommit(op) => NameEffect::Own(op.file.ino),
            FileOp::Rename(op) => NameEffect::Moves(op.parent, &op.name),
            FileOp::Rmdir(_) => NameEffect::RemovesDirectory,
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Unlink(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => NameEffect::None,
        }
    }

    /// What mounts may remember of what it changes, as far as the mutation names it: the
    /// inodes that names lead to come on top ([`FileOp::victims`]). Locks are never remembered.
    ///
    /// A promised file is shown from its promise on, with its name and the times that it
    /// gives its directory; so making it changes its inode only (INV-7).
    pub fn touches(&self) -> Vec<Key> {
        let named = |parent: Ino, name: &[u8]| vec![Key::name(parent, name), Key::Inode(parent)];
        match self {
            FileOp::Create(op) => named(op.parent, &op.name),
            FileOp::CreatePromised(op) => vec![Key::Inode(op.file.ino)],
            FileOp::CreateCommit(op) => vec![Key::Inode(op.file.ino)],
            FileOp::Link(op) => {
                let mut keys = named(op.parent, &op.name);
                keys.push(Key::Inode(op.ino));
                keys
            }
            FileOp::Unlink(op) => named(op.parent, &op.name),
            FileOp::Rmdir(op) => named(op.parent, &op.name),
            FileOp::Rename(op) => {
                let mut keys = named(op.parent, &op.name);
                keys.extend(named(op.new_parent, &op.new_name));
                keys
            }
            FileOp::SetAttrs(op) => vec![Key::Inode(op.ino)],
            FileOp::SetXattr(op) => vec![Key::Inode(op.ino)],
            FileOp::SetListAsOther(op) => vec![Key::Inode(op.ino)],
            FileOp::RemoveXattr(op) => vec![Key::Inode(op.ino)],
            FileOp::Commit(op) => vec![Key::Inode(op.ino)],
            FileOp::CopyRange(op) => vec![Key::Inode(op.to)],
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Rewrite(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => Vec::new(),
        }
    }

    /// The names whose inodes it changes beside the names.
    pub fn victims(&self) -> Vec<(Ino, &[u8])> {
        match self {
            FileOp::Unlink(_) | FileOp::Rmdir(_) | FileOp::Rename(_) => self.names(),
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::CreatePromised(_)
            | FileOp::CreateCommit(_)
            | FileOp::Link(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => Vec::new(),
        }
    }

    /// The inodes of which it changes something that mounts may remember, but that nobody
    /// waits for: a mount may show the old state for a moment.
    pub fn quiet(&self) -> Vec<Ino> {
        match self {
            FileOp::NoteAccesses(op) => op.reads.iter().map(|read| read.ino).collect(),
            FileOp::Rewrite(op) => vec![op.ino],
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::CreatePromised(_)
            | FileOp::CreateCommit(_)
            | FileOp::Link(_)
            | FileOp::Unlink(_)
            | FileOp::Rmdir(_)
            | FileOp::Rename(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::SetLock(_)
            | FileOp::DropLocks(_) => Vec::new(),
        }
    }

    /// The inodes, named by number, that it reads or changes (INV-6a).
    pub fn inodes(&self) -> Vec<Ino> {
        match self {
            FileOp::Link(op) => vec![op.ino],
            FileOp::SetAttrs(op) => vec![op.ino],
            FileOp::SetXattr(op) => vec![op.ino],
            FileOp::SetListAsOther(op) => vec![op.ino],
            FileOp::RemoveXattr(op) => vec![op.ino],
            FileOp::Commit(op) => vec![op.ino],
            FileOp::CopyRange(op) => vec![op.from, op.to],
            FileOp::Rewrite(op) => vec![op.ino],
            FileOp::SetLock(op) => vec![op.ino],
            FileOp::DropLocks(op) => vec![op.ino],
            // What is only promised is passed over, as what is gone.
            FileOp::NoteAccesses(_) => Vec::new(),
            FileOp::CloseSession(_)
            | FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::CreatePromised(_)
            | FileOp::CreateCommit(_)
            | FileOp::Unlink(_)
            | FileOp::Rmdir(_)
            | FileOp::Rename(_) => Vec::new(),
        }
    }
}

impl FileOp {
    /// The commit whose bytes come with it, if they do.
    pub fn inline(&self) -> Option<&Commit> {
        let commit = match self {
            FileOp::Commit(op) => op,
            FileOp::CreateCommit(op) => &op.commit,
            _ => return None,
        };
        matches!(commit.inline, Inline::Data(_)).then_some(commit)
    }

    /// The same mutation without the bytes that come with it, to be refused in their place.
    #[must_use]
    pub fn without_data(mut self) -> FileOp {
        match &mut self {
            FileOp::Commit(op) => op.inline.refuse(),
            FileOp::CreateCommit(op) => op.commit.inline.refuse(),
            _ => {}
        }
        self
    }
}

/// How the bytes of the chunks that a commit names come to the chunk stores.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Inline {
    /// They are there already, on every member.
    #[default]
    Stored,
    /// They come with the commit: the chunks in the order of the edits, each whole, one after
    /// the other, at most `INLINE_LEN_MAX`.
    Data(Data),
    /// They came with it, and the leader would not have them: [`NotInline`](crate::Refusal::NotInline), unless the
    /// command was carried out before. Only so does the answer hold whatever became of an
    /// earlier sending.
    Refused,
}

impl Inline {
    fn refuse(&mut self) {
        if matches!(self, Inline::Data(_)) {
            *self = Inline::Refused;
        }
    }
}

impl Commit {
    /// The chunks that it names, in the order of the edits.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.edits.iter().filter_map(|edit| edit.content.as_ref())
    }

    /// The bytes that come with it.
    fn data(&self) -> &[u8] {
        match &self.inline {
            Inline::Data(Data(bytes)) => bytes,
            Inline::Stored | Inline::Refused => &[],
        }
    }

    /// The chunks whose bytes come with it, and the bytes; none of them if it is not
    /// [whole](Commit::is_whole).
    pub fn inline_chunks(&self) -> impl Iterator<Item = (&ChunkRef, Bytes)> {
        let mut rest = match &self.inline {
            Inline::Data(Data(bytes)) => bytes.clone(),
            Inline::Stored | Inline::Refused => Bytes::new(),
        };
        self.chunks().map_while(move |chunk| {
            let len = chunk.chunk_len as usize;
            (0 < len && len <= rest.len()).then(|| (chunk, rest.split_to(len)))
        })
    }

    /// Whether the bytes that come with it are those of its chunks, as long as it says and with
    /// the CRCs that it says.
    pub fn is_whole(&self) -> bool {
        let lens = self.chunks().map(|chunk| chunk.chunk_len as usize);
        let len = lens.fold(0usize, usize::saturating_add);
        let empty = self.chunks().any(|chunk| chunk.chunk_len == 0);
        let right = |(chunk, bytes): (&ChunkRef, Bytes)| crc32fast::hash(&bytes) == chunk.chunk_crc;
        let sound = len == self.data().len() && len <= INLINE_LEN_MAX && !empty;
        sound && self.inline_chunks().all(right)
    }
}

/// The effect of a mutation on names that are promised to somebody else (INV-6a).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameEffect<'a> {
    /// It takes no name and removes no directory.
    None,
    /// It makes this promised file, whose name is its own.
    Own(Ino),
    /// It may take a name.
    Takes,
    /// It may take a name, and brings a directory to it.
    TakesForDirectory,
    /// It may take a name, and moves what stands under this one: another directory or not.
    Moves(Ino, &'a [u8]),
    /// It removes a directory.
    RemovesDirectory,
}

impl NameEffect<'_> {
    /// Whether somebody else's promise could be in its way.
    pub fn is_on_others(self) -> bool {
        !matches!(self, NameEffect::None | NameEffect::Own(_))
    }
}

impl NewFile {
    /// The file that a create of a regular file wants, under that number and with those times.
    pub fn promised(create: &Create, ino: Ino, time: Time) -> Self {
        NewFile {
            ino,
            parent: create.parent,
            name: create.name.clone(),
            mode: create.mode & !create.umask,
            uid: create.uid,
            gid: create.gid,
            time,
            set: None,
        }
    }
}

/// setxattr(2)'s flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// XATTR_CREATE: `Exists` if the attribute is there.
    Create,
    /// XATTR_REPLACE: `NoAttribute` if it is not.
    Replace,
}

/// An advisory lock, or its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LockRange {
    /// The kernel's lock owner, unique in its session.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `u64::MAX` reaches to the end.
    pub end: u64,
    /// The kind of lock.
    pub kind: LockKind,
    /// The owner's process, for F_GETLK.
    pub pid: u32,
}

/// fcntl(2)'s F_RDLCK, F_WRLCK, F_UNLCK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

#[cfg(test)]
mod tests;
