//! The image, as its own script lays it out, with a root that nobody can write; and what
//! `compose.yaml` puts around it.

use certvigil::{
    config::{Needs, from_text},
    demo::world::World,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{deploy, done, said, text};
use crate::support::{Running, Sim, as_root, free_port, organization, program};

/// The user of the image.
const USER: &str = "65532";

/// A command in the image's root, as an engine runs it: without rights, and with a root that it
/// cannot write.
fn in_image(root: &Path, arguments: &[&str]) -> Command {
    let mount = "mount --bind \"$0\" \"$0\" && mount --bind \"$0/var/lib/certvigil\" \"$0/var/lib/certvigil\" && \
                 mount -o remount,bind,ro \"$0\" && \
                 exec setpriv --no-new-privs chroot --userspec=65532:65532 \"$0\" /usr/bin/certvigil \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(root).args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
        .env("STATE_DIRECTORY", "/var/lib/certvigil")
        .env("CREDENTIALS_DIRECTORY", "/run/secrets");
    command.env("SQLITE_TMPDIR", "/var/lib/certvigil");
    command
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn the_image_works_with_a_root_that_nobody_can_write_and_has_no_shell() {
    if !as_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("image");
    done(Command::new(deploy("container/rootfs")).arg(env!("CARGO_BIN_EXE_certvigil")).arg(&root));
    let mut found = Vec::new();
    files(&root, &mut found);
    let libraries = |path: &PathBuf| path.to_string_lossy().contains(".so");
    let others = found.iter().filter(|path| !libraries(path));
    let others: Vec<String> =
        others.map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    let mut others: Vec<&str> = others.iter().map(String::as_str).collect();
    others.sort_unstable();
    let expected = [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/certvigil",
        "usr/share/doc/certvigil/third-party-notices.gz",
    ];
    assert_eq!(others, expected);
    let mut notices = Command::new("zcat");
    let notices = said(notices.arg(root.join(expected[5]))).1;
    for part in ["\nrustls ", "\ntokio ", "Permission is hereby granted", "Apache License"] {
        assert!(notices.contains(part), "{part}");
    }

    // As the recipe does.
    std::fs::create_dir_all(root.join("var/lib/certvigil")).unwrap();
    done(Command::new("chown").arg(format!("{USER}:{USER}")).arg(root.join("var/lib/certvigil")));
    let sim = Sim::start(World::with_projects(1, |n| format!("prod-{n}"))).await;
    let configuration = organization(sim.api_address);
    std::fs::write(root.join("etc/certvigil/certvigil.toml"), configuration).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut service = in_image(&root, &["run"]);
    service.env("CERTVIGIL__HTTP__LISTEN", &listen).stderr(Stdio::null()).stdout(Stdio::null());
    let service = Running(service.spawn().unwrap());
    let mut healthy = (false, String::new());
    for _ in 0..200 {
        healthy =
            said(in_image(&root, &["health", "--ready"]).env("CERTVIGIL__HTTP__LISTEN", &listen));
        if healthy.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(healthy.0, "{}", healthy.1);
    assert!(root.join("var/lib/certvigil/certvigil.db").exists());
    drop(service);
    assert!(!said(in_image(&root, &["health"]).env("CERTVIGIL__HTTP__LISTEN", &listen)).0);
}

#[test]
fn the_recipe_makes_what_the_test_tries() {
    let recipe = text("container/Containerfile");
    for line in [
        "deploy/container/rootfs target/dist/certvigil /image",
        "FROM scratch\nCOPY --from=build /image/ /\n",
        "RUN install -d -m 0700 /state/certvigil",
        "COPY --from=build --chown=65532:65532 /state/ /var/lib/",
        "USER 65532:65532",
        "CMD [\"/usr/bin/certvigil\", \"health\"]",
        "ENTRYPOINT [\"/usr/bin/certvigil\"]\nCMD [\"run\"]",
    ] {
        assert!(recipe.contains(line), "{line}");
    }
    // The toolchain is the one that the project asks for.
    let manifest = include_str!("../../../Cargo.toml");
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(recipe.contains(&format!("/rust:{version}-")), "{version}");
}

#[test]
fn compose_knows_every_field_and_what_it_mounts_is_there() {
    let schema: Value = serde_json::from_str(include_str!("../data/compose.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let compose: Value = serde_yaml_ng::from_str(&text("container/compose.yaml")).unwrap();
    if let Err(error) = schema.validate(&compose) {
        panic!("{error} at {}", error.instance_path);
    }
    let mut wrong = compose.clone();
    wrong["services"]["certvigil"]["readonly"] = true.into();
    assert!(!schema.is_valid(&wrong));
    let folder = deploy("container");
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let from = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there = if from.starts_with('.') {
                folder.join(from).is_file()
            } else {
                compose["volumes"].get(from).is_some()
            };
            assert!(is_there, "{name}: {from} is nowhere");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for other in service["depends_on"].as_object().into_iter().flatten() {
            assert!(compose["services"].get(other.0).is_some(), "{name}");
        }
    }
    let certvigil = &compose["services"]["certvigil"];
    let build = &certvigil["build"];
    let context = folder.join(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file());
    assert_eq!(certvigil["read_only"], true);
    assert_eq!(certvigil["cap_drop"], serde_json::json!(["ALL"]));

    // Every variable that the configuration names is given.
    let configuration = text("container/certvigil.toml");
    let path = Path::new("/etc/certvigil/certvigil.toml");
    from_text(path, &configuration, Needs::default()).unwrap_or_else(|refused| panic!("{refused}"));
    for name in configuration.split("env = \"").skip(1).map(|rest| rest.split('"').next().unwrap())
    {
        assert!(certvigil["environment"].get(name).is_some(), "{name}");
    }
    let token = certvigil["environment"]["HTTP_TOKEN"].as_str().unwrap();
    assert!(text("container/prometheus.yml").contains(&format!("credentials: {token}\n")));
}

#[test]
fn prometheus_takes_what_compose_gives_it() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let folder = tempfile::tempdir().unwrap();
    let rules = deploy("prometheus/rules.yaml").display().to_string();
    let configuration =
        text("container/prometheus.yml").replace("/etc/prometheus/rules.yaml", &rules);
    std::fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
    let mut command = Command::new(promtool);
    let said = done(command.args(["check", "config", "prometheus.yml"]).current_dir(folder.path()));
    assert!(said.contains("11 rules found"), "{said}");
    // Grafana's provisioning names it and the dashboard.
    let source: Value =
        serde_yaml_ng::from_str(&text("container/grafana/datasources.yaml")).unwrap();
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let dashboards: Value =
        serde_yaml_ng::from_str(&text("container/grafana/dashboards.yaml")).unwrap();
    let path = dashboards["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(text("container/compose.yaml").contains(&format!(":{path}/certvigil.json:ro")));
}
