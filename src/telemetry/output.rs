//! Where log lines go: standard error, or a file that can be rotated under the program.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A place for lines. Each line is written whole, by one call, so that lines of threads do not mix.
#[derive(Debug)]
pub(super) struct Output {
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Output {
    /// Standard error, or a file, which is created if it is not there and appended to if it is.
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = match path {
            Some(path) => {
                let file = open(&path)?;
                Some((path, Mutex::new(file)))
            }
            None => None,
        };
        Ok(Self { file })
    }

    /// Opens the file anew by its name: after a rotation that is another file.
    pub(super) fn reopen(&self) -> io::Result<()> {
        if let Some((path, file)) = &self.file {
            let fresh = open(path)?;
            *locked(file) = fresh;
        }
        Ok(())
    }

    /// Writes one line, which ends with a line break. Logging never fails the program: what the file does not take
    /// goes to standard error, what that does not take is lost.
    pub(super) fn write(&self, line: &[u8]) {
        if let Some((_, file)) = &self.file
            && locked(file).write_all(line).is_ok()
        {
            return;
        }
        let _ = io::stderr().lock().write_all(line);
    }
}

/// A thread that panicked while it wrote has left at worst half a line.
fn locked(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &PathBuf) -> io::Result<File> {
    // Names of projects and functions are not for everybody on the machine.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}
