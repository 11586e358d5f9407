//! The results of `[[tests]]`, for `config check` and `config test`.

use super::super::Failure;
use crate::{
    clock::Clock,
    config::{Config, Organization},
    domain::expectation::Expectation,
    message::wording,
    notify::email::Recipients,
    usecase::expectations::{self, Configured, Receivers},
};

/// The results of `[[tests]]`.
pub struct Tests {
    /// Each test with the differences from its expectation.
    results: Vec<(String, Vec<String>)>,
}

impl Tests {
    pub fn run(config: &Config) -> Tests {
        let states = config.notifiers.notifiers().into_iter();
        let receivers: Vec<Receivers> = states
            .map(|state| {
                let its = config.notifiers.recipients(&state.name, &state.routing.audience);
                Receivers { addresses: its.map(Recipients::addresses).unwrap_or_default(), state }
            })
            .collect();
        let now = Clock::System.now();
        let result = |test: &Expectation| {
            let title = test.name.as_ref().unwrap_or(&test.certificate);
            let title = format!("tests[{}] “{title}”", test.index);
            let differences = match organization(config, test) {
                Ok(one) => {
                    let log = one.audit_log.as_ref();
                    let configured = Configured {
                        organization: &one.api.organization,
                        policy: &config.policy.of(one),
                        selection: &one.selection,
                        audit_log: (log.is_some(), log.is_some_and(|log| log.addresses)),
                        receivers: &receivers,
                        timezone: config.timezone,
                    };
                    expectations::check(test, &configured, now)
                }
                Err(why) => vec![why],
            };
            (title, differences)
        };
        Tests { results: config.expectations.iter().map(result).collect() }
    }

    fn failed(&self) -> usize {
        self.results.iter().filter(|(_, failures)| !failures.is_empty()).count()
    }

    /// A line for each test, and for each difference.
    pub fn lines(&self) -> String {
        if self.results.is_empty() {
            return "no tests: the configuration has no [[tests]]\n".to_owned();
        }
        let mut out = String::new();
        for (title, failures) in &self.results {
            let result = if failures.is_empty() { "passed" } else { "failed" };
            out.push_str(&format!("{result}  {title}\n"));
            failures.iter().for_each(|line| out.push_str(&format!("        {line}\n")));
        }
        out
    }

    /// The failed tests, or the number of passed ones.
    pub fn failed_lines(&self) -> String {
        let (total, failed) = (self.results.len(), self.failed());
        let mut out = match (total, failed) {
            (0, _) => String::new(),
            (_, 0) => format!("tests: {total} passed\n"),
            (_, _) => format!("tests: {failed} of {total} failed\n"),
        };
        for (title, failures) in self.results.iter().filter(|(_, failures)| !failures.is_empty()) {
            out.push_str(&format!("  {title}\n"));
            failures.iter().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
        out
    }

    /// An error if a test failed.
    pub fn result(&self) -> Result<(), Failure> {
        match (self.results.len(), self.failed()) {
            (_, 0) => Ok(()),
            (total, failed) => {
                let failed = format!("{failed} of {} failed", wording::count(total, "test"));
                Err(Failure::Failed(anyhow::Error::msg(failed)))
            }
        }
    }
}

/// The organization that a test names, or the only one.
fn organization<'a>(config: &'a Config, test: &Expectation) -> Result<&'a Organization, String> {
    match (&test.organization, config.organizations.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err("organization: required, because there are several".to_owned()),
        (Some(name), all) => {
            let found = all.iter().find(|one| one.api.organization.as_str() == name.as_str());
            found.ok_or_else(|| format!("organization: “{name}” is not configured"))
        }
    }
}
