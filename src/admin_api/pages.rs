//! The pages of a list.

use std::{collections::HashSet, marker::PhantomData};

use super::{
    AdminApi, PROJECTS,
    body::Body,
    error::{ApiError, Kind},
    request::{describe, hidden},
    wire::{Item, ListedProject, Page},
};
use crate::domain::text::one_line;

/// The maximum page size of the API.
const LIMIT: &str = "100";
/// The longest cursor, in bytes. The API's cursors are ids.
const MAX_CURSOR: usize = 500;

/// The pages of the list of projects.
pub struct Projects<'a>(pub(super) Pages<'a, ListedProject>);

impl Projects<'_> {
    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// If the page could not be read; the listing ends then.
    pub async fn next(&mut self) -> Result<Option<Page<ListedProject>>, ApiError> {
        let api = self.0.api;
        self.0.next(|body| api.parse_page(body, PROJECTS)).await
    }
}

/// The pages of a list. Follows `last_id` while `has_more` is not false, like the official clients.
pub(super) struct Pages<'a, T> {
    api: &'a AdminApi,
    path: &'a [&'a str],
    asked: &'a [(&'a str, &'a str)],
    /// The maximum number of pages.
    most: usize,
    /// The cursor of the next page; `None` after the last one.
    after: Option<Option<String>>,
    seen: HashSet<String>,
    item: PhantomData<T>,
}

impl<'a, T: Item> Pages<'a, T> {
    pub fn new(
        api: &'a AdminApi,
        path: &'a [&'a str],
        asked: &'a [(&'a str, &'a str)],
        most: usize,
    ) -> Pages<'a, T> {
        let (after, seen, item) = (Some(None), HashSet::new(), PhantomData);
        Pages { api, path, asked, most, after, seen, item }
    }

    pub async fn next(
        &mut self,
        read: impl FnOnce(&Body) -> Result<Page<T>, ApiError>,
    ) -> Result<Option<Page<T>>, ApiError> {
        let Some(after) = self.after.take() else {
            return Ok(None);
        };
        let mut query = vec![("limit", LIMIT)];
        query.extend(self.asked);
        query.extend(after.iter().map(|after| ("after", after.as_str())));
        let page = read(&self.api.body(self.path, &query).await?)?;
        let fault = |kind| Err(ApiError::new(kind, &describe(self.path)));

        let next = match (page.has_more, page.is_empty, &page.last_id) {
            (Some(false), _, _) | (None, true, _) | (None, _, None) => return Ok(Some(page)),
            (Some(true), true, _) | (Some(true), _, None) => return fault(Kind::EmptyPageWithMore),
            (None | Some(true), false, Some(next)) => next.clone(),
        };
        if next.len() > MAX_CURSOR {
            let why = format!("last_id has {} bytes, but an id has about 30", next.len());
            return fault(Kind::Shape(why));
        }
        if !self.seen.insert(next.clone()) {
            let next = hidden(&next, &self.api.key().secret);
            return fault(Kind::Loop(one_line(&next, 80)));
        }
        if self.seen.len() >= self.most {
            return fault(Kind::Endless(self.most));
        }
        self.after = Some(Some(next));
        Ok(Some(page))
    }
}
