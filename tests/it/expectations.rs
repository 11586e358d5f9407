//! `[[tests]]` of the configuration: who gets an alert about which certificate.

use super::support::{run, with};

const CONFIGURATION: &str = r#"
[organizations.acme]
admin_key = "sk-admin-x"
audit_log = true
audit_log_addresses = true
exclude_projects = ["sandbox-*"]

[[rules]]
certificates = ["legacy-*"]
ignore = { reason = "being retired", until = 2099-01-01 }
[[rules]]
certificates = ["mild-*"]
thresholds = [{ within = "10d", severity = "warning" }]
expired = { severity = "warning" }
[[rules]]
projects = ["prod-*"]
thresholds = [{ within = "50%", severity = "info" }, { within = "10d", severity = "critical" }]

[[owners]]
team = "payments"
to = ["Payments <pay@acme.example>"]
projects = ["prod-pay"]
[[owners]]
team = "search"
to = ["search@acme.example"]
uploaders = ["*@search.example"]

[notifiers.email.teams]
to = ["owner"]
fallback = ["ops@acme.example"]
[notifiers.webhook.pager]
url = "http://127.0.0.1:1/"
min_severity = "critical"
[notifiers.log.prod]
projects = ["prod-*"]
[smtp]
host = "127.0.0.1"
from = "certvigil@acme.example"
"#;

/// The keys of a test that passes.
const SIX_DAYS: &str = r#"certificate = "prod-ca"
projects = ["prod-pay"]
expires_in = "6d"
lifetime = "365d""#;

async fn command(tests: &str, command: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{CONFIGURATION}{tests}");
    run(with(folder.path(), &text, &["config", command])).await
}

#[tokio::test]
async fn tests_pass_if_the_configuration_does_what_they_say() {
    let tests = format!(
        r#"
[[tests]]
name = "a week before the expiry"
{SIX_DAYS}
severity = "critical"
reaches = ["pager", "teams", "prod", "Pay@acme.example"]
does_not_reach = ["search@acme.example", "ops@acme.example"]
[[tests]]
certificate = "prod-ca"
projects = ["prod-pay"]
expires_in = "40d"
lifetime = "60d"
severity = "none"
does_not_reach = ["pager", "teams"]
[[tests]]
certificate = "short-lived"
projects = ["prod-chat"]
expires_in = "12d"
lifetime = "30d"
severity = "info"
reaches = ["ops@acme.example"]
[[tests]]
certificate = "lab-ca"
projects = ["lab", "prod-pay"]
expires_in = "-1d"
lifetime = "365d"
uploader = "Dana@search.example"
reaches = ["pager", "search@acme.example", "pay@acme.example"]
does_not_reach = ["ops@acme.example"]
[[tests]]
{SIX_DAYS}
has_successor = true
severity = "warning"
does_not_reach = ["pager"]
"#
    );
    let (code, out, err) = command(&tests, "test").await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        out,
        "passed  tests[0] “a week before the expiry”\n\
         passed  tests[1] “prod-ca”\n\
         passed  tests[2] “short-lived”\n\
         passed  tests[3] “lab-ca”\n\
         passed  tests[4] “prod-ca”\n"
    );
    let (code, out, err) = command(&tests, "check").await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("\ntests: 5 passed\n"), "{out}");
    let (code, out, _) = command("", "test").await;
    assert_eq!((code, out.as_str()), (0, "no tests: the configuration has no [[tests]]\n"));
}

#[tokio::test]
async fn a_failed_test_names_the_rule_that_decided() {
    let cases = [
        (
            format!("{SIX_DAYS}\nseverity = \"none\""),
            "severity: found critical, expected none: 10d of the thresholds of rules[2]",
        ),
        (
            format!("{SIX_DAYS}\ndoes_not_reach = [\"pay@acme.example\"]"),
            "pay@acme.example: expected no alert, found critical: 10d of the thresholds of \
             rules[2]; the owner in prod-pay is payments (owners[0])",
        ),
        (
            format!("{SIX_DAYS}\nreaches = [\"ops@acme.example\"]"),
            "ops@acme.example: expected an alert: the owner in prod-pay is payments (owners[0])",
        ),
        (
            format!("{SIX_DAYS}\nhas_successor = true\nreaches = [\"pager\"]"),
            "pager: expected an alert: the severity warning is below min_severity of pager; 10d of \
             the thresholds of rules[2], limited by monitoring.replaced_severity",
        ),
        (
            "certificate = \"legacy-1\"\nprojects = [\"lab\"]\nexpires_in = \"-1h\"\n\
             severity = \"critical\"\nreaches = [\"pager\"]"
                .to_owned(),
            "severity: found none, expected critical: rules[0] ignores it until 2099-01-02 00:00 UTC\n        \
             pager: expected an alert: rules[0] ignores it until 2099-01-02 00:00 UTC",
        ),
        (
            "certificate = \"a\"\nprojects = [\"lab\"]\nexpires_in = \"91d\"\nreaches = [\"teams\"]"
                .to_owned(),
            "teams: expected an alert: none of the general thresholds is reached",
        ),
        (
            "certificate = \"a\"\nprojects = [\"lab\"]\nexpires_in = \"-1d\"\nreaches = [\"prod\"]\n\
             severity = \"info\""
                .to_owned(),
            "severity: found critical, expected info: the expiry, with the severity of the general \
             thresholds\n        \
             prod: expected an alert: the key “projects” of prod selects none of the projects",
        ),
        (
            "certificate = \"mild-1\"\nprojects = [\"lab\"]\nexpires_in = \"-1d\"\n\
             severity = \"warning\"\ndoes_not_reach = [\"pager\"]"
                .to_owned(),
            "pager: expected no alert, found critical: project.uncovered, at the expiry",
        ),
        (
            "certificate = \"a\"\nprojects = [\"prod-pay\"]\nexpires_in = \"6d\"\nseverity = \"info\""
                .to_owned(),
            "lifetime: required, because the thresholds of rules[2] contain shares of it",
        ),
        (
            "certificate = \"a\"\nprojects = [\"sandbox-1\"]\nexpires_in = \"1d\"\n\
             severity = \"none\"\nreaches = [\"chat\"]"
                .to_owned(),
            "projects: “sandbox-1” is not watched (include_projects, exclude_projects)\n        \
             reaches: “chat” is neither a notifier nor the address of a receiver",
        ),
        (
            format!("{SIX_DAYS}\norganization = \"other\"\nseverity = \"none\""),
            "organization: “other” is not configured",
        ),
    ];
    for (test, expected) in cases {
        let tests = format!("[[tests]]\n{SIX_DAYS}\nreaches = [\"pager\"]\n[[tests]]\n{test}\n");
        let (code, out, err) = command(&tests, "test").await;
        assert_eq!(code, 1, "{test}: {out}{err}");
        assert!(out.ends_with(&format!("”\n        {expected}\n")), "{test}: {out}");
        assert!(err.ends_with("error: 1 of 2 tests failed\n"), "{err}");
        let (code, out, _) = command(&tests, "check").await;
        assert_eq!(code, 1, "{test}: {out}");
        assert!(out.contains("tests: 1 of 2 failed\n  tests[1] “"), "{test}: {out}");
    }
}

#[tokio::test]
async fn an_uploader_that_the_service_does_not_know_fails_the_test() {
    let test = format!(
        "[[tests]]\n{SIX_DAYS}\nuploader = \"dana@search.example\"\nseverity = \"critical\"\n"
    );
    let folder = tempfile::tempdir().unwrap();
    for key in ["audit_log", "audit_log_addresses"] {
        let without = CONFIGURATION.replace(&format!("{key} = true\n"), "");
        let text = format!("{without}{test}");
        let (code, out, _) = run(with(folder.path(), &text, &["config", "test"])).await;
        assert_eq!(code, 1, "{out}");
        let line = format!("uploader: unknown to the service without {key} = true\n");
        assert!(out.ends_with(&line), "{out}");
    }
}
