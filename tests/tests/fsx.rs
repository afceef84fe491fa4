//! The file system exerciser fsx on both mounts: random reads, writes, maps,
//! truncates and holes in one file, each read compared with what must be there.

use crate::shorthands::s;
use lagan_tests::{binary, command, sized, with_shared};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is done how often, and how large it gets.
const CONFIG: &str = "
flen = 1048576
[opsize]
max = 65536
min = 0
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 10.0
mapwrite = 10.0
read = 10.0
write = 10.0
truncate = 5.0
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 3.0
punch_hole = 3.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 5.0
";

/// Operations that each seed does.
const OPERATIONS: usize = 20_000;

#[test]
fn file_has_the_bytes_that_a_random_sequence_of_calls_gave_it() {
    with_shared(s(if lagan_tests::long() { 3600 } else { 400 }), |a, b| {
        let config = a.join("fsx.toml");
        std::fs::write(&config, CONFIG).expect("write the configuration");
        std::thread::scope(|scope| {
            let runs = [(a, 1), (b, 2), (a, 3)].map(|(dir, seed)| {
                let config = &config;
                scope.spawn(move || exercise(config, dir, seed))
            });
            for run in runs {
                run.join().expect("fsx");
            }
        });
    });
}

fn exercise(config: &Path, dir: &Path, seed: u64) {
    let operations = sized(OPERATIONS, 1_000_000 / 3).to_string();
    let limit = Duration::from_secs(if lagan_tests::long() { 7200 } else { 1100 });
    let mut fsx = Command::new(binary::tool("fsx"));
    fsx.args(["-N", &operations, "-S", &seed.to_string(), "-f"]);
    fsx.arg(config).arg("-P").arg(dir);
    fsx.arg(dir.join(format!("fsx-{seed}")));
    let done = command::run(&mut fsx, limit).expect("run fsx (tests/run installs it)");
    let done = done.expect(0);
    assert!(done.to_string().contains("A-OK"), "seed {seed}: {done}");
}
