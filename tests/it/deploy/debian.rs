//! The Debian package: made, installed, configured, upgraded, removed and purged, in a copy of this
//! system that nobody keeps.

use certvigil::{
    clock::Clock,
    demo::{admin_api::KEY, world::World},
};
use chrono::TimeDelta;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{deploy, done, said};
use crate::support::{Sim, as_root, program};

/// Makes the package of the program that is tested, with the revision that an upgrade has.
fn package(folder: &Path, revision: &str) -> PathBuf {
    let path = folder.join(format!("certvigil-{revision}.deb"));
    let mut command = Command::new(deploy("debian/build"));
    command.args([
        "--binary",
        env!("CARGO_BIN_EXE_certvigil"),
        "--",
        "--fast",
        "--deb-revision",
        revision,
        "--output",
    ]);
    done(command.arg(&path));
    path
}

/// The script that runs in the copy: its root is `$root`, the packages are `$first` and `$second`.
const STEPS: &str = r#"
set -eux
mount -t tmpfs none "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay none -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
root=$folder/root
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mkdir -p "$root/packages"
mount --bind "$packages" "$root/packages"
inside() { chroot "$root" "$@"; }

echo "== install"
inside dpkg -i /packages/certvigil-1.deb
inside certvigil --version
test "$(stat -c %a "$root/etc/certvigil/secrets")" = 700
for file in usr/lib/systemd/system/certvigil.service usr/share/man/man1/certvigil.1.gz \
  usr/share/man/man5/certvigil.toml.5.gz usr/share/bash-completion/completions/certvigil \
  usr/share/zsh/vendor-completions/_certvigil usr/share/fish/vendor_completions.d/certvigil.fish \
  usr/share/certvigil/certvigil.schema.json usr/share/doc/certvigil/copyright \
  usr/share/doc/certvigil/third-party-notices.gz; do
  test -s "$root/$file" || test -s "$root/${file#usr/}"
done
inside dpkg-query -W -f='${Conffiles}\n' certvigil | grep -q /etc/certvigil/certvigil.toml
# What was not configured does not start, and says what it misses.
if inside certvigil config check; then exit 1; fi
# It needs no user of its own.
if grep certvigil "$root/etc/passwd"; then exit 1; fi

echo "== configure"
sed -i "s|^admin_key = .*|&\nbase_url = \"$api\"|" "$root/etc/certvigil/certvigil.toml"
printf '%s\n' "$key" > "$root/etc/certvigil/secrets/openai_admin_key"
chmod 600 "$root/etc/certvigil/secrets/openai_admin_key"
inside certvigil config check
mkdir -m 700 "$root/var/lib/certvigil"
inside certvigil check --notify || test $? -lt 3
test -s "$root/var/lib/certvigil/certvigil.db"
inside certvigil deliveries --output json > "$packages/before.json"

echo "== upgrade"
inside dpkg -i /packages/certvigil-2.deb
inside dpkg-query -W -f='${Version}\n' certvigil | grep -q -- '-2$'
grep -qF "$api" "$root/etc/certvigil/certvigil.toml"
inside certvigil deliveries --output json > "$packages/after.json"
# Nobody is told again.
inside certvigil check --notify || test $? -lt 3
inside certvigil deliveries --output json > "$packages/again.json"

echo "== remove"
inside dpkg -r certvigil
test ! -e "$root/usr/bin/certvigil"
test -s "$root/etc/certvigil/certvigil.toml"
test -s "$root/etc/certvigil/secrets/openai_admin_key"
test -s "$root/var/lib/certvigil/certvigil.db"

echo "== purge"
inside dpkg -P certvigil
test ! -e "$root/etc/certvigil"
test ! -e "$root/var/lib/certvigil"
test ! -e "$root/etc/systemd/system/certvigil.service.d"
"#;

#[tokio::test]
async fn the_package_is_installed_configured_upgraded_removed_and_purged() {
    if !as_root() || program("cargo-deb", "dpkg-dev && cargo install cargo-deb").is_none() {
        return;
    }
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(Clock::System.now() + TimeDelta::days(5)), 1..=2);
    let sim = Sim::start(world).await;
    let packages = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for revision in ["1", "2"] {
        package(packages.path(), revision);
    }
    let steps = {
        let (folder, packages) = (folder.path().to_owned(), packages.path().to_owned());
        let api = format!("http://{}/v1", sim.api_address);
        move || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "bash", "-c", STEPS]);
            command.env("folder", folder).env("packages", packages).env("NO_COLOR", "1");
            command.env("api", api).env("key", KEY);
            command.env_remove("CERTVIGIL_CONFIG").env_remove("OPENAI_ADMIN_KEY");
            said(&mut command)
        }
    };
    let (content, said) = tokio::task::spawn_blocking(steps).await.unwrap();
    assert!(content, "{said}");
    let told = |name: &str| std::fs::read_to_string(packages.path().join(name)).unwrap();
    assert!(told("before.json").contains("delivered"), "{}", told("before.json"));
    assert_eq!(told("before.json"), told("after.json"));
    assert_eq!(told("before.json"), told("again.json"));
}
