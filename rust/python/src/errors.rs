//! Errors of the engine as classes of `longshore.errors`: one match, by what the caller does next.

use longshore_engine::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The tree of exceptions, imported once.
static TREE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::RepositoryNotFound => "RepositoryNotFoundError",
        ErrorKind::RepositoryExists => "RepositoryExistsError",
        ErrorKind::WrongKey => "WrongKeyError",
        ErrorKind::NewerFormat => "NewerFormatError",
        ErrorKind::SnapshotNotFound | ErrorKind::PathNotFound => "SnapshotNotFoundError",
        ErrorKind::Corrupt => "CorruptError",
        ErrorKind::StoreUnavailable => "StoreUnavailableError",
        ErrorKind::StoreDenied => "StoreDeniedError",
        ErrorKind::NoSpace => "NoSpaceError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Volume => "VolumeError",
        ErrorKind::Usage | ErrorKind::Ambiguous => "UsageError",
        ErrorKind::Cancelled => "CancelledError",
        // A kind that was added to the engine and not here is caught as ours all the same; a test names it.
        _ => "InternalError",
    }
}

/// The engine's error as an exception with message and next step.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let made = TREE
        .get_or_try_init(py, || py.import("longshore.errors").map(Bound::unbind))
        .and_then(|tree| tree.bind(py).getattr(class_name(error.kind())))
        .and_then(|class| class.call1((error.message(), error.next_step())));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}

/// `Usage`: what was handed over makes no sense.
pub fn usage(py: Python<'_>, message: impl Into<String>, next_step: &str) -> PyErr {
    raise(py, &Error::new(ErrorKind::Usage, message).with_next_step(next_step))
}

/// Every kind of error that the engine knows, by its code, with the class that stands for it.
#[pyfunction]
fn error_classes() -> Vec<(&'static str, &'static str)> {
    ErrorKind::ALL.iter().map(|kind| (kind.code(), class_name(*kind))).collect()
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(error_classes, m)?)
}
