//! Packages, as GridFS files of the bucket `packages`.
//!
//! A file's name is the digest, its id is fresh for each upload: an upload that was broken off leaves chunks without a
//! file, which must not stand in the way of the next one. Two uploads at once leave two equal files, which is harmless.

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};
use mongodb::gridfs::GridFsBucket;
use mongodb::options::GridFsBucketOptions;

use super::super::{Result, StoreError, within};
use super::{MongoStore, document, durable};
use crate::clock;
use crate::model::Timestamp;
use crate::model::package::PackageDigest;

/// Bytes that are written or read within one timeout.
const PIECE: usize = 1 << 20;

/// Files or chunks that one round of tidying up looks at.
const TIDY_BATCH: usize = 1000;

/// Errors of a stream wrap the driver's own.
fn stream_error(error: std::io::Error) -> StoreError {
    match error.get_ref().and_then(|source| source.downcast_ref::<mongodb::error::Error>()) {
        Some(source) => source.clone().into(),
        None => StoreError::Unavailable(Box::new(error)),
    }
}

impl MongoStore {
    fn bucket(&self) -> GridFsBucket {
        let options = GridFsBucketOptions::builder()
            .bucket_name("packages".to_owned())
            .write_concern(durable(self.timeout))
            .build();
        self.database.gridfs_bucket(options)
    }

    pub(super) async fn upload(&self, digest: PackageDigest, archive: Bytes) -> Result<()> {
        let name = digest.to_string();
        let put_at = document::date(clock::now());
        let files = self.collection("packages.files");
        let touched = files.update_many(doc! { "filename": &name }, doc! { "$max": { "metadata.put_at": put_at } });
        if within(self.timeout, async { Ok(touched.await?) }).await?.matched_count > 0 {
            return Ok(());
        }
        let bucket = self.bucket();
        let open = bucket.open_upload_stream(&name).metadata(doc! { "put_at": put_at });
        let mut stream = within(self.timeout, async { Ok(open.await?) }).await?;
        for piece in archive.chunks(PIECE) {
            within(self.timeout, async { stream.write_all(piece).await.map_err(stream_error) }).await?;
        }
        within(self.timeout, async { stream.close().await.map_err(stream_error) }).await
    }

    pub(super) async fn download(&self, digest: PackageDigest) -> Result<Bytes> {
        let files = self.collection("packages.files");
        let find = files.find_one(doc! { "filename": digest.to_string() });
        let file = within(self.timeout, async { Ok(find.await?) }).await?.ok_or(StoreError::NotFound("package"))?;
        let id = file.get("_id").cloned().unwrap_or(Bson::Null);
        let bucket = self.bucket();
        let mut stream = within(self.timeout, async { Ok(bucket.open_download_stream(id).await?) }).await?;
        let mut archive = Vec::new();
        loop {
            let mut piece = (&mut stream).take(PIECE as u64);
            let read = async { piece.read_to_end(&mut archive).await.map_err(stream_error) };
            if within(self.timeout, read).await? == 0 {
                return Ok(archive.into());
            }
        }
    }

    pub(super) async fn remove_unused_packages(&self, older_than: Timestamp) -> Result<u64> {
        let files = self.collection("packages.files");
        let old = doc! { "metadata.put_at": { "$lt": document::date(older_than) } };
        let candidates = async {
            let found = files.find(old.clone()).projection(doc! { "filename": 1 }).await?;
            Ok(found.try_collect::<Vec<Document>>().await?)
        };
        let candidates = within(self.timeout, candidates).await?;
        let mut deleted = 0;
        for candidates in candidates.chunks(TIDY_BATCH) {
            deleted += self.remove_unused(candidates, &old).await?;
        }
        self.remove_lost_chunks(older_than).await?;
        Ok(deleted)
    }

    async fn remove_unused(&self, candidates: &[Document], old: &Document) -> Result<u64> {
        let (files, chunks) = (self.collection("packages.files"), self.collection("packages.chunks"));
        let functions = self.collection("functions");
        let names: Vec<&Bson> = candidates.iter().filter_map(|file| file.get("filename")).collect();
        let used = functions.distinct("package.sha256", doc! { "package.sha256": { "$in": names } });
        let used = within(self.timeout, async { Ok(used.await?) }).await?;
        let mut deleted = 0;
        for file in candidates {
            if file.get("filename").is_some_and(|name| used.contains(name)) {
                continue;
            }
            // Only if it was not put again meanwhile. The file goes first: chunks without one are found again below.
            let mut condition = old.clone();
            condition.insert("_id", file.get("_id"));
            let gone = within(self.timeout, async {
                let gone = files.delete_one(condition).await?.deleted_count;
                if gone > 0 {
                    chunks.delete_many(doc! { "files_id": file.get("_id") }).await?;
                }
                Ok(gone)
            });
            deleted += gone.await?;
        }
        Ok(deleted)
    }

    /// Removes chunks whose upload was broken off, or whose file's deletion was.
    async fn remove_lost_chunks(&self, older_than: Timestamp) -> Result<()> {
        let (files, chunks) = (self.collection("packages.files"), self.collection("packages.chunks"));
        let seconds = u32::try_from(older_than.as_millis() / 1000).unwrap_or(0);
        let before = ObjectId::from_parts(seconds, [0; 5], [0; 3]);
        // The ids of GridFS files begin with the time of their making.
        let ids = within(self.timeout, async {
            Ok(chunks.distinct("files_id", doc! { "files_id": { "$lt": before } }).await?)
        });
        let ids = ids.await?;
        for ids in ids.chunks(TIDY_BATCH) {
            let tidy = async {
                let known = files.distinct("_id", doc! { "_id": { "$in": ids } }).await?;
                let lost: Vec<&Bson> = ids.iter().filter(|id| !known.contains(id)).collect();
                if !lost.is_empty() {
                    chunks.delete_many(doc! { "files_id": { "$in": lost } }).await?;
                }
                Ok(())
            };
            within(self.timeout, tidy).await?;
        }
        Ok(())
    }
}
