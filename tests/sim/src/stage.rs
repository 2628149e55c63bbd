//! Time and turns: who of several processes makes the next call.
//!
//! Each process has a thread of its own, and exactly one of them runs at any moment: at every call of store, filesystem or clock it says
//! when it wants to go on, and the one that wants to go on first does. Time jumps to that moment. So a schedule depends on the seed alone,
//! pauses of a month take no time, and nothing is ever raced. Does not know what is called.

use longshore_store::{Clock, Rng};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A second in the stage's time.
pub const SECOND: u64 = 1_000_000_000;
/// A day in the stage's time.
pub const DAY: u64 = 86_400 * SECOND;
/// What the wall shows when the stage begins: 2026-01-01.
const WALL_NANOS: i64 = 1_767_225_600 * 1_000_000_000;

/// Where processes take turns.
#[derive(Debug)]
pub struct Stage {
    state: Mutex<State>,
    seats: Vec<Condvar>,
}

#[derive(Debug)]
struct State {
    now: u64,
    /// When each process wants to go on; none: it has left.
    wake: Vec<Option<u64>>,
    running: Option<usize>,
    steps: u64,
    /// A hash of all that happened, in order.
    trace: u64,
    /// All that happened, in words, when somebody wants to know.
    told: Option<Vec<String>>,
}

impl Stage {
    /// A stage that begins at `now` for processes that first want to run at these moments.
    #[must_use]
    pub fn new(now: u64, wake: Vec<u64>) -> Arc<Self> {
        let seats = wake.iter().map(|_| Condvar::new()).collect();
        let wake = wake.into_iter().map(|at| Some(at.max(now))).collect();
        let mut state = State { now, wake, running: None, steps: 0, trace: 0xcbf2_9ce4_8422_2325, told: None };
        state.choose();
        Arc::new(Self { state: Mutex::new(state), seats })
    }

    /// A stage for one process, on the calling thread.
    #[must_use]
    pub fn alone(now: u64) -> Arc<Self> {
        Self::new(now, vec![now])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a process may begin.
    pub fn enter(&self, process: usize) {
        self.wait(self.lock(), process);
    }

    /// Lets others run for so long, at least; the moment when the process goes on.
    pub fn step(&self, process: usize, pause_nanos: u64) -> u64 {
        let mut state = self.lock();
        state.steps += 1;
        state.wake[process] = Some(state.now.saturating_add(pause_nanos));
        state.choose();
        if state.running != Some(process) {
            self.call(&state);
            return self.wait(state, process);
        }
        state.now
    }

    /// Leaves for good.
    pub fn leave(&self, process: usize) {
        let mut state = self.lock();
        state.wake[process] = None;
        state.choose();
        self.call(&state);
    }

    fn call(&self, state: &State) {
        if let Some(next) = state.running {
            self.seats[next].notify_one();
        }
    }

    fn wait(&self, mut state: MutexGuard<'_, State>, process: usize) -> u64 {
        while state.running != Some(process) {
            state = self.seats[process].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.now
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.lock().now
    }

    /// Turns time on while nobody else runs.
    pub fn advance(&self, nanos: u64) {
        let mut state = self.lock();
        state.now = state.now.saturating_add(nanos);
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Adds to the hash of what happened.
    pub fn note(&self, process: usize, text: &str, number: u64) {
        let mut state = self.lock();
        let mut hash = state.trace ^ state.now;
        for byte in text.bytes().chain(number.to_le_bytes()).chain([process as u8]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        state.trace = hash;
    }

    /// Keeps in words what happens from now on.
    pub fn listen(&self) {
        self.lock().told = Some(vec![]);
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.lock().told.is_some()
    }

    /// Says in words what happened.
    pub fn tell(&self, process: usize, text: &str) {
        let mut state = self.lock();
        let line = format!("{:>12.3} s  {process}  {text}", state.now as f64 / SECOND as f64);
        state.told.iter_mut().for_each(|told| told.push(line.clone()));
    }

    /// What was said since somebody listens.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.lock().told.clone().unwrap_or_default()
    }

    /// The hash of all that happened: equal for equal runs.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }
}

impl State {
    /// Whoever wants to go on first; of two, the one that was named first.
    fn choose(&mut self) {
        let next = self.wake.iter().enumerate().filter_map(|(process, at)| at.map(|at| (at, process))).min();
        self.running = next.map(|(at, process)| {
            self.now = self.now.max(at);
            process
        });
    }
}

/// One process's clock: the stage's time, seen through a skew that may change in mid-run.
#[derive(Debug)]
pub struct SimClock {
    stage: Arc<Stage>,
    process: usize,
    skew_nanos: i64,
    /// From this moment on the wall shows so much more.
    jump: (u64, i64),
}

impl SimClock {
    /// A clock that is `skew_nanos` ahead, and from the moment `jump.0` on another `jump.1`.
    #[must_use]
    pub fn new(stage: Arc<Stage>, process: usize, skew_nanos: i64, jump: (u64, i64)) -> Self {
        Self { stage, process, skew_nanos, jump }
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.stage.now())
    }

    fn wall_nanos(&self) -> i64 {
        let now = self.stage.now();
        let jumped = if now >= self.jump.0 { self.jump.1 } else { 0 };
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        WALL_NANOS.saturating_add(now).saturating_add(self.skew_nanos).saturating_add(jumped)
    }

    fn sleep(&self, duration: Duration) {
        self.stage.step(self.process, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// One process's randomness.
#[derive(Debug)]
pub struct SimRng(AtomicU64);

impl SimRng {
    /// Randomness for a seed and a process.
    #[must_use]
    pub fn new(seed: u64, process: u64) -> Self {
        Self(AtomicU64::new(crate::draw::Draw::new(seed, 0x5eed ^ process << 20).number()))
    }
}

impl Rng for SimRng {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let mut draw = crate::draw::Draw::new(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed), 1);
            part.copy_from_slice(&draw.number().to_le_bytes()[..part.len()]);
        }
    }
}
