//! The binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    cricket::cli::main(std::env::args_os().skip(1))
}
