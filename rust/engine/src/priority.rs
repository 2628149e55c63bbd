//! How the threads of a job stand beside everything else that wants processor and disk.
//!
//! Holds [`Priority`]. Promises that it is taken by the calling thread alone and by the threads which that one starts from then on, that
//! it never asks for more than the thread has already, and that a job goes on where the system refuses. Does not know jobs.

use rustix::process::{getpriority_process, setpriority_process};

pub use longshore_kernels::ioprio::Class as IoClass;

/// What a thread takes; nothing of what is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// Niceness, 0 to 19; a thread that is nicer already stays so.
    pub nice: Option<i32>,
    /// Class of its reads and writes.
    pub io: Option<IoClass>,
}

impl Priority {
    /// Takes it for the calling thread.
    pub fn take(&self) {
        // On Linux both calls are about the one thread that makes them, whatever POSIX says of processes.
        if let Some(nice) = self.nice
            && let Err(error) = getpriority_process(None).and_then(|now| setpriority_process(None, now.max(nice)))
        {
            tracing::warn!(nice, error = %error, "Niceness was not taken; the system does not let us");
        }
        if let Some(class) = self.io
            && let Err(error) = longshore_kernels::ioprio::take(class)
        {
            tracing::warn!(class = ?class, error = %error, "Priority of I/O was not taken; the system does not let us");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_a_new_thread(body: impl FnOnce() + Send) -> (i32, i32) {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    body();
                    // A thread that it starts: that is what inherits.
                    std::thread::spawn(|| (getpriority_process(None).unwrap(), longshore_kernels::ioprio::raw().unwrap())).join()
                })
                .join()
                .unwrap()
                .unwrap()
        })
    }

    #[test]
    fn a_thread_takes_it_and_hands_it_on_and_others_keep_theirs() {
        let before = (getpriority_process(None).unwrap(), longshore_kernels::ioprio::raw().unwrap());
        let low = Priority { nice: Some(17), io: Some(IoClass::BestEffort) };
        let (nice, io) = of_a_new_thread(|| low.take());
        assert_eq!((nice, io >> 13, io & 7), (before.0.max(17), 2, 7));
        let idle = Priority { nice: None, io: Some(IoClass::Idle) };
        let (nice, io) = of_a_new_thread(|| idle.take());
        assert_eq!((nice, io >> 13), (before.0, 3));
        assert_eq!((getpriority_process(None).unwrap(), longshore_kernels::ioprio::raw().unwrap()), before);
    }

    #[test]
    fn a_nicer_thread_stays_as_nice_also_where_it_might_rise() {
        let (nice, _) = of_a_new_thread(|| {
            Priority { nice: Some(18), io: None }.take();
            Priority { nice: Some(5), io: None }.take();
        });
        assert!(nice >= 18, "{nice}");
    }
}
