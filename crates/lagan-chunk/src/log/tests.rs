use super::*;
use crate::options::Options;
use crate::recover;
use lagan_types::chunk::block_crcs;
use std::sync::mpsc;
use tempfile::TempDir;

fn write_op(n: u128, done: crate::queue::Done) -> Op {
    let data = Bytes::from(vec![n as u8; 100]);
    let crcs = block_crcs(&data);
    let (id, len, crc) = (ChunkId(n), 100, crcs[0]);
    Op {
        head: record::new_head(Kind::Chunk, id, len, crc, &crcs),
        data,
        effect: Effect::Write { id, len, crc },
        lazy: false,
        done,
    }
}

#[test]
fn failed_write_ends_all_writing() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        segment_len: 256 * 1024,
        reserve_bytes: 0,
        prewrite: false,
        ..Options::new(dir.path())
    };
    let (inner, mut active) = recover::recover(options).unwrap();
    // A file that cannot be written to stands for a disk that cannot.
    active.file = Arc::new(File::open(&active.segment.path).unwrap());
    let inner = Arc::new(inner);
    let thread = std::thread::spawn({
        let inner = inner.clone();
        move || run(inner, active)
    });
    for n in 0..3 {
        let (sender, receiver) = mpsc::channel();
        inner.push(write_op(n, Box::new(move |r| sender.send(r).unwrap())));
        let result = receiver.recv().unwrap();
        assert!(matches!(result, Err(ChunkError::Failed(_))), "{result:?}");
        assert_eq!(inner.lookup(ChunkId(n)).unwrap(), None);
    }
    assert!(inner.check_failed().is_err());
    inner.queue.close();
    thread.join().unwrap();
}

#[test]
fn panic_in_a_callback_harms_no_other_write() {
    let dir = TempDir::new().unwrap();
    let store = crate::Store::open(Options {
        segment_len: 256 * 1024,
        reserve_bytes: 0,
        prewrite: false,
        ..Options::new(dir.path())
    })
    .unwrap();
    let data = Bytes::from_static(b"bytes");
    let crcs = block_crcs(&data);
    store.write(
        ChunkId(1),
        data.clone(),
        &crcs,
        Box::new(|_| panic!("on purpose")),
    );
    store.write_blocking(ChunkId(2), data, &crcs).unwrap();
    assert!(store.contains(ChunkId(1)).unwrap());
}
