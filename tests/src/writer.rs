//! Writers that go on while things break, and remember what was acknowledged.
//!
//! A file counts as acknowledged once close has returned; what is not in the
//! list may be there in any state, or not at all.

use crate::manifest::{Entry, Manifest};
use crate::random::Random;
use crate::sys;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// State that writers share with their test.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    slowest_ms: AtomicU64,
    acknowledged: Mutex<Manifest>,
    errors: Mutex<Vec<String>>,
}

/// Threads that write files until told to stop.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Results of the writers.
#[derive(Debug)]
pub struct Written {
    /// Each file whose close returned without an error.
    pub acknowledged: Manifest,
    /// Errors that writers got.
    pub errors: Vec<String>,
    /// The longest that one file took, from open to close.
    pub slowest: Duration,
}

impl Writers {
    /// Starts threads that write below `top`, which exists, each in a directory of its
    /// own; those are there when this returns.
    ///
    /// # Panics
    /// When a directory cannot be made.
    #[track_caller]
    pub fn start(top: &Path, threads: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        for n in 0..threads {
            std::fs::create_dir_all(top.join(dir_of(n))).expect("make a writer's directory");
        }
        let threads = (0..threads).map(|n| {
            let (shared, top) = (shared.clone(), top.to_owned());
            std::thread::spawn(move || work(&shared, &top, n, seed))
        });
        let threads = threads.collect();
        Writers { shared, threads }
    }

    /// Files acknowledged so far.
    pub fn count(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until that many more files were acknowledged.
    ///
    /// # Panics
    /// When they are not within `limit`, or a writer got an error.
    #[track_caller]
    pub fn wait_more(&self, files: u64, limit: Duration) {
        let (from, began) = (self.count(), Instant::now());
        while self.count() < from + files {
            let errors = self
                .shared
                .errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            assert!(errors.is_empty(), "writers got errors: {:?}", *errors);
            drop(errors);
            let got = self.count() - from;
            assert!(
                began.elapsed() < limit,
                "{got} of {files} files within {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the threads after the file that each is at.
    ///
    /// # Panics
    /// When a thread did.
    pub fn stop(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a writer panicked");
        }
        let take = |m: &Mutex<Manifest>| {
            std::mem::take(&mut *m.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let errors = self
            .shared
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Written {
            acknowledged: take(&self.shared.acknowledged),
            errors,
            slowest: Duration::from_millis(self.shared.slowest_ms.load(Ordering::Relaxed)),
        }
    }
}

impl Written {
    /// Fails unless each acknowledged file is there with its bytes.
    ///
    /// # Panics
    /// With the first few that are not.
    #[track_caller]
    pub fn check(&self, top: &Path) {
        let mut wrong = Vec::new();
        for (path, want) in &self.acknowledged.0 {
            match std::fs::read(top.join(path)) {
                Ok(bytes) if Entry::of(&bytes) == *want => {}
                Ok(bytes) => {
                    wrong.push(format!("{}: {} bytes differ", path.display(), bytes.len()))
                }
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
        }
        let all = self.acknowledged.0.len();
        wrong.truncate(10);
        assert!(
            wrong.is_empty(),
            "acknowledged files are not right, of {all}: {wrong:#?}"
        );
    }
}

fn dir_of(thread: usize) -> PathBuf {
    PathBuf::from(format!("writer-{thread}"))
}

fn work(shared: &Shared, top: &Path, thread: usize, seed: u64) {
    // a program that the test starts meanwhile must not wait for these
    sys::leave_shared_files();
    let mut random = Random::new(seed ^ (thread as u64) << 32);
    for n in 0u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let name = dir_of(thread).join(format!("{n:06}"));
        let len = if n % 40 == 39 {
            3 << 20
        } else {
            random.size(1 << 10, 100 << 10)
        };
        let bytes = random.bytes(len as usize);
        let began = Instant::now();
        match write_file(&top.join(&name), &bytes) {
            Ok(()) => shared.note_done(name, &bytes, began.elapsed()),
            Err(error) => {
                shared.note_error(&name, &error);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Writes a new file.
///
/// # Errors
/// Those of open, write and close.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(bytes)?;
    sys::close(file.into_raw_fd())
}

impl Shared {
    fn note_done(&self, name: PathBuf, bytes: &[u8], took: Duration) {
        let mut all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.0.insert(name, Entry::of(bytes));
        drop(all);
        self.slowest_ms
            .fetch_max(took.as_millis() as u64, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn note_error(&self, path: &Path, error: &io::Error) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < 20 {
            errors.push(format!("{}: {error}", path.display()));
        }
    }
}
