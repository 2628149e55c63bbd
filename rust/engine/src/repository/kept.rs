//! What was fetched and may be wanted again, within a number of bytes. Knows nothing of where it comes from.

use crate::error::Result;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

/// A cache from which several threads never fetch the same thing at once: who comes second waits for the first.
#[derive(Debug)]
pub(super) struct Shared<K, V> {
    state: Mutex<(ByteCache<K, V>, HashSet<K>)>,
    landed: Condvar,
}

/// Takes a key out of the set of those being fetched, however the fetch ended.
struct Flight<'a, K: Copy + Eq + std::hash::Hash, V: Clone>(&'a Shared<K, V>, K);

impl<K: Copy + Eq + std::hash::Hash, V: Clone> Drop for Flight<'_, K, V> {
    fn drop(&mut self) {
        lock(&self.0.state).1.remove(&self.1);
        self.0.landed.notify_all();
    }
}

impl<K: Copy + Eq + std::hash::Hash, V: Clone> Shared<K, V> {
    /// An empty one for so many bytes.
    pub fn new(budget: usize) -> Self {
        Self { state: Mutex::new((ByteCache::new(budget), HashSet::new())), landed: Condvar::new() }
    }

    /// What is kept under a key, or what `make` makes of it: a value and how many bytes it takes.
    pub fn get_or(&self, key: K, make: impl FnOnce() -> Result<(V, usize)>) -> Result<V> {
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = state.0.get(&key) {
                return Ok(found);
            }
            if state.1.insert(key) {
                break;
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let _flight = Flight(self, key);
        let (value, bytes) = make()?;
        lock(&self.state).0.put(key, value.clone(), bytes);
        Ok(value)
    }

    /// Keeps it no longer.
    pub fn remove(&self, key: &K) {
        lock(&self.state).0.remove(key);
    }
}

/// Least recently added out first, by bytes; what was used since it was added, or since its turn came last, stays for another turn.
#[derive(Debug)]
struct ByteCache<K, V> {
    map: HashMap<K, (V, bool)>,
    order: VecDeque<(K, usize)>,
    bytes: usize,
    budget: usize,
}

impl<K: Copy + Eq + std::hash::Hash, V: Clone> ByteCache<K, V> {
    fn new(budget: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), bytes: 0, budget }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let (value, used) = self.map.get_mut(key)?;
        *used = true;
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V, bytes: usize) {
        if self.map.insert(key, (value, false)).is_none() {
            self.order.push_back((key, bytes));
            self.bytes += bytes;
        }
        // What is new has no turn here, so each of the others has two at most.
        while self.bytes > self.budget && self.order.len() > 1 {
            let Some((old, size)) = self.order.pop_front() else { break };
            if old == key || self.map.get_mut(&old).is_some_and(|(_, used)| std::mem::take(used)) {
                self.order.push_back((old, size));
            } else {
                self.map.remove(&old);
                self.bytes -= size;
            }
        }
    }

    fn remove(&mut self, key: &K) {
        if self.map.remove(key).is_some()
            && let Some(at) = self.order.iter().position(|(k, _)| k == key)
            && let Some((_, size)) = self.order.remove(at)
        {
            self.bytes -= size;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
