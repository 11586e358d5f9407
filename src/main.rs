//! The binary; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    certvigil::cli::main()
}
