//! The first command of the README.

use super::support::{certvigil, run};

#[tokio::test]
async fn the_demo_shows_the_mail_and_the_webhook_that_arrived_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = certvigil(folder.path());
    command.args(["demo", "--once"]);
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{err}");
    for expected in [
        "Subject: [certvigil] CRITICAL demo: “watch-me-expire” expires in",
        "CRITICAL: “prod-ca-2026” expires in 6 days",
        "“no-end-given” is active and its expiry is unknown",
        "“next-year-ca” is active, but becomes valid in 3 days",
        "“cert_demo_nameless” expires in 20 days",
        "1 project could not be read: its certificates may expire unnoticed.",
        "(the reference library accepts the signature)",
        "\"schema\": \"certvigil.notification/1\"",
        "Subject: [certvigil] CRITICAL partners: project “payments” no longer enforces mutual TLS",
        "“payments-ca” (cert_payments) is uploaded and expires",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    assert!(!out.contains("retired-ca"), "inactive certificates are left out");
    assert!(!out.lines().any(|line| line.starts_with("Bcc:")), "a hostile name adds no header");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "it leaves nothing behind");
}
