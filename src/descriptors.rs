//! The limit of open files: connections, the database and the log need one descriptor each.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The minimum limit. It leaves descriptors for pages after the database, the API and the notifiers
/// have theirs.
const NEEDED: u64 = 128;
/// The soft limit that certvigil requests.
const WANTED: u64 = 1_024;

/// The soft limit of open files; `u64::MAX` if unlimited.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The maximum number of HTTP connections within the limit, from 16 to 256.
pub fn for_pages() -> usize {
    let left = limit().saturating_sub(NEEDED - 16);
    usize::try_from(left).unwrap_or(usize::MAX).clamp(16, 256)
}

/// Raises a low soft limit, up to the hard limit.
///
/// # Errors
/// If the limit stays below 128.
pub fn ensure() -> Result<(), String> {
    let now = getrlimit(Resource::Nofile);
    if limit() < WANTED {
        let raised = now.maximum.map_or(WANTED, |most| most.min(WANTED));
        let raised = Rlimit { current: Some(raised), maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
    }
    match limit() {
        enough if enough >= NEEDED => Ok(()),
        few => Err(format!(
            "too few file descriptors: the limit is {few}, certvigil needs at least {NEEDED} (raise it with ulimit -n, \
             or LimitNOFILE= in a systemd unit)"
        )),
    }
}
