//! A snapshot that a clock years ahead has dated: it is restored like any other, and nobody takes it for the newest.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::back_up_alone;
use common::{init, noise, write};
use longshore_engine::repository::Repository;
use longshore_engine::seams::World;
use longshore_format::id::SessionId;
use longshore_store::{MemoryStore, VirtualClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn at(repository: &Repository, ahead: Duration) -> Repository {
    let clock = Arc::new(VirtualClock::new());
    clock.advance(ahead);
    repository.with_world(World { clock, ..repository.world().clone() })
}

fn backup(repository: &Repository, path: &Path) -> (SessionId, Option<SessionId>) {
    let made = back_up_alone(repository, path).unwrap().snapshot.unwrap();
    let parent = repository.find_snapshot(&made.to_string(), None).unwrap().snapshot.parent;
    (made, parent)
}

#[test]
fn one_that_is_dated_in_the_future_is_neither_latest_nor_a_parent_when_there_is_another() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("f"), &noise(1, 100_000));
    let repository = init(Arc::new(MemoryStore::new()));
    let (now, years) = (at(&repository, HOUR), at(&repository, 87_600 * HOUR));
    let latest = |repository: &Repository| repository.find_snapshot("latest", Some("test")).unwrap().session;
    let (ahead, _) = backup(&years, folder.path());
    assert_eq!(latest(&now), ahead, "there is no other");
    let (first, parent) = backup(&now, folder.path());
    assert_eq!(parent, Some(ahead), "there is no other");
    assert_eq!(latest(&now), first);
    let (second, parent) = backup(&at(&repository, 2 * HOUR), folder.path());
    assert_eq!(parent, Some(first));
    // Up to an hour is what clocks differ by.
    assert_eq!(latest(&now), second);
    assert_eq!(latest(&at(&repository, HOUR - Duration::from_secs(1))), first);
    assert_eq!(latest(&years), ahead, "where the clock has come there it is the newest");
    repository.remove_snapshot(first, "test").unwrap();
    repository.remove_snapshot(second, "test").unwrap();
    assert_eq!(latest(&now), ahead);
}
