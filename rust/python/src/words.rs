//! Words of options, and what they mean to the engine.
//!
//! Promises an error that says what would have been understood.

use crate::errors::usage;
use longshore_engine::backup::{FileHint, Hints};
use longshore_engine::packer::CompressionChoice;
use longshore_format::envelope::{LEVEL_MAX, LEVEL_MIN};
use longshore_format::id::{SNAPSHOT_ID_PREFIX, SessionId};
use longshore_format::pack::VerifyUpload;
use pyo3::prelude::*;

/// Sessions by their names.
pub fn sessions(py: Python<'_>, names: &[String]) -> PyResult<Vec<SessionId>> {
    let parse = |name: &String| {
        SessionId::from_hex(name.strip_prefix(SNAPSHOT_ID_PREFIX).unwrap_or(name)).map_err(|_| {
            usage(py, format!("a session's name is 32 hexadecimal digits: session={name:?}"), "a prune names those it waits for")
        })
    };
    names.iter().map(parse).collect()
}

/// How chunks are compressed.
pub fn compression(py: Python<'_>, text: &str) -> PyResult<CompressionChoice> {
    match (text, text.parse()) {
        ("auto", _) => Ok(CompressionChoice::Auto),
        ("none", _) => Ok(CompressionChoice::None),
        (_, Ok(level @ (LEVEL_MIN..=-1 | 1..=LEVEL_MAX))) => Ok(CompressionChoice::Level(level)),
        _ => Err(usage(
            py,
            format!("unknown compression: compression={text:?}"),
            "use auto, none, or a level from -7 to -1 or 1 to 19",
        )),
    }
}

/// What is checked of a pack before it is sent.
pub fn verify_upload(py: Python<'_>, text: &str) -> PyResult<VerifyUpload> {
    match text {
        "full" => Ok(VerifyUpload::Full),
        "header" => Ok(VerifyUpload::Header),
        "none" => Ok(VerifyUpload::None),
        _ => Err(usage(py, format!("unknown check of uploads: verify_upload={text:?}"), "use full, header or none")),
    }
}

/// A file's hint: path, size, mtime and ctime in nanoseconds, ranges as offset and length.
pub type GivenHint = (Vec<u8>, u64, i64, i64, Vec<(u64, u64)>);
/// Since which snapshot, when they were taken, how many could not be understood, and the hints.
pub type GivenHints = (String, i64, u64, Vec<GivenHint>);

/// Hints of what has changed in large files.
pub fn hints(py: Python<'_>, (since, taken_nanos, unreadable, files): GivenHints) -> PyResult<Hints> {
    let since = sessions(py, &[since])?.pop();
    let files = files.into_iter().map(|(path, size_bytes, mtime_nanos, ctime_nanos, ranges)| {
        (path, FileHint { size_bytes, mtime_nanos, ctime_nanos, ranges })
    });
    Ok(Hints { since, taken_nanos, unreadable, files: files.collect() })
}
