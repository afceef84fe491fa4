//! Shorthands for a program on a mount: options, and a few calls in a row.

use crate::cluster::ROOT;
use bytes::Bytes;
use lagan_client::{Caller, Client, NewInode, OpenOptions};
use lagan_types::{FsError, Ino, Kind};

pub const RW: OpenOptions = OpenOptions {
    read: true,
    write: true,
    append: false,
    truncate: false,
    kill_suid: false,
    direct: false,
    sync: false,
    no_atime: false,
};

pub const WRITE: OpenOptions = OpenOptions { read: false, ..RW };

pub const APPEND: OpenOptions = OpenOptions { append: true, ..RW };

pub const USER: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 1,
};

pub fn new_file() -> NewInode {
    NewInode {
        kind: Kind::File,
        mode: 0o644,
        umask: 0,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        target: Vec::new(),
    }
}

pub fn new_dir() -> NewInode {
    NewInode {
        kind: Kind::Directory,
        mode: 0o755,
        ..new_file()
    }
}

/// Makes a file with that content and closes it.
pub async fn put(client: &Client, name: &str, data: &[u8]) -> Ino {
    let (attr, opened) = client
        .create(ROOT, name.as_bytes(), new_file(), true, RW)
        .await
        .unwrap();
    write(client, opened.fh, 0, data).await;
    close(client, opened.fh).await.unwrap();
    attr.ino
}

/// Writes all of `data`.
pub async fn write(client: &Client, fh: u64, offset: u64, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        let part = Bytes::copy_from_slice(&data[done..data.len().min(done + (1 << 20))]);
        let n = client
            .write(USER, fh, offset + done as u64, part)
            .await
            .unwrap();
        done += n as usize;
    }
}

pub async fn close(client: &Client, fh: u64) -> Result<(), FsError> {
    let flushed = client.flush(fh, 0).await;
    client.release(fh, None).await;
    flushed
}

/// Reads a whole file through a handle of its own, 128 KiB at a time.
pub async fn get(client: &Client, ino: Ino) -> Vec<u8> {
    let fh = client.open(ino, RW).await.unwrap().fh;
    let data = read_all(client, fh).await.unwrap();
    close(client, fh).await.unwrap();
    data
}

pub async fn read_all(client: &Client, fh: u64) -> Result<Vec<u8>, FsError> {
    let mut all = Vec::new();
    loop {
        let part = client.read(fh, all.len() as u64, 128 * 1024).await?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&part);
    }
}

/// Bytes that differ everywhere.
pub fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2_654_435_761).max(1);
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}
