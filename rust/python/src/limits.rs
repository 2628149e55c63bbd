//! What jobs may take of network, stores and processors, shared by all repositories that are opened with it.
//!
//! Traffic and requests change while jobs run; how their threads stand beside others is given once and holds for jobs begun later.

use crate::errors::usage;
use longshore_engine::priority::{IoClass, Priority};
use longshore_store::layers;
use pyo3::prelude::*;

/// Limits of all jobs together.
#[pyclass(frozen, module = "longshore._native")]
pub struct Limits {
    pub stores: layers::Limits,
    pub priority: Priority,
}

/// What a repository is opened with; limits of its own where none are given.
pub fn given(limits: Option<&Limits>) -> (layers::Limits, Priority) {
    limits.map_or_else(Default::default, |limits| (limits.stores.clone(), limits.priority))
}

#[pymethods]
impl Limits {
    #[new]
    #[pyo3(signature = (*, nice, ionice))]
    fn new(py: Python<'_>, nice: Option<i32>, ionice: &str) -> PyResult<Self> {
        if nice.is_some_and(|nice| !(0..=19).contains(&nice)) {
            return Err(usage(py, format!("not a niceness: nice={}", nice.unwrap_or_default()), "give 0 to 19"));
        }
        let io = match ionice {
            "none" => None,
            "best-effort" => Some(IoClass::BestEffort),
            "idle" => Some(IoClass::Idle),
            other => {
                return Err(usage(py, format!("unknown class of I/O: ionice={other:?}"), "use none, best-effort or idle"));
            }
        };
        Ok(Self { stores: layers::Limits::default(), priority: Priority { nice, io } })
    }

    /// Bounds all jobs together from now on; 0 is no limit.
    #[pyo3(signature = (*, upload_bytes_per_second, download_bytes_per_second, requests))]
    fn set(&self, upload_bytes_per_second: u64, download_bytes_per_second: u64, requests: usize) {
        self.stores.set_traffic(upload_bytes_per_second, download_bytes_per_second);
        self.stores.set_requests(requests);
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Limits>()
}
