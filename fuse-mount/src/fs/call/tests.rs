use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::runtime::Runtime;

/// Long enough for a busy machine, short enough for a test that fails.
const SOON: Duration = Duration::from_secs(20);

/// A reply that keeps its answer.
struct Told(Sender<Result<u32, i32>>);

impl Refuse for Told {
    fn refuse(self, errno: Errno) {
        self.0.send(Err(errno.code())).unwrap();
    }
}

fn call(about: About) -> Call {
    Call {
        op: "test",
        about,
        req: 1,
        ino: 1,
        fh: 0,
        off: 0,
        len: 0,
        bounded: true,
    }
}

/// Runs the work with that deadline; the runtime keeps it alive.
fn run<W>(deadline: Duration, call: Call, work: W) -> (Receiver<Result<u32, i32>>, Runtime)
where
    W: Future<Output = Result<u32, FsError>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let runner = Runner::new(runtime.handle().clone(), deadline, Arc::default());
    let (tell, told) = channel();
    runner.run(call, Told(tell), work, |reply, out| {
        reply.0.send(Ok(out)).unwrap();
    });
    (told, runtime)
}

#[test]
fn what_needs_no_wait_is_answered_before_the_call_returns() {
    let (told, _runtime) = run(SOON, call(About::Names), async { Ok(7) });
    assert_eq!(told.try_recv(), Ok(Ok(7)));
    let (told, _runtime) = run(SOON, call(About::Names), async { Err(FsError::NotFound) });
    assert_eq!(told.try_recv(), Ok(Err(libc::ENOENT)));
}

#[test]
fn what_waits_is_answered_later() {
    let work = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(7)
    };
    let (told, _runtime) = run(SOON, call(About::Data), work);
    assert_eq!(told.recv_timeout(SOON), Ok(Ok(7)));
}

#[test]
fn what_waits_for_ever_is_answered_at_the_deadline() {
    let short = Duration::from_millis(20);
    let (told, _runtime) = run(short, call(About::Data), std::future::pending());
    assert_eq!(told.recv_timeout(SOON), Ok(Err(libc::EIO)));
    let (told, _runtime) = run(short, call(About::Names), std::future::pending());
    assert_eq!(told.recv_timeout(SOON), Ok(Err(libc::ETIMEDOUT)));
}

#[test]
fn a_lock_may_wait_longer_than_the_deadline() {
    let work = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(7)
    };
    let call = call(About::Data).unbounded();
    let (told, _runtime) = run(Duration::from_millis(1), call, work);
    assert_eq!(told.recv_timeout(SOON), Ok(Ok(7)));
}

#[test]
fn a_panic_is_answered_and_the_thread_goes_on() {
    let work = async { panic!("a defect, on purpose") };
    let (told, _runtime) = run(SOON, call(About::Names), work);
    assert_eq!(told.try_recv(), Ok(Err(libc::EIO)));
}

#[test]
fn the_end_of_a_thread_is_noticed() {
    let ended = Arc::new(Notify::new());
    let runtime = Runtime::new().unwrap();
    let runner = Runner::new(runtime.handle().clone(), SOON, ended.clone());
    std::thread::spawn(move || {
        let (tell, told) = channel();
        let answer = |reply: Told, out| reply.0.send(Ok(out)).unwrap();
        runner.run(call(About::Names), Told(tell), async { Ok(1) }, answer);
        told.recv().unwrap().unwrap()
    })
    .join()
    .unwrap();
    let noticed = async { tokio::time::timeout(SOON, ended.notified()).await };
    assert!(runtime.block_on(noticed).is_ok());
}
