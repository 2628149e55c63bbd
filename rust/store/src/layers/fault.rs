//! Faults on purpose: a store that fails, lies, loses or dies at any chosen call.
//!
//! A [`Plan`] sees every call before it is made and says what becomes of it. The same plan over the same calls does the same, so a
//! crash test counts the calls of a run and then repeats it once for each of them. Does not know why calls are made.

use super::Verb;
use crate::{Key, Page, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One call, as a plan sees it. Both numbers begin at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Which call of all.
    pub number: u64,
    /// What is asked.
    pub verb: Verb,
    /// Which call of this verb.
    pub nth: u64,
    /// The key, or a listing's prefix.
    pub key: &'a str,
}

/// What becomes of a call. What does not apply to its verb counts as [`Effect::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing special.
    Pass,
    /// Fails; the store is not asked.
    FailBefore(StoreErrorKind),
    /// The store does it, and the answer is lost.
    FailAfter(StoreErrorKind),
    /// Put: only a beginning of the body lands, and the call fails as unavailable.
    Torn {
        /// What lands, in bytes.
        keep_bytes: usize,
    },
    /// Put: only a beginning of the body lands, and the call succeeds. Get: only a beginning comes back, and the call succeeds.
    Cut {
        /// What lands or comes back, in bytes.
        keep_bytes: usize,
    },
    /// Put: one bit is stored wrong. Get: one bit comes back wrong.
    Flip {
        /// Which bit, modulo the length of the body in bits.
        bit: u64,
    },
    /// Put or delete: succeeds, and nothing was done.
    Lose,
    /// List: ends early and says that it is whole.
    Short {
        /// Entries that are shown.
        keep_entries: usize,
    },
    /// List: about half of the entries are left out, the same ones for the same seed.
    Hide {
        /// Chooses which.
        seed: u64,
    },
    /// The process dies before the call: this one and all later ones fail and do not reach the store.
    StopBefore,
    /// The process dies after the call took effect.
    StopAfter,
    /// The process dies while a put is torn.
    StopTorn {
        /// What lands, in bytes.
        keep_bytes: usize,
    },
}

/// Says what becomes of each call. Closures are plans; one may also count, wait or look on.
pub trait Plan: Send + Sync {
    /// What becomes of `call`.
    fn effect(&self, call: &Call<'_>) -> Effect;
}

impl<F: Fn(&Call<'_>) -> Effect + Send + Sync> Plan for F {
    fn effect(&self, call: &Call<'_>) -> Effect {
        self(call)
    }
}

/// A plan as a table: what becomes of the n-th call (from zero) of a verb. All others pass.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<(Verb, u64, Effect)>);

impl Script {
    /// A plan without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    #[must_use]
    pub fn on(mut self, verb: Verb, nth: u64, effect: Effect) -> Self {
        self.0.push((verb, nth, effect));
        self
    }
}

impl Plan for Script {
    fn effect(&self, call: &Call<'_>) -> Effect {
        let row = self.0.iter().find(|(verb, nth, _)| (*verb, *nth) == (call.verb, call.nth));
        row.map_or(Effect::Pass, |(_, _, effect)| *effect)
    }
}

/// A plan in which `per_thousand` of all calls are unavailable, half before and half after the effect.
pub fn random_failures(seed: u64, per_thousand: u64) -> impl Plan {
    move |call: &Call<'_>| {
        let draw = mix(seed ^ mix(call.number));
        match (draw % 1000 < per_thousand, draw & (1 << 40) == 0) {
            (false, _) => Effect::Pass,
            (true, true) => Effect::FailBefore(StoreErrorKind::Unavailable),
            (true, false) => Effect::FailAfter(StoreErrorKind::Unavailable),
        }
    }
}

/// A store with faults.
pub struct Fault<S> {
    inner: S,
    plan: Arc<dyn Plan>,
    number: AtomicU64,
    nth: [AtomicU64; 6],
    stopped: AtomicBool,
}

impl<S: Store> Fault<S> {
    /// Puts `plan` before `inner`.
    pub fn new(inner: S, plan: impl Plan + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), number: AtomicU64::new(0), nth: Default::default(), stopped: AtomicBool::new(false) }
    }

    /// Calls so far, those after a stop included.
    pub fn calls(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// Calls of one verb so far.
    pub fn calls_of(&self, verb: Verb) -> u64 {
        self.nth[verb.number()].load(Ordering::SeqCst)
    }

    /// Lets the process die now.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether it has died.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The store behind the faults, to look at what a crash left.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn next(&self, verb: Verb, key: &str) -> Result<Effect, StoreError> {
        let call = Call {
            number: self.number.fetch_add(1, Ordering::SeqCst),
            verb,
            nth: self.nth[verb.number()].fetch_add(1, Ordering::SeqCst),
            key,
        };
        if self.is_stopped() {
            return Err(stopped(verb, key));
        }
        match self.plan.effect(&call) {
            Effect::FailBefore(kind) => Err(fault(kind, verb, key)),
            Effect::StopBefore => {
                self.stop();
                Err(stopped(verb, key))
            }
            effect => Ok(effect),
        }
    }

    /// What every verb does once the store has done its part.
    fn after<T>(&self, effect: Effect, verb: Verb, key: &str, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match effect {
            Effect::FailAfter(kind) => Err(fault(kind, verb, key)),
            Effect::StopAfter | Effect::StopTorn { .. } => {
                self.stop();
                Err(stopped(verb, key))
            }
            _ => result,
        }
    }

    fn body(&self, verb: Verb, key: &Key, call: impl FnOnce() -> Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let effect = self.next(verb, key.as_str())?;
        let body = call();
        let body = match effect {
            Effect::Cut { keep_bytes } => body.map(|b| b.slice(..keep_bytes.min(b.len()))),
            Effect::Flip { bit } => body.map(|b| flipped(&b, bit)),
            _ => body,
        };
        self.after(effect, verb, key.as_str(), body)
    }
}

impl<S: Store> Store for Fault<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let effect = self.next(Verb::PutNew, key.as_str())?;
        let cut = |keep: usize| body.slice(..keep.min(body.len()));
        let result = match effect {
            Effect::Lose => return Ok(Put::Created),
            Effect::Torn { keep_bytes } => {
                self.inner.put_new(key, cut(keep_bytes))?;
                return Err(fault(StoreErrorKind::Unavailable, Verb::PutNew, key.as_str()));
            }
            Effect::Cut { keep_bytes } | Effect::StopTorn { keep_bytes } => self.inner.put_new(key, cut(keep_bytes)),
            Effect::Flip { bit } => self.inner.put_new(key, flipped(&body, bit)),
            _ => self.inner.put_new(key, body.clone()),
        };
        self.after(effect, Verb::PutNew, key.as_str(), result)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.body(Verb::Get, key, || self.inner.get(key, limit_bytes))
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.body(Verb::GetRange, key, || self.inner.get_range(key, offset_bytes, length_bytes))
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        let effect = self.next(Verb::Head, key.as_str())?;
        self.after(effect, Verb::Head, key.as_str(), self.inner.head(key))
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let effect = self.next(Verb::List, prefix)?;
        let page = self.inner.list(prefix, after, limit).map(|mut page| {
            match effect {
                Effect::Short { keep_entries } => {
                    page.entries.truncate(keep_entries);
                    page.more = false;
                }
                // The last of a page that has more stays, as callers go on from it.
                Effect::Hide { seed } => {
                    let last = if page.more { page.entries.last().cloned() } else { None };
                    page.entries.retain(|entry| is_shown(seed, &entry.key) || Some(entry) == last.as_ref());
                }
                _ => {}
            }
            page
        });
        self.after(effect, Verb::List, prefix, page)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let effect = self.next(Verb::Delete, key.as_str())?;
        if effect == Effect::Lose {
            return Ok(());
        }
        self.after(effect, Verb::Delete, key.as_str(), self.inner.delete(key))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

impl<S: fmt::Debug> fmt::Debug for Fault<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("inner", &self.inner)
            .field("calls", &self.number)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

fn fault(kind: StoreErrorKind, verb: Verb, key: &str) -> StoreError {
    StoreError::new(kind, format!("fault on purpose: verb={verb}, key={key}"))
}

fn stopped(verb: Verb, key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Io, format!("process was stopped on purpose: verb={verb}, key={key}"))
}

fn flipped(body: &Bytes, bit: u64) -> Bytes {
    let mut out = body.to_vec();
    let bits = out.len() as u64 * 8;
    if let Some(byte) = bit.checked_rem(bits).and_then(|at| out.get_mut(usize::try_from(at / 8).ok()?)) {
        *byte ^= 1 << (bit % bits % 8);
    }
    Bytes::from(out)
}

fn is_shown(seed: u64, key: &Key) -> bool {
    key.as_str().bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte))) & (1 << 32) == 0
}

// Murmur3's finalizer: a bijection whose every output bit depends on every input bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
