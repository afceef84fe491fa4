//! The way of a request to its answer.
//!
//! ```text
//! FUSE thread: first poll of the call ---- ready ----> answer
//!                    '-- pending --> parked ---- woken ----> task on the runtime --> answer
//!                                      '-- past the deadline --> EIO <--'
//! ```
//! The first poll happens on the FUSE thread: a call that needs no server is answered
//! without waking another thread, and any other puts its message on the wire at once. After
//! a panic the answer is EIO, which the library sends when a reply is dropped.

use super::parked::{Job, Lot};
use super::profile::{Meter, Profile};
use crate::errno::{About, errno, unexpected};
use fuser::{Errno, INodeNo, Request};
use lagan_client::spent::counted;
use lagan_types::FsError;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The facts about a request that a log line shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    op: &'static str,
    about: About,
    req: u64,
    ino: u64,
    fh: u64,
    off: u64,
    len: u64,
    bounded: bool,
}

impl Call {
    /// Describes a request about names or attributes.
    pub(crate) fn names(op: &'static str, req: &Request, ino: INodeNo) -> Self {
        Call {
            op,
            about: About::Names,
            req: req.unique().0,
            ino: ino.0,
            fh: 0,
            off: 0,
            len: 0,
            bounded: true,
        }
    }

    /// Describes a request about a file's bytes.
    pub(crate) fn data(op: &'static str, req: &Request, ino: INodeNo, fh: u64) -> Self {
        Call {
            about: About::Data,
            fh,
            ..Call::names(op, req, ino)
        }
    }

    /// Adds the bytes that the request is about.
    pub(crate) fn range(self, off: u64, len: u64) -> Self {
        Call { off, len, ..self }
    }

    /// Lets the request take any time: somebody else ends it.
    pub(crate) fn unbounded(self) -> Self {
        Call {
            bounded: false,
            ..self
        }
    }

    /// The errno of the error, logged if it is no ordinary answer.
    fn errno(&self, error: FsError) -> Errno {
        if unexpected(error) {
            tracing::warn!(
                op = self.op,
                req = self.req,
                ino = self.ino,
                fh = self.fh,
                off = self.off,
                len = self.len,
                %error,
                "request answered with an error"
            );
        }
        errno(error, self.about)
    }
}

/// A reply that can carry an error.
pub(crate) trait Refuse: Send + 'static {
    /// Answers with an errno.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ident),*) => {
        $(impl Refuse for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Runs calls to their answers.
pub(crate) struct Runner {
    runtime: Handle,
    lot: Arc<Lot>,
    deadline: Duration,
    loop_ended: Arc<Notify>,
    profile: Arc<Profile>,
}

thread_local! {
    /// A value that lives as long as its thread, which takes requests from the kernel.
    static LOOP: RefCell<Option<LoopGuard>> = const { RefCell::new(None) };
}

/// Notified at the end of the thread.
struct LoopGuard(Arc<Notify>);

impl Drop for LoopGuard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Runner {
    /// Runs calls on that runtime and answers EIO after `deadline`.
    pub(crate) fn new(runtime: Handle, deadline: Duration, loop_ended: Arc<Notify>) -> Self {
        Runner {
            lot: Lot::new(runtime.clone(), deadline),
            runtime,
            deadline,
            loop_ended,
            profile: Arc::new(Profile::new()),
        }
    }

    /// What the requests cost so far.
    pub(crate) fn profile(&self) -> Arc<Profile> {
        self.profile.clone()
    }

    /// The time after which a call is answered at the latest.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs `work`. `answer` gets the reply and the result; errors are answered here.
    pub(crate) fn run<R, T, W, A>(&self, call: Call, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        self.watch_thread();
        let meter = self.profile.begin(call.op);
        let mut work = Box::pin(counted(meter.spent(), work));
        let deadline = call.bounded.then(|| Instant::now() + self.deadline);
        let (place, waker) = self.lot.place(deadline);
        let entered = self.runtime.enter();
        let first = catch_unwind(AssertUnwindSafe(|| {
            work.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        drop(entered);
        match first {
            Ok(Poll::Ready(result)) => finish((call, &meter), reply, result, answer),
            Ok(Poll::Pending) => place.park(Waiting {
                call,
                meter,
                reply,
                work,
                answer,
            }),
            Err(_) => {
                tracing::error!(?call, "a request's handler panicked");
                reply.refuse(Errno::EIO);
            }
        }
    }

    fn watch_thread(&self) {
        LOOP.with_borrow_mut(|guard| {
            guard.get_or_insert_with(|| LoopGuard(self.loop_ended.clone()));
        });
    }
}

/// A call that waits, with everything that its answer needs.
struct Waiting<R, W, A> {
    call: Call,
    meter: Meter,
    reply: R,
    work: Pin<Box<W>>,
    answer: A,
}

impl<R, T, W, A> Job for Waiting<R, W, A>
where
    R: Refuse,
    T: Send + 'static,
    W: Future<Output = Result<T, FsError>> + Send + 'static,
    A: FnOnce(R, T) + Send + 'static,
{
    fn go_on(self, runtime: &Handle, deadline: Option<Instant>) {
        runtime.spawn(async move {
            let result = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), self.work)
                    .await
                    .unwrap_or(Err(FsError::TimedOut)),
                None => self.work.await,
            };
            finish((self.call, &self.meter), self.reply, result, self.answer);
        });
    }

    fn refuse(self) {
        self.meter.stop();
        self.reply.refuse(self.call.errno(FsError::TimedOut));
    }
}

fn finish<R, T, A>((call, meter): (Call, &Meter), reply: R, result: Result<T, FsError>, answer: A)
where
    R: Refuse,
    A: FnOnce(R, T),
{
    meter.stop();
    match result {
        Ok(out) => answer(reply, out),
        Err(error) => reply.refuse(call.errno(error)),
    }
}

#[cfg(test)]
mod tests;
