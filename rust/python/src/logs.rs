//! The engine's log, kept until Python fetches it.
//!
//! Records wait in a bounded queue; no engine thread ever waits for Python, and when nobody fetches, the oldest are dropped and
//! counted. Holds no record below the level asked for. Spans are not followed: the engine puts what matters into fields.

use pyo3::prelude::*;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const RECORDS_MAX: usize = 1000;
/// Other libraries' records are fetched from this level on.
const FOREIGN: Level = Level::WARN;

static WANTED: AtomicU8 = AtomicU8::new(1);
static QUEUE: Mutex<Queue> = Mutex::new(Queue { records: VecDeque::new(), dropped: 0 });

/// Level, logger, message, fields.
type LogRecord = (&'static str, String, String, Vec<(&'static str, String)>);

struct Queue {
    records: VecDeque<LogRecord>,
    dropped: u64,
}

struct Collector;

fn wanted() -> Level {
    match WANTED.load(Relaxed) {
        0 => Level::DEBUG,
        1 => Level::INFO,
        2 => Level::WARN,
        _ => Level::ERROR,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

#[derive(Default)]
struct Reading {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Reading {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("longshore");
        // A less verbose level is the smaller one.
        *metadata.level() <= if ours { wanted() } else { FOREIGN.min(wanted()) }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut reading = Reading::default();
        event.record(&mut reading);
        let metadata = event.metadata();
        let record = (level_name(*metadata.level()), metadata.target().replace("::", "."), reading.message, reading.fields);
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.records.len() == RECORDS_MAX {
            queue.records.pop_front();
            queue.dropped += 1;
        }
        queue.records.push_back(record);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Chooses the least level that is kept.
#[pyfunction]
fn set_log_level(level: &str) {
    WANTED.store(
        match level {
            "debug" => 0,
            "info" => 1,
            "warning" => 2,
            _ => 3,
        },
        Relaxed,
    );
    tracing::callsite::rebuild_interest_cache();
}

/// Hands over what was logged since the last call, and how many records were dropped in between.
#[pyfunction]
fn take_log_records() -> (Vec<LogRecord>, u64) {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    (queue.records.drain(..).collect(), std::mem::take(&mut queue.dropped))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // Fails only when somebody else in this process set one first, which then gets the records.
    let _ = tracing::subscriber::set_global_default(Collector);
    m.add_function(wrap_pyfunction!(set_log_level, m)?)?;
    m.add_function(wrap_pyfunction!(take_log_records, m)?)
}
