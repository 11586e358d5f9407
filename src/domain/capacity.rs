//! Limits on the memory that a scan uses for one organization.
//!
//! A scan holds the previous and the new inventory at the same time, and the service must stay
//! below 128 MiB. An organization has at most 50 certificates, so only a broken or hostile API
//! reaches the limits.

use std::collections::HashMap;

use super::{
    certificate::{Certificate, Project},
    reading::List,
    text::Name,
    unreadable::ReadError,
};

/// The error of data that exceeds the limits.
pub const EXCEEDED: &str = "the organization is larger than certvigil can hold: over 250,000 list rows, 10,000 certificates, or 6 MiB \
     of names, ids and errors";

/// Memory of a project, a certificate or an error besides its text, in bytes.
const OVERHEAD: usize = 64;

/// The remaining capacity of a scan.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Rows of all lists together. A shared list counts once.
    rows: usize,
    certificates: usize,
    /// For names, ids and errors.
    bytes: usize,
    /// The known lists, and whether this scan has counted them.
    lists: HashMap<List, bool>,
}

impl Capacity {
    /// The capacity of a scan; `known` are the lists of the last one.
    pub fn new(known: impl Iterator<Item = List>) -> Capacity {
        let lists = known.map(|list| (list, false)).collect();
        Capacity { lists, ..Capacity::of(250_000, 10_000, 6 * 1024 * 1024) }
    }

    pub fn unlimited() -> Capacity {
        Capacity::of(usize::MAX, usize::MAX, usize::MAX)
    }

    pub fn of(rows: usize, certificates: usize, bytes: usize) -> Capacity {
        Capacity { rows, certificates, bytes, lists: HashMap::new() }
    }

    /// Counts a list and its certificates that are new in this scan. Returns the known list with
    /// the same content, if there is one, so that the memory is shared.
    ///
    /// # Errors
    /// If they exceed the capacity; nothing is counted then.
    pub fn list<'a>(
        &mut self,
        list: List,
        new: impl ExactSizeIterator<Item = &'a Certificate>,
    ) -> Result<List, ReadError> {
        let (known, is_counted) = match self.lists.get_key_value(&list) {
            Some((known, is_counted)) => (known.clone(), *is_counted),
            None => (list, false),
        };
        let rows = if is_counted { 0 } else { known.iter().len() };
        let rows = self.rows.checked_sub(rows).ok_or_else(exceeded)?;
        let certificates = self.certificates.checked_sub(new.len()).ok_or_else(exceeded)?;
        self.take_bytes(new.map(|one| size(one.id.as_str(), one.name.as_ref())).sum())?;
        (self.rows, self.certificates) = (rows, certificates);
        self.lists.insert(known.clone(), true);
        Ok(known)
    }

    /// Counts a project that is new in this scan.
    ///
    /// # Errors
    /// If it exceeds the capacity.
    pub fn project(&mut self, project: &Project) -> Result<(), ReadError> {
        self.take_bytes(size(project.id.as_str(), project.name.as_ref()))
    }

    /// Counts an error. Beyond the capacity, it keeps its cause but gets a shared text.
    pub fn error(&mut self, error: ReadError) -> ReadError {
        match self.take_bytes(OVERHEAD + error.why.len()) {
            Ok(()) => error,
            Err(exceeded) => ReadError { why: exceeded.why, ..error },
        }
    }

    fn take_bytes(&mut self, needed: usize) -> Result<(), ReadError> {
        self.bytes = self.bytes.checked_sub(needed).ok_or_else(exceeded)?;
        Ok(())
    }
}

fn size(id: &str, name: Option<&Name>) -> usize {
    OVERHEAD + id.len() + name.map_or(0, |name| name.as_str().len())
}

fn exceeded() -> ReadError {
    thread_local! {
        static ERROR: ReadError = ReadError::from(EXCEEDED);
    }
    ERROR.with(ReadError::clone)
}
