//! Files of the cache folder: drafts without a name, files that get theirs when they are whole, and logs that grow.
//!
//! The engine's only writer of local files that are neither a volume's nor a store's. Promises mode 0600, that a draft vanishes with
//! its process, that a [`Named`] never stands for half a file, and that a [`Log`] belongs to one process at a time. Nothing but a log is
//! synced, and that only when it is asked to be: who reads such a file checks its sums.

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file without a name.
#[derive(Debug)]
pub(crate) struct Draft(File);

/// What the name begins with that a draft has for a moment.
const DRAFT: &str = ".draft-";

/// A file that is given its name by [`Named::publish`], and removed without it.
#[derive(Debug)]
pub(crate) struct Named {
    file: File,
    temporary: PathBuf,
    name: PathBuf,
}

fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(fd))
}

/// Removes what begins with a prefix from a folder.
fn sweep(folder: &Path, prefix: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for entry in rustix::fs::Dir::new(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)?.flatten() {
        if entry.file_name().to_bytes().starts_with(prefix.as_bytes()) {
            let old = folder.join(entry.file_name().to_string_lossy().as_ref());
            let _ = rustix::fs::unlinkat(CWD, &old, AtFlags::empty());
        }
    }
    Ok(())
}

impl Draft {
    /// Makes one in a folder; `unique` keeps it apart from others for the moment in which it has a name.
    pub fn new(folder: &Path, unique: &str) -> io::Result<Self> {
        // Of who was killed in that moment. One that still lives was going to take the name away itself.
        sweep(folder, DRAFT)?;
        let path = folder.join(format!("{DRAFT}{unique}"));
        let file = create(&path)?;
        match rustix::fs::unlinkat(CWD, &path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Self(file)),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Draft {
    /// Reads at a place, all of `buf`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset_bytes)
    }

    /// Writes at a place.
    pub fn write_all_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset_bytes)
    }
}

impl Read for Draft {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Draft {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Draft {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl Named {
    /// Begins a file that will be `name` in `folder`, which is made when it is absent.
    pub fn new(folder: &Path, name: &str, unique: &str) -> io::Result<Self> {
        make_folder(folder)?;
        // What an earlier writer left when it was killed. One that still lives loses its file, and with it nothing but time.
        let prefix = format!(".{name}-");
        sweep(folder, &prefix)?;
        let temporary = folder.join(format!("{prefix}{unique}"));
        Ok(Self { file: create(&temporary)?, temporary, name: folder.join(name) })
    }

    /// Gives the file its name in place of what had it.
    pub fn publish(self) -> io::Result<()> {
        rustix::fs::renameat(CWD, &self.temporary, CWD, &self.name)?;
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(CWD, &self.temporary, AtFlags::empty());
    }
}

impl Write for Named {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that outlives its process and is written by one at a time: the kernel takes the lock back from a process that ends, however
/// it ends.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens `name` in `folder`, or makes both. None when another process has it.
    pub fn open(folder: &Path, name: &str) -> io::Result<Option<Self>> {
        make_folder(folder)?;
        let path = folder.join(name);
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR)?);
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            // Whoever had it may have removed it while this one waited at the door.
            if rustix::fs::fstat(&file)?.st_nlink > 0 {
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// Its length in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0))
    }

    /// Reads at a place, all of `buf`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset_bytes)
    }

    /// Writes at a place.
    pub fn write_all_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset_bytes)
    }

    /// Cuts it to a length.
    pub fn cut(&self, length_bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, length_bytes)?)
    }

    /// Makes its content durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    /// Removes its name.
    pub fn remove(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(CWD, &self.path, AtFlags::empty())?)
    }
}

/// When a file was last written to, in nanoseconds since 1970.
pub(crate) fn written_nanos(path: &Path) -> io::Result<i128> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
}

/// Says that something was used now.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// How large the filesystem of a path is.
pub(crate) fn filesystem_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Names in a folder that are text.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entries = rustix::fs::Dir::new(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    Ok(names.filter(|name| name != "." && name != "..").collect())
}

/// Bytes of the files in a folder of ours and in the folders below; what cannot be looked at counts nothing.
pub(crate) fn size_bytes(folder: &Path) -> u64 {
    let size = |name: &String| {
        let path = folder.join(name);
        let Ok(stat) = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) else { return 0 };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => size_bytes(&path),
            _ => u64::try_from(stat.st_size).unwrap_or(0),
        }
    };
    names(folder).unwrap_or_default().iter().map(size).sum()
}

/// Removes a folder of ours with all that it holds; links are removed, not followed.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    for name in names(folder)? {
        let path = folder.join(name);
        match rustix::fs::unlinkat(CWD, &path, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(&path)?,
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(rustix::fs::unlinkat(CWD, folder, AtFlags::REMOVEDIR)?)
}

/// Makes a folder for this user alone, unless it is there.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    match rustix::fs::mkdirat(CWD, folder, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test lays a dead process's file")]
    fn a_draft_takes_away_what_one_left_that_was_killed_before_it_lost_its_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".draft-dead"), b"some").unwrap();
        std::fs::write(folder.path().join("draft-of-another"), b"kind").unwrap();
        let draft = Draft::new(folder.path(), "living").unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["draft-of-another"]);
        draft.write_all_at(b"more", 0).unwrap();
    }
}
