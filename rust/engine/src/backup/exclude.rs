//! Which entries are left out.
//!
//! A pattern without a slash matches a name anywhere; one with a slash matches a path from the volume's root (a leading slash is
//! optional), where `*` stays within one component and `**` does not. What lies below a left-out directory is left out with it.

use crate::error::{Error, ErrorKind, Result};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Compiled patterns.
#[derive(Clone, Debug)]
pub struct Excludes {
    names: GlobSet,
    paths: GlobSet,
    root_names: Vec<Vec<u8>>,
}

impl Excludes {
    /// Compiles `patterns`; `root_names` are literal names left out directly below the root.
    ///
    /// # Errors
    /// `Usage` naming a pattern that does not parse.
    pub fn new(patterns: &[String], root_names: &[Vec<u8>]) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let trimmed = pattern.trim_end_matches('/');
            if trimmed.is_empty() {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("an exclude pattern would leave out everything: pattern={pattern:?}"),
                ));
            }
            if trimmed.contains('/') {
                paths.add(compile(trimmed.trim_start_matches('/'), pattern)?);
            } else {
                names.add(compile(trimmed, pattern)?);
            }
        }
        let build = |b: GlobSetBuilder| {
            b.build().map_err(|e| Error::new(ErrorKind::Usage, format!("exclude patterns do not compile: {e}")))
        };
        Ok(Self { names: build(names)?, paths: build(paths)?, root_names: root_names.to_vec() })
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty() && self.root_names.is_empty()
    }

    /// Whether the entry `name` at `path` (from the root, no leading slash) is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], name: &[u8]) -> bool {
        let as_path = |bytes| Path::new(OsStr::from_bytes(bytes));
        (path.len() == name.len() && self.root_names.iter().any(|n| n == name))
            || !self.names.is_empty() && self.names.is_match(as_path(name))
            || !self.paths.is_empty() && self.paths.is_match(as_path(path))
    }
}

fn compile(glob: &str, pattern: &str) -> Result<Glob> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| {
        Error::new(ErrorKind::Usage, format!("an exclude pattern does not parse: {}, pattern={pattern:?}", error.kind()))
            .with_next_step("write * for any part of a name, ** for any number of folders")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_anywhere_and_paths_from_the_root() {
        let patterns = ["*.tmp", "/cache", "var/**/log", "build/"].map(String::from);
        let excludes = Excludes::new(&patterns, &[b".velero".to_vec()]).unwrap();
        let out = |path: &str| excludes.leaves_out(path.as_bytes(), path.rsplit('/').next().unwrap().as_bytes());
        for path in ["a.tmp", "x/y/a.tmp", "build", "x/build", "var/a/b/log", "var/log", ".velero"] {
            assert!(out(path), "{path}");
        }
        for path in ["a.tmpx", "var/logs", "x/.velero", "vari/log"] {
            assert!(!out(path), "{path}");
        }
        assert!(out("cache") && Excludes::new(&["/".into()], &[]).is_err() && Excludes::new(&["a[".into()], &[]).is_err());
    }
}
