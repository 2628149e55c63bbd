//! What a test's own process takes of memory while something runs: anonymous memory, as the kernel counts it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// What it takes now.
pub fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Gives what the work gave, and the most that the process took meanwhile.
pub fn peak_while<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let out = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                peak.fetch_max(anonymous_bytes(), SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let out = work();
        done.store(true, SeqCst);
        out
    });
    (out, peak.load(SeqCst))
}
