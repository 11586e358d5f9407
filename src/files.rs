//! Reads untrusted files, with a size limit and without blocking on a FIFO.

use rustix::fs::OFlags;
use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Converts open(2) flags for `OpenOptionsExt::custom_flags`.
pub fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// [`ErrorKind::FileTooLarge`] for a larger file; an error for a FIFO or a device.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Without NONBLOCK, opening a FIFO blocks until a writer opens it.
    let file = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    read_up_to(file, most)
}

/// Reads a regular UTF-8 file of at most `most` bytes.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    text(read(path, most)?)
}

/// Reads UTF-8 text of at most `most` bytes from any reader.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_up_to(file: impl Read, most: u64) -> io::Result<String> {
    text(read_up_to(file, most)?)
}

fn read_up_to(file: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("larger than {} KiB", most / 1024),
        ));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8"))
}
