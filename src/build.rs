//! What this program was built from.

/// The version, with the commit and its day where they are known.
pub const VERSION: &str = env!("CERTVIGIL_VERSION");
/// The commit, or `unknown`.
pub const COMMIT: &str = env!("CERTVIGIL_COMMIT");
