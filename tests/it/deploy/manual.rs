//! Files for packages that the program generates, and its version output.

use std::{path::Path, process::Command};

use super::{done, said};
use crate::support::{certvigil, with};

#[test]
fn the_version_shows_the_commit_and_its_day() {
    let folder = tempfile::tempdir().unwrap();
    let version = done(certvigil(folder.path()).arg("--version"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut expected = format!("certvigil {}", env!("CARGO_PKG_VERSION"));
    let git = |arguments: &[&str]| {
        let safe = ["-c", "safe.directory=*"];
        let output =
            Command::new("git").args(safe).args(arguments).current_dir(root).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    // Where it is built from a repository of its own, that says it; and else whoever builds it.
    let own = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty());
    if std::env::var_os("SOURCE_DATE_EPOCH").is_some() {
        assert!(version.starts_with(&expected), "{version}");
        return;
    }
    if own && let Some(of) = git(&["log", "-1", "--format=%h %ct", "--abbrev=9"]) {
        let (commit, seconds) = of.split_once(' ').unwrap();
        let day = chrono::DateTime::from_timestamp(seconds.parse().unwrap(), 0).unwrap();
        expected = format!("{expected} ({commit}, {})", day.format("%F"));
    }
    assert_eq!(version.trim(), expected);
    assert_eq!(done(certvigil(folder.path()).arg("-V")), version);
}

#[test]
fn each_command_has_a_page_and_the_configuration_has_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man");
    std::fs::create_dir(&man).unwrap();
    done(certvigil(folder.path()).args(["man", "--to", "man"]));
    let page = |name: &str| std::fs::read_to_string(man.join(name)).unwrap();
    let first = page("certvigil.1");
    assert_eq!(first, done(certvigil(folder.path()).arg("man")));
    for part in ["EXIT STATUS", "ENVIRONMENT", "SIGNALS", "FILES"] {
        assert!(
            first.contains(&format!(".SH \"{part}\"")) || first.contains(&format!(".SH {part}")),
            "{part}: {first}"
        );
    }
    let help = done(certvigil(folder.path()).arg("--help"));
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let mut pages = 0;
    for command in commands.lines().filter_map(|line| line.strip_prefix("  ")) {
        let Some(name) = command.split(' ').next().filter(|name| !name.is_empty()) else {
            continue;
        };
        if name != "help" {
            assert!(man.join(format!("certvigil-{name}.1")).exists(), "{name} has no page");
            pages += 1;
        }
    }
    assert!(pages >= 15, "{pages}");
    let configuration = page("certvigil.toml.5");
    for key in certvigil::config::keys::documented().iter().filter(|key| !key.name.is_empty()) {
        let name = key.name.replace('-', "\\-");
        assert!(
            configuration.contains(&format!("\\fB{name}\\fR")),
            "{name} is not in certvigil.toml(5)"
        );
    }
    let (content, said) = said(certvigil(folder.path()).args(["man", "--to", "nowhere"]));
    assert!(!content && said.contains("No such file"), "{said}");
}

#[test]
fn a_shell_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(certvigil(folder.path()).args(["completions", shell]));
        assert!(script.contains("forecast"), "{shell}: {script}");
    }
    let script = done(certvigil(folder.path()).args(["completions", "bash"]));
    std::fs::write(folder.path().join("certvigil.bash"), script).unwrap();
    let asked = "source ./certvigil.bash; COMP_WORDS=(certvigil config sch); COMP_CWORD=2; _certvigil certvigil sch config; \
                 echo \"${COMPREPLY[@]}\"";
    let said = done(Command::new("bash").args(["--norc", "-c", asked]).current_dir(folder.path()));
    assert_eq!(said.trim(), "schema");
}

#[tokio::test]
async fn its_health_is_asked_without_a_shell() {
    use crate::{
        daemon::Daemon,
        support::{Sim, run},
    };
    use certvigil::demo::world::World;
    let sim = Sim::start(World::with_projects(1, |n| format!("prod-{n}"))).await;
    let mut daemon = Daemon::start(&sim.config());
    daemon.logged("scan finished", 0).await;
    let folder = tempfile::tempdir().unwrap();
    let ask = |listen: String, arguments: &[&str]| {
        let mut command = with(folder.path(), "", arguments);
        command.env("CERTVIGIL__HTTP__LISTEN", listen);
        run(command)
    };
    for (arguments, word) in [(&["health"][..], "ok"), (&["health", "--ready"], "ready")] {
        let (code, out, err) = ask(format!("0.0.0.0:{}", daemon.port()), arguments).await;
        assert!(code == 0 && out.contains(word), "{code} {out} {err}");
    }
    let port = daemon.port();
    daemon.stop().await;
    let (code, _, err) = ask(format!("127.0.0.1:{port}"), &["health"]).await;
    assert!(
        code == 1 && err.contains(&format!("127.0.0.1:{port} does not answer")),
        "{code} {err}"
    );
    let (code, _, err) = ask("off".to_owned(), &["health"]).await;
    assert!(code == 1 && err.contains("there is no health endpoint"), "{code} {err}");
}
