//! The location of the configuration file.
//!
//! A file in the current folder decides which host receives the admin key. The system file
//! therefore comes first, and a file in the current folder must be writable only by its user or
//! root (CWE-426, untrusted search path).

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::problem::{Fault, Origin, Refused};

pub const SYSTEM: &str = "/etc/certvigil/certvigil.toml";
/// The file in the current folder, if there is no system file.
pub const LOCAL: &str = "certvigil.toml";
/// The path in earlier versions, which is no longer read.
const FORMER: &str = "config/certvigil.toml";

/// The configuration file to read.
#[derive(Debug, Default)]
pub struct Found {
    /// `None`: built-in defaults and environment only.
    pub path: Option<PathBuf>,
    pub warnings: Vec<String>,
}

/// Finds the configuration file: the named one, the system file, or one in the current folder.
///
/// # Errors
/// If other users can change the file in the current folder.
pub fn find(named: Option<&Path>) -> Result<Found, Refused> {
    find_in(named, Path::new(SYSTEM), Path::new(""))
}

fn find_in(named: Option<&Path>, system: &Path, folder: &Path) -> Result<Found, Refused> {
    // An inaccessible file exists; reading it reports the error.
    let exists = |path: &Path| path.try_exists().unwrap_or(true);
    let (local, former) = (folder.join(LOCAL), folder.join(FORMER));
    let mut found = Found::default();
    if let Some(named) = named {
        found.path = Some(named.to_owned());
        return Ok(found);
    }
    if exists(system) {
        let exposure = std::fs::metadata(system).ok().and_then(|file| exposure(&file));
        found.warnings.extend(exposure.map(|exposure| {
            format!("{}: other users can change this file ({exposure})", system.display())
        }));
        found.path = Some(system.to_owned());
    } else if exists(&local) {
        match untrusted(&local) {
            None => found.path = Some(local),
            Some(why) => {
                return Err(Refused(vec![Fault {
                    path: String::new(),
                    origin: Origin::File(local, None),
                    problem: format!(
                        "not loaded, because other users can change it ({why}): check its \
                         content, then run chmod go-w on the file and its folder; to load the \
                         file anyway, pass --config certvigil.toml"
                    ),
                }]));
            }
        }
    }
    if exists(&former) {
        let reads = match &found.path {
            Some(path) => format!("it reads {} instead", path.display()),
            None => format!("move the file to ./{LOCAL}"),
        };
        found
            .warnings
            .push(format!("{}: certvigil no longer reads this file; {reads}", former.display()));
    }
    Ok(found)
}

/// The reason why other users can change a file in the current folder, if they can change the file,
/// its folder, or the target of a symbolic link.
fn untrusted(file: &Path) -> Option<String> {
    let real = std::fs::canonicalize(file).ok()?;
    let here = match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let folders = [Some(here), real.parent().map(Path::to_owned)];
    [real.clone()].into_iter().chain(folders.into_iter().flatten()).find_map(|path| {
        let metadata = std::fs::metadata(&path).ok()?;
        exposure(&metadata).map(|exposure| format!("{}: {exposure}", path.display()))
    })
}

/// The reason why other users can change a file or folder, if they can.
fn exposure(metadata: &Metadata) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    if metadata.mode() & 0o022 != 0 {
        return Some(format!("mode {:o} lets other users write", metadata.mode() & 0o7777));
    }
    (![0, me].contains(&metadata.uid())).then(|| format!("it belongs to user {}", metadata.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_system_file_comes_first_and_others_must_not_be_able_to_change_a_local_file() {
        let folder = tempfile::tempdir().unwrap();
        let (here, system) = (folder.path().join("here"), folder.path().join("system.toml"));
        fs::create_dir_all(here.join("config")).unwrap();
        mode(&here, 0o755);
        let find = || find_in(None, &system, &here);
        assert_eq!(find().unwrap().path, None);
        fs::write(here.join(FORMER), "").unwrap();
        let found = find().unwrap();
        assert_eq!(found.path, None);
        assert!(
            found.warnings[0]
                .ends_with("no longer reads this file; move the file to ./certvigil.toml")
        );
        let local = here.join(LOCAL);
        fs::write(&local, "").unwrap();
        mode(&local, 0o644);
        assert_eq!(find().unwrap().path.as_ref(), Some(&local));

        let refused = |why: &str| {
            let error = find().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("--config certvigil.toml"), "{error}");
        };
        for (file, folder) in [(0o664, 0o755), (0o646, 0o755), (0o644, 0o775), (0o644, 0o1777)] {
            mode(&local, file);
            mode(&here, folder);
            refused("lets other users write");
        }
        mode(&here, 0o755);
        if std::os::unix::fs::chown(&local, Some(65_534), None).is_ok() {
            refused("it belongs to user 65534");
        }
        // A link into another user's folder is rejected, too.
        let theirs = folder.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        mode(&theirs, 0o777);
        fs::write(theirs.join("c.toml"), "").unwrap();
        mode(&theirs.join("c.toml"), 0o644);
        fs::remove_file(&local).unwrap();
        std::os::unix::fs::symlink(theirs.join("c.toml"), &local).unwrap();
        refused("theirs: mode 777 lets other users write");

        fs::write(&system, "").unwrap();
        mode(&system, 0o666);
        let found = find().unwrap();
        assert_eq!(found.path.as_ref(), Some(&system));
        assert!(found.warnings[0].contains("mode 666 lets other users write"), "only a warning");
        let named = find_in(Some(&local), &system, &here).unwrap();
        assert_eq!(named.path.as_ref(), Some(&local));
    }
}
