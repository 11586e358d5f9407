//! The lists in the text of an alert: the projects of a certificate, the receivers of a notifier.

use serde::Serialize;

use crate::{domain::text::unlinked, message::ProjectView};

/// A list with its title. It may have only a title.
#[derive(Clone, Debug, Serialize)]
pub struct List {
    pub title: String,
    pub items: Vec<ListItem>,
    /// Number of items that are not listed.
    pub more: usize,
}

/// An item with its state.
#[derive(Clone, Debug, Serialize)]
pub struct ListItem {
    pub name: String,
    /// Empty without one.
    pub state: String,
}

impl List {
    /// Lists the first `shown` of `total` items.
    pub fn new(
        title: String,
        total: usize,
        shown: usize,
        items: impl IntoIterator<Item = ListItem>,
    ) -> List {
        let items: Vec<ListItem> = items.into_iter().take(shown).collect();
        List { title, more: total.saturating_sub(items.len()), items }
    }

    /// A list of projects with the state of each.
    pub(super) fn of_projects(
        title: String,
        total: usize,
        shown: usize,
        projects: &[ProjectView],
        state: impl Fn(&ProjectView) -> String,
    ) -> List {
        let item = |project: &ProjectView| {
            let name = match &project.name {
                Some(name) => format!("{name} ({})", project.id),
                None => project.id.to_string(),
            };
            ListItem { name, state: state(project) }
        };
        List::new(title, total, shown, projects.iter().map(item))
    }

    /// One line for each item, and `and 3 more` if some are not listed.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.items.iter().map(ListItem::line).chain(more)
    }

    pub(super) fn unlink(&mut self) {
        self.title = unlinked(&self.title);
        for item in &mut self.items {
            item.name = unlinked(&item.name);
            item.state = unlinked(&item.state);
        }
    }
}

impl ListItem {
    /// Name and state in one line.
    pub fn line(&self) -> String {
        match self.state.as_str() {
            "" => self.name.clone(),
            state => format!("{}: {state}", self.name),
        }
    }
}
