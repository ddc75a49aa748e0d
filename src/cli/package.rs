//! From what the user points at to a package: a zip archive whose bytes depend on the files' names, contents and
//! executable bits alone, so that the same code has the same SHA-256 on every machine and on every day.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::error::{CliError, Result};
use crate::model::package::PackageLimits;

/// What is never part of a package: version control, and what Python leaves behind.
const LEFT_OUT: [&str; 4] = [".git", ".hg", ".svn", "__pycache__"];

/// The program that a package for the runtime `provided` begins with.
const BOOTSTRAP: &str = "bootstrap";

/// A package that is ready to be sent.
#[derive(Clone, Debug)]
pub struct Package {
    /// The zip archive.
    pub archive: Bytes,
    /// The handler that suggests itself; none: nothing does.
    pub handler: Option<String>,
    /// The module, where the package is one Python file.
    pub module: Option<String>,
}

/// Makes a package of a Python file, a zip archive, a directory or, for `provided`, a program.
///
/// # Errors
/// When there is no such file, it is none of these, it has links or special files in it, or it is too large.
pub fn read(path: &Path, runtime: &str) -> Result<Package> {
    let limits = PackageLimits::default();
    let kind = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if kind.is_dir() {
        return of_directory(path, runtime, &limits);
    }
    if !kind.is_file() {
        return Err(CliError::Usage(format!("{} is neither a file nor a directory", path.display())));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zip") => of_archive(path, &limits),
        Some("py") if runtime != "provided" => of_module(path, &limits),
        _ if runtime == "provided" => of_program(path, &limits),
        _ => Err(CliError::Usage(format!(
            "{} is none of what can be uploaded: a Python file (.py), a zip archive (.zip) or a directory",
            path.display()
        ))),
    }
}

/// An archive is taken as it is; that it can be unpacked is for the service to find out.
fn of_archive(path: &Path, limits: &PackageLimits) -> Result<Package> {
    let archive = read_file(path, limits.packed_bytes)?;
    if !archive.starts_with(b"PK") {
        return Err(CliError::Usage(format!("{} is not a zip archive", path.display())));
    }
    Ok(Package { archive: archive.into(), handler: None, module: None })
}

fn of_module(path: &Path, limits: &PackageLimits) -> Result<Package> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem.is_empty() || stem.contains(|c: char| c == '.' || c.is_whitespace() || c.is_control()) {
        return Err(CliError::Usage(format!(
            "{} cannot be imported by that name: a module's name has no dots and no white space",
            path.display()
        )));
    }
    let file = Entry { name: format!("{stem}.py"), path: path.to_owned(), executable: false };
    Ok(Package {
        archive: pack(&[file], limits)?,
        handler: Some(format!("{stem}.handler")),
        module: Some(stem.to_owned()),
    })
}

fn of_program(path: &Path, limits: &PackageLimits) -> Result<Package> {
    let file = Entry { name: BOOTSTRAP.to_owned(), path: path.to_owned(), executable: true };
    Ok(Package { archive: pack(&[file], limits)?, handler: Some(BOOTSTRAP.to_owned()), module: None })
}

fn of_directory(path: &Path, runtime: &str, limits: &PackageLimits) -> Result<Package> {
    let mut files = Vec::new();
    collect(path, "", &mut files, limits)?;
    if files.is_empty() {
        return Err(CliError::Usage(format!("there is nothing to upload in {}", path.display())));
    }
    // The order of a directory's entries is the file system's whim.
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let handler = if runtime == "provided" {
        match files.iter().find(|file| file.name == BOOTSTRAP) {
            Some(file) if file.executable => Some(BOOTSTRAP.to_owned()),
            Some(file) => {
                let path = file.path.display();
                return Err(CliError::Usage(format!("{path} is not executable: chmod +x {path}")));
            }
            None => {
                return Err(CliError::Usage(format!(
                    "the runtime 'provided' starts a program named bootstrap, and there is none in {}",
                    path.display()
                )));
            }
        }
    } else {
        files.iter().any(|file| file.name == "main.py").then(|| "main.handler".to_owned())
    };
    Ok(Package { archive: pack(&files, limits)?, handler, module: None })
}

/// A file that becomes part of a package.
struct Entry {
    /// Its path in the package, with `/`.
    name: String,
    path: PathBuf,
    executable: bool,
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<Entry>, limits: &PackageLimits) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(|error| cannot_read(directory, &error))? {
        let entry = entry.map_err(|error| cannot_read(directory, &error))?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(CliError::Usage(format!("the name of {} is not UTF-8", path.display())));
        };
        if LEFT_OUT.contains(&name) {
            continue;
        }
        let name = format!("{prefix}{name}");
        // Of the entry itself, not of what a link points to.
        let metadata = entry.metadata().map_err(|error| cannot_read(&path, &error))?;
        if metadata.is_dir() {
            collect(&path, &format!("{name}/"), files, limits)?;
        } else if metadata.is_file() {
            if files.len() >= limits.entries {
                return Err(CliError::Usage(format!("more than {} files are too many for a package", limits.entries)));
            }
            files.push(Entry { name, path, executable: metadata.permissions().mode() & 0o111 != 0 });
        } else if metadata.is_symlink() {
            return Err(CliError::Usage(format!(
                "{} is a symbolic link, which a package cannot hold: put a copy in its place",
                path.display()
            )));
        } else {
            return Err(CliError::Usage(format!("{} is not an ordinary file", path.display())));
        }
    }
    Ok(())
}

fn pack(files: &[Entry], limits: &PackageLimits) -> Result<Bytes> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut unpacked = 0;
    for file in files {
        let content = read_file(&file.path, limits.unpacked_bytes - unpacked)?;
        unpacked += content.len() as u64;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::DEFAULT)
            .system(System::Unix)
            .unix_permissions(if file.executable { 0o755 } else { 0o644 });
        archive
            .start_file(file.name.as_str(), options)
            .map_err(|error| error.to_string())
            .and_then(|()| archive.write_all(&content).map_err(|error| error.to_string()))
            .map_err(|why| CliError::Usage(format!("{} cannot be packed: {why}", file.path.display())))?;
    }
    let packed = archive.finish().map_err(|error| CliError::Usage(format!("the code cannot be packed: {error}")))?;
    let packed = packed.into_inner();
    if packed.len() as u64 > limits.packed_bytes {
        return Err(CliError::Usage(format!(
            "the package is {} MiB; at most {} MiB are allowed",
            (packed.len() as u64).div_ceil(1 << 20),
            limits.packed_bytes >> 20
        )));
    }
    Ok(packed.into())
}

/// Reads a file that must not have more than `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut content))
        .map_err(|error| cannot_read(path, &error))?;
    if content.len() as u64 > limit {
        let limits = PackageLimits::default();
        return Err(CliError::Usage(format!(
            "{} makes the package too large: at most {} MiB packed and {} MiB unpacked are allowed",
            path.display(),
            limits.packed_bytes >> 20,
            limits.unpacked_bytes >> 20
        )));
    }
    Ok(content)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Usage(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::model::package::PackageDigest;

    fn tree(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content, mode) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        directory
    }

    fn names(package: &Package) -> Vec<(String, u32)> {
        let mut archive = zip::ZipArchive::new(Cursor::new(package.archive.to_vec())).unwrap();
        (0..archive.len())
            .map(|index| {
                let file = archive.by_index(index).unwrap();
                (file.name().unwrap().into_owned(), file.unix_mode().unwrap() & 0o777)
            })
            .collect()
    }

    #[test]
    fn the_same_files_make_the_same_package_whatever_their_times_and_order() {
        let one = tree(&[("main.py", "x = 1\n", 0o644), ("lib/a.py", "", 0o600), ("bin/tool", "#!", 0o700)]);
        let two = tree(&[("bin/tool", "#!", 0o755), ("lib/a.py", "", 0o664), ("main.py", "x = 1\n", 0o644)]);
        let old = File::options().write(true).open(two.path().join("main.py")).unwrap();
        old.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let digest = |tree: &tempfile::TempDir| PackageDigest::of(&read(tree.path(), "python3").unwrap().archive);
        assert_eq!(digest(&one), digest(&two));
        // Written down, so that a new release of a library cannot change it unseen.
        assert_eq!(digest(&one).to_string(), "518f8706862737260e1eb9ce8d9a67022209c2553482b0efe53270d5409a5fd6");
        let other = tree(&[("main.py", "x = 1\n", 0o644), ("lib/a.py", "", 0o644), ("bin/tool", "#!", 0o644)]);
        assert_ne!(digest(&one), digest(&other), "executable bits are part of the code");
    }

    #[test]
    fn a_directory_is_packed_without_what_tools_left_in_it() {
        let directory = tree(&[
            ("main.py", "", 0o644),
            (".git/HEAD", "", 0o644),
            ("__pycache__/main.cpython-311.pyc", "", 0o644),
            ("lib/__pycache__/a.pyc", "", 0o644),
            ("lib/a.py", "", 0o644),
            (".hidden", "", 0o644),
            ("run.sh", "", 0o755),
        ]);
        let package = read(directory.path(), "python3").unwrap();
        let expected = [(".hidden", 0o644), ("lib/a.py", 0o644), ("main.py", 0o644), ("run.sh", 0o755)];
        assert_eq!(names(&package), expected.map(|(name, mode)| (name.to_owned(), mode)));
        assert_eq!(package.handler.as_deref(), Some("main.handler"));
    }

    #[test]
    fn a_python_file_is_a_package_whose_handler_has_its_name() {
        let directory = tree(&[("thumb.py", "", 0o755), ("a.b.py", "", 0o644), ("notes.txt", "", 0o644)]);
        let package = read(&directory.path().join("thumb.py"), "python3").unwrap();
        assert_eq!(package.handler.as_deref(), Some("thumb.handler"));
        assert_eq!(names(&package), [("thumb.py".to_owned(), 0o644)]);
        for bad in ["a.b.py", "notes.txt", "absent.py"] {
            assert_eq!(read(&directory.path().join(bad), "python3").unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_program_for_the_provided_runtime_becomes_its_bootstrap() {
        let directory = tree(&[("server", "#!/bin/sh\n", 0o644)]);
        let package = read(&directory.path().join("server"), "provided").unwrap();
        assert_eq!(names(&package), [("bootstrap".to_owned(), 0o755)]);
        let why = |directory: &tempfile::TempDir| read(directory.path(), "provided").unwrap_err().to_string();
        assert!(why(&directory).contains("there is none in"), "{}", why(&directory));
        let directory = tree(&[("bootstrap", "#!/bin/sh\n", 0o644)]);
        assert!(why(&directory).contains("chmod +x"), "{}", why(&directory));
    }

    #[test]
    fn an_archive_is_taken_as_it_is_and_other_files_are_no_archive() {
        let directory = tree(&[("good.zip", "PK\u{5}\u{6}", 0o644), ("bad.zip", "hello", 0o644)]);
        let package = read(&directory.path().join("good.zip"), "python3").unwrap();
        assert_eq!((&package.archive[..], package.handler), (&b"PK\x05\x06"[..], None));
        assert!(read(&directory.path().join("bad.zip"), "python3").is_err());
    }

    #[test]
    fn a_link_is_refused_by_its_name() {
        let directory = tree(&[("main.py", "", 0o644)]);
        symlink("/etc/passwd", directory.path().join("secrets")).unwrap();
        let error = read(directory.path(), "python3").unwrap_err();
        assert!(error.to_string().contains("secrets is a symbolic link"), "{error}");
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_sent() {
        let directory = tree(&[("main.py", "0123456789", 0o644), ("more.py", "0123456789", 0o644)]);
        let small = PackageLimits { unpacked_bytes: 15, ..PackageLimits::default() };
        assert!(of_directory(directory.path(), "python3", &small).unwrap_err().to_string().contains("more.py makes"));
        let small = PackageLimits { packed_bytes: 15, ..PackageLimits::default() };
        assert!(of_directory(directory.path(), "python3", &small).unwrap_err().to_string().contains("at most 0 MiB"));
        let small = PackageLimits { entries: 1, ..PackageLimits::default() };
        assert!(
            of_directory(directory.path(), "python3", &small).unwrap_err().to_string().contains("more than 1 files")
        );
        let empty = tree(&[("__pycache__/x.pyc", "", 0o644)]);
        assert!(read(empty.path(), "python3").is_err());
    }
}
