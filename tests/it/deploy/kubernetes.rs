//! The manifests: that Kustomize makes them, that Kubernetes knows every field, and that they are
//! as careful as they say.

use certvigil::config::{Needs, from_text};
use serde::Deserialize;
use serde_json::Value;
use std::{path::Path, process::Command};

use super::{deploy, done, text};
use crate::support::program;

/// What an overlay comes to.
fn made(overlay: &str) -> Option<Vec<Value>> {
    let kubectl = program("kubectl", "kubernetes-client")?;
    let made = done(Command::new(kubectl).arg("kustomize").arg(deploy("kubernetes").join(overlay)));
    let documents = serde_yaml_ng::Deserializer::from_str(&made);
    Some(documents.map(|document| Value::deserialize(document).unwrap()).collect())
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<&Value> = all.iter().filter(|one| one["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

#[test]
fn kubernetes_knows_every_field() {
    let schema: Value =
        serde_json::from_str(include_str!("../data/kubernetes.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for overlay in ["base", "postgresql"] {
        let Some(all) = made(overlay) else { return };
        assert!(all.len() >= 5, "{all:#?}");
        for one in &all {
            assert!(schema.is_valid(one), "{overlay}: {one:#}");
            assert!(one["kind"] == "Namespace" || one["metadata"]["namespace"] == "certvigil");
            let mut wrong = one.clone();
            wrong["metadata"]["labls"] = "x".into();
            assert!(!schema.is_valid(&wrong), "the schema takes anything");
        }
    }
}

/// Pod Security Standards, restricted
/// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>).
#[test]
fn the_pods_are_restricted() {
    for overlay in ["base", "postgresql"] {
        let Some(all) = made(overlay) else { return };
        let namespace = of_kind(&all, "Namespace");
        assert_eq!(
            namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
            "restricted"
        );
        let pod = &of_kind(&all, "Deployment")["spec"]["template"]["spec"];
        for never in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(pod[never].is_null(), "{never}");
        }
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert!(pod["securityContext"]["runAsUser"].as_u64().unwrap() > 0);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let allowed = ["configMap", "secret", "persistentVolumeClaim", "emptyDir"];
        for volume in pod["volumes"].as_array().unwrap() {
            let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
            kinds.for_each(|kind| assert!(allowed.contains(&kind.as_str()), "{volume}"));
        }
        let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!() };
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
        assert!(
            container["ports"].as_array().unwrap().iter().all(|port| port["hostPort"].is_null())
        );
    }
}

#[test]
fn what_belongs_together_fits_together() {
    for (overlay, replicas) in [("base", 1), ("postgresql", 3)] {
        let Some(all) = made(overlay) else { return };
        let deployment = of_kind(&all, "Deployment");
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(deployment["spec"]["replicas"], replicas);
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(&of_kind(&all, "Service")["spec"]["selector"], labels);
        assert_eq!(&of_kind(&all, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], labels);
        let container = &template["spec"]["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        assert_eq!(mounts.len(), volumes.len(), "{overlay}");
        for mount in mounts {
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(asked["port"], "http");
            let path = asked["path"].as_str().unwrap();
            assert!(["/healthz", "/readyz"].contains(&path), "{probe}");
        }
        // A file for one instance at a time, a server for all.
        let configuration = &of_kind(&all, "ConfigMap");
        let volume = volumes.iter().find(|volume| !volume["configMap"].is_null()).unwrap();
        assert_eq!(volume["configMap"]["name"], configuration["metadata"]["name"]);
        let toml = configuration["data"]["certvigil.toml"].as_str().unwrap();
        let loaded = from_text(Path::new("/etc/certvigil/certvigil.toml"), toml, Needs::default());
        let loaded = loaded.unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(loaded.config.http.listen.unwrap().to_string(), "0.0.0.0:9764");
        let place = loaded.config.state.place.to_string();
        if replicas == 1 {
            assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
            assert!(place.contains("/var/lib/certvigil/"), "{place}");
            assert!(mounts.iter().any(|mount| mount["mountPath"] == "/var/lib/certvigil"));
        } else {
            assert!(place.contains("db.acme.example"), "{place}");
            assert!(all.iter().all(|one| one["kind"] != "PersistentVolumeClaim"));
            let spread = template["spec"]["topologySpreadConstraints"].as_array().unwrap();
            assert!(spread.iter().all(|one| &one["labelSelector"]["matchLabels"] == labels));
            let budget = of_kind(&all, "PodDisruptionBudget");
            assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
            let egress = of_kind(&all, "NetworkPolicy")["spec"]["egress"].to_string();
            assert!(egress.contains("5432"), "{egress}");
        }
        // The guide creates a key for every credential, and no manifest contains a secret.
        let guide = text("../docs/how-to/kubernetes.md");
        for name in
            toml.split("credential = \"").skip(1).map(|rest| rest.split('"').next().unwrap())
        {
            assert!(guide.contains(&format!("secrets/{name}")), "{name} is not in the guide");
        }
        assert!(all.iter().all(|one| one["kind"] != "Secret"));
    }
}
