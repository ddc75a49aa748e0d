//! What a package may be: a zip archive that stays within its bounds and within its directory. The API refuses at upload
//! with the same function what the agent would refuse at start.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

/// Bounds of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Largest sum of the unpacked files, in bytes.
    pub unpacked_bytes: u64,
    /// Most entries.
    pub entries: usize,
    /// Largest ratio of unpacked bytes to the archive's size, judged once more than a mebibyte is unpacked.
    pub ratio: u64,
}

impl Default for ArchiveLimits {
    /// 250 MiB, AWS Lambda's limit; 20,000 entries; a ratio of 200, above which only bombs are seen.
    fn default() -> Self {
        Self { unpacked_bytes: 250 << 20, entries: 20_000, ratio: 200 }
    }
}

/// What an archive was found to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of its files when unpacked.
    pub unpacked_bytes: u64,
}

/// Why an archive is refused. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not a zip archive, or not a whole one.
    #[error("the package is not a whole zip archive: {0}")]
    Damaged(String),
    /// It uses what we do not read: encryption, or another compression than deflate.
    #[error("the package cannot be read: {0}")]
    Unsupported(String),
    /// An entry is not something that belongs into a package.
    #[error("the package's entry {name:?} {why}")]
    Entry {
        /// The entry's name, shortened.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It has too many entries.
    #[error("the package has {found} entries, {limit} are allowed")]
    TooManyEntries {
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// It unpacks to too much.
    #[error("the package unpacks to more than {limit} bytes")]
    TooLarge {
        /// How much it may be.
        limit: u64,
    },
    /// It unpacks to so many times its size that it must be a bomb.
    #[error("the package unpacks to more than {limit} times its size")]
    Ratio {
        /// How many times it may be.
        limit: u64,
    },
    /// Not the package's fault: it could not be written.
    #[error("the package could not be written")]
    Write(#[source] io::Error),
}

/// Reads an archive to its end, every file included, and says whether it may be a package.
///
/// # Errors
/// When it may not.
pub fn check_archive(bytes: &[u8], limits: ArchiveLimits) -> Result<ArchiveSummary, ArchiveError> {
    walk(io::Cursor::new(bytes), bytes.len() as u64, limits, &mut Discard)
}

/// Unpacks an archive into an empty directory. Files become 0644 or 0755, directories 0755, so that a sandbox can read
/// and only the owner can write. After an error the directory holds a part and has to be removed.
///
/// # Errors
/// When the archive may not be a package, or cannot be written.
pub fn unpack(
    archive: impl Read + Seek,
    packed_bytes: u64,
    into: &Path,
    limits: ArchiveLimits,
) -> Result<ArchiveSummary, ArchiveError> {
    walk(archive, packed_bytes, limits, &mut Directory { root: into.to_owned() })
}

/// Where the entries of an archive go.
trait Sink {
    fn directory(&mut self, path: &Path) -> io::Result<()>;
    fn file(&mut self, path: &Path, executable: bool) -> io::Result<Box<dyn Write>>;
    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()>;
}

struct Discard;

impl Sink for Discard {
    fn directory(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn file(&mut self, _: &Path, _: bool) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(io::sink()))
    }
    fn link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct Directory {
    root: PathBuf,
}

impl Sink for Directory {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        // Each one by itself, because the mode must not depend on the umask.
        let mut whole = self.root.clone();
        for component in path.components() {
            whole.push(component);
            match fs::create_dir(&whole) {
                Ok(()) => fs::set_permissions(&whole, fs::Permissions::from_mode(0o755))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && whole.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, executable: bool) -> io::Result<Box<dyn Write>> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(path))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Box::new(file))
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        std::os::unix::fs::symlink(target, self.root.join(path))
    }
}

const RATIO_FROM: u64 = 1 << 20;
const LINK_MAX: u64 = 4096;
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_LINK: u32 = 0o120_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File { executable: bool },
    Link,
}

fn walk(
    archive: impl Read + Seek,
    packed_bytes: u64,
    limits: ArchiveLimits,
    sink: &mut dyn Sink,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut archive = ZipArchive::new(archive).map_err(unreadable)?;
    let entries = plan(&mut archive, limits)?;
    let mut budget = Budget { limits, packed_bytes, unpacked: 0 };
    let mut links = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    for (index, (path, kind)) in entries.iter().enumerate() {
        let unwritable = |error| unwritable(error, path);
        match kind {
            Kind::Directory => sink.directory(path).map_err(unwritable)?,
            Kind::Link => {
                let mut target = Vec::new();
                let entry = archive.by_index(index).map_err(unreadable)?;
                entry.take(LINK_MAX + 1).read_to_end(&mut target).map_err(damaged)?;
                links.push((path, link_inside(path, &target).map_err(|why| refused(path, why))?));
            }
            Kind::File { executable } => {
                let mut entry = archive.by_index(index).map_err(unreadable)?;
                let mut file = sink.file(path, *executable).map_err(unwritable)?;
                loop {
                    let read = entry.read(&mut buffer).map_err(damaged)?;
                    let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
                    budget.spend(piece.len())?;
                    file.write_all(piece).map_err(ArchiveError::Write)?;
                }
            }
        }
    }
    // Links come last, so that nothing is ever written through one.
    for (path, target) in links {
        sink.link(path, &target).map_err(|error| unwritable(error, path))?;
    }
    Ok(ArchiveSummary { entries: entries.len(), unpacked_bytes: budget.unpacked })
}

/// Names and kinds of all entries, judged before anything is unpacked.
fn plan<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    limits: ArchiveLimits,
) -> Result<Vec<(PathBuf, Kind)>, ArchiveError> {
    if archive.len() > limits.entries {
        return Err(ArchiveError::TooManyEntries { found: archive.len(), limit: limits.entries });
    }
    let mut entries = Vec::with_capacity(archive.len());
    let mut leaves = HashSet::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(unreadable)?;
        let name = entry.name().map_err(unreadable)?;
        if entry.encrypted() {
            return Err(ArchiveError::Unsupported("it is encrypted".to_owned()));
        }
        let path = inside(&name).map_err(|why| refused(Path::new(name.as_ref()), why))?;
        let mode = entry.unix_mode().unwrap_or(0);
        let kind = match mode & TYPE_MASK {
            TYPE_DIRECTORY => Kind::Directory,
            0 if entry.is_dir() => Kind::Directory,
            0 | TYPE_FILE => Kind::File { executable: mode & 0o111 != 0 },
            TYPE_LINK => Kind::Link,
            _ => return Err(refused(&path, "is neither a file, a directory nor a link")),
        };
        if kind != Kind::Directory {
            if path.as_os_str().is_empty() {
                return Err(refused(&path, "has no name"));
            }
            if !leaves.insert(path.clone()) {
                return Err(refused(&path, "is there twice"));
            }
        }
        entries.push((path, kind));
    }
    for (path, kind) in &entries {
        let above = path.ancestors().skip(usize::from(*kind != Kind::Directory));
        if above.into_iter().any(|above| leaves.contains(above)) {
            return Err(refused(path, "lies below what is not a directory"));
        }
    }
    Ok(entries)
}

fn refused(path: &Path, why: &'static str) -> ArchiveError {
    ArchiveError::Entry { name: path.to_string_lossy().chars().take(200).collect(), why }
}

struct Budget {
    limits: ArchiveLimits,
    packed_bytes: u64,
    unpacked: u64,
}

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        self.unpacked += bytes as u64;
        if self.unpacked > self.limits.unpacked_bytes {
            return Err(ArchiveError::TooLarge { limit: self.limits.unpacked_bytes });
        }
        if self.unpacked > RATIO_FROM && self.unpacked > self.limits.ratio.saturating_mul(self.packed_bytes) {
            return Err(ArchiveError::Ratio { limit: self.limits.ratio });
        }
        Ok(())
    }
}

/// The path of an entry below the package's directory.
fn inside(name: &str) -> Result<PathBuf, &'static str> {
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    if name.contains('\0') {
        return Err("has a zero byte in its name");
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leads out of the package"),
            part if part.len() > 255 => return Err("has a name that is too long"),
            part => path.push(part),
        }
    }
    if path.as_os_str().len() > 1024 { Err("has a path that is too long") } else { Ok(path) }
}

/// The target of a link, when it stays inside: `..` only at its front and no more often than the link is deep. Then it
/// stays inside also when it leads on through other links, because each of them does.
fn link_inside(link: &Path, target: &[u8]) -> Result<PathBuf, &'static str> {
    const OUT: &str = "is a link that leads out of the package";
    let target = std::str::from_utf8(target).map_err(|_| "is a link to a name that is not UTF-8")?;
    if target.is_empty() || target.contains('\0') || target.len() as u64 > LINK_MAX {
        return Err("is a link without a proper target");
    }
    if target.starts_with('/') {
        return Err(OUT);
    }
    let mut depth = link.components().count() - 1;
    let mut descended = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if descended || depth == 0 => return Err(OUT),
            ".." => depth -= 1,
            _ => descended = true,
        }
    }
    Ok(PathBuf::from(target))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
fn unreadable(error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) => damaged(error),
        ZipError::UnsupportedArchive(why) => ArchiveError::Unsupported(why.to_owned()),
        ZipError::CompressionMethodNotSupported(method) => {
            ArchiveError::Unsupported(format!("compression method {method} is neither stored nor deflated"))
        }
        other => ArchiveError::Damaged(other.to_string()),
    }
}

fn damaged(error: io::Error) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

fn unwritable(error: io::Error, path: &Path) -> ArchiveError {
    if error.kind() == io::ErrorKind::InvalidFilename {
        refused(path, "has a name that cannot be written")
    } else {
        ArchiveError::Write(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    enum Put<'a> {
        File(&'a str, &'a [u8], u32),
        Link(&'a str, &'a str),
        Dir(&'a str),
    }

    fn archive(entries: &[Put<'_>]) -> Vec<u8> {
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        for entry in entries {
            match entry {
                Put::File(name, bytes, mode) => {
                    zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
                    zip.write_all(bytes).unwrap();
                }
                Put::Link(name, target) => zip.add_symlink(*name, *target, SimpleFileOptions::default()).unwrap(),
                Put::Dir(name) => zip.add_directory(*name, SimpleFileOptions::default()).unwrap(),
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn both(bytes: &[u8], limits: ArchiveLimits) -> (Result<ArchiveSummary, String>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let checked = check_archive(bytes, limits).map_err(|error| error.to_string());
        let unpacked = unpack(io::Cursor::new(bytes), bytes.len() as u64, &root, limits).map_err(|e| e.to_string());
        assert_eq!(checked, unpacked, "the API and the agent judge alike");
        (checked, directory)
    }

    #[test]
    fn a_package_is_unpacked_with_its_executables_and_links() {
        let bytes = archive(&[
            Put::Dir("empty"),
            Put::File("main.py", b"print()", 0o600),
            Put::File("bin/bootstrap", b"#!/bin/sh", 0o700),
            Put::Link("lib/deep/link", "../../main.py"),
        ]);
        let (result, directory) = both(&bytes, ArchiveLimits::default());
        assert_eq!(result, Ok(ArchiveSummary { entries: 4, unpacked_bytes: 16 }));
        let root = directory.path().join("root");
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("main.py"), mode("bin/bootstrap"), mode("bin"), mode("empty")), (0o644, 0o755, 0o755, 0o755));
        assert_eq!(fs::read(root.join("lib/deep/link")).unwrap(), b"print()");
    }

    #[test]
    fn what_would_leave_its_directory_is_refused() {
        for (entries, why) in [
            (vec![Put::File("../evil", b"", 0o644)], "leads out of the package"),
            (vec![Put::File("a/../../evil", b"", 0o644)], "leads out of the package"),
            (vec![Put::File("/etc/evil", b"", 0o644)], "has an absolute path"),
            (vec![Put::Link("link", "/etc/passwd")], "leads out of the package"),
            (vec![Put::Link("link", "../x")], "leads out of the package"),
            (vec![Put::Link("a/b/up", "../.."), Put::Link("out", "a/b/up/..")], "leads out of the package"),
            (vec![Put::Link("d", "e"), Put::File("d/f", b"", 0o644)], "lies below what is not a directory"),
            (vec![Put::File("d/f", b"", 0o644), Put::Link("d", "e")], "lies below what is not a directory"),
            (vec![Put::File("d", b"", 0o644), Put::File("d/f", b"", 0o644)], "lies below what is not a directory"),
            (vec![Put::File("d", b"", 0o644), Put::Dir("d")], "lies below what is not a directory"),
            (vec![Put::File("d", b"", 0o644), Put::File("./d", b"", 0o644)], "is there twice"),
        ] {
            let (result, directory) = both_or_checked(&archive(&entries));
            let error = result.unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!directory.path().join("evil").exists());
        }
    }

    fn both_or_checked(bytes: &[u8]) -> (Result<ArchiveSummary, String>, tempfile::TempDir) {
        both(bytes, ArchiveLimits::default())
    }

    #[test]
    fn bombs_and_giants_are_refused_before_they_are_unpacked() {
        let zeros = vec![0; 4 << 20];
        let bomb = archive(&[Put::File("zeros", &zeros, 0o644)]);
        assert!(both(&bomb, ArchiveLimits::default()).0.unwrap_err().contains("200 times its size"));
        let small = ArchiveLimits { unpacked_bytes: 1000, ..ArchiveLimits::default() };
        assert!(both(&bomb, small).0.unwrap_err().contains("more than 1000 bytes"));
        let few = ArchiveLimits { entries: 1, ..ArchiveLimits::default() };
        let two = archive(&[Put::File("a", b"", 0o644), Put::File("b", b"", 0o644)]);
        assert!(both(&two, few).0.unwrap_err().contains("2 entries"));
    }

    #[test]
    fn every_truncation_and_damage_of_the_content_is_noticed() {
        let bytes = archive(&[Put::File("main.py", b"def handler(event, context): return 1", 0o644)]);
        for length in 0..bytes.len() {
            assert!(check_archive(&bytes[..length], ArchiveLimits::default()).is_err(), "cut at {length}");
        }
        let mut damaged = bytes.clone();
        let content = 30 + "main.py".len() + 5;
        damaged[content] ^= 0x55;
        assert!(check_archive(&damaged, ArchiveLimits::default()).is_err());
        assert!(matches!(check_archive(b"text", ArchiveLimits::default()), Err(ArchiveError::Damaged(_))));
    }
}
