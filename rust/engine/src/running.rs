//! A job on a thread of its own, and those who wait for it.
//!
//! Holds [`Running`]: started at once, waited for in slices, asked for its result as often as one likes. Promises that a panic ends
//! this job with `Internal` and nothing else, that whoever waits is woken when it ends, and that a job whose last handle is gone is
//! cancelled. Does not know what jobs do.

use crate::error::{Error, Result};
use crate::job::{Job, Stage};
use crate::seams::World;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

struct Shared<T> {
    outcome: Mutex<Option<Result<T>>>,
    over: Condvar,
}

/// A started job.
pub struct Running<T> {
    job: Arc<Job>,
    /// Ends waits of the store's retry layer too: those look at no [`Job`].
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared<T>>,
}

impl<T> fmt::Debug for Running<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("progress", &self.job.progress()).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + 'static> Running<T> {
    /// Starts `body` on a thread; it is handed its counters and the flag that is set when it is cancelled.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        world: &World,
        name: &str,
        body: impl FnOnce(&Arc<Job>, &Arc<AtomicBool>) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let (job, cancelled) = (Arc::new(Job::new()), Arc::new(AtomicBool::new(false)));
        let shared = Arc::new(Shared { outcome: Mutex::new(None), over: Condvar::new() });
        let (its_job, its_flag, its_shared) = (Arc::clone(&job), Arc::clone(&cancelled), Arc::clone(&shared));
        world.spawn.spawn(
            name,
            Box::new(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| body(&its_job, &its_flag))).unwrap_or_else(|panic| {
                    Err(Error::internal(format!("the job ended by a fault of the program: {}", said(&*panic)))
                        .with_next_step("report it with the log; nothing that was committed is harmed"))
                });
                its_job.enter(Stage::Finished);
                *its_shared.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                its_shared.over.notify_all();
            }),
        )?;
        Ok(Self { job, cancelled, shared })
    }

    /// Its counters.
    #[must_use]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Asks it to stop; it ends with `Cancelled` unless it was done.
    pub fn cancel(&self) {
        self.job.cancel();
        self.cancelled.store(true, Relaxed);
    }

    /// Waits so long at most; whether it is over.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        let outcome = self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, _) =
            self.shared.over.wait_timeout_while(outcome, at_most, |o| o.is_none()).unwrap_or_else(PoisonError::into_inner);
        outcome.is_some()
    }

    /// Its result, or nothing while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<T>> {
        self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.job.cancel();
        self.cancelled.store(true, Relaxed);
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_result_can_be_asked_for_again_and_again() {
        let (go, gone) = channel::<()>();
        let running = Running::start(&World::system(), "test", move |job, _| {
            job.enter(Stage::Running);
            gone.recv().unwrap();
            Ok(42)
        })
        .unwrap();
        assert!(!running.wait(Duration::from_millis(1)));
        assert!(running.outcome().is_none());
        go.send(()).unwrap();
        assert!(running.wait(LONG));
        assert_eq!((running.outcome().unwrap().unwrap(), running.outcome().unwrap().unwrap()), (42, 42));
        assert_eq!(running.job().progress().stage, Stage::Finished);
    }

    #[test]
    fn a_panic_is_the_end_of_one_job() {
        let running = Running::<()>::start(&World::system(), "test", |_, _| panic!("told so: x=1")).unwrap();
        assert!(running.wait(LONG));
        let error = running.outcome().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().ends_with("told so: x=1"), "{error}");
        let next = Running::start(&World::system(), "test", |_, _| Ok(1)).unwrap();
        assert!(next.wait(LONG) && next.outcome().unwrap().is_ok());
    }

    #[test]
    fn cancelling_or_dropping_sets_both_flags() {
        for drop_it in [false, true] {
            let (tell, told) = channel();
            let running = Running::start(&World::system(), "test", move |job, flag| {
                while !(job.is_cancelled() && flag.load(Relaxed)) {
                    std::thread::yield_now();
                }
                tell.send(()).unwrap();
                job.check()
            })
            .unwrap();
            if drop_it {
                drop(running);
            } else {
                running.cancel();
                assert!(running.wait(LONG));
                assert_eq!(running.outcome().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
            }
            told.recv_timeout(LONG).unwrap();
        }
    }
}
