//! The kind of cluster that a test wants.

/// Options of `lagan up`, and what the test expects of the logs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Storage servers.
    pub servers: usize,
    /// Replicas of each chunk.
    pub copies: usize,
    /// Mounts, named `a`, `b`, ...
    pub mounts: usize,
    /// Time until files are uploaded; by default so long that only `lagan archive now`
    /// archives.
    pub archive_after: String,
    /// More arguments for `lagan up`.
    pub args: Vec<String>,
    /// Variables for `lagan up`.
    pub env: Vec<(String, String)>,
    /// The reason if ERROR lines in the logs are in order: the test breaks things.
    pub errors_because: Option<&'static str>,
    /// Size in MiB of each server's own disk; `None`: all servers are in one directory.
    pub disk_mib: Option<u64>,
    /// Whether each server has a disk of its own that forgets what was not synced.
    pub forgetful: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            servers: 3,
            copies: 2,
            mounts: 2,
            archive_after: "1d".into(),
            args: Vec::new(),
            env: Vec::new(),
            errors_because: None,
            disk_mib: None,
            forgetful: false,
        }
    }
}

impl Options {
    /// Adds arguments for `lagan up`.
    #[must_use]
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&a| a.to_owned()));
        self
    }

    /// Says that things will be broken, and ERROR lines are in order.
    #[must_use]
    pub fn with_faults(mut self, why: &'static str) -> Self {
        self.errors_because = Some(why);
        self
    }
}
