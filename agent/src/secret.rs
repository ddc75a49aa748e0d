//! What others must not learn from this process. Its environment stays visible in `/proc` as it was at the start, for
//! whoever has the same user, and for who looks into the instance from outside long after the token has been used.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::sys::prctl;

/// Closes this process to others of its user, who could read its memory, its environment and its descriptors, and
/// overwrites the value of a variable where the kernel shows it. To be called before there is a second thread; what the
/// variable said has to be known by then.
///
/// # Errors
/// When the kernel does not let it.
pub fn keep(variable: &str) -> io::Result<()> {
    // In this order: afterwards our own files in `/proc` are root's.
    let overwritten = overwrite(variable);
    prctl::set_dumpable(false)?;
    overwritten
}

fn overwrite(variable: &str) -> io::Result<()> {
    let environment = fs::read("/proc/self/environ")?;
    let prefix = format!("{variable}=");
    let mut at = 0;
    for entry in environment.split(|byte| *byte == 0) {
        if let Some(value) = entry.strip_prefix(prefix.as_bytes()) {
            let place = environment_start()? + (at + prefix.len()) as u64;
            // Our own memory, by the file that the kernel has for it: the bytes are ours, and nobody holds on to them.
            let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
            memory.write_all_at(&vec![b'-'; value.len()], place)?;
        }
        at += entry.len() + 1;
    }
    Ok(())
}

/// Where the environment lies, as `proc(5)` tells: the 50th field, of which the name is the second.
fn environment_start() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(47)?.parse().ok());
    start.filter(|start| *start > 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
