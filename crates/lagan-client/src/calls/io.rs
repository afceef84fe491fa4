//! read and write.

use crate::Client;
use crate::options::Caller;
use bytes::Bytes;
use lagan_types::FsError;

impl Client {
    /// Reads at most `len` bytes; fewer only at the end of the file. Moves the
    /// access time.
    ///
    /// # Errors
    /// [`FsError::Corrupt`] if the bytes are lost or wrong everywhere,
    /// [`FsError::Io`] at the deadline and after the end of the handle's session.
    pub async fn read(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        let handle = self.files.table().handle(fh)?;
        let bytes = self.files.read(&handle, offset, len).await?;
        self.note_read(handle.inode());
        Ok(bytes)
    }

    /// Does the same as [`Client::read`], and the access time stays: for O_NOATIME,
    /// and for what this mount reads for purposes of its own.
    ///
    /// # Errors
    /// Those of [`Client::read`].
    pub async fn read_unnoted(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        let handle = self.files.table().handle(fh)?;
        self.files.read(&handle, offset, len).await
    }

    /// Writes; short only for more than [`CHUNK_LEN_MAX`] bytes. The data may
    /// wait in memory until a flush. For a handle opened with `append` the
    /// offset is ignored.
    ///
    /// # Errors
    /// [`FsError::FileTooLarge`]; [`FsError::NoSpace`] if it is known that no set
    /// takes chunks; [`FsError::Io`] for a handle that
    /// must be opened again; [`FsError::Io`] if there was no room in time;
    /// with `sync` those of [`Client::fsync`].
    ///
    /// [`CHUNK_LEN_MAX`]: lagan_types::limits::CHUNK_LEN_MAX
    pub async fn write(
        &self,
        caller: Caller,
        fh: u64,
        offset: u64,
        data: Bytes,
    ) -> Result<u32, FsError> {
        let handle = self.files.table().handle(fh)?;
        let place = (!handle.options().append).then_some(offset);
        self.files.write(&handle, caller, place, data).await
    }

    /// Does the same as [`Client::write`], at that place, or without one at the end,
    /// however the handle was opened: F_SETFL changes O_APPEND, and mapped pages may
    /// be written through any handle.
    ///
    /// # Errors
    /// Those of [`Client::write`].
    pub async fn write_at(
        &self,
        caller: Caller,
        fh: u64,
        place: Option<u64>,
        data: Bytes,
    ) -> Result<u32, FsError> {
        let handle = self.files.table().handle(fh)?;
        self.files.write(&handle, caller, place, data).await
    }
}
