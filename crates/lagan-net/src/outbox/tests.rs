use super::*;
use crate::frame::{Decoder, FrameKind, FrameLimits};
use crate::socket::ReadHalf;
use crate::testing::{LONG, payload};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (WriteHalf, ReadHalf) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (_, near_write) = near.unwrap().into_split();
    let (far_read, _) = far.unwrap().0.into_split();
    (near_write, far_read)
}

fn frame(id: u64, len: usize) -> Frame {
    Frame {
        kind: FrameKind::Call,
        id,
        head: payload(10),
        data: payload(len),
    }
}

async fn read_frames(half: &mut ReadHalf, count: usize) -> Vec<Frame> {
    let mut decoder = Decoder::new(FrameLimits::default());
    let mut out = Vec::new();
    while out.len() < count {
        let read = tokio::time::timeout(LONG, half.read_buf(&mut decoder.space())).await;
        assert!(read.unwrap().unwrap() > 0);
        while let Some(frame) = decoder.next_frame().unwrap() {
            out.push(frame);
        }
    }
    out
}

#[tokio::test]
async fn frames_leave_in_order_whoever_writes() {
    let (socket, mut far) = pair().await;
    let outbox = Arc::new(Outbox::default());
    let writer = tokio::spawn({
        let outbox = outbox.clone();
        async move {
            outbox.run(&socket).await.unwrap();
            socket
        }
    });
    let sizes = [0, 100, 8_192, 8_193, 500_000, 1, 70_000, 0];
    let sent: Vec<_> = (0..).zip(sizes).map(|(id, len)| frame(id, len)).collect();
    for frame in &sent {
        outbox.push(frame.clone(), true).unwrap();
    }
    assert_eq!(read_frames(&mut far, sizes.len()).await, sent);
    outbox.close(true);
    let socket = writer.await.unwrap();
    assert_eq!(outbox.queued(), 0);
    drop(socket);
}

#[tokio::test]
async fn what_the_socket_takes_at_once_needs_no_writer() {
    let (socket, mut far) = pair().await;
    let outbox = Outbox::default();
    outbox.cork();
    for id in 0..50 {
        outbox.push(frame(id, 20), true).unwrap();
    }
    outbox.uncork(&socket);
    assert_eq!(outbox.queued(), 0);
    assert_eq!(read_frames(&mut far, 50).await.len(), 50);
}

#[tokio::test]
async fn an_answer_is_written_where_it_is_made_unless_a_reader_gathers() {
    let (socket, mut far) = pair().await;
    let outbox = Outbox::default();
    outbox.push(frame(1, 20), false).unwrap();
    outbox.flush_uncorked(&socket);
    assert_eq!(outbox.queued(), 0);
    outbox.cork();
    outbox.push(frame(2, 20), false).unwrap();
    outbox.flush_uncorked(&socket);
    assert_ne!(outbox.queued(), 0);
    outbox.uncork(&socket);
    assert_eq!(read_frames(&mut far, 2).await.len(), 2);
}

#[test]
fn closing_tells_which_frames_never_left() {
    let outbox = Outbox::default();
    outbox.push(frame(7, 0), false).unwrap();
    let Take::Batch(batch) = outbox.take() else {
        panic!("nothing to write");
    };
    outbox.push(frame(8, 0), false).unwrap();
    outbox.push(frame(9, 0), false).unwrap();
    assert!(outbox.put_back(batch));
    assert_eq!(outbox.close(false), [8, 9]);
    assert_eq!(outbox.push(frame(10, 0), false), Err(OutboxClosed));
}

#[test]
fn a_dropped_outbox_gives_its_share_of_the_total_back() {
    let total = Arc::new(AtomicUsize::new(5));
    let outbox = Outbox::counted(total.clone());
    outbox.push(frame(1, 1_000), false).unwrap();
    assert_eq!(total.load(Ordering::SeqCst), 5 + 20 + 10 + 1_000);
    outbox.close(false);
    drop(outbox);
    assert_eq!(total.load(Ordering::SeqCst), 5);
}
