//! Packages on this instance: each is fetched once from the gateway, verified, unpacked once into its own directory, and
//! shared by every sandbox that runs it.
//!
//! The directories belong to the agent and sandboxes cannot write to them, when the agent is root. When it is not, a
//! sandbox is the same user as the agent, so it gets a copy of its own (see `sandbox::scratch`).

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::archive::{self, ArchiveError, ArchiveLimits};
use crate::link::Link;
use crate::wire::Message;

/// How long the next piece of a package is waited for.
const PIECE_PATIENCE: Duration = Duration::from_secs(60);
/// Pieces that may wait to be written; the connection is read no faster.
const PIECES_WAITING: usize = 32;
/// Largest archive that is fetched at all, in bytes.
const PACKED_MAX: u64 = 250 << 20;
/// Unpacked bytes kept on disk; above it, what no sandbox uses goes, least recently used first.
const CACHE_MAX: u64 = 2 << 30;

/// An unpacked package. It stays on disk while someone holds it.
#[derive(Debug)]
pub struct Package {
    /// Its directory.
    pub root: PathBuf,
    unpacked_bytes: u64,
}

/// Why a package cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PackageError {
    /// The package is at fault; the text says how.
    #[error("{0}")]
    Invalid(String),
    /// It could not be had.
    #[error("the package could not be fetched: {0}")]
    Unavailable(String),
    /// This machine could not keep it.
    #[error("the package could not be kept: {0}")]
    Platform(String),
}

type Outcome = Result<Arc<Package>, PackageError>;

/// All packages of this instance.
#[derive(Debug)]
pub struct Packages {
    directory: PathBuf,
    link: Arc<Link>,
    entries: Mutex<HashMap<String, Entry>>,
    fetches: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
enum Entry {
    Fetching { waiting: Vec<oneshot::Sender<Outcome>>, pieces: mpsc::Sender<Piece> },
    Ready { package: Arc<Package>, used: Instant },
}

#[derive(Debug)]
enum Piece {
    Bytes { offset: u64, last: bool, body: Bytes },
    Missing(String),
}

impl Packages {
    /// Packages kept in `directory`, which exists and is empty.
    #[must_use]
    pub fn new(directory: PathBuf, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { directory, link, entries: Mutex::default(), fetches: Mutex::default() })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The package with this digest and size; fetched when it is not here. Whoever waits for the same one shares the
    /// fetch.
    ///
    /// # Errors
    /// When it cannot be had or used. The next call tries again.
    pub async fn get(self: &Arc<Self>, sha256: &str, size: u64) -> Outcome {
        // It becomes a path: nothing but a digest may.
        if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(PackageError::Platform("its digest is not a digest".to_owned()));
        }
        if size > PACKED_MAX {
            return Err(PackageError::Invalid(format!("the package is larger than {PACKED_MAX} bytes")));
        }
        let (settled, outcome) = oneshot::channel();
        let pieces = match self.entries().get_mut(sha256) {
            Some(Entry::Ready { package, used }) => {
                *used = Instant::now();
                return Ok(Arc::clone(package));
            }
            Some(Entry::Fetching { waiting, .. }) => {
                waiting.push(settled);
                None
            }
            None => Some(settled),
        };
        if let Some(settled) = pieces {
            let (pieces, arriving) = mpsc::channel(PIECES_WAITING);
            self.entries().insert(sha256.to_owned(), Entry::Fetching { waiting: vec![settled], pieces });
            self.link.say(Message::FetchPackage { sha256: sha256.to_owned() }, Bytes::new());
            let (packages, sha256) = (Arc::clone(self), sha256.to_owned());
            let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
            while fetches.try_join_next().is_some() {}
            fetches.spawn(async move {
                let outcome = packages.fetch(&sha256, size, arriving).await;
                packages.settle(&sha256, outcome).await;
            });
        }
        outcome.await.unwrap_or_else(|_| Err(PackageError::Platform("the fetch was given up".to_owned())))
    }

    /// Whether it is here.
    #[must_use]
    pub fn has(&self, sha256: &str) -> bool {
        matches!(self.entries().get(sha256), Some(Entry::Ready { .. }))
    }

    /// A piece has come. Waits while too many are not yet written, which slows the gateway down.
    pub async fn piece(&self, sha256: &str, offset: u64, last: bool, body: Bytes) {
        self.hand_on(sha256, Piece::Bytes { offset, last, body }).await;
    }

    /// The gateway does not have it.
    pub async fn missing(&self, sha256: &str, reason: String) {
        self.hand_on(sha256, Piece::Missing(reason)).await;
    }

    async fn hand_on(&self, sha256: &str, piece: Piece) {
        let pieces = match self.entries().get(sha256) {
            Some(Entry::Fetching { pieces, .. }) => pieces.clone(),
            // Late pieces of a fetch that failed.
            Some(Entry::Ready { .. }) | None => return,
        };
        // A closed channel is a fetch that has failed already.
        let _ = pieces.send(piece).await;
    }

    async fn fetch(&self, sha256: &str, size: u64, mut arriving: mpsc::Receiver<Piece>) -> Outcome {
        let platform = |error: &dyn std::fmt::Display| PackageError::Platform(error.to_string());
        let packed = self.directory.join(format!(".{sha256}.zip"));
        let partial = self.directory.join(format!(".{sha256}"));
        let root = self.directory.join(sha256);
        let file = fs::File::create(&packed).map_err(|error| platform(&error))?;
        let mut writing = Writing { file, digest: Sha256::new(), received: 0 };
        let clean_up = CleanUp { paths: [packed.clone(), partial.clone()] };
        loop {
            let piece = timeout(PIECE_PATIENCE, arriving.recv()).await;
            let (offset, last, body) = match piece {
                Ok(Some(Piece::Bytes { offset, last, body })) => (offset, last, body),
                Ok(Some(Piece::Missing(reason))) => return Err(PackageError::Unavailable(reason)),
                Ok(None) | Err(_) => {
                    return Err(PackageError::Unavailable("the gateway stopped sending it".to_owned()));
                }
            };
            if offset != writing.received || offset + body.len() as u64 > size {
                return Err(PackageError::Unavailable("its pieces do not fit together".to_owned()));
            }
            writing = spawn_blocking(move || writing.write(&body))
                .await
                .map_err(|error| platform(&error))?
                .map_err(|error| platform(&error))?;
            if last {
                break;
            }
        }
        if writing.received != size {
            let received = writing.received;
            return Err(PackageError::Unavailable(format!("it has {received} bytes instead of {size}")));
        }
        if writing.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>() != sha256 {
            return Err(PackageError::Unavailable("what came has another digest".to_owned()));
        }
        let unpacked = spawn_blocking(move || {
            let unpacked = unpack(&packed, &partial, &root, size);
            drop(clean_up);
            unpacked
        });
        unpacked.await.map_err(|error| platform(&error))?
    }

    async fn settle(&self, sha256: &str, outcome: Outcome) {
        let (entry, evicted) = {
            let mut entries = self.entries();
            let entry = entries.remove(sha256);
            if let Ok(package) = &outcome {
                let entry = Entry::Ready { package: Arc::clone(package), used: Instant::now() };
                entries.insert(sha256.to_owned(), entry);
            }
            (entry, evict(&mut entries))
        };
        match &outcome {
            Ok(package) => tracing::info!(
                package.sha256 = sha256,
                package.unpacked_bytes = package.unpacked_bytes,
                "the package is unpacked"
            ),
            Err(error) => tracing::warn!(package.sha256 = sha256, error = %error, "no package: {error}"),
        }
        if let Some(Entry::Fetching { waiting, .. }) = entry {
            for waiter in waiting {
                // Whoever no longer waits does not need it.
                let _ = waiter.send(outcome.clone());
            }
        }
        if !evicted.is_empty() {
            let removed = spawn_blocking(move || evicted.iter().try_for_each(fs::remove_dir_all)).await;
            if !matches!(removed, Ok(Ok(()))) {
                tracing::warn!("a package that is no longer used could not be removed");
            }
        }
    }
}

/// Takes the packages out that have to go, and names their directories.
fn evict(entries: &mut HashMap<String, Entry>) -> Vec<PathBuf> {
    let mut kept = 0;
    let mut idle = Vec::new();
    for (sha256, entry) in entries.iter() {
        if let Entry::Ready { package, used } = entry {
            kept += package.unpacked_bytes;
            if Arc::strong_count(package) == 1 {
                idle.push((*used, sha256.clone(), package.unpacked_bytes, package.root.clone()));
            }
        }
    }
    idle.sort();
    let mut gone = Vec::new();
    for (_, sha256, bytes, root) in idle {
        if kept <= CACHE_MAX {
            break;
        }
        kept -= bytes;
        entries.remove(&sha256);
        gone.push(root);
    }
    gone
}

struct Writing {
    file: fs::File,
    digest: Sha256,
    received: u64,
}

impl Writing {
    fn write(mut self, piece: &[u8]) -> std::io::Result<Self> {
        self.file.write_all(piece)?;
        self.digest.update(piece);
        self.received += piece.len() as u64;
        Ok(self)
    }
}

/// Removes what a fetch leaves behind, however it ends.
struct CleanUp {
    paths: [PathBuf; 2],
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let [packed, partial] = &self.paths;
        // Neither is there after a success.
        let _ = fs::remove_file(packed);
        let _ = fs::remove_dir_all(partial);
    }
}

fn unpack(packed: &Path, partial: &Path, root: &Path, size: u64) -> Outcome {
    let platform = |error: std::io::Error| PackageError::Platform(error.to_string());
    fs::create_dir(partial).map_err(platform)?;
    let file = fs::File::open(packed).map_err(platform)?;
    let summary = archive::unpack(std::io::BufReader::new(file), size, partial, ArchiveLimits::default());
    let summary = summary.map_err(|error| match error {
        ArchiveError::Write(source) => PackageError::Platform(source.to_string()),
        ArchiveError::Damaged(_)
        | ArchiveError::Unsupported(_)
        | ArchiveError::Entry { .. }
        | ArchiveError::TooManyEntries { .. }
        | ArchiveError::TooLarge { .. }
        | ArchiveError::Ratio { .. } => PackageError::Invalid(error.to_string()),
    })?;
    fs::set_permissions(partial, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(platform)?;
    // Whoever finds the directory finds a whole package.
    fs::rename(partial, root).map_err(platform)?;
    Ok(Arc::new(Package { root: root.to_owned(), unpacked_bytes: summary.unpacked_bytes }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive() -> (Vec<u8>, String) {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("main.py", SimpleFileOptions::default()).unwrap();
        zip.write_all(b"x = 1\n").unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (bytes, sha256)
    }

    #[tokio::test]
    async fn everyone_who_waits_shares_one_fetch_and_later_ones_need_none() {
        let directory = tempfile::tempdir().unwrap();
        let link = Arc::new(Link::default());
        let packages = Packages::new(directory.path().to_owned(), Arc::clone(&link));
        let (bytes, sha256) = archive();
        let size = bytes.len() as u64;
        let serve = async {
            link.work().await;
            let (first, second) = bytes.split_at(10);
            packages.piece(&sha256, 0, false, Bytes::copy_from_slice(first)).await;
            packages.piece(&sha256, 10, true, Bytes::copy_from_slice(second)).await;
        };
        let (one, two, ()) = tokio::join!(packages.get(&sha256, size), packages.get(&sha256, size), serve);
        assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
        let third = packages.get(&sha256, size).await.unwrap();
        assert_eq!(fs::read(third.root.join("main.py")).unwrap(), b"x = 1\n");
        assert_eq!(link.take(0, 1 << 20).frames.len(), 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside the package");
    }

    #[tokio::test]
    async fn a_package_with_another_digest_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let link = Arc::new(Link::default());
        let packages = Packages::new(directory.path().to_owned(), Arc::clone(&link));
        let (bytes, _) = archive();
        let sha256 = "0".repeat(64);
        let serve = async {
            link.work().await;
            packages.piece(&sha256, 0, true, Bytes::copy_from_slice(&bytes)).await;
        };
        let (outcome, ()) = tokio::join!(packages.get(&sha256, bytes.len() as u64), serve);
        assert!(matches!(outcome, Err(PackageError::Unavailable(why)) if why.contains("another digest")));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_not_a_digest_never_becomes_a_path() {
        let packages = Packages::new(PathBuf::from("/nonexistent"), Arc::new(Link::default()));
        assert!(packages.get("../../etc", 1).await.is_err());
    }
}
