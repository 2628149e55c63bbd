//! Who walks what: several walkers on one volume.
//!
//! A walker goes over the directories below one that it was given by itself, depth first. When it has none left it asks, and whoever comes to
//! a directory while somebody asks gives that one away instead of entering it. So a subtree changes hands only while somebody is idle, and
//! what waits to change hands is at most one directory for each walker. Promises that memory and descriptors stay bounded as with one
//! walker: each has a share of entries and of depth, and only one at a time may go beyond its share, with the pool's [`Room`]. Who waits for the
//! room holds none, and who has it waits for no walker. Knows nothing of what a directory is.

use super::lock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What the walkers of one backup share: directories that change hands, and the room beyond the shares.
#[derive(Debug)]
pub(super) struct Pool<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Whether more ask than directories are offered. A hint, so that nobody takes the lock for each directory.
    wanted: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    walkers: usize,
    asking: usize,
    offered: Vec<T>,
    room_taken: bool,
    over: bool,
}

/// Leave to go beyond one's share, until it is dropped.
#[derive(Debug)]
pub(super) struct Room<T>(Arc<Pool<T>>);

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        lock(&self.0.state).room_taken = false;
        self.0.changed.notify_all();
    }
}

impl<T> Pool<T> {
    /// A pool of one walker.
    pub fn new() -> Self {
        let state = State { walkers: 1, asking: 0, offered: Vec::new(), room_taken: false, over: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), wanted: AtomicBool::new(false) }
    }

    /// Counts one more walker in, who is going to [`Pool::take`].
    pub fn join(&self) {
        lock(&self.state).walkers += 1;
    }

    fn hint(&self, state: &State<T>) {
        self.wanted.store(!state.over && state.asking > state.offered.len(), Relaxed);
    }

    /// Whether somebody has nothing to walk.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Gives a directory to who asks; it comes back when nobody does.
    pub fn offer(&self, directory: T) -> Option<T> {
        let mut state = lock(&self.state);
        if state.over || state.asking <= state.offered.len() {
            return Some(directory);
        }
        state.offered.push(directory);
        self.hint(&state);
        self.changed.notify_all();
        None
    }

    /// Waits for a directory. None: there is nothing left to walk, or the walk has been ended.
    pub fn take(&self) -> Option<T> {
        let mut state = lock(&self.state);
        state.asking += 1;
        loop {
            if state.over {
                return None;
            }
            if let Some(directory) = state.offered.pop() {
                state.asking -= 1;
                self.hint(&state);
                return Some(directory);
            }
            if state.asking == state.walkers {
                drop(state);
                self.end();
                return None;
            }
            self.hint(&state);
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the walk for all: each walker finds nothing more to take.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.over = true;
        state.offered.clear();
        self.hint(&state);
        self.changed.notify_all();
    }

    /// The room, if nobody has it.
    pub fn try_room(self: &Arc<Self>) -> Option<Room<T>> {
        let mut state = lock(&self.state);
        if state.room_taken {
            return None;
        }
        state.room_taken = true;
        Some(Room(Arc::clone(self)))
    }

    /// Waits for the room. None: the walk has been ended.
    pub fn room(self: &Arc<Self>) -> Option<Room<T>> {
        let mut state = lock(&self.state);
        while state.room_taken {
            if state.over {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.room_taken = true;
        Some(Room(Arc::clone(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Walks a tree of numbers, each with as many below it as it says, and counts.
    fn walk(pool: &Pool<u32>, first: Option<u32>, seen: &AtomicUsize, given: &AtomicUsize) {
        let mut next = first.or_else(|| pool.take());
        while let Some(start) = next {
            let mut stack = vec![start];
            while let Some(number) = stack.pop() {
                seen.fetch_add(1, Relaxed);
                for below in 0..number {
                    let kept = if pool.is_wanted() { pool.offer(below) } else { Some(below) };
                    given.fetch_add(usize::from(kept.is_none()), Relaxed);
                    stack.extend(kept);
                }
            }
            next = pool.take();
        }
    }

    #[test]
    fn whatever_changes_hands_all_is_walked_once_and_all_walkers_end() {
        for walkers in [1, 2, 3, 8] {
            let (pool, seen, given) = (Pool::new(), AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 1..walkers {
                    pool.join();
                    scope.spawn(|| walk(&pool, None, &seen, &given));
                }
                // The first waits until the others ask, so that there is somebody to give to.
                while lock(&pool.state).asking < walkers - 1 {
                    std::thread::yield_now();
                }
                walk(&pool, Some(14), &seen, &given);
            });
            assert_eq!(seen.into_inner(), 1 << 14, "{walkers} walkers");
            assert_eq!(given.into_inner() > 0, walkers > 1, "{walkers} walkers");
        }
    }

    #[test]
    fn one_at_a_time_has_the_room_and_an_ended_walk_lets_nobody_wait() {
        let pool = Arc::new(Pool::<u32>::new());
        let room = pool.try_room().unwrap();
        assert!(pool.try_room().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.room().is_some());
            drop(room);
            assert!(waiting.join().unwrap());
        });
        let room = pool.room().unwrap();
        pool.join();
        std::thread::scope(|scope| {
            let (waiting, asking) = (scope.spawn(|| pool.room().is_some()), scope.spawn(|| pool.take().is_some()));
            while lock(&pool.state).asking == 0 {
                std::thread::yield_now();
            }
            pool.end();
            assert!(!waiting.join().unwrap() && !asking.join().unwrap());
        });
        assert_eq!(pool.offer(1), Some(1));
        drop(room);
    }
}
