//! Names of files that are not whole yet, and what a dead restore left under such names.
//!
//! A name holds random digits and a sum of them that is keyed by the repository, so nobody without the key can make one, and nothing of a
//! tenant's is taken for one (but for a name that a tenant saw and gave to a file of theirs). Left-overs are removed where the restore
//! comes by, and only while it holds the target's root alone: another restore that runs in the same target keeps its files.

use super::Context;
use crate::repository::Repository;
use crate::volume::{Dir, Kind, Name, Names};
use longshore_format::Keys;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MARK: &str = ".longshore-restore-";
const NONCE_DIGITS: usize = 12;
const SUM_DIGITS: usize = 16;

/// Makes names.
#[derive(Debug)]
pub(super) struct Temporary {
    prefix: String,
    next: AtomicU64,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sum(keys: &Keys, nonce: &[u8]) -> String {
    hex(&keys.cache_sum(b"restore temporary", nonce)[..SUM_DIGITS / 2])
}

impl Temporary {
    pub fn new(repository: &Repository) -> Self {
        let nonce = hex(&repository.world.random16()[..NONCE_DIGITS / 2]);
        Self { prefix: format!("{MARK}{nonce}-{}-", sum(&repository.keys, nonce.as_bytes())), next: AtomicU64::new(0) }
    }

    /// A name that no other file of any restore has.
    pub fn name(&self) -> Name {
        format!("{}{}", self.prefix, self.next.fetch_add(1, Relaxed)).into_bytes()
    }
}

/// Whether a restore of this repository made the name.
fn is_ours(keys: &Keys, name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(MARK.as_bytes()) else { return false };
    let mut parts = rest.split(|byte| *byte == b'-');
    let (Some(nonce), Some(told), Some(number), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let counts = !number.is_empty() && number.len() <= 20 && number.iter().all(u8::is_ascii_digit);
    nonce.len() == NONCE_DIGITS && counts && told == sum(keys, nonce).as_bytes()
}

/// Removes left-overs from a directory whose names were listed; what remains comes back.
pub(super) fn sweep(context: &Context, dir: &dyn Dir, mut names: Names) -> Names {
    if !context.sweeps {
        return names;
    }
    names.retain(|name| {
        let left = name.starts_with(MARK.as_bytes())
            && is_ours(&context.reader.repository().keys, name)
            && dir.stat(name).is_ok_and(|stat| stat.kind == Kind::File);
        if !left {
            return true;
        }
        match dir.remove_all(name) {
            Ok(()) => {
                context.tally.leftovers.fetch_add(1, Relaxed);
                false
            }
            Err(error) => {
                tracing::warn!(name = %String::from_utf8_lossy(name), error = %error, "Cannot remove what a dead restore left");
                true
            }
        }
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_format::{MasterKey, RepositoryId};

    #[test]
    fn only_names_made_with_the_key_are_ours() {
        let keys = |n| Keys::derive(&MasterKey::new([n; 32]), RepositoryId([2; 16]));
        let nonce = "0123456789ab";
        let made = |n: u8, rest: &str| format!("{MARK}{nonce}-{}{rest}", sum(&keys(n), nonce.as_bytes())).into_bytes();
        assert!(is_ours(&keys(1), &made(1, "-0")) && is_ours(&keys(1), &made(1, "-18446744073709551615")));
        for other in [made(2, "-0"), made(1, ""), made(1, "-"), made(1, "-x"), made(1, "-0-0"), made(1, "-0~"), made(1, "0-1")] {
            assert!(!is_ours(&keys(1), &other), "{}", String::from_utf8_lossy(&other));
        }
        for other in ["", MARK, ".longshore-restore-0123456789ab-7", ".longshore-restore-0123456789ab-0123456789abcdef-7"] {
            assert!(!is_ours(&keys(1), other.as_bytes()), "{other}");
        }
        let good = made(1, "-7");
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!is_ours(&keys(1), &bad), "byte {at}");
        }
    }
}
