//! Disks under servers that lose power: `forgetful-disk`, as a test sees it.

use crate::leftover;
use crate::processes::{Children, Start};
use crate::wait::until;
use crate::{binary, sys};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Disks are mounted, answer, and end within this.
const LIMIT: Duration = Duration::from_secs(30);

/// What a power cut leaves of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Parts of it, drawn from a seed.
    Some(u64),
    /// Nothing.
    Nothing,
}

/// A mounted disk that forgets; unmounted when this is dropped.
#[derive(Debug)]
pub struct ForgetfulDisk {
    point: PathBuf,
    socket: PathBuf,
    pid: u32,
    process: Children,
}

impl ForgetfulDisk {
    /// Mounts an empty disk on `point`, which is made. All that it needs is in `root`,
    /// below its name; the path of a socket there must not be too long for one.
    ///
    /// # Panics
    /// When that does not work.
    pub fn mount(root: &Path, name: &str, point: &Path) -> Self {
        let at = |end: &str| root.join(format!("{name}{end}"));
        let (backing, socket) = (at(".bytes"), at(".socket"));
        for dir in [&backing, point] {
            fs::create_dir_all(dir).expect("make a directory for a disk");
        }
        let program = binary::forgetful_disk();
        let argv = [&program, point, &backing, &socket];
        let argv = argv.map(|path| path.to_str().expect("paths of tests are text").to_owned());
        let process = Children::default();
        let started = process.start(Start {
            argv: &argv,
            env: &BTreeMap::new(),
            cwd: root,
            log: &at(".log"),
        });
        let pid = started.expect("start a disk");
        // the table of mounts tells, without a call on the mount itself
        until("the disk is mounted", LIMIT, || {
            let ended = process.status(pid);
            assert!(ended.is_none(), "the disk ended with {ended:?}");
            leftover::mounts(point).first().map(|_| ())
        });
        ForgetfulDisk {
            point: point.to_owned(),
            socket,
            pid,
            process,
        }
    }

    /// From now until the power is cut, syncs do nothing below that directory of the disk.
    ///
    /// # Panics
    /// When the disk does not answer.
    pub fn lie(&self, below: &str) {
        let answer = self.command(&format!("lie {below}"));
        assert!(answer.starts_with("ok"), "lie {below}: {answer}");
    }

    /// Cuts the power; says what was not synced. No process has files open there, but the
    /// kernel may tell so late.
    ///
    /// # Panics
    /// When files stay open, or the disk does not answer.
    pub fn forget(&self, left: Left) -> String {
        let command = match left {
            Left::Some(seed) => format!("forget {seed}"),
            Left::Nothing => "forget all".into(),
        };
        let mut answer = String::new();
        until("the disk has lost power", LIMIT, || {
            answer = self.command(&command);
            let busy = std::io::Error::from_raw_os_error(libc::EBUSY);
            (answer != format!("error {busy}")).then_some(())
        });
        assert!(answer.starts_with("ok"), "{command}: {answer}");
        answer
    }

    fn command(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("connect to a disk");
        let limited = stream.set_read_timeout(Some(LIMIT));
        limited.expect("limit the wait for an answer");
        writeln!(stream, "{line}").expect("send a command");
        let mut answer = String::new();
        let read = BufReader::new(stream).read_line(&mut answer);
        read.expect("receive an answer");
        answer.trim().to_owned()
    }
}

impl Drop for ForgetfulDisk {
    fn drop(&mut self) {
        // it ends when it is unmounted, or was killed with all else of a failed test
        let _ = sys::unmount(&self.point, true);
        let ended = std::time::Instant::now() + LIMIT;
        while leftover::is_alive(self.pid) && std::time::Instant::now() < ended {
            self.process.reap();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
