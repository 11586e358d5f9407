//! The rules: the first match gives a certificate its ladder, or ignores it.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    certificate::{Certificate, Project},
    credential::{ClientIdentity, WatchedKeys},
    owner::Owner,
    selection::Globs,
    threshold::{Ladder, Severity, Steps},
};

/// The rules and limits of one organization.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The global ladder, for certificates without a rule.
    pub ladder: Ladder,
    /// The rules for this organization, in their order.
    pub rules: Vec<Rule>,
    /// Whether inactive certificates are watched, too.
    pub include_inactive: bool,
    /// The maximum severity of a certificate for which every project has a successor.
    pub replaced_severity: Severity,
    /// How long a list may be unreadable before `monitor.blind`; `None` in a forecast, which reads
    /// nothing.
    pub blind_after: Option<TimeDelta>,
    pub admin_keys: WatchedKeys,
    /// certvigil's client certificate, if it has one.
    pub client_identity: Option<ClientIdentity>,
    pub protection: ProtectionPolicy,
    /// The owners, in the order of the configuration.
    pub owners: Vec<Owner>,
}

impl Policy {
    /// The severity and repeat interval of a threshold or the expiry. If every project has a
    /// successor (`replaced`), no project loses access, only clients with certificates that the
    /// old one signed: the severity is limited, and the alert is not repeated.
    pub fn limited(
        &self,
        replaced: bool,
        severity: Severity,
        repeat: Option<TimeDelta>,
    ) -> (Severity, Option<TimeDelta>) {
        match replaced {
            true => (severity.min(self.replaced_severity), None),
            false => (severity, repeat),
        }
    }

    /// A policy with this ladder, without rules, and otherwise with the defaults of the
    /// configuration.
    pub fn new(ladder: Ladder) -> Policy {
        Policy {
            ladder,
            rules: Vec::new(),
            include_inactive: false,
            replaced_severity: Severity::Warning,
            blind_after: None,
            admin_keys: WatchedKeys::Own,
            client_identity: None,
            protection: ProtectionPolicy::default(),
            owners: Vec::new(),
        }
    }
}

/// Which projects without an active certificate, own or inherited, are reported: mutual TLS is off
/// in them.
#[derive(Clone, Debug)]
pub struct ProtectionPolicy {
    /// Always reported. Others are reported only after they lost their last active certificate.
    pub expected: Globs,
    /// Never reported.
    pub ignored: Globs,
    /// `None` reports no project.
    pub severity: Option<Severity>,
}

impl Default for ProtectionPolicy {
    fn default() -> ProtectionPolicy {
        ProtectionPolicy {
            expected: Globs(Vec::new()),
            ignored: Globs(Vec::new()),
            severity: Some(Severity::Critical),
        }
    }
}

/// An entry of `[[rules]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its index in the configuration, from 0.
    pub index: usize,
    pub certificates: Globs,
    pub projects: Globs,
    pub effect: Effect,
}

#[derive(Clone, Debug)]
pub enum Effect {
    Watch(Ladder),
    Ignore(Ignore),
}

/// Silences a certificate until a time, with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignore {
    pub reason: String,
    pub until: DateTime<Utc>,
}

/// The result of the rules for one certificate.
#[derive(Clone, Debug)]
pub struct Ruling<'a> {
    /// The rule that gives the ladder; `None` for the global one.
    pub rule: Option<&'a Rule>,
    pub ladder: &'a Ladder,
    /// The ladder, resolved for this certificate.
    pub steps: Steps,
    pub ignored: Option<(&'a Rule, &'a Ignore)>,
    /// A matching `ignore` that has ended.
    pub lapsed: Option<(&'a Rule, &'a Ignore)>,
}

impl<'a> Ruling<'a> {
    /// The rules that contribute to the result.
    pub fn deciding(&self) -> impl Iterator<Item = &'a Rule> {
        let silences = [self.ignored, self.lapsed].into_iter().flatten();
        self.rule.into_iter().chain(silences.map(|(rule, _)| rule))
    }
}

impl Policy {
    /// Applies the rules to a certificate that is active in these projects, and possibly in the
    /// unread ones.
    ///
    /// The first matching rule wins; an ended `ignore` does not count. An ignored certificate still
    /// has a ladder, which decides on its successors.
    pub fn ruling(
        &self,
        certificate: &Certificate,
        active_in: &[&Project],
        unread: &[&Project],
        now: DateTime<Utc>,
    ) -> Ruling<'_> {
        let (mut ignored, mut lapsed) = (None, None);
        let mut ladder = (None, &self.ladder);
        for rule in self.rules.iter().filter(|rule| rule.matches(certificate, active_in, unread)) {
            match &rule.effect {
                Effect::Ignore(ignore) if ignore.until <= now => {
                    lapsed = lapsed.or(Some((rule, ignore)));
                }
                Effect::Ignore(ignore) => ignored = ignored.or(Some((rule, ignore))),
                Effect::Watch(own) => {
                    ladder = (Some(rule), own);
                    break;
                }
            }
        }
        let (life, _) = certificate.life();
        let (rule, ladder) = ladder;
        Ruling { rule, ladder, steps: ladder.steps(life), ignored, lapsed }
    }
}

impl Rule {
    /// For an `ignore`, every project where the certificate is active must match; for a ladder, one
    /// of them.
    fn matches(
        &self,
        certificate: &Certificate,
        active_in: &[&Project],
        unread: &[&Project],
    ) -> bool {
        if !self.certificates.matches(certificate.id.as_str(), certificate.name.as_ref()) {
            return false;
        }
        if self.projects.is_all() {
            return true;
        }
        let match_one = |project: &&Project| self.projects.match_project(project);
        match self.effect {
            Effect::Watch(_) => active_in.iter().any(match_one),
            // Not for an inactive certificate, nor if it may be active in an unread project that
            // does not match.
            Effect::Ignore(_) => {
                !active_in.is_empty() && active_in.iter().chain(unread).all(match_one)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::{
        certificate::ProjectId,
        inventory::tests::{certificate, start},
        selection::Glob,
        text::Name,
        threshold::tests::ladder,
    };

    fn globs(patterns: &[&str]) -> Globs {
        Globs(patterns.iter().map(|pattern| Glob::new(pattern)).collect())
    }

    fn rule(index: usize, certificates: &[&str], projects: &[&str], effect: Effect) -> Rule {
        Rule { index, certificates: globs(certificates), projects: globs(projects), effect }
    }

    fn ignore(days: i64) -> Effect {
        Effect::Ignore(Ignore { reason: "retired".into(), until: start() + TimeDelta::days(days) })
    }

    fn project(id: &str, name: &str) -> Project {
        Project { id: ProjectId::parse(id).unwrap(), name: Name::clean(name) }
    }

    /// `rule N` or `global`, and the rule that ignores the certificate or ignored it until now.
    fn said(rules: Vec<Rule>, projects: &[&Project], unread: &[&Project]) -> String {
        let policy = Policy { rules, include_inactive: true, ..Policy::new(ladder(&[30])) };
        let certificate = certificate("cert_a", 100);
        let ruling = policy.ruling(&certificate, projects, unread, start());
        let rule = ruling.rule.map_or("global".to_owned(), |rule| format!("rule {}", rule.index));
        let by = |what: &str, one: Option<(&Rule, &Ignore)>| {
            one.map_or(String::new(), |(rule, _)| format!(", {what} by rule {}", rule.index))
        };
        format!("{rule}{}{}", by("ignored", ruling.ignored), by("lapsed", ruling.lapsed))
    }

    #[test]
    fn the_first_matching_rule_wins() {
        let prod = project("proj_1", "prod-chat");
        let lab = project("proj_2", "lab-chat");
        let watch = |days: i64| Effect::Watch(ladder(&[days]));
        let all: &[&str] = &["*"];
        let cases: [(&str, Vec<Rule>, &[&Project], &str); 11] = [
            ("no rule", vec![], &[&prod], "global"),
            ("by id", vec![rule(0, &["cert_?"], all, watch(9))], &[&prod], "rule 0"),
            ("not by id", vec![rule(0, &["cert_b*"], all, watch(9))], &[&prod], "global"),
            (
                "the first of two",
                vec![rule(0, all, all, watch(9)), rule(1, all, all, watch(8))],
                &[&prod],
                "rule 0",
            ),
            (
                "a ladder needs one matching project",
                vec![rule(0, all, &["prod-*"], watch(9))],
                &[&prod, &lab],
                "rule 0",
            ),
            ("a ladder needs a project", vec![rule(0, all, &["prod-*"], watch(9))], &[], "global"),
            (
                "an ignore needs all projects to match",
                vec![rule(0, all, &["prod-*"], ignore(1))],
                &[&prod, &lab],
                "global",
            ),
            (
                "all projects match",
                vec![rule(0, all, &["prod-*"], ignore(1))],
                &[&prod],
                "global, ignored by rule 0",
            ),
            (
                "an ignore needs a project",
                vec![rule(0, all, &["prod-*"], ignore(1))],
                &[],
                "global",
            ),
            (
                "ignored certificates have a ladder",
                vec![rule(0, all, all, ignore(1)), rule(1, all, all, watch(9))],
                &[&prod],
                "rule 1, ignored by rule 0",
            ),
            (
                "an ended ignore is skipped",
                vec![rule(0, all, all, ignore(0)), rule(1, all, all, watch(9))],
                &[&prod],
                "rule 1, lapsed by rule 0",
            ),
        ];
        for (reason, rules, projects, expected) in cases {
            assert_eq!(said(rules, projects, &[]), expected, "{reason}");
        }
        let behind = vec![
            rule(0, &["*"], &["*"], Effect::Watch(ladder(&[9]))),
            rule(1, &["*"], &["*"], ignore(1)),
        ];
        assert_eq!(said(behind, &[&prod], &[]), "rule 0", "an ignore after a ladder");
        let of_prod = || vec![rule(0, all, &["prod-*"], ignore(1))];
        let heard = said(of_prod(), &[&prod], &[&lab]);
        assert_eq!(heard, "global", "it may be active in an unread project");
        assert_eq!(said(of_prod(), &[&prod], &[&prod]), "global, ignored by rule 0");
    }
}
