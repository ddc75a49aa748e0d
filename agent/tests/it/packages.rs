//! Packages, good and bad.

use std::io::{Cursor, Write as _};

use lambda_agent::archive::{ArchiveLimits, check_archive};
use lambda_agent::wire::{FailureKind, SandboxPhase};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::gateway::Gateway;
use crate::help::{spec, zip};

fn archive(build: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    build(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn bad_packages() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let plain = SimpleFileOptions::default();
    let good = zip(&[("main.py", b"def handler(event, context): return 1")]);
    vec![
        ("no zip", b"this is no zip archive".to_vec(), "not a whole zip archive"),
        ("empty", Vec::new(), "not a whole zip archive"),
        ("truncated", good[..good.len() / 2].to_vec(), "not a whole zip archive"),
        (
            "zip slip",
            archive(|zip| zip.start_file("../../escaped", plain).unwrap()),
            "\"../../escaped\" leads out of the package",
        ),
        ("absolute", archive(|zip| zip.start_file("/tmp/escaped", plain).unwrap()), "has an absolute path"),
        ("link out", archive(|zip| zip.add_symlink("link", "../../x", plain).unwrap()), "leads out of the package"),
        (
            "absolute link",
            archive(|zip| zip.add_symlink("link", "/etc/passwd", plain).unwrap()),
            "leads out of the package",
        ),
        (
            "below a link",
            archive(|zip| {
                zip.add_symlink("dir", "other", plain).unwrap();
                zip.start_file("dir/file", plain).unwrap();
            }),
            "lies below what is not a directory",
        ),
        (
            "bomb",
            archive(|zip| {
                zip.start_file("zeros", plain).unwrap();
                zip.write_all(&vec![0; 32 << 20]).unwrap();
            }),
            "more than 200 times its size",
        ),
        (
            "too many",
            archive(|zip| (0..20_001).for_each(|n| zip.start_file(n.to_string(), plain).unwrap())),
            "has 20001 entries, 20000 are allowed",
        ),
    ]
}

#[tokio::test]
async fn a_bad_package_is_refused_with_what_is_wrong_and_leaves_nothing() {
    // Made first: it takes so long that an agent would give its silent gateway up.
    let packages = bad_packages();
    for (name, bytes, why) in &packages {
        let error = check_archive(bytes, ArchiveLimits::default()).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
    let mut gateway = Gateway::start().await;
    for (name, bytes, why) in packages {
        let spec = gateway.package(bytes);
        let failure = gateway.begin(spec).await.failure.unwrap_or_else(|| panic!("{name} was taken"));
        assert_eq!((failure.kind, failure.phase), (FailureKind::PackageInvalid, SandboxPhase::Package), "{failure:?}");
        assert!(failure.message.contains(why), "{name}: {failure:?}");
    }
    let packages = gateway.work_dir().join("packages");
    assert_eq!(std::fs::read_dir(packages).unwrap().count(), 0);
    assert!(!gateway.work.path().join("escaped").exists());
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_package_that_is_not_to_be_had_is_unavailable() {
    let mut gateway = Gateway::start().await;
    let failure = gateway.begin(spec("0".repeat(64), 5)).await.failure.unwrap();
    assert_eq!((failure.kind, failure.phase), (FailureKind::PackageUnavailable, SandboxPhase::Package));
    assert!(failure.message.contains("it was deleted"), "{failure:?}");
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_package_is_fetched_once_whatever_its_size() {
    let mut gateway = Gateway::start().await;
    let noise: Vec<u8> = (0..3 << 20).map(|_| rand::random()).collect();
    let source = b"def handler(event, context): return len(open('noise', 'rb').read())";
    let spec = gateway.package(zip(&[("main.py", source), ("noise", &noise)]));
    let first = gateway.begin(spec.clone()).await;
    assert!(first.failure.is_none() && first.package_us > 0, "{first:?}");
    let second = gateway.begin(spec.clone()).await;
    assert_eq!((second.failure, second.package_us), (None, 0));
    assert_eq!(gateway.fetched.get(&spec.package_sha256), Some(&1));
    assert_eq!(gateway.invoke(second.sandbox, "{}").await.returned(), 3 << 20);
    gateway.shut_down().await;
}
