//! What this process has asked of stores and looked for in its caches since it began: for metrics.
//!
//! Of the whole process, for an operator asks about a node and not about a handle. Requests are counted below the layer that tries again, so that
//! failures which were ridden out are seen too.

use longshore_engine::repository::lookups::{Kept, Lookups};
use longshore_store::StoreErrorKind;
use longshore_store::layers::{Counts as StoreCounts, Verb};
use pyo3::prelude::*;
use std::sync::{Arc, LazyLock};

static STORES: LazyLock<Arc<StoreCounts>> = LazyLock::new(Arc::default);
static CACHES: LazyLock<Arc<Lookups>> = LazyLock::new(Arc::default);

/// Where every store of this process counts.
pub fn of_stores() -> Arc<StoreCounts> {
    Arc::clone(&STORES)
}

/// Where every cache of this process counts.
pub fn of_caches() -> Arc<Lookups> {
    Arc::clone(&CACHES)
}

/// The numbers as they are now.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct Counts {
    pub store_requests: Vec<(&'static str, u64)>,
    pub store_errors: Vec<(&'static str, u64)>,
    pub cache_lookups: Vec<(&'static str, u64, u64)>,
}

/// What this process has counted since it began.
#[pyfunction]
fn counts() -> Counts {
    Counts {
        store_requests: Verb::ALL.iter().map(|verb| (verb.name(), STORES.verb(*verb).requests)).collect(),
        store_errors: StoreErrorKind::ALL.iter().map(|kind| (kind.name(), STORES.errors(*kind))).collect(),
        cache_lookups: Kept::ALL.iter().map(|kept| (kept.name(), CACHES.hits(*kept), CACHES.misses(*kept))).collect(),
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Counts>()?;
    m.add_function(wrap_pyfunction!(counts, m)?)
}
