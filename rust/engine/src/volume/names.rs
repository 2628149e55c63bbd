//! The names in a directory, in one piece: 8 bytes for each beside its own, where a vector a name takes 40 and an allocation.
//!
//! Promises the order of their bytes and each name once. Does not know which directory they are from.

use super::Name;

/// Names of a directory's entries, ascending by bytes, each once.
#[derive(Clone, Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    /// Where each begins and how long it is.
    places: Vec<(u32, u32)>,
}

/// Takes names one after the other, in any order.
#[derive(Debug, Default)]
pub struct NamesBuilder(Names);

impl NamesBuilder {
    /// Adds one. False: there is no room for it below 4 GiB.
    #[must_use]
    pub fn push(&mut self, name: &[u8]) -> bool {
        let (Ok(at), Ok(length)) = (u32::try_from(self.0.bytes.len()), u32::try_from(name.len())) else { return false };
        self.0.bytes.extend_from_slice(name);
        self.0.places.push((at, length));
        true
    }

    /// Bytes held, bookkeeping included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.bytes.len() + self.0.places.len() * size_of::<(u32, u32)>()
    }

    /// Puts them in order, and each that came twice is there once.
    #[must_use]
    pub fn finish(self) -> Names {
        let Names { mut bytes, mut places } = self.0;
        bytes.shrink_to_fit();
        if !places.is_sorted_by(|a, b| at(&bytes, *a) < at(&bytes, *b)) {
            places.sort_unstable_by(|a, b| at(&bytes, *a).cmp(at(&bytes, *b)));
            places.dedup_by(|a, b| at(&bytes, *a) == at(&bytes, *b));
        }
        places.shrink_to_fit();
        Names { bytes, places }
    }
}

fn at(bytes: &[u8], (start, length): (u32, u32)) -> &[u8] {
    let start = start as usize;
    bytes.get(start..start + length as usize).unwrap_or_default()
}

impl Names {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The name at a place in their order.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&[u8]> {
        self.places.get(place).map(|place| at(&self.bytes, *place))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| at(&self.bytes, *place))
    }

    /// Keeps those of which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.places.retain(|place| keep(at(bytes, *place)));
    }

    /// Takes the last one off.
    pub fn pop(&mut self) -> Option<Name> {
        self.places.pop().map(|place| at(&self.bytes, place).to_vec())
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<N: AsRef<[u8]>> FromIterator<N> for Names {
    /// In any order. Names beyond 4 GiB are left out: nobody has them in memory to begin with.
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut builder = NamesBuilder::default();
        for name in names {
            let _ = builder.push(name.as_ref());
        }
        builder.finish()
    }
}

impl IntoIterator for Names {
    type Item = Name;
    type IntoIter = IntoNames;

    fn into_iter(self) -> IntoNames {
        IntoNames { names: self, next: 0 }
    }
}

/// Gives each name as bytes of its own.
#[derive(Debug)]
pub struct IntoNames {
    names: Names,
    next: usize,
}

impl Iterator for IntoNames {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        let name = self.names.get(self.next)?.to_vec();
        self.next += 1;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn they_are_a_set_in_order(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..60), odd in any::<bool>()) {
            let mut names: Names = all.iter().collect();
            let mut expected: BTreeSet<Name> = all.into_iter().collect();
            prop_assert!(names.clone().into_iter().eq(expected.iter().cloned()));
            names.retain(|name| name.len() % 2 == usize::from(odd));
            expected.retain(|name| name.len() % 2 == usize::from(odd));
            prop_assert_eq!(names.len(), expected.len());
            prop_assert!(names.iter().eq(expected.iter().map(Vec::as_slice)));
            prop_assert!((0..names.len()).all(|place| names.get(place) == expected.iter().nth(place).map(Vec::as_slice)));
            prop_assert_eq!(names.get(names.len()), None);
            prop_assert_eq!(&names, &expected.iter().rev().collect::<Names>());
            prop_assert_eq!(names.pop(), expected.pop_last());
            prop_assert_eq!(names.is_empty(), expected.is_empty());
            prop_assert!(names == expected.iter().collect::<Names>());
        }
    }

    #[test]
    fn what_is_held_is_counted() {
        let mut builder = NamesBuilder::default();
        assert!(builder.push(b"abc") && builder.push(b""));
        assert_eq!(builder.held_bytes(), 3 + 2 * 8);
    }
}
