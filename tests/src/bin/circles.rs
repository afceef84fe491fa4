//! `circles [DIR]` lists, for each crate of the workspace at DIR (default: this
//! one), the circles of its files and the names that tie them.

use lagan_tests::source::{self, circles};
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let top = std::env::args_os().nth(1).map(PathBuf::from);
    let top = top.unwrap_or_else(|| source::workspace().to_owned());
    let (mut count, mut files, mut across) = (0, 0, 0);
    for (name, krate) in source::crates(&top)? {
        for circle in circles::of(&krate) {
            println!("{name}: {circle}");
            count += 1;
            files += circle.files.len();
            across += usize::from(circle.is_across());
        }
    }
    println!("{count} circles over {files} files, {across} across folders");
    Ok(())
}
