//! The text of a notice of changes.

use chrono_tz::Tz;

use super::{Entry, List, ListItem, facts::instant};
use crate::message::{ChangeView, ChangesView, wording};

impl Entry {
    pub(super) fn describe_changes(&mut self, changes: &ChangesView, shown: usize, timezone: Tz) {
        let when = |one: &ChangeView| match one.logged {
            true => instant(one.at, timezone),
            false => format!("noticed {}", instant(one.at, timezone)),
        };
        match changes.listed.as_slice() {
            [only] if changes.total == 1 => {
                let name = only.certificate.name.as_ref();
                self.facts.extend(name.map(|name| ("Certificate", name.to_string())));
                self.facts.push(("Id", only.certificate.id.to_string()));
                self.facts.push(("Time", when(only)));
                let more = only.projects_total > 1;
                let names = only.projects.iter().filter(|_| more);
                let names: Vec<String> =
                    names.map(|one| wording::with_id(one.name.as_ref(), &one.id)).collect();
                let hidden = only.projects_total - names.len();
                if !names.is_empty() {
                    let hidden =
                        if hidden > 0 { format!(" and {hidden} more") } else { String::new() };
                    self.facts.push(("Projects", names.join(", ") + &hidden));
                }
            }
            several => {
                let item = |one: &ChangeView| ListItem {
                    name: wording::with_id(one.certificate.name.as_ref(), &one.certificate.id),
                    state: format!("{}, {}", one.text(), when(one)),
                };
                let title = wording::count(changes.total, "change");
                let items = several.iter().map(item);
                self.lists.push(List::new(title, changes.total, shown, items));
            }
        }
        let step = "If this was not planned, ask who made the change. No other action is needed.";
        self.advice.push(step.to_owned());
    }
}
