//! The embedded S3 server as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lagan_s3::main_with_args(std::env::args_os().collect())
}
