//! Counts requests and bytes by verb, and failures by kind.
//!
//! Promises exact numbers under any concurrency, at the price of a few relaxed atomics; a snapshot of several numbers is not one
//! instant. Does not know time.

use super::Verb;
use crate::{Key, Page, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
}

/// The numbers of one verb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerbCounts {
    /// Calls that were made, failed ones included.
    pub requests: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Bytes of bodies that went up in calls that did not fail, or came down.
    pub bytes: u64,
}

/// The numbers behind a [`Count`]; shared, so that a job can read them while it runs.
#[derive(Debug, Default)]
pub struct Counts {
    verbs: [Cell; 6],
    kinds: [AtomicU64; StoreErrorKind::ALL.len()],
}

impl Counts {
    /// The numbers of `verb` now.
    #[must_use]
    pub fn verb(&self, verb: Verb) -> VerbCounts {
        let cell = &self.verbs[verb.number()];
        VerbCounts {
            requests: cell.requests.load(Ordering::Relaxed),
            errors: cell.errors.load(Ordering::Relaxed),
            bytes: cell.bytes.load(Ordering::Relaxed),
        }
    }

    /// Calls of any verb that failed in this way. An object that is not there is one, and often the answer that was hoped for.
    #[must_use]
    pub fn errors(&self, kind: StoreErrorKind) -> u64 {
        self.kinds[kind.number()].load(Ordering::Relaxed)
    }

    /// Requests of all verbs.
    #[must_use]
    pub fn requests(&self) -> u64 {
        Verb::ALL.iter().map(|&verb| self.verb(verb).requests).sum()
    }

    /// Bytes sent up.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.verb(Verb::PutNew).bytes
    }

    /// Bytes of bodies brought down.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.verb(Verb::Get).bytes + self.verb(Verb::GetRange).bytes
    }
}

/// A store that counts what it is asked.
#[derive(Debug)]
pub struct Count<S> {
    inner: S,
    counts: Arc<Counts>,
}

impl<S: Store> Count<S> {
    /// Counts into `counts`.
    pub fn new(inner: S, counts: Arc<Counts>) -> Self {
        Self { inner, counts }
    }

    fn note<T>(&self, verb: Verb, result: Result<T, StoreError>, bytes: impl Fn(&T) -> usize) -> Result<T, StoreError> {
        let cell = &self.counts.verbs[verb.number()];
        cell.requests.fetch_add(1, Ordering::Relaxed);
        match &result {
            Ok(value) => cell.bytes.fetch_add(bytes(value) as u64, Ordering::Relaxed),
            Err(error) => {
                self.counts.kinds[error.kind().number()].fetch_add(1, Ordering::Relaxed);
                cell.errors.fetch_add(1, Ordering::Relaxed)
            }
        };
        result
    }
}

impl<S: Store> Store for Count<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let size = body.len();
        self.note(Verb::PutNew, self.inner.put_new(key, body), |_| size)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.note(Verb::Get, self.inner.get(key, limit_bytes), Bytes::len)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.note(Verb::GetRange, self.inner.get_range(key, offset_bytes, length_bytes), Bytes::len)
    }

    fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let size = out.len();
        self.note(Verb::GetRange, self.inner.get_range_into(key, offset_bytes, out), |()| size)
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.note(Verb::Head, self.inner.head(key), |_| 0)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.note(Verb::List, self.inner.list(prefix, after, limit), |_| 0)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.note(Verb::Delete, self.inner.delete(key), |()| 0)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, Fault, Script};
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn failures_are_counted_by_verb_and_by_kind() {
        let key = |text| Key::new(text).unwrap();
        let counts = Arc::new(Counts::default());
        let script = Script::new()
            .on(Verb::Get, 0, Effect::FailBefore(StoreErrorKind::Unavailable))
            .on(Verb::Get, 1, Effect::FailBefore(StoreErrorKind::Unavailable))
            .on(Verb::GetRange, 0, Effect::FailBefore(StoreErrorKind::Denied));
        let memory = MemoryStore::new();
        memory.put_new(&key("a"), Bytes::from_static(b"xyz")).unwrap();
        let store = Count::new(Fault::new(memory, script), Arc::clone(&counts));
        assert!(store.get(&key("a"), 9).is_err() && store.get(&key("a"), 9).is_err());
        assert_eq!(store.get(&key("a"), 9).unwrap(), "xyz");
        let mut out = [0; 2];
        store.get_range_into(&key("a"), 1, &mut out).unwrap_err();
        store.get_range_into(&key("a"), 1, &mut out).unwrap();
        assert_eq!((&out[..], store.head(&key("b")).unwrap_err().kind()), (&b"yz"[..], StoreErrorKind::NotFound));
        let seen: Vec<_> = StoreErrorKind::ALL.iter().map(|&kind| (kind.name(), counts.errors(kind))).collect();
        let seen: Vec<_> = seen.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(seen, [("not_found", 1), ("unavailable", 2), ("denied", 1)]);
        let get = counts.verb(Verb::Get);
        assert_eq!((get.requests, get.errors, get.bytes, counts.verb(Verb::GetRange).bytes), (3, 2, 3, 2));
        for (number, kind) in StoreErrorKind::ALL.iter().enumerate() {
            assert_eq!(kind.number(), number, "{kind:?}");
        }
    }
}
