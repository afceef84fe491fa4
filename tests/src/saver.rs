//! Programs that save files in several ways while the power is cut, and know what must be
//! there afterwards.
//!
//! Close and fsync acknowledge the bytes before them; rename and unlink are acknowledged
//! when they return. A call that was under way when the power was cut is carried out or
//! is not, but takes nothing with it that was acknowledged before.

use crate::manifest::Entry;
use crate::random::Random;
use crate::sys;
use crate::wait::until;
use crate::writer::write_file;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads that save files until told to stop, or until one gets an error.
#[derive(Debug)]
pub struct Savers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Saved>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
}

/// What must be there, by paths below the directory that the savers were given.
#[derive(Debug, Default)]
pub struct Saved {
    /// Files with just these bytes.
    pub files: BTreeMap<PathBuf, Entry>,
    /// Files that are not there any more.
    pub gone: BTreeSet<PathBuf>,
    /// Calls under way: of each list one file is there and begins with these bytes.
    doubts: Vec<Vec<(PathBuf, Entry)>>,
    /// What ended a thread.
    pub errors: Vec<String>,
}

impl Savers {
    /// Starts threads that work below `top`, which exists, each in a directory of its own;
    /// those are there when this returns.
    ///
    /// # Panics
    /// When a directory cannot be made.
    #[track_caller]
    pub fn start(top: &Path, threads: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads).map(|n| {
            let dir = PathBuf::from(format!("saver-{n}"));
            fs::create_dir_all(top.join(&dir)).expect("make a saver's directory");
            let saver = Saver {
                top: top.to_owned(),
                dir,
                random: Random::new(seed ^ (n as u64) << 32),
                made: 0,
                saved: Saved::default(),
            };
            let shared = shared.clone();
            std::thread::spawn(move || saver.run(&shared))
        });
        let threads = threads.collect();
        Savers { shared, threads }
    }

    /// Waits until that many more files were saved.
    ///
    /// # Panics
    /// When they are not within `limit`.
    #[track_caller]
    pub fn wait_more(&self, files: u64, limit: Duration) {
        let count = || self.shared.done.load(Ordering::Relaxed);
        let from = count();
        until(&format!("{files} files are saved"), limit, || {
            (count() >= from + files).then_some(())
        });
    }

    /// Stops the threads after what each is at.
    ///
    /// # Panics
    /// When a thread did.
    #[track_caller]
    pub fn stop(self) -> Saved {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Saved::default();
        for thread in self.threads {
            let mut saved = thread.join().expect("a saver panicked");
            all.files.append(&mut saved.files);
            all.gone.append(&mut saved.gone);
            all.doubts.append(&mut saved.doubts);
            all.errors.append(&mut saved.errors);
        }
        all
    }
}

impl Saved {
    /// What is not as it must be.
    pub fn wrong(&self, top: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, want) in &self.files {
            match fs::read(top.join(path)) {
                Ok(bytes) if Entry::of(&bytes) == *want => {}
                Ok(bytes) => {
                    let (is, was) = (bytes.len(), want.len);
                    wrong.push(format!("{}: {is} bytes, not the {was}", path.display()));
                }
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
        }
        for path in &self.gone {
            match fs::symlink_metadata(top.join(path)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => wrong.push(format!("{}: not gone, {other:?}", path.display())),
            }
        }
        let begins = |(path, want): &(PathBuf, Entry)| {
            let bytes = fs::read(top.join(path)).unwrap_or_default();
            let first = bytes.get(..want.len as usize);
            first.is_some_and(|first| Entry::of(first) == *want)
        };
        let lost = self.doubts.iter().filter(|any| !any.iter().any(begins));
        wrong.extend(lost.map(|any| format!("none of {any:?}")));
        wrong
    }

    /// Fails unless all is as it must be.
    ///
    /// # Panics
    /// With the first few that are not.
    #[track_caller]
    pub fn check(&self, top: &Path) {
        let mut wrong = self.wrong(top);
        let (count, all) = (wrong.len(), self.files.len());
        wrong.truncate(10);
        assert!(
            wrong.is_empty(),
            "in {} acknowledged is not right, {count} with {all} files: {wrong:#?}",
            top.display()
        );
    }
}

struct Saver {
    top: PathBuf,
    dir: PathBuf,
    random: Random,
    /// Names given out so far.
    made: u64,
    saved: Saved,
}

impl Saver {
    fn run(mut self, shared: &Shared) -> Saved {
        // a program that the test starts meanwhile must not wait for these
        sys::leave_shared_files();
        while !shared.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.save() {
                let said = format!("{}: {error}", self.dir.display());
                self.saved.errors.push(said);
                break;
            }
            shared.done.fetch_add(1, Ordering::Relaxed);
        }
        self.saved
    }

    fn save(&mut self) -> io::Result<()> {
        match (self.random.below(8), self.pick()) {
            (0, Some((name, old))) => self.append(name, old),
            (1, Some(target)) => self.rename(Some(target)),
            (2, Some((name, _))) => self.remove(name),
            (3, _) => self.rename(None),
            (4, _) => self.sync_in_between(),
            _ => self.write().map(drop),
        }
    }

    /// A file that is there.
    fn pick(&mut self) -> Option<(PathBuf, Entry)> {
        let count = self.saved.files.len() as u64;
        let nth = self.random.below(count.max(1));
        let found = self.saved.files.iter().nth(nth as usize);
        found.map(|(name, entry)| (name.clone(), *entry))
    }

    fn new_name(&mut self) -> PathBuf {
        self.made += 1;
        self.dir.join(format!("{:06}", self.made))
    }

    fn new_bytes(&mut self) -> Vec<u8> {
        let len = self.random.size(1 << 10, 100 << 10);
        self.random.bytes(len as usize)
    }

    fn write(&mut self) -> io::Result<(PathBuf, Entry)> {
        let (name, bytes) = (self.new_name(), self.new_bytes());
        write_file(&self.top.join(&name), &bytes)?;
        self.saved.files.insert(name.clone(), Entry::of(&bytes));
        Ok((name, Entry::of(&bytes)))
    }

    fn sync_in_between(&mut self) -> io::Result<()> {
        let (name, bytes) = (self.new_name(), self.new_bytes());
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let mut file = File::create_new(self.top.join(&name))?;
        file.write_all(first)?;
        file.sync_all()?;
        self.saved
            .doubts
            .push(vec![(name.clone(), Entry::of(first))]);
        file.write_all(rest)?;
        sys::close(file.into_raw_fd())?;
        self.saved.doubts.pop();
        self.saved.files.insert(name, Entry::of(&bytes));
        Ok(())
    }

    fn append(&mut self, name: PathBuf, old: Entry) -> io::Result<()> {
        let bytes = self.new_bytes();
        let mut file = File::options().append(true).open(self.top.join(&name))?;
        self.saved.files.remove(&name);
        self.saved.doubts.push(vec![(name.clone(), old)]);
        file.write_all(&bytes)?;
        sys::close(file.into_raw_fd())?;
        self.saved.doubts.pop();
        let mut crc = crc32fast::Hasher::new_with_initial_len(old.crc, old.len);
        crc.update(&bytes);
        let new = Entry {
            len: old.len + bytes.len() as u64,
            crc: crc.finalize(),
        };
        self.saved.files.insert(name, new);
        Ok(())
    }

    /// Writes a file and renames it, over another or to a new name.
    fn rename(&mut self, over: Option<(PathBuf, Entry)>) -> io::Result<()> {
        let (draft, new) = self.write()?;
        let (target, old) = match over {
            Some((target, old)) => (target, Some(old)),
            None => (self.new_name(), None),
        };
        self.saved.files.remove(&draft);
        self.saved.files.remove(&target);
        let sure = self.saved.doubts.len();
        let there = (target.clone(), new);
        self.saved
            .doubts
            .push(vec![(draft.clone(), new), there.clone()]);
        if let Some(old) = old {
            self.saved.doubts.push(vec![(target.clone(), old), there]);
        }
        fs::rename(self.top.join(&draft), self.top.join(&target))?;
        self.saved.doubts.truncate(sure);
        self.saved.files.insert(target, new);
        self.saved.gone.insert(draft);
        Ok(())
    }

    fn remove(&mut self, name: PathBuf) -> io::Result<()> {
        self.saved.files.remove(&name);
        fs::remove_file(self.top.join(&name))?;
        self.saved.gone.insert(name);
        Ok(())
    }
}
