//! The commands in a terminal: as wide as that at most, in colours, with progress; and nothing of
//! it in a pipe.

use certvigil::{clock::Clock, demo::world::World};
use std::process::{Command, Stdio};

use super::support::{Sim, certvigil, program, run, with};

/// What a command writes into a terminal of so many columns, without what moves the cursor; and
/// whether in colours.
async fn shown(
    folder: &std::path::Path,
    columns: u16,
    arguments: &str,
    no_color: bool,
) -> Option<(String, bool)> {
    let script = program("script", "bsdutils")?;
    let binary = certvigil(folder);
    let line = format!(
        "stty cols {columns}; {} --config c.toml {arguments} 2>log",
        binary.get_program().to_str().unwrap()
    );
    let mut command = Command::new(script);
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).current_dir(folder);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("TERM", "xterm");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let (_, out, _) = run(command).await;
    let (mut plain, mut coloured, mut rest) = (String::new(), false, out.as_str());
    while let Some((before, escape)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = escape.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        coloured |= escape[end..].starts_with('m') && escape.starts_with("38;5;");
        rest = &escape[end + 1..];
    }
    plain.push_str(rest);
    Some((plain.replace('\r', ""), coloured))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_in_colours_and_a_pipe_gets_neither() {
    let sim = Sim::start(World::demo(Clock::System.now())).await;
    let folder = tempfile::tempdir().unwrap();
    run(with(folder.path(), &sim.config(), &["check", "--notify"])).await;
    for (arguments, names) in [
        ("check", ["LEFT", "prod-ca-2026"]),
        ("forecast --days 30", ["WHEN", "→ ops"]),
        ("deliveries", ["WHEN (UTC)", "delivered"]),
    ] {
        for columns in [50, 80, 139, 140, 200] {
            let Some((text, coloured)) = shown(folder.path(), columns, arguments, false).await
            else {
                return;
            };
            let table = text.split("\n\n").next().unwrap();
            let widest = table.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{arguments} in {columns}: {widest}\n{text}");
            assert!(coloured, "{arguments} in {columns}");
            let found = |name: &&str| text.contains(*name) || (columns >= 140 && *name == "→ ops");
            assert!(columns < 80 || names.iter().all(found), "{arguments} in {columns}\n{text}");
        }
        let (_, coloured) = shown(folder.path(), 80, arguments, true).await.unwrap();
        assert!(!coloured, "NO_COLOR");
        let words: Vec<&str> = arguments.split(' ').collect();
        let (_, out, err) = run(with(folder.path(), &sim.config(), &words)).await;
        assert!(!out.contains('\u{1b}') && !err.contains("projects read,"), "{out}\n{err}");
        assert!(out.lines().any(|line| line.contains("ops") || line.contains("ORGANIZATION")));
    }
}

#[tokio::test]
async fn what_is_empty_shows_why_and_a_first_start_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in ["check", "run"] {
        let mut command = certvigil(folder.path());
        command.arg(arguments);
        let (_, out, err) = run(command).await;
        assert_eq!(out, "");
        assert!(err.contains("environment variable OPENAI_ADMIN_KEY is not set"), "{err}");
        assert!(err.contains("hint: no configuration file"), "{err}");
        assert!(err.contains("certvigil demo"), "{err}");
    }
    let sim = Sim::start(World::with_projects(3, |n| format!("prod-{n}"))).await;
    let (code, out, err) = run(with(folder.path(), &sim.config(), &["check"])).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("no certificates: nothing can expire"), "{out}");
    assert!(out.contains("0 certificates in 3 projects"), "{out}");
    let text = sim.config().replace(
        "requests_per_second = 0\n",
        "requests_per_second = 0\ninclude_projects = [\"none-*\"]\n",
    );
    let (_, out, _) = run(with(folder.path(), &text, &["check"])).await;
    assert!(out.starts_with("no certificates and no projects: see include_projects"), "{out}");
    let (_, out, _) = run(with(folder.path(), &sim.config(), &["forecast"])).await;
    assert!(out.starts_with("no certificates known; to see unreadable lists"), "{out}");
    run(with(folder.path(), &sim.config(), &["check", "--notify"])).await;
    let (_, out, _) = run(with(folder.path(), &sim.config(), &["deliveries"])).await;
    assert_eq!(out, "No deliveries yet. To try every notifier, run certvigil notify test.\n");
}
