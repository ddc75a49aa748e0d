//! Packages.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lambda_openstack::clock;
use lambda_openstack::model::package::{PackageDigest, PackageRef};
use lambda_openstack::store::{Scope, StoreError};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::support::databases::Database;
use crate::support::samples;

pub async fn a_large_package_reads_back_and_is_kept_once(database: Database) {
    let store = &database.store;
    let mut archive = vec![0; 20 << 20];
    StdRng::seed_from_u64(0).fill_bytes(&mut archive);
    let (digest, archive) = (PackageDigest::of(&archive), Bytes::from(archive));
    assert_eq!(archive.len(), 20 << 20);
    store.put_package(digest, archive.clone()).await.unwrap();
    let again = join_all((0..3).map(|_| store.put_package(digest, archive.clone()))).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    assert!(store.package(digest).await.unwrap() == archive);
    let kept: i64 = match database.sqlite_path() {
        Some(path) => {
            let file = rusqlite::Connection::open(path).unwrap();
            file.query_one("SELECT sum(length(archive)) FROM archives", (), |row| row.get(0)).unwrap()
        }
        None => {
            let files = database.mongo().await.collection::<mongodb::bson::Document>("packages.files");
            let count = files.count_documents(mongodb::bson::doc! {}).await.unwrap();
            i64::try_from(count).unwrap() * (20 << 20)
        }
    };
    assert_eq!(kept, 20 << 20);
}

pub async fn an_empty_package_and_an_unknown_one_are_told_apart(Database { store, .. }: Database) {
    let unknown = store.package(PackageDigest::of(b"")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("package"))), "{unknown:?}");
    store.put_package(PackageDigest::of(b""), Bytes::new()).await.unwrap();
    assert!(store.package(PackageDigest::of(b"")).await.unwrap().is_empty());
}

pub async fn a_package_goes_only_when_it_is_unused_and_old(Database { store, .. }: Database) {
    let archives = [Bytes::from_static(b"used"), Bytes::from_static(b"unused"), Bytes::from_static(b"put again")];
    let digests: Vec<_> = archives.iter().map(|archive| PackageDigest::of(archive)).collect();
    for (digest, archive) in digests.iter().zip(&archives) {
        store.put_package(*digest, archive.clone()).await.unwrap();
    }
    let mut function = samples::function("p", "thumb");
    function.package = Some(PackageRef { sha256: digests[0], size: 4 });
    store.create_function(&function, &[]).await.unwrap();

    assert_eq!(store.delete_unused_packages(clock::now() - Duration::from_secs(60)).await.unwrap(), 0);
    // What is put again is young again.
    let cut = loop {
        let cut = clock::now();
        tokio::task::yield_now().await;
        store.put_package(digests[2], archives[2].clone()).await.unwrap();
        // Only a cut that lies between the two puts shows it.
        if clock::now() > cut {
            store.put_package(digests[2], archives[2].clone()).await.unwrap();
            break cut;
        }
    };
    assert_eq!(store.delete_unused_packages(cut).await.unwrap(), 1);
    store.package(digests[0]).await.unwrap();
    let gone = store.package(digests[1]).await;
    assert!(matches!(gone, Err(StoreError::NotFound("package"))), "{gone:?}");
    store.package(digests[2]).await.unwrap();
    // It can come back.
    store.put_package(digests[1], archives[1].clone()).await.unwrap();
    assert_eq!(store.package(digests[1]).await.unwrap(), archives[1]);

    store.delete_function(&Scope::All, function.id, None).await.unwrap();
    assert_eq!(store.delete_unused_packages(clock::now() + Duration::from_secs(60)).await.unwrap(), 3);
}
