//! Accepted and refused configurations, with their messages.

use certvigil::config::{Needs, from_text, keys::uncommented};
use std::{path::Path, sync::LazyLock};

use super::support::{Sim, Tls, certvigil, crypto, run, with};

/// Refuses `text` and gives the problems, one a line.
fn refused(text: &str) -> Vec<String> {
    crypto();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    match from_text(&path, text, Needs::ALL) {
        Ok(_) => panic!("taken: {text}"),
        Err(refused) => {
            let place = format!("{}/", folder.path().display());
            refused.0.iter().map(|fault| fault.to_string().replace(&place, "")).collect()
        }
    }
}

static MANY_TEAMS: LazyLock<String> = LazyLock::new(|| {
    let entry = |n| format!("[[owners]]\nteam = \"t{n}\"\nto = [\"A@acme.example\"]\n");
    (0..21).map(entry).collect()
});

const KEY: &str = "[organizations.acme]\nadmin_key = \"sk-admin-x\"\n";

#[test]
fn each_refused_configuration_shows_key_found_and_expected() {
    let cases = [
        (
            "timezone = \"Mars/Olympus\"\n",
            "c.toml:1: timezone: found “Mars/Olympus”, expected an IANA time zone such as \"Europe/Berlin\"",
        ),
        (
            "[smtp]\nprot = 25\n",
            "c.toml:2: smtp.prot: found an unknown key, expected one of `host`, `port`, `tls`, \
             `allow_insecure`, `username`, `password`, `auth`, `from`, `ca_file`, `timeout`, `hello_name`",
        ),
        ("[smtp]\nport = \"25\"\n", "c.toml:2: smtp.port: found a text, expected a whole number"),
        (
            "[smtp]\nport = 70000\n",
            "c.toml:2: smtp.port: found 70000, expected a number from 1 to 65535",
        ),
        ("[schedule]\ncron = \"every day\"\n", "c.toml:2: schedule.cron: found “every day” ("),
        (
            "[schedule]\ncron = \"0 0 30 2 *\"\n",
            "c.toml:2: schedule.cron: found “0 0 30 2 *” (it never matches a date), expected a cron expression",
        ),
        (
            "[schedule]\nscan_timeout = \"soon\"\n",
            "c.toml:2: schedule.scan_timeout: found “soon”, expected a duration such as \"90d\"",
        ),
        (
            "[schedule]\nscan_timeout = \"0s\"\n",
            "c.toml:2: schedule.scan_timeout: found a duration of zero, expected a duration above zero",
        ),
        ("owners = []\n", "c.toml:1: owners: found an empty list, expected at least one owner"),
        (
            "[[owners]]\nto = [\"a@acme.example\"]\n",
            "owners[0].team: found nothing, expected the name of a team",
        ),
        (
            "[[owners]]\nteam = \"A/b\"\nto = [\"a@acme.example\"]\n",
            "c.toml:2: owners[0].team: found the name “A/b”, expected 1 to 64",
        ),
        (
            "[[owners]]\nteam = \"pay\"\nprojects = [\"p*\"]\n",
            "owners[0].to: found nothing, expected at least one address of the team “pay”",
        ),
        (
            "[notifiers.email.ops]\nto = [\"owner\"]\nfallback = [\"a@acme.example\"]\n",
            "c.toml:2: notifiers.email.ops.to: found \"owner\" without any owner, expected [[owners]]",
        ),
        (
            "[[owners]]\nteam = \"pay\"\nto = [\"a@acme.example\"]\n\
             [notifiers.email.ops]\nto = [\"owner\"]\n",
            "notifiers.email.ops.fallback: found nothing, expected at least one address for the \
             alerts without an owner",
        ),
        (
            "[[owners]]\nteam = \"pay\"\nto = [\"a@acme.example\"]\n\
             [notifiers.email.ops]\nto = [\"owner\", \"b@acme.example\"]\nfallback = [\"c@acme.example\"]\n",
            "c.toml:5: notifiers.email.ops.to: found \"owner\" and addresses, expected only \"owner\"",
        ),
        ("tests = []\n", "c.toml:1: tests: found an empty list, expected at least one test"),
        (
            "[[tests]]\nprojects = [\"p\"]\nexpires_in = \"1d\"\nseverity = \"none\"\n",
            "tests[0].certificate: found nothing, expected the id or name of a certificate",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nexpires_in = \"1d\"\nseverity = \"none\"\n",
            "tests[0].projects: found nothing, expected the id or name of at least one project",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nprojects = [\"p\"]\nexpires_in = \"soon\"\n",
            "c.toml:4: tests[0].expires_in: found “soon”, expected a duration of at most 100 years \
             such as \"6d\", or \"-6d\" for an expired certificate",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nprojects = [\"p\"]\nexpires_in = \"1d\"\n",
            "tests[0]: found nothing, expected severity, reaches or does_not_reach",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nprojects = [\"p\"]\nexpires_in = \"1d\"\n\
             reaches = [\"pager\"]\norganization = \"other\"\nseverity = \"high\"\n",
            "c.toml:7: tests[0].severity: found “high”, expected \"info\", \"warning\", \
             \"critical\" or \"none\"",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nprojects = [\"p\"]\nexpires_in = \"1d\"\n\
             reaches = []\n",
            "tests[0]: found nothing, expected severity, reaches or does_not_reach",
        ),
        (
            "[[tests]]\ncertificate = \"c\"\nprojects = [\"p\"]\nexpires_in = \"91d\"\n\
             lifetime = \"90d\"\nseverity = \"none\"\n",
            "c.toml:5: tests[0].lifetime: found “90d”, expected at least expires_in",
        ),
        (
            &MANY_TEAMS,
            "owners: found 21 teams with the address “a@acme.example”, expected at most 20; for this \
             address, add another notifier",
        ),
        ("thresholds = []\n", "c.toml:1: thresholds: found an empty list, expected at least one"),
        (
            "[[thresholds]]\nwithin = \"7d\"\nseverity = \"warning\"\n\
             [[thresholds]]\nwithin = \"1d\"\nseverity = \"info\"\n",
            "thresholds: severity must not decrease closer to expiry: 7d is",
        ),
        (
            "[[thresholds]]\nwithin = \"7d\"\nseverity = \"loud\"\n",
            "c.toml:3: thresholds[0].severity: found “loud”, expected \"info\", \"warning\" or",
        ),
        (
            "[[thresholds]]\nwithin = \"110%\"\nseverity = \"info\"\n",
            "c.toml:2: thresholds[0].within: found “110%”, expected a share of the certificate’s life",
        ),
        (
            "[[thresholds]]\nwithin = \"10%\"\nseverity = \"warning\"\n\
             [[thresholds]]\nwithin = \"5%\"\nseverity = \"info\"\n",
            "c.toml:1: thresholds: severity must not decrease closer to expiry: 10%",
        ),
        ("rules = []\n", "c.toml:1: rules: found an empty list, expected at least one rule"),
        (
            "[[rules]]\ncertificates = [\"a\"]\n",
            "c.toml:1: rules[0]: found nothing, expected thresholds, expired or ignore",
        ),
        (
            "[[rules]]\nprojects = []\nexpired = { severity = \"info\" }\n",
            "c.toml:2: rules[0].projects: found an empty list, expected at least one glob",
        ),
        (
            "[[rules]]\nthresholds = []\n",
            "c.toml:2: rules[0].thresholds: found an empty list, expected at least one threshold",
        ),
        (
            "[[rules]]\nthresholds = [{ within = \"9d\", severity = \"loud\" }]\n",
            "c.toml:2: rules[0].thresholds[0].severity: found “loud”, expected \"info\"",
        ),
        (
            "[[rules]]\nexpired = { severity = \"info\" }\n",
            "c.toml:2: rules[0].expired: severity must not decrease closer to expiry: 1d",
        ),
        (
            "[[rules]]\nignore = { until = 2099-01-01 }\n",
            "c.toml:2: rules[0].ignore.reason: found nothing, expected a text with the reason",
        ),
        (
            "[[rules]]\nignore = { reason = \"old\" }\n",
            "c.toml:2: rules[0].ignore.until: found nothing, expected a date such as",
        ),
        (
            "[[rules]]\nignore = { reason = \"old\", until = \"2027-02-29\" }\n",
            "c.toml:2: rules[0].ignore.until: found “2027-02-29”, expected a date",
        ),
        (
            "[[rules]]\nignore = { reason = \"old\", until = 12:00:00 }\n",
            "c.toml:2: rules[0].ignore.until: found “12:00:00”, expected a date",
        ),
        (
            "[[rules]]\nignore = { reason = \"old\", until = 7 }\n",
            "c.toml:2: rules[0].ignore.until: found integer `7`, expected a date such as 2027-03-01",
        ),
        (
            "[[rules]]\nexpired = { severity = \"info\" }\nignore = { reason = \"o\", until = 2099-01-01 }\n",
            "c.toml:2: rules[0].expired: found expired and ignore in one rule, expected either ignore, or thresholds and expired",
        ),
        (
            "[notifiers.log.l]\nmin_severity = \"loud\"\n",
            "c.toml:2: notifiers.log.l.min_severity: found “loud”, expected \"info\", \"warning\" or",
        ),
        (
            "[notifiers.webhook.w]\nurl = \"http://h\"\norganizations = []\n",
            "c.toml:3: notifiers.webhook.w.organizations: found an empty list, expected at least one",
        ),
        (
            "[expired]\nseverity = \"info\"\n",
            "thresholds: severity must not decrease closer to expiry: 1d",
        ),
        (
            "[organizations.Acme]\nadmin_key = \"x\"\n",
            "c.toml:1: organizations.Acme: found the name “Acme”, expected 1 to 64 characters of a-z",
        ),
        (
            "[organizations.acme]\n",
            "c.toml:1: organizations.acme.admin_key: found nothing, expected { env = \"NAME\" }",
        ),
        (
            "[organizations.acme]\nadmin_key = { env = \"CERTVIGIL_TEST_UNSET\" }\n",
            "c.toml:2: organizations.acme.admin_key: environment variable \
             CERTVIGIL_TEST_UNSET is not set",
        ),
        (
            "[organizations.acme]\nadmin_key = { file = \"nowhere.key\" }\n",
            "c.toml:2: organizations.acme.admin_key: file nowhere.key cannot be read",
        ),
        (
            "[organizations.acme]\nadmin_key = { file = \"k\", env = \"K\" }\n",
            "c.toml:2: organizations.acme.admin_key: found a table with more than one key, expected { env",
        ),
        (
            "[organizations.acme]\nadmin_key = \"x\"\nbase_url = \"http://api.openai.com/v1\"\n",
            "c.toml:3: organizations.acme.base_url: found “http://api.openai.com…”, expected an https URL",
        ),
        (
            "[organizations.acme]\nadmin_key = \"x\"\ninclude_projects = []\n",
            "c.toml:3: organizations.acme.include_projects: found an empty list, expected at least one",
        ),
        (
            "[organizations.acme]\nadmin_key = \"x\"\nca_file = \"none.pem\"\n",
            "c.toml:3: organizations.acme.ca_file: cannot read none.pem: No such file or directory",
        ),
        (
            "[notifiers.email.ops]\nto = [\"nobody\"]\n[smtp]\nhost = \"h\"\nfrom = \"a@b.example\"\n",
            "c.toml:2: notifiers.email.ops.to[0]: found “nobody”, expected an address",
        ),
        (
            "[notifiers.email.ops]\nto = [\"a@b.example\"]\n",
            "smtp.host: found nothing, expected the name or address of a mail server",
        ),
        (
            "[notifiers.email.ops]\nto = [\"a@b.example\"]\n\
             [smtp]\nhost = \"mail.example\"\nfrom = \"a@b.example\"\ntls = \"none\"\n",
            "c.toml:6: smtp.tls: found “none”, expected \"starttls\" or \"implicit\" for a server",
        ),
        (
            "[notifiers.email.ops]\nto = [\"a@b.example\"]\n\
             [smtp]\nhost = \"mail.example\"\nfrom = \"a@b.example\"\nusername = \"u\"\n",
            "smtp.password: found nothing, expected a password for the username",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"ftp://x\"\n",
            "c.toml:2: notifiers.webhook.hook.url: found an invalid value (not shown), \
             expected an http or https URL",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nsecret = \"not base64!\"\n",
            "c.toml:3: notifiers.webhook.hook.secret: found an invalid value (not shown), \
             expected a secret in base64",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"irc\"\n",
            "c.toml:3: notifiers.webhook.hook.format: found “irc”, expected \"json\", \"slack\", \"teams\"",
        ),
        (
            "[notifiers.webhook.hook]\nformat = \"slack\"\n",
            "c.toml:1: notifiers.webhook.hook.url: found nothing, expected a URL",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"slack\"\nkey = \"hunter2\"\n",
            "c.toml:4: notifiers.webhook.hook.key: found a key, expected no key",
        ),
        (
            "[notifiers.webhook.hook]\nformat = \"pagerduty\"\n",
            "c.toml:1: notifiers.webhook.hook.key: found nothing, expected the integration key of the PagerDuty service",
        ),
        (
            "[notifiers.webhook.hook]\nformat = \"pagerduty\"\nkey = \"k\"\nevents = [\"changes\"]\n",
            "c.toml:4: notifiers.webhook.hook.events: found “changes” with the format “pagerduty”, expected no events",
        ),
        (
            "[notifiers.log.all]\nevents = [\"alerts\"]\n",
            "c.toml:2: notifiers.log.all.events[0]: found “alerts”, expected \"changes\"",
        ),
        (
            "[notifiers.webhook.hook]\nformat = \"opsgenie\"\n",
            "c.toml:1: notifiers.webhook.hook.key: found nothing, expected the API key of the Opsgenie integration",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\ntemplate = \"x.j2\"\n",
            "c.toml:3: notifiers.webhook.hook.template: found template with the format “json”, expected format = \"template\"",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"template\"\n",
            "c.toml:1: notifiers.webhook.hook.template: found nothing, expected a template file",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"template\"\ntemplate = \"x.j2\"\ncontent_type = \"json\"\n",
            "c.toml:5: notifiers.webhook.hook.content_type: found “json”, expected a content type",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"template\"\ntemplate = \"x.j2\"\n",
            "c.toml:4: notifiers.webhook.hook.template: cannot read x.j2: No such file",
        ),
        (
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\n[notifiers.log.hook]\n",
            "c.toml:3: notifiers.log.hook: found the name of notifiers.webhook.hook, expected a unique name",
        ),
        (
            "[state]\nurl = \"mysql://u:hunter2@db/x\"\n",
            "c.toml:2: state.url: found an address with the scheme “mysql”, expected \"sqlite:",
        ),
        (
            "[delivery]\nretry_initial = \"1h\"\n",
            "delivery.retry_max: found “15m”, expected at least delivery.retry_initial",
        ),
        ("[log]\nlevel = \"certvigil=loud\"\n", "c.toml:2: log.level: found “certvigil=loud” ("),
        ("[http]\ntokens = \"x\"\n", "c.toml:2: http.tokens: found an unknown key"),
        (
            "[http]\ntoken = \"two words\"\n",
            "c.toml:2: http.token: found an invalid value (not shown), expected a token of 16 to 1024 visible",
        ),
        (
            "[messages]\nrunbook_url = \"https://x.example/#part\"\n",
            "c.toml:2: messages.runbook_url: found “https://x.example…”, expected an http or https URL of at most 200 bytes",
        ),
        (
            "[http]\npublic_url = \"https://x.example/path\"\n",
            "c.toml:2: http.public_url: found “https://x.example…”, expected an http or https URL of at most 200 bytes",
        ),
        (
            "[monitoring]\nblind_after = \"6h\"\n",
            "c.toml:2: monitoring.blind_after: found “6h”, expected at least 6h 15m, the longest gap of the schedule plus jitter and scan_timeout",
        ),
        (
            "[schedule]\ncron = \"0 9 * * MON\"\n[monitoring]\nblind_after = \"7d\"\n",
            "c.toml:4: monitoring.blind_after: found “7d”, expected at least 7days 15m, the longest gap of the schedule plus jitter and scan_timeout",
        ),
        (
            "[organizations]\nacme = \"sk-admin-hunter2\"\n",
            "c.toml:2: organizations.acme: found a text, expected a table",
        ),
        ("[schedule\n", "c.toml:1: invalid TOML: "),
    ];
    for (text, expected) in cases {
        let organization =
            if text.contains("[organizations") || text.ends_with("[schedule\n") { "" } else { KEY };
        let problems = refused(&format!("{text}{organization}"));
        let found = problems.iter().find(|problem| {
            let path = "/nowhere";
            problem.replace(path, "").contains(expected)
                || problem.contains(expected.split(": file").next().unwrap_or_default())
                    && expected.contains(": file")
        });
        assert!(found.is_some(), "{text}\nexpected {expected}\nfound {problems:#?}");
        assert!(problems.iter().all(|problem| !problem.contains("hunter2")));
    }
}

#[test]
fn a_template_that_would_fail_prevents_the_start_and_its_line_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.j2");
    // The template, its type, and the error; `None` if it is accepted.
    let cases = [
        ("{\"text\": {{ summary }}}", "application/json", None),
        ("{{ summary }}", "text/plain; charset=utf-8", None),
        ("{{ summary", "text/plain", Some("line 1: syntax error: unexpected end of input")),
        (
            "\n{{ sumary }}",
            "text/plain",
            Some("line 2: undefined value: `sumary` is undefined, in a sample message with"),
        ),
        (
            "{{ alerts[0].certificate.name.first }}",
            "text/plain",
            Some(
                "`alerts[0].certificate.name.first` is undefined, in a sample message with certificate.expiring",
            ),
        ),
        (
            "{% for alert in alerts %}{{ alert.certificate.name }}{% endfor %}",
            "text/plain",
            Some("is undefined, in a sample message with project.uncovered"),
        ),
        (
            "{\"text\": \"{{ summary }}\"}",
            "application/json",
            Some("the rendered body is not valid JSON ("),
        ),
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "text/plain",
            Some("engine ran out of fuel, in a sample message with"),
        ),
        (
            "{% for a in range(20000) %}{{ 'thirty characters, and no more' }}{% endfor %}",
            "text/plain",
            Some("bytes, more than 512 KiB, in a sample message with"),
        ),
    ];
    for (template, content_type, expected) in cases {
        std::fs::write(&file, template).unwrap();
        let text = format!(
            "[notifiers.webhook.hook]\nurl = \"https://x.example\"\nformat = \"template\"\n\
             template = \"my.j2\"\ncontent_type = \"{content_type}\"\n{KEY}"
        );
        let loaded = from_text(&folder.path().join("c.toml"), &text, Needs::ALL);
        match (loaded, expected) {
            (Ok(_), None) => {}
            (Err(refused), Some(expected)) => {
                let said = refused.to_string();
                assert!(said.contains(expected), "{template}\n{said}");
                assert!(said.contains("c.toml:4: notifiers.webhook.hook.template: my.j2: "));
            }
            (loaded, expected) => panic!("{template}: {expected:?} {loaded:?}"),
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = refused(
        "[notifiers.webhook.w]\nurl = { env = \"CERTVIGIL_TEST_UNSET\" }\n[schedule]\ncron = \"x\"\n\
         [organizations.acme]\nadmin_key = { env = \"CERTVIGIL_TEST_UNSET\" }\n",
    );
    assert_eq!(problems.len(), 3, "a bad cron hides no missing secret: {problems:#?}");
    let problems = refused(
        "[organizations.b]\nadmin_key = { env = \"CERTVIGIL_TEST_UNSET\" }\nbase_url = \"http://x.example\"\n",
    );
    assert_eq!(problems.len(), 2, "nor does a bad URL: {problems:#?}");
    let problems = refused(
        "timezone = 5\nwhat = 1\n[schedule]\ncron = \"x\"\njitter = \"y\"\n[smtp]\nport = true\n\
         [organizations.acme]\nadmin_key = 90210\nbase_url = \"nonsense\"\n",
    );
    let keys: Vec<&str> = problems.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    for key in [
        "timezone",
        "what",
        "schedule.cron",
        "schedule.jitter",
        "smtp.port",
        "organizations.acme.admin_key",
        "organizations.acme.base_url",
    ] {
        assert_eq!(keys.iter().filter(|known| **known == key).count(), 1, "{key}: {problems:#?}");
    }
    assert_eq!(keys.len(), 7, "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains("90210")), "{problems:#?}");
    let problems = refused(&format!(
        "{KEY}include_projects = [\n\"a\",\n\"\",\n7,\n\"b\",\n\"\"\n]\n[[thresholds]]\nwithin = \"x\"\n\
         severity = \"y\"\n[[thresholds]]\nwithin = \"z\"\nseverity = \"info\"\n"
    ));
    let places: Vec<&str> =
        problems.iter().map(|line| line.split(": found").next().unwrap()).collect();
    let expected = [
        "c.toml:5: organizations.acme.include_projects[1]",
        "c.toml:6: organizations.acme.include_projects[2]",
        "c.toml:8: organizations.acme.include_projects[4]",
        "c.toml:11: thresholds[0].within",
        "c.toml:12: thresholds[0].severity",
        "c.toml:14: thresholds[1].within",
    ];
    assert_eq!(places, expected, "each item of a list has its own problem: {problems:#?}");
}

/// A rejected value is replaced by its default while the rest is checked; no problem follows from
/// that.
#[test]
fn a_rejected_value_causes_no_other_problem() {
    let key = "[organizations.acme]\nadmin_key = \"sk-admin-x\"\n";
    let mail = "[smtp]\nhost = \"h.example\"\n[notifiers.email.ops]\nto = [\"a@b.example\"]\n\
                [notifiers.email.ops.smtp]\nfrom = \"not an address\"\n";
    let cases = [
        ("[schedule]\ncron = \"bad\"\n[monitoring]\nblind_after = \"2h\"\n", "schedule.cron"),
        ("[delivery]\nretry_initial = \"1\"\nretry_max = \"1s\"\n", "delivery.retry_initial"),
        (mail, "notifiers.email.ops.smtp.from"),
        (
            "[[rules]]\nprojects = [\"\"]\nexpired = { severity = \"critical\" }\n",
            "rules[0].projects[0]",
        ),
        ("\"http.listen\" = \"off\"\n", "(not shown: it may be a secret)"),
        ("thresholds = [5, { within = \"10d\" }]\n", "thresholds"),
        (
            "timezone = \"Pacific/Apia\"\n[[rules]]\nignore = { reason = \"r\", until = 2011-12-29 }\n",
            "rules[0].ignore.until",
        ),
    ];
    for (text, path) in cases {
        let problems = refused(&format!("{text}{key}"));
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        assert!(problems[0].contains(&format!(": {path}: ")), "{path}: {problems:#?}");
    }
}

#[test]
fn a_syntax_error_names_its_line_and_not_what_stands_there() {
    let problems = refused("a = 1\n[organizations.acme]\nadmin_key = \"sk-admin-hunter2\n");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("c.toml:3: "), "{problems:#?}");
    assert!(!problems[0].contains("hunter2"), "{problems:#?}");
}

/// Every file in `config/` and in `config/examples/`, and every example in them that is commented
/// out.
#[test]
fn every_file_in_config_loads() {
    let tls = Tls::new();
    let folder = tls.folder.path();
    std::fs::write(folder.join("secret"), "value").unwrap();
    std::fs::write(folder.join("token"), "a-token-of-some-length").unwrap();
    std::fs::write(folder.join("signing"), "whsec_c2VjcmV0").unwrap();
    std::fs::write(folder.join("url"), "https://hook.example/x").unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = config.join("examples");
    std::fs::copy(examples.join("own.json.j2"), folder.join("own.json.j2")).unwrap();
    std::fs::copy(examples.join("own.json.j2"), folder.join("my.json.j2")).unwrap();
    let mut seen = 0;
    let entries = [config, examples].map(|folder| std::fs::read_dir(folder).unwrap());
    for path in entries.into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "j2") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for text in [text.clone(), uncommented(&text)] {
            // Secrets and certificates of the examples are where the test has some.
            let text = text
                .replace("/run/secrets/smtp", "secret")
                .replace("/run/secrets/http", "token")
                .replace("{ credential = \"openai_admin_key\" }", "{ file = \"secret\" }")
                .replace("{ credential = \"smtp_password\" }", "{ file = \"secret\" }")
                .replace("{ credential = \"http_token\" }", "{ file = \"token\" }")
                .replace("{ credential = \"http_read_token\" }", "{ file = \"token\" }")
                .replace("/etc/ssl/acme-ca.pem", "ca.pem")
                .replace("client.pem", "server.pem")
                .replace("client.key", "server.key");
            let mut parts = text.split("env = \"");
            let mut text = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (name, rest) = part.split_once('"').unwrap();
                let file = match name {
                    "WEBHOOK_SECRET" => "signing",
                    name if name.ends_with("_URL") => "url",
                    name if name.ends_with("TOKEN") => "token",
                    _ => "secret",
                };
                text.push_str(&format!("file = \"{file}\"{rest}"));
            }
            if !text.contains("\n[organizations.") {
                text.push_str("\n[organizations.default]\nadmin_key = { file = \"secret\" }\n");
            }
            if let Err(refused) = from_text(&folder.join("c.toml"), &text, Needs::ALL) {
                panic!("{}: {refused}\n{text}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 14, "default.toml, certvigil.toml.example and five examples at least");
}

#[tokio::test]
async fn the_environment_overrides_the_file_and_a_secret_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("certvigil.toml"),
        "[organizations.acme]\nadmin_key = { file = \"nowhere\" }\n[smtp]\nhost = \"mail.example\"\n\
         from = \"a@b.example\"\n[notifiers.email.ops]\nto = [\"a@b.example\"]\n\
         [http]\nlisten = \"localhost:9764\"\n[log]\nlevel = 5\n",
    )
    .unwrap();
    let mut command = certvigil(folder.path());
    command
        .args(["config", "show"])
        .env("CERTVIGIL__ORGANIZATIONS__ACME__ADMIN_KEY__ENV", "ACME_KEY")
        .env("CERTVIGIL__SMTP__PORT", "2525")
        .env("CERTVIGIL__HTTP__LISTEN", "127.0.0.1:9765")
        .env("CERTVIGIL__LOG__LEVEL", "debug")
        .env("CERTVIGIL__SMTP__PASSWORD", "00123")
        .env("CERTVIGIL__SMTP__USERNAME", "u")
        .env("CERTVIGIL__NOTIFIERS__EMAIL__OPS__TO", "[\"x@b.example\", \"y@b.example\"]")
        .env("CERTVIGIL__ORGANIZATIONS__ACME__INCLUDE_INACTIVE", "true");
    let (code, out, err) = run(command).await;
    assert_eq!((code, err.as_str()), (0, ""));
    for expected in [
        "env = \"ACME_KEY\"",
        "port = 2525",
        "listen = \"127.0.0.1:9765\"",
        "password = \"[hidden]\"",
        "include_inactive = true",
        "\"x@b.example\"",
        "cron = \"0 */6 * * *\"",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    assert!(!out.contains("nowhere") && !out.contains("00123"), "{out}");

    let mut command = certvigil(folder.path());
    command
        .args(["config", "check"])
        .env("CERTVIGIL__SMTP__PROT", "2525")
        .env("CERTVIGIL__SMTP__PORT", "many")
        .env("CERTVIGIL__ORGANIZATIONS__ACME__ADMIN_KEY", "sk-admin-literal");
    let (code, _, err) = run(command).await;
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("environment variable CERTVIGIL__SMTP__PROT: smtp.prot: found an unknown key"),
        "{err}"
    );
    assert!(err.contains("environment variable CERTVIGIL__SMTP__PORT: smtp.port: found"), "{err}");
}

#[tokio::test]
async fn a_named_file_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = certvigil(folder.path());
    command.args(["config", "check", "--config", "nowhere.toml"]);
    let (code, _, err) = run(command).await;
    assert_eq!(code, 2);
    assert!(
        err.contains("nowhere.toml: cannot read the configuration file: No such file or directory"),
        "{err}"
    );
}

#[tokio::test]
async fn config_check_shows_what_is_watched_and_when() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("c.toml"),
        format!("timezone = \"Europe/Berlin\"\n{KEY}[schedule]\ncron = \"0 9 * * *\"\n"),
    )
    .unwrap();
    let mut command = certvigil(folder.path());
    command.args(["--config", "c.toml", "config", "check"]);
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("c.toml: configuration valid"), "{out}");
    assert!(
        out.contains("warning: c.toml:3: organizations.acme.admin_key: the secret is written"),
        "{out}"
    );
    assert!(out.contains("organization acme: https://api.openai.com/v1"), "{out}");
    assert_eq!(out.matches(" 09:00:00 CE").count(), 5, "{out}");
    assert!(!out.contains("sk-admin-x"), "{out}");
}

#[test]
fn a_rule_inherits_what_it_leaves_out() {
    use certvigil::domain::policy::Effect;
    crypto();
    let rules = "[[rules]]\nexpired = { severity = \"critical\", repeat = \"12h\" }\n\
                 [[rules]]\nthresholds = [{ within = \"10%\", severity = \"info\" }]\n\
                 [[rules]]\nexpired = { severity = \"critical\" }\norganizations = [\"other\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let loaded =
        from_text(&folder.path().join("c.toml"), &format!("{rules}{KEY}"), Needs::ALL).unwrap();
    let of = |name: &str| {
        let name = certvigil::domain::certificate::OrganizationName::parse(name).unwrap();
        let policy = loaded.config.policy.of_name(&name);
        let shown = policy.rules.iter().map(|rule| {
            let Effect::Watch(ladder) = &rule.effect else { panic!("{rule:?}") };
            let steps = ladder.steps(chrono::TimeDelta::days(100));
            let hours = steps.expired.repeat.map(|repeat| repeat.num_hours());
            (rule.index, steps.as_slice().len(), hours)
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(of("acme"), [(0, 5, Some(12)), (1, 1, Some(24))]);
    assert_eq!(of("other"), [(0, 5, Some(12)), (1, 1, Some(24)), (2, 5, Some(24))]);
    assert!(loaded.warnings.iter().any(|one| one.contains("rules[2]: matches no organization")));
}

#[test]
fn owners_without_effect_are_warned_about() {
    crypto();
    let text = format!(
        "{KEY}audit_log = true\n[organizations.beta]\nadmin_key = \"sk-admin-y\"\n\
         [[owners]]\nteam = \"pay\"\nto = [\"pay@acme.example\"]\nuploaders = [\"*@acme.example\"]\n\
         [[owners]]\nteam = \"all\"\nto = [\"all@acme.example\"]\n\
         [[owners]]\nteam = \"pay\"\norganizations = [\"other\"]\nprojects = [\"p*\"]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let loaded = from_text(&folder.path().join("c.toml"), &text, Needs::ALL).unwrap();
    for words in [
        "owners: no notifier sends to them; add an email notifier with to = [\"owner\"]",
        "owners[0].uploaders: the addresses of uploaders in the organization acme are unknown \
         without audit_log_addresses = true",
        "owners[0].uploaders: the uploaders in the organization beta are unknown without \
         audit_log = true",
        "owners[2]: matches no organization, so it has no effect",
        "owners[2]: never reached; owners[1] already matches every certificate",
    ] {
        assert!(
            loaded.warnings.iter().any(|one| one.contains(words)),
            "{words}: {:#?}",
            loaded.warnings
        );
    }
}

#[test]
fn an_organization_without_a_notifier_and_an_ended_ignore_are_warned_about() {
    crypto();
    let text = format!(
        "{KEY}audit_log_addresses = true\n[notifiers.log.a]\norganizations = [\"other\"]\n[[rules]]\n\
         ignore = {{ reason = \"old\", until = 2020-01-01 }}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let loaded = from_text(&folder.path().join("c.toml"), &text, Needs::ALL).unwrap();
    for words in [
        "organizations.acme.audit_log_addresses: has no effect without audit_log = true",
        "organization acme: no notifier selects it, so its alerts are not sent",
        "notifier a: the key “organizations” matches no configured organization",
        "rules[0].ignore: ended on 2020-01-02 00:00 UTC, so it ignores nothing now",
    ] {
        assert!(
            loaded.warnings.iter().any(|one| one.contains(words)),
            "{words}: {:#?}",
            loaded.warnings
        );
    }
}

#[test]
fn what_is_taken_and_cannot_do_what_was_meant_is_warned_about() {
    crypto();
    let text = "[organizations.acme]\nadmin_key = \"sk-admin-x\"\nbase_url = \"https://api.openai.com\"\n\
                [notifiers.webhook.prom]\nformat = \"alertmanager\"\nurl = \"https://am.example/api/v1/alerts\"\n\
                [[thresholds]]\nwithin = \"7d\"\nseverity = \"warning\"\n\
                [[thresholds]]\nwithin = \"168h\"\nseverity = \"warning\"\n\
                [[rules]]\nexpired = { severity = \"critical\" }\n\
                [[rules]]\ncertificates = [\"old-*\"]\nignore = { reason = \"o\", until = 2099-01-01 }\n";
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| from_text(&folder.path().join("c.toml"), text, Needs::ALL).unwrap();
    let warned = [
        "c.toml:3: organizations.acme.base_url: the path of this URL does not end in /v1",
        "notifiers.webhook.prom.url: this URL has a path, and certvigil appends /api/v2/alerts",
        "thresholds[1].within: “168h” appears twice; only the threshold with the higher severity",
        "rules[1]: never reached; rules[0] already matches every certificate",
    ];
    let warnings = load(text).warnings;
    for words in warned {
        let count = warnings.iter().filter(|one| one.contains(words)).count();
        assert_eq!(count, 1, "{words}: {warnings:#?}");
    }
    let right = text
        .replace(".com\"", ".com/v1/\"")
        .replace("/api/v1/alerts", "/api/v2/alerts")
        .replace("168h", "167h")
        .replace("[[rules]]\nexp", "[[rules]]\ncertificates = [\"new-*\"]\nexp");
    let warnings = load(&right).warnings;
    assert_eq!(warnings.len(), 1, "only the secret in the file is left: {warnings:#?}");
}

#[test]
fn a_host_that_does_not_fit_the_client_certificate_is_warned_about() {
    crypto();
    let tls = super::support::Tls::new();
    let folder = tempfile::tempdir().unwrap();
    let warnings = |host: &str, shows: bool| {
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        let identity = format!(
            "client_identity = {{ certificate = \"{certificate}\", key = {{ file = \"{key}\" }} }}\n"
        );
        let text = format!(
            "[organizations.acme]\nadmin_key = \"sk-admin-x\"\nbase_url = \"https://{host}/v1\"\n{}\
             [notifiers.log.log]\n",
            if shows { identity.as_str() } else { "" }
        );
        let loaded = from_text(&folder.path().join("c.toml"), &text, Needs::ALL).unwrap();
        loaded.warnings.join("\n")
    };
    let none =
        "does not request a client certificate: set base_url to https://mtls.api.openai.com/v1";
    let wants = "organizations.acme.base_url: mtls-eu.api.openai.com requires a client certificate: set client_identity";
    assert!(warnings("eu.api.openai.com", true).contains(none));
    assert!(warnings("mtls-eu.api.openai.com", false).contains(wants));
    for (host, shows) in
        [("mtls.api.openai.com", true), ("api.openai.com", false), ("gateway.acme.example", true)]
    {
        let said = warnings(host, shows);
        assert!(!said.contains("client_identity:") && !said.contains(wants), "{host}: {said}");
    }
}

#[test]
fn the_address_of_a_server_is_shown_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let load = |state: &str| {
        let text = format!("[organizations.acme]\nadmin_key = \"x\"\n[state]\n{state}\n");
        from_text(&folder.path().join("c.toml"), &text, Needs::ALL)
    };
    let url = "url = \"postgres://dana:hunter2@db.acme.example:5433/certvigil";
    let loaded = load(&format!("{url}\"")).unwrap();
    let shown = toml::to_string(&loaded.effective).unwrap();
    let place = loaded.config.state.place.to_string();
    for text in [&shown, &place, &format!("{:?}", loaded.config.state)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(shown.contains("postgres://dana@db.acme.example:5433/certvigil"), "{shown}");
    assert_eq!(place, "postgres://dana@db.acme.example:5433/certvigil");
    let warned = |loaded: &certvigil::config::Loaded, words: &str| {
        loaded.warnings.iter().any(|warning| warning.contains(words))
    };
    assert!(warned(&loaded, "state.url: the secret is written in the configuration"));
    assert!(!warned(&loaded, "can read and change the database"));
    let open = load(&format!("{url}?sslmode=require\"")).unwrap();
    assert!(warned(&open, "can read and change the database"), "{:?}", open.warnings);
    let here = load("url = \"postgres://dana@localhost/certvigil?sslmode=disable\"").unwrap();
    assert!(!warned(&here, "state.url"), "{:?}", here.warnings);
    for (state, found) in [
        ("url = \"mysql://dana:hunter2@h/d\"", "an address with the scheme “mysql”"),
        ("url = \"postgres://dana:hunter2@h/d?sslmod=disable\"", "an invalid address (not shown)"),
        ("url = \"postgres://dana:hunter2@h:port/d\"", "an invalid address (not shown)"),
        ("url = \"postgres://h/d\"\nmax_connections = 2", "state.max_connections: found 2"),
        ("url = \"postgres://h/d\"\ntimeout = \"0s\"", "state.timeout: found a duration of zero"),
        ("url = { env = \"NOT_SET\" }", "NOT_SET"),
        ("url = \"sqlite:a.db\"\npassword = \"hunter2\"", "state.password: found a password"),
    ] {
        let refused = load(state).unwrap_err().to_string();
        assert!(refused.contains(found) && !refused.contains("hunter2"), "{state}: {refused}");
    }
}

/// S3: a secret in the wrong place, in whatever kind of place.
#[tokio::test]
async fn a_secret_that_was_pasted_into_the_wrong_place_is_not_printed() {
    const SECRET: &str = "sk-admin-REALKEY0123456789abcdef";
    let valid = "admin_key = { env = \"OPENAI_ADMIN_KEY\" }";
    let hook = "https://hooks.example/T0/REALKEY0123456789abcdef";
    let cases = [
        format!("[organizations.acme]\nadmin_key = {{ env = \"{SECRET}\" }}"),
        format!("[organizations.acme]\nadmin_key = {{ file = \"{SECRET}\" }}"),
        format!("[organizations.acme]\nadmin_key = {{ credential = \"{SECRET}\" }}"),
        format!("[organizations.{SECRET}]\n{valid}"),
        format!("[organizations.acme]\n{valid}\nbase_url = \"{SECRET}\""),
        format!(
            "[organizations.acme]\n{valid}\nbase_url = \"http://u:{SECRET}@h.example/{SECRET}\""
        ),
        format!("[organizations.acme]\n{valid}\n\"{SECRET}\" = 1"),
        format!("[notifiers.webhook.hook]\nurl = {{ env = \"{hook}\" }}"),
        format!("[notifiers.webhook.hook]\nurl = \"ftp://{hook}\""),
        format!("[notifiers.webhook.hook]\nurl = \"http://127.0.0.1/\"\nformat = \"{SECRET}\""),
        format!(
            "[notifiers.webhook.hook]\nurl = \"http://127.0.0.1/\"\nheaders = {{ \"{SECRET} x\" = \"y\" }}"
        ),
        format!("[notifiers.email.ops]\nto = [\"{SECRET}\"]"),
        format!(
            "[smtp]\nhost = \"{SECRET} x\"\nfrom = \"{SECRET}\"\n[notifiers.email.ops]\nto = [\"a@b.example\"]"
        ),
        format!("[smtp]\nport = \"{SECRET}\""),
        format!("[smtp]\ntls = \"{SECRET}\"\nauth = \"{SECRET}\""),
        format!("timezone = \"{SECRET}\""),
        format!("[schedule]\ncron = \"{SECRET}\"\njitter = \"{SECRET}\""),
        format!("[http]\nlisten = \"{SECRET}\"\npublic_url = \"{SECRET}\""),
        format!("[state]\nurl = \"{SECRET}\""),
        format!("[state]\nurl = \"{SECRET}://x\""),
        format!("[log]\nlevel = \"{SECRET}\"\nformat = \"{SECRET}\""),
        format!(
            "[monitoring]\nthresholds = [{{ within = \"{SECRET}\", severity = \"{SECRET}\" }}]"
        ),
        format!("[messages]\nrunbook_url = \"{SECRET}\""),
        format!("[[rules]]\nignore = {{ reason = \"x\", until = \"{SECRET}\" }}"),
    ];
    for text in cases {
        for command in ["check", "show"] {
            let folder = tempfile::tempdir().unwrap();
            let run = run(with(folder.path(), &text, &["config", command]));
            let (code, out, err) = run.await;
            let all = format!("{out}{err}");
            assert!(!all.contains("REALKEY"), "{text}\n{all}");
            assert!(command == "show" || code == 2 || out.contains("right"), "{text}\n{all}");
        }
    }
    // From the environment, too.
    let folder = tempfile::tempdir().unwrap();
    for variable in ["CERTVIGIL__SMTP__PORT", "CERTVIGIL__TIMEZONE", "CERTVIGIL__STATE__HISTORY"] {
        let mut command = with(folder.path(), "", &["config", "check"]);
        command.env(variable, SECRET);
        let (code, out, err) = run(command).await;
        assert_eq!(code, 2, "{variable}: {out}{err}");
        assert!(err.contains(variable) && !format!("{out}{err}").contains("REALKEY"), "{err}");
    }
}

/// S4.
#[tokio::test]
async fn an_admin_key_is_read_as_it_was_meant_and_a_projects_key_is_named_as_one() {
    let sim =
        Sim::start(certvigil::demo::world::World::with_projects(1, |n| format!("p{n}"))).await;
    let folder = tempfile::tempdir().unwrap();
    let key = certvigil::demo::admin_api::KEY;
    let text = sim.config().replace(&format!("\"{key}\""), "{ file = \"key\" }");
    std::fs::write(folder.path().join("key"), format!("\u{feff} \"{key}\"\r\n\n")).unwrap();
    let (code, _, err) = run(with(folder.path(), &text, &["check"])).await;
    assert_ne!(code, 3, "{err}");
    assert!(
        err.contains("configuration: ") && err.contains("c.toml; API: http://127.0.0.1:"),
        "{err}"
    );
    std::fs::write(folder.path().join("key"), "sk-proj-abcdef\n").unwrap();
    let (code, _, err) = run(with(folder.path(), &text, &["config", "check"])).await;
    assert_eq!(code, 2);
    assert!(err.contains("not a project's key, which cannot read certificates"), "{err}");
    assert!(!err.contains("abcdef"), "{err}");
}

/// S1: whoever prepared the current folder decides nothing.
#[tokio::test]
async fn a_configuration_that_others_can_change_is_refused_unless_it_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certvigil.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let show = |named: bool| {
        let mut command = certvigil(folder.path());
        if named {
            command.args(["--config", "certvigil.toml"]);
        }
        command.args(["config", "show"]);
        run(command)
    };
    let (code, _, err) = show(false).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("certvigil.toml: not loaded, because other users can change it"), "{err}");
    assert_eq!(show(true).await.0, 0);
}

#[tokio::test]
async fn a_secret_is_read_from_a_regular_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("key")).status();
    assert!(made.unwrap().success());
    let text = "[organizations.acme]\nadmin_key = { file = \"key\" }\n";
    let checked = run(with(folder.path(), text, &["config", "check"]));
    let checked = tokio::time::timeout(std::time::Duration::from_secs(10), checked).await;
    let (code, _, err) = checked.expect("opening a FIFO waits for nobody");
    assert_eq!(code, 2);
    assert!(err.contains("key cannot be read: not a regular file"), "{err}");
    let endless = std::path::Path::new("/dev/zero");
    let mut command = certvigil(folder.path());
    command.arg("--config").arg(endless).args(["config", "check"]);
    let (code, _, err) = run(command).await;
    assert_eq!(code, 2);
    assert!(err.contains("larger than 1024 KiB"), "{err}");
}
