//! The threads of a restore and the queue between them and the walk.
//!
//! The walk plans what a task needs and hands it over; the queue is short, so the walk waits for the workers and memory stays bounded.
//! Who fetches goes ahead of who writes. Without workers each task is done where it is handed over. Knows nothing of what a task is.

use super::Context;
use super::file::{self, Task};
use crate::error::{Error, Result};
use crate::repository::ahead::Ahead;
use crossbeam_channel::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Tasks that wait for a worker, per worker.
const QUEUE_PER_WORKER: usize = 4;

/// Counts tasks that were handed over and are not done.
#[derive(Debug, Default)]
struct Busy {
    tasks: Mutex<usize>,
    none: Condvar,
}

/// One such task, however it ends.
struct Ticket(Arc<Busy>);

impl Ticket {
    fn new(busy: &Arc<Busy>) -> Self {
        *busy.tasks.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(busy))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        *tasks -= 1;
        if *tasks == 0 {
            self.0.none.notify_all();
        }
    }
}

/// Where tasks go.
pub(super) struct Crew {
    sender: Option<Sender<(Task, Ticket)>>,
    busy: Arc<Busy>,
    handles: Vec<Box<dyn crate::seams::Handle>>,
    ahead: Ahead,
}

impl Crew {
    pub fn start(context: &Arc<Context>) -> Result<Self> {
        let workers = context.options.workers;
        if workers == 0 {
            return Ok(Self { sender: None, busy: Arc::default(), handles: Vec::new(), ahead: context.ahead.clone() });
        }
        let (sender, receiver) = crossbeam_channel::bounded::<(Task, Ticket)>(workers * QUEUE_PER_WORKER);
        let handles = Vec::with_capacity(workers);
        let mut crew = Self { sender: Some(sender), busy: Arc::default(), handles, ahead: context.ahead.clone() };
        for number in 0..workers {
            let (shared, receiver) = (Arc::clone(context), receiver.clone());
            let body = Box::new(move || {
                while let Ok((task, _ticket)) = receiver.recv() {
                    // After a failure the queue is only emptied, so that nobody waits at its end.
                    if let Err(error) = shared.check().and_then(|()| file::work(&shared, task)) {
                        shared.fail(error);
                    }
                }
            });
            let spawn = &context.reader.repository().world.spawn;
            match spawn.spawn(&format!("restore-{number}"), body) {
                Ok(handle) => crew.handles.push(handle),
                Err(error) if crew.handles.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %error, "Restoring with fewer threads");
                    break;
                }
            }
        }
        crew.start_fetching(context);
        Ok(crew)
    }

    fn start_fetching(&mut self, context: &Context) {
        for number in 0..context.options.fetch_threads {
            self.ahead.open();
            let ahead = self.ahead.clone();
            let spawn = &context.reader.repository().world.spawn;
            match spawn.spawn(&format!("restore-fetch-{number}"), Box::new(move || ahead.serve())) {
                Ok(handle) => self.handles.push(handle),
                Err(error) => {
                    tracing::warn!(error = %error, "Fetching with fewer threads");
                    if number == 0 {
                        self.ahead.close();
                    }
                    return;
                }
            }
        }
    }

    /// Plans what the task needs, and hands it to a worker.
    pub fn submit(&self, context: &Arc<Context>, mut task: Task) -> Result<()> {
        task.plan(context, self.sender.is_some())?;
        match &self.sender {
            None => file::work(context, task),
            Some(sender) => {
                context.check()?;
                let ticket = Ticket::new(&self.busy);
                sender.send((task, ticket)).map_err(|_| Error::internal("all threads of the restore have ended"))
            }
        }
    }

    /// Waits until everything that was handed over is done.
    pub fn settle(&self, context: &Context) -> Result<()> {
        let mut tasks = self.busy.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while *tasks > 0 {
            tasks = self.busy.none.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
        drop(tasks);
        context.check()
    }

    pub fn finish(mut self) -> Result<()> {
        self.sender = None;
        self.ahead.close();
        let ended = self.handles.drain(..).map(crate::seams::Handle::join).fold(true, |all, one| all & one);
        if ended { Ok(()) } else { Err(Error::internal("a thread of the restore panicked")) }
    }
}
