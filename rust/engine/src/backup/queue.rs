//! What waits for workers: tasks, and invitations to runs of large files.
//!
//! Walkers and fetchers put tasks in, and wait while there are many. They wait until more than half of them are gone: woken for each place that comes
//! free, walkers who are faster than workers cost a change of thread for each small directory, 57,000 of them and 8 % of the processor's
//! time over 112,000 files in 50,000 directories. Workers take invitations first. Nobody waits to invite: what does not fit is not said.
//!
//! Promises that what waits is bounded; that tasks are taken in the order in which they came; that who waits here is woken when there is
//! nobody left to wait for, panics included; and that a worker who has no more tasks is still lent out while others may invite. Does not know
//! what a task is.

use super::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Tasks of one worker at which those who put more in wait. A task may hold a directory open.
const TASKS_MAX: usize = 32;
/// The same by what the tasks weigh, in files. What waits here is not read ahead should the volume turn out to be slow.
const WEIGHT_MAX: usize = 128;
/// Below so many of one worker, workers may soon have nothing to do.
const TASKS_FEW: usize = 2;

/// The queue between those who walk and those who read.
#[derive(Debug)]
pub(super) struct Queue<T, I> {
    state: Mutex<State<T, I>>,
    /// Somebody put something in, or nothing more will come.
    fed: Condvar,
    /// More than half of the tasks are gone, or nobody takes any.
    drained: Condvar,
    workers: usize,
}

#[derive(Debug)]
struct State<T, I> {
    tasks: VecDeque<(T, usize)>,
    /// Of all tasks.
    weight: usize,
    invitations: VecDeque<I>,
    /// Workers who wait for something.
    idle: usize,
    /// How many wait to put something in.
    waiting: usize,
    /// Workers who take tasks.
    seats: usize,
    closed: bool,
}

/// A worker's place at the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat<T, I> {
    queue: Arc<Queue<T, I>>,
    /// Still takes tasks, and so may invite.
    is_taken: bool,
}

/// What a worker is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T, I> {
    Task(T),
    Invitation(I),
}

/// Nobody takes tasks any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deserted;

impl<T, I> Queue<T, I> {
    /// A queue for so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        let state = State {
            tasks: VecDeque::new(),
            weight: 0,
            invitations: VecDeque::new(),
            idle: 0,
            waiting: 0,
            seats: 0,
            closed: false,
        };
        Arc::new(Self { state: Mutex::new(state), fed: Condvar::new(), drained: Condvar::new(), workers })
    }

    /// A place for one more worker; all are taken before the first task comes.
    pub fn seat(self: &Arc<Self>) -> Seat<T, I> {
        lock(&self.state).seats += 1;
        Seat { queue: Arc::clone(self), is_taken: true }
    }

    /// Whether this part of all that may wait, or more, does.
    fn has(&self, state: &State<T, I>, part: usize) -> bool {
        state.tasks.len() * part >= TASKS_MAX * self.workers || state.weight * part >= WEIGHT_MAX * self.workers
    }

    /// Puts a task in; waits while there are many.
    ///
    /// # Errors
    /// `Deserted`: no worker is left to take it.
    pub fn send(&self, task: T, weight: usize) -> Result<(), Deserted> {
        let mut state = lock(&self.state);
        if self.has(&state, 1) {
            state.waiting += 1;
            while state.seats > 0 && self.has(&state, 1) {
                state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
        }
        if state.seats == 0 {
            return Err(Deserted);
        }
        state.tasks.push_back((task, weight));
        state.weight += weight;
        if state.idle > 0 {
            self.fed.notify_one();
        }
        Ok(())
    }

    /// Whether workers have less to do than they could.
    pub fn has_few(&self) -> bool {
        lock(&self.state).tasks.len() < TASKS_FEW * self.workers
    }

    /// Nothing more will come: workers end when the tasks are done.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.fed.notify_all();
    }
}

impl<T, I: Clone> Seat<T, I> {
    /// Invites the other workers, as far as they have no invitations yet.
    pub fn invite(&self, invitation: &I) {
        let workers = self.queue.workers;
        let mut state = lock(&self.queue.state);
        for _ in 1..workers {
            if state.invitations.len() >= workers {
                // There is more to do than there are threads.
                break;
            }
            state.invitations.push_back(invitation.clone());
        }
        if state.idle > 0 {
            self.queue.fed.notify_all();
        }
    }
}

impl<T, I> Seat<T, I> {
    /// What to do next, an invitation first. None: there are no more tasks, and nobody is left who might invite.
    pub fn next(&mut self) -> Option<Next<T, I>> {
        let queue = Arc::clone(&self.queue);
        let mut state = lock(&queue.state);
        loop {
            if let Some(invitation) = state.invitations.pop_front() {
                return Some(Next::Invitation(invitation));
            }
            if let Some((task, weight)) = state.tasks.pop_front() {
                state.weight -= weight;
                if state.waiting > 0 && !queue.has(&state, 2) {
                    queue.drained.notify_all();
                }
                return Some(Next::Task(task));
            }
            if state.closed {
                self.give_up(&mut state);
                if state.seats == 0 {
                    return None;
                }
            }
            state.idle += 1;
            state = queue.fed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn give_up(&mut self, state: &mut State<T, I>) {
        if std::mem::take(&mut self.is_taken) {
            state.seats -= 1;
            if state.seats == 0 {
                self.queue.fed.notify_all();
                self.queue.drained.notify_all();
            }
        }
    }
}

impl<T, I> Drop for Seat<T, I> {
    fn drop(&mut self) {
        let queue = Arc::clone(&self.queue);
        self.give_up(&mut lock(&queue.state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::{scope, yield_now};

    type Numbers = Arc<Queue<usize, usize>>;

    fn waiting(queue: &Numbers, count: usize) {
        while lock(&queue.state).waiting < count {
            yield_now();
        }
    }

    fn tasks(queue: &Numbers) -> usize {
        lock(&queue.state).tasks.len()
    }

    #[test]
    fn whatever_is_put_in_comes_out_once_and_all_end() {
        for (senders, workers) in [(1, 1), (1, 3), (3, 1), (4, 4)] {
            let (queue, sum): (Numbers, _) = (Queue::new(workers), AtomicUsize::new(0));
            let seats: Vec<_> = (0..workers).map(|_| queue.seat()).collect();
            scope(|all| {
                for mut seat in seats {
                    let sum = &sum;
                    all.spawn(move || {
                        while let Some(Next::Task(number)) = seat.next() {
                            sum.fetch_add(number, SeqCst);
                        }
                    });
                }
                let sending: Vec<_> =
                    (0..senders).map(|_| all.spawn(|| (1..=10_000).for_each(|number| queue.send(number, 1).unwrap()))).collect();
                sending.into_iter().for_each(|thread| thread.join().unwrap());
                queue.close();
            });
            assert_eq!(sum.into_inner(), senders * 50_005_000, "{senders} senders, {workers} workers");
        }
    }

    #[test]
    fn who_waits_is_woken_when_less_than_half_is_left_and_not_before() {
        // Many light ones, and few heavy ones.
        for (fits, weight) in [(TASKS_MAX, 1), (4, WEIGHT_MAX / 4)] {
            let queue: Numbers = Queue::new(1);
            let mut seat = queue.seat();
            (0..fits).for_each(|number| queue.send(number, weight).unwrap());
            scope(|all| {
                let sender = all.spawn(|| queue.send(fits, weight));
                waiting(&queue, 1);
                for number in 0..fits / 2 {
                    assert_eq!(seat.next(), Some(Next::Task(number)));
                }
                // It has had every chance to come by now.
                for _ in 0..1000 {
                    yield_now();
                }
                assert_eq!(lock(&queue.state).waiting, 1);
                assert_eq!(seat.next(), Some(Next::Task(fits / 2)));
                sender.join().unwrap().unwrap();
            });
            assert_eq!((tasks(&queue), lock(&queue.state).weight), (fits / 2, fits / 2 * weight));
        }
    }

    #[test]
    fn invitations_come_first_and_no_more_than_there_are_workers() {
        let queue: Numbers = Queue::new(3);
        let (one, mut other) = (queue.seat(), queue.seat());
        queue.send(7, 1).unwrap();
        assert!(queue.has_few());
        (0..5).for_each(|run| one.invite(&run));
        for run in [0, 0, 1] {
            assert_eq!(other.next(), Some(Next::Invitation(run)));
        }
        assert_eq!(other.next(), Some(Next::Task(7)));
        queue.close();
        scope(|all| {
            // One has no more tasks, and waits because the other may still invite.
            let idle = all.spawn(move || (other.next(), other.next(), other.next()));
            while lock(&queue.state).idle == 0 {
                yield_now();
            }
            one.invite(&9);
            drop(one);
            assert_eq!(idle.join().unwrap(), (Some(Next::Invitation(9)), Some(Next::Invitation(9)), None));
        });
    }

    #[test]
    fn nobody_waits_for_workers_that_are_gone() {
        let queue: Numbers = Queue::new(1);
        let seat = queue.seat();
        (0..TASKS_MAX).for_each(|number| queue.send(number, 1).unwrap());
        scope(|all| {
            let sender = all.spawn(|| queue.send(TASKS_MAX, 1));
            waiting(&queue, 1);
            let worker = all.spawn(move || {
                let _seat = seat;
                panic!("as a worker might");
            });
            assert!(worker.join().is_err());
            assert_eq!(sender.join().unwrap(), Err(Deserted));
        });
        assert_eq!(queue.send(0, 1), Err(Deserted));
    }
}
