//! The seam between Python and the engine.
use pyo3::prelude::*;

/// The extension module.
#[pymodule(gil_used = false)]
fn _native(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
