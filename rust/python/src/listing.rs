//! Entries of a snapshot, pulled page by page.

use crate::job;
use crate::results::Entry;
use longshore_engine::Error;
use longshore_engine::browse;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// A walk through entries; keeps its snapshot open while it lives.
#[pyclass(frozen, skip_from_py_object, module = "longshore._native")]
#[derive(Clone)]
pub struct Listing(Arc<Mutex<browse::Listing>>);

/// Entries, and what could not be read by path and reason.
type Page = (Vec<Entry>, Vec<(Vec<u8>, String)>);

impl Listing {
    /// Wraps the engine's.
    pub fn new(listing: browse::Listing) -> Self {
        Self(Arc::new(Mutex::new(listing)))
    }
}

#[pymethods]
impl Listing {
    /// Up to `limit` more entries, fewer only at the end; and directories of which some entries could not be read, by path and reason.
    fn page(&self, py: Python<'_>, limit: usize) -> PyResult<Page> {
        let listing = Arc::clone(&self.0);
        let (rows, damaged) = job::call(py, move |_, _| {
            let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = listing.page(limit)?;
            let damaged = std::mem::take(&mut listing.damaged);
            Ok::<_, Error>((rows, damaged))
        })?;
        let damaged = damaged.into_iter().map(|(path, error)| (path, error.message().to_owned())).collect();
        Ok((rows.into_iter().map(Entry::from).collect(), damaged))
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Listing>()
}
