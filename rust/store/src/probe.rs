//! Asks a store whether it can do what a repository needs, before one trusts it.
//!
//! Promises to find stores and emulators that take the create-only header and ignore it, whatever they answer. Leaves nothing
//! behind, unless the credentials may not delete: then one object of 64 bytes under `probe/`.

use crate::{Key, Put, Rng, Store, StoreError, StoreErrorKind};
use bytes::Bytes;

/// What a store can do beyond what a repository needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Whether these credentials may delete. A backup does without; prune and delete need it.
    pub can_delete: bool,
}

/// Puts one key twice, reads a range of it, lists it, deletes it.
///
/// # Errors
/// [`StoreErrorKind::Unsupported`] naming what the store cannot do, else what the store says.
pub fn probe(store: &dyn Store, rng: &dyn Rng) -> Result<ProbeReport, StoreError> {
    let mut random = [0_u8; 16];
    rng.fill(&mut random);
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = Key::new(format!("probe/{name}"))?;
    let outcome = examine(store, rng, &key);
    // Also after a failure: what was put is removed.
    let deleted = store.delete(&key);
    outcome?;
    match deleted {
        Ok(()) => match store.head(&key) {
            Err(e) if e.kind() == StoreErrorKind::NotFound => Ok(ProbeReport { can_delete: true }),
            Err(e) => Err(e),
            Ok(_) => Err(missing(store, "an object can still be read after it was deleted")),
        },
        Err(e) if e.kind() == StoreErrorKind::Denied => Ok(ProbeReport { can_delete: false }),
        Err(e) => Err(e),
    }
}

fn examine(store: &dyn Store, rng: &dyn Rng, key: &Key) -> Result<(), StoreError> {
    let (mut first, mut second) = ([0_u8; 64], [0_u8; 64]);
    rng.fill(&mut first);
    rng.fill(&mut second);
    if store.put_new(key, Bytes::copy_from_slice(&first))? != Put::Created {
        return Err(missing(store, "a key never used before was said to exist"));
    }
    let again = store.put_new(key, Bytes::copy_from_slice(&second))?;
    let body = store.get(key, 1 << 16)?;
    if again != Put::Exists || body[..] == second {
        return Err(missing(
            store,
            "a second create-only put of one key was not refused, so backups could overwrite one another",
        ));
    }
    if body[..] != first {
        return Err(missing(store, "an object comes back different from what was put"));
    }
    if store.get_range(key, 17, 30)?[..] != first[17..47] {
        return Err(missing(store, "a range of an object comes back wrong"));
    }
    if store.head(key)? != 64 {
        return Err(missing(store, "the length of an object is wrong"));
    }
    let page = store.list("probe/", None, 1)?;
    let listed = page.entries.iter().any(|entry| entry.key == *key)
        || store.list(key.as_str(), None, 10)?.entries.iter().any(|e| e.key == *key);
    if !listed {
        return Err(missing(store, "a listing does not show an object that was just put"));
    }
    Ok(())
}

fn missing(store: &dyn Store, what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unsupported,
        format!("store cannot hold a repository, choose another: {what}: store={}", store.describe()),
    )
}
