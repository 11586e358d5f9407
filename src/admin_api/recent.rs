//! A cache of the latest pages of a scan: projects with the same certificates have identical lists,
//! which are parsed once.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

use super::wire::Page;
use crate::domain::reading::Listed;

/// The number of cached pages, and the maximum size of a page, in bytes.
const KEPT: usize = 16;
const LARGEST: usize = 64 * 1024;

/// The latest parsed pages with their bytes, newest first.
#[derive(Default)]
pub struct Recent(Mutex<VecDeque<(Bytes, Page<Listed>)>>);

impl Recent {
    /// The cached page of these bytes; otherwise parses and caches it.
    pub fn page<E>(
        &self,
        bytes: &Bytes,
        read: impl FnOnce() -> Result<Page<Listed>, E>,
    ) -> Result<Page<Listed>, E> {
        let mut pages = self.0.lock();
        if let Some((_, page)) = pages.iter().find(|(of, _)| of == bytes) {
            return Ok(page.clone());
        }
        let page = read()?;
        if bytes.len() <= LARGEST {
            pages.truncate(KEPT - 1);
            // A copy: the bytes are part of a larger buffer, which would stay in memory.
            pages.push_front((Bytes::copy_from_slice(bytes), page.clone()));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_api::wire::RawPage;
    use std::sync::Arc;

    #[test]
    fn a_recent_page_is_parsed_once() {
        let recent = Recent::default();
        let read = std::cell::Cell::new(0);
        let page = |text: &str| {
            let text =
                format!(r#"{{"data": [{{"id": "{text}", "active": true}}], "has_more": false}}"#);
            let page = recent.page(&Bytes::from(text.clone()), || {
                read.set(read.get() + 1);
                serde_json::from_str::<RawPage<Listed>>(&text).map(Page::from)
            });
            page.unwrap().data
        };
        let first = page("a");
        assert!(Arc::ptr_eq(&first, &page("a")));
        assert_eq!(first[0].certificate.id.as_str(), "a");
        (1..KEPT).for_each(|n| drop(page(&n.to_string())));
        assert!(Arc::ptr_eq(&first, &page("a")));
        drop(page("b"));
        assert_eq!(read.get(), KEPT + 1);
        assert_eq!(*page("a"), *first);
        assert_eq!(read.get(), KEPT + 2);
    }

    #[test]
    fn errors_are_not_cached() {
        let recent = Recent::default();
        let bytes = Bytes::from_static(b"x");
        assert_eq!(recent.page(&bytes, || Err("no")).err(), Some("no"));
        assert_eq!(recent.page(&bytes, || Err("no again")).err(), Some("no again"));
    }
}
