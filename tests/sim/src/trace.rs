//! What a real process asked of the kernel, in order: its writes, names and syncs below one folder.
//!
//! A program is run under `strace`, which prints every string as hexadecimal and every descriptor with its path, so that a line is taken
//! apart without knowing more of it. Lines that the program prints itself stand between its calls: they tell when it said
//! what. Promises to refuse a call that it does not know; does not know what a power cut leaves, [`crate::disk`] does.

use std::path::Path;
use std::process::{Command, Stdio};

/// A call, paths relative to the folder; the folder itself is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A directory is made.
    MakeDir(String),
    /// A file is made.
    Create(String),
    /// Bytes go to the end of a file.
    Write(String, Vec<u8>),
    /// Bytes go to a place of a file.
    WriteAt(String, u64, Vec<u8>),
    /// A file gets a length.
    Truncate(String, u64),
    /// A file or directory is synced.
    Sync(String),
    /// A file gets a second name.
    Link(String, String),
    /// A name goes.
    Unlink(String),
    /// The program says something.
    Say(String),
}

/// Calls that change a folder; what strace writes of others is not looked at.
const CALLS: &str = "openat,openat2,mkdir,mkdirat,write,writev,pwrite64,fsync,fdatasync,sync_file_range,linkat,link,unlinkat,unlink,rename,renameat,renameat2,\
                     ftruncate,truncate,copy_file_range,fallocate,symlinkat,sync,syncfs";

/// Runs a command in which `folder` changes, and tells what it did.
///
/// # Errors
/// When strace is not there, the command fails, or it makes a call that is not known here.
pub fn record(program: &Path, arguments: &[&str], folder: &Path) -> Result<Vec<Op>, String> {
    let log = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let status = Command::new("strace")
        .args(["-f", "-qqq", "-y", "-xx", "-s", "16777216", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(log.path())
        .arg(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("strace is needed, install it: {error}"))?;
    if !status.success() {
        return Err(format!("the program under strace failed: {status}"));
    }
    let text = std::fs::read_to_string(log.path()).map_err(|error| error.to_string())?;
    let folder = folder.to_str().ok_or("a folder without a plain name")?;
    let mut ops = vec![];
    for line in text.lines() {
        ops.extend(op(line, folder).map_err(|why| format!("{why}: {line:.300}"))?);
    }
    Ok(ops)
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits.get(..2).unwrap_or_default(), 16).map_err(|error| error.to_string())).collect()
}

/// What stands between two marks, one behind the other.
fn between(line: &str, open: char, close: char) -> Result<Vec<String>, String> {
    let parts = line.split(open).skip(1).filter_map(|rest| rest.split(close).next());
    parts.map(|part| unhex(part).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())).collect()
}

/// The last argument of a call.
fn last_number(rest: &str) -> Result<u64, String> {
    let arguments = rest.rsplit_once(')').map_or(rest, |(arguments, _)| arguments);
    arguments.rsplit(", ").next().unwrap_or_default().parse().map_err(|_| "a call without its number".to_owned())
}

fn op(line: &str, folder: &str) -> Result<Option<Op>, String> {
    // With -f the process stands first.
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let Some((call, rest)) = line.split_once('(') else { return Ok(None) };
    let Some((_, result)) = line.rsplit_once(" = ") else { return Ok(None) };
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let fds = between(rest, '<', '>')?;
    let inside = |path: &str| path.strip_prefix(folder).map(|rest| rest.trim_start_matches('/').to_owned());
    let Some(first) = fds.first().cloned() else { return Ok(None) };
    // Strings stand at odd places between quotes, and no quote is left unescaped in one.
    let strings: Vec<&str> = rest.split('"').skip(1).step_by(2).collect();
    let text = |at: usize| -> Result<String, String> {
        unhex(strings.get(at).ok_or("a call without its name")?).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let named = |fd: &str, name: &str| inside(&format!("{fd}/{name}")).map(|path| path.trim_end_matches("/.").to_owned());
    Ok(match call {
        "openat" | "openat2" if rest.contains("O_CREAT") => {
            if !rest.contains("O_EXCL") && inside(fds.last().unwrap_or(&first)).is_some() {
                return Err("a file may be opened that is there already".to_owned());
            }
            inside(fds.last().unwrap_or(&first)).map(Op::Create)
        }
        "openat" | "openat2" => None,
        "mkdirat" => named(&first, &text(0)?).map(Op::MakeDir),
        "write" if rest.starts_with("1<") => Some(Op::Say(text(0)?.trim_end().to_owned())),
        "write" => {
            let bytes = unhex(strings.first().ok_or("a write of nothing")?)?;
            if result.trim() != bytes.len().to_string() {
                return Err("a write that was cut short".to_owned());
            }
            inside(&first).map(|path| Op::Write(path, bytes))
        }
        "pwrite64" => {
            let bytes = unhex(strings.first().ok_or("a write of nothing")?)?;
            if result.trim() != bytes.len().to_string() {
                return Err("a write that was cut short".to_owned());
            }
            inside(&first).map(|path| Ok::<_, String>(Op::WriteAt(path, last_number(rest)?, bytes))).transpose()?
        }
        "ftruncate" => inside(&first).map(|path| Ok::<_, String>(Op::Truncate(path, last_number(rest)?))).transpose()?,
        "fsync" | "fdatasync" => inside(&first).map(Op::Sync),
        "linkat" => {
            let second = fds.get(1).ok_or("a link without its directory")?;
            named(&first, &text(0)?).zip(named(second, &text(1)?)).map(|(from, to)| Op::Link(from, to))
        }
        "unlinkat" => named(&first, &text(0)?).map(Op::Unlink),
        _ if fds.iter().any(|fd| inside(fd).is_some()) => return Err("a call that is not known".to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let hex = |text: &str| text.bytes().map(|b| format!("\\x{b:02x}")).collect::<String>();
        let (dir, name, file) = (hex("/f/.tmp"), hex("put"), hex("/f/.tmp/put"));
        let read = |line: &str| op(line, "/f");
        let create = format!("77 openat(3<{dir}>, \"{name}\", O_WRONLY|O_CREAT|O_EXCL, 0600) = 4<{file}>");
        assert_eq!(read(&create), Ok(Some(Op::Create(".tmp/put".into()))));
        assert_eq!(
            read(&format!("write(4<{file}>, \"{name}\", 3) = 3")),
            Ok(Some(Op::Write(".tmp/put".into(), b"put".to_vec())))
        );
        assert!(read(&format!("write(4<{file}>, \"{name}\", 3) = 2")).is_err());
        assert_eq!(read(&format!("fsync(4<{file}>) = 0")), Ok(Some(Op::Sync(".tmp/put".into()))));
        let link = format!("linkat(3<{dir}>, \"{name}\", 5<{}>, \"{}\", 0) = 0", hex("/f/packs"), hex("a"));
        assert_eq!(read(&link), Ok(Some(Op::Link(".tmp/put".into(), "packs/a".into()))));
        assert_eq!(read(&link.replace("= 0", "= -1 EEXIST")), Ok(None));
        assert_eq!(read(&format!("ftruncate(4<{file}>, 7) = 0")), Ok(Some(Op::Truncate(".tmp/put".into(), 7))));
        let at = format!("pwrite64(4<{file}>, \"{name}\", 3, 12) = 3");
        assert_eq!(read(&at), Ok(Some(Op::WriteAt(".tmp/put".into(), 12, b"put".to_vec()))));
        assert_eq!(read(&format!("mkdirat(3<{dir}>, \"{name}\", 0700) = 0")), Ok(Some(Op::MakeDir(".tmp/put".into()))));
        assert_eq!(read(&format!("unlinkat(3<{dir}>, \"{name}\", 0) = 0")), Ok(Some(Op::Unlink(".tmp/put".into()))));
        assert_eq!(read(&format!("write(1<{}>, \"{name}\", 3) = 3", hex("/dev/pts/0"))), Ok(Some(Op::Say("put".into()))));
        assert!(read(&create.replace("|O_EXCL", "")).is_err(), "what is there already may be opened");
        let elsewhere = create.replace(&file, &hex("/other/put")).replace(&dir, &hex("/other"));
        assert_eq!(read(&elsewhere), Ok(None));
        assert!(read(&format!("fallocate(4<{file}>, 0, 0, 5) = 0")).is_err());
    }
}
