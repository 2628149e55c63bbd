//! The seam between Python and the engine: `longshore._native`.
//!
//! In go paths, options, key bytes, store settings and tags; out come ids, counts and frozen results. File content never crosses.
//! Promises: every call that may block lets other Python threads run and is ended by Ctrl-C; jobs run on the engine's threads and
//! never call into Python; every error is a class of `longshore.errors`; nothing prints a secret. Knows no policy: defaults, and what
//! a user sees, belong to `longshore.datapath`, its only user. `python/longshore/_native.pyi` is its face, kept equal by stubtest.

mod counts;
mod errors;
mod job;
mod key;
mod limits;
mod listing;
mod logs;
mod repository;
mod results;
mod store;
mod words;

use pyo3::prelude::*;

/// The extension module.
#[pymodule(gil_used = false)]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("FORMAT_VERSION", longshore_format::FORMAT_VERSION)?;
    m.add("SNAPSHOT_ID_PREFIX", longshore_format::id::SNAPSHOT_ID_PREFIX)?;
    counts::register(m)?;
    errors::register(m)?;
    logs::register(m)?;
    store::register(m)?;
    key::register(m)?;
    limits::register(m)?;
    results::register(m)?;
    job::register(m)?;
    listing::register(m)?;
    repository::register(m)
}
