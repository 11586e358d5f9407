//! Patterns for ids and names, and the selection of projects.

use wildmatch::WildMatch;

use super::{certificate::Project, text::Name};

/// A pattern of `*` (any run of characters) and `?` (one character), case-sensitive.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob {
    pattern: WildMatch,
    /// Whether it matches every text.
    is_all: bool,
}

impl Glob {
    pub fn new(pattern: &str) -> Glob {
        let is_all = !pattern.is_empty() && pattern.chars().all(|c| c == '*');
        Glob { pattern: WildMatch::new(pattern), is_all }
    }

    /// The same pattern for any case.
    fn ignoring_case(&self) -> Glob {
        let pattern = WildMatch::new_case_insensitive(&self.pattern.pattern());
        Glob { pattern, is_all: self.is_all }
    }

    pub fn contains(&self, c: char) -> bool {
        self.pattern.pattern().contains(c)
    }

    /// Whether the pattern matches the whole `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.is_all || self.pattern.matches(text)
    }
}

/// Patterns, one of which must match the id or the name.
#[derive(Clone, Debug, PartialEq)]
pub struct Globs(pub Vec<Glob>);

impl Globs {
    pub fn all() -> Globs {
        Globs(vec![Glob::new("*")])
    }

    /// The same patterns for any case.
    pub fn ignoring_case(&self) -> Globs {
        Globs(self.0.iter().map(Glob::ignoring_case).collect())
    }

    /// Whether they match everything, and therefore also a certificate without projects.
    pub fn is_all(&self) -> bool {
        self.0.iter().any(|glob| glob.is_all)
    }

    pub fn matches(&self, id: &str, name: Option<&Name>) -> bool {
        self.0
            .iter()
            .any(|glob| glob.matches(id) || name.is_some_and(|name| glob.matches(name.as_str())))
    }

    pub fn match_project(&self, project: &Project) -> bool {
        self.matches(project.id.as_str(), project.name.as_ref())
    }
}

/// The projects that are read. `exclude` wins over `include`.
#[derive(Clone, Debug)]
pub struct Selection {
    pub include: Globs,
    pub exclude: Globs,
    /// Whether archived projects are requested, too.
    pub archived: bool,
}

impl Selection {
    /// Whether it selects every project that is not archived.
    pub fn is_everything(&self) -> bool {
        self.include.is_all() && self.exclude.0.is_empty()
    }

    pub fn matches(&self, project: &Project) -> bool {
        self.include.match_project(project) && !self.exclude.match_project(project)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs_match_the_whole_text_case_sensitively() {
        let cases = [
            ("*", "", true),
            ("prod-*", "prod-", true),
            ("prod-*", "Prod-a", false),
            ("*-eu-*", "prod-eu-1", true),
            ("*-eu-*", "prod-eu", false),
            ("?", "ü", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbX", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_with_parts_replaced_by_stars_still_matches(parts in proptest::collection::vec("[a-c]{0,4}", 1..6)) {
            let pattern = parts.join("*");
            let text = parts.join("zz");
            prop_assert!(Glob::new(&pattern).matches(&text));
        }
    }
}
