//! Jobs as Python sees them, and calls that somebody waits for.
//!
//! Whoever waits here lets other Python threads run and looks for Ctrl-C at least ten times a second.

use crate::errors::raise;
use crate::results::{BackupResult, CheckResult, Progress, PruneResult, RepairResult, RestoreResult};
use longshore_engine::job::Job as Counters;
use longshore_engine::running::Running;
use longshore_engine::seams::World;
use longshore_engine::{Error, ErrorKind};
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const SLICE: Duration = Duration::from_millis(100);

/// What a job ends with.
#[derive(Clone)]
pub enum Outcome {
    /// Of a backup.
    Backup(Arc<longshore_engine::backup::Summary>),
    /// Of a restore.
    Restore(Arc<longshore_engine::restore::RestoreSummary>),
    /// Of a check, of everything or of one snapshot.
    Check(Arc<longshore_engine::check::CheckReport>),
    /// Of a prune.
    Prune(Arc<longshore_engine::prune::PruneReport>),
    /// Of a repair.
    Repair(Arc<longshore_engine::repair::RepairReport>),
}

/// An outcome and how many seconds it took.
type Timed = (Outcome, f64);

/// A job that runs, or ran.
#[pyclass(frozen, module = "longshore._native")]
pub struct Job(Running<Timed>);

/// Waits in slices; whether it is over.
fn wait<T: Clone + Send + 'static>(py: Python<'_>, running: &Running<T>, timeout: Option<Duration>) -> PyResult<bool> {
    let clock = World::system().clock;
    let began = clock.monotonic();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(clock.monotonic().saturating_sub(began)));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        if py.detach(|| running.wait(slice)) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= SLICE) {
            return Ok(false);
        }
    }
}

/// Starts a job.
pub fn start(
    py: Python<'_>,
    name: &str,
    body: impl FnOnce(&Arc<Counters>, &Arc<AtomicBool>) -> Result<Outcome, Error> + Send + 'static,
) -> PyResult<Job> {
    let world = World::system();
    let clock = Arc::clone(&world.clock);
    let timed = move |counters: &Arc<Counters>, cancelled: &Arc<AtomicBool>| {
        let began = clock.monotonic();
        let outcome = body(counters, cancelled)?;
        Ok((outcome, clock.monotonic().saturating_sub(began).as_secs_f64()))
    };
    Running::start(&world, name, timed).map(Job).map_err(|error| raise(py, &error))
}

/// Does something that may block, on a thread of its own, so that Ctrl-C ends the waiting whatever the store does.
pub fn call<T: Clone + Send + 'static>(
    py: Python<'_>,
    body: impl FnOnce(&Arc<Counters>, &Arc<AtomicBool>) -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let running = Running::start(&World::system(), "longshore-call", body).map_err(|error| raise(py, &error))?;
    // On Ctrl-C `running` is dropped, which cancels it.
    wait(py, &running, None)?;
    outcome(py, &running)
}

fn outcome<T: Clone + Send + 'static>(py: Python<'_>, running: &Running<T>) -> PyResult<T> {
    match running.outcome() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(raise(py, &error)),
        None => Err(raise(py, &Error::new(ErrorKind::Usage, "the job is not over; wait for it first"))),
    }
}

#[pymethods]
impl Job {
    /// The counters as they are now.
    fn progress(&self) -> Progress {
        Progress::of(self.0.job())
    }

    /// Asks it to stop.
    fn cancel(&self) {
        self.0.cancel();
    }

    /// Waits so long at most; whether it is over.
    fn wait(&self, py: Python<'_>, timeout_seconds: Option<f64>) -> PyResult<bool> {
        // Negative and not-a-number count as no time, more than a century as for ever.
        let timeout = timeout_seconds.map(|s| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX));
        wait(py, &self.0, timeout)
    }

    /// What it ended with.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (outcome, seconds) = outcome(py, &self.0)?;
        match outcome {
            Outcome::Backup(summary) => Ok(Py::new(py, BackupResult::new(&summary, seconds))?.into_any()),
            Outcome::Restore(summary) => Ok(Py::new(py, RestoreResult::from(&*summary))?.into_any()),
            Outcome::Check(report) => Ok(Py::new(py, CheckResult::from(&*report))?.into_any()),
            Outcome::Prune(report) => Ok(Py::new(py, PruneResult::from(&*report))?.into_any()),
            Outcome::Repair(report) => Ok(Py::new(py, RepairResult::from(&*report))?.into_any()),
        }
    }

    fn __repr__(&self) -> String {
        format!("Job(stage={})", self.progress().stage)
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Job>()
}
