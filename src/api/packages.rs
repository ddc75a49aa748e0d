//! The code of functions: how it comes in, what is refused, and how it is given back.

use std::io::{Cursor, Write as _};
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use lambda_agent::archive::{ArchiveError, ArchiveLimits, check_archive};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Code, Result, shown};
use super::functions::{self, Edit, FunctionView};
use super::identity::Caller;
use super::input::{
    Named, NoParameters, ORDINARY_BODY, Query, has_already, header_value, if_match, media_type, read_body, read_json,
    too_large, unsupported,
};
use super::runtimes;
use crate::model::Function;
use crate::model::package::{PackageDigest, PackageLimits, PackageRef};
use crate::store::Store;

const ZIP: &str = "application/zip";
const PYTHON: &str = "text/x-python";
const MULTIPART: &str = "multipart/form-data";

/// What every zip archive with at least one entry begins with.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// Code inside a JSON body: exactly one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeBody {
    /// The text of the one file that the handler is in.
    #[schema(example = "def handler(event, context):\n    return event\n")]
    source: Option<String>,
    /// A zip archive, in base64.
    zip: Option<String>,
}

/// Code as it came.
pub(super) enum NewCode {
    /// One file, named after the handler's module.
    Source(Bytes),
    /// A zip archive.
    Archive(Bytes),
}

/// A zip archive that is not checked yet.
pub(super) struct NewArchive(Bytes);

impl TryFrom<CodeBody> for NewCode {
    type Error = ApiError;

    fn try_from(body: CodeBody) -> Result<Self> {
        match (body.source, body.zip) {
            (Some(source), None) => Ok(Self::Source(Bytes::from(source))),
            (None, Some(text)) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map(|archive| Self::Archive(Bytes::from(archive)))
                .map_err(|error| wrong(format!("code.zip: is not base64: {error}"))),
            (None, None) | (Some(_), Some(_)) => Err(wrong("code: give either 'source' or 'zip'")),
        }
    }
}

impl NewCode {
    /// The archive for a function: a single file is named after its handler's module.
    pub fn for_function(&self, function: &Function) -> Result<NewArchive> {
        match self {
            Self::Archive(archive) => Ok(NewArchive(archive.clone())),
            Self::Source(source) if source.iter().all(u8::is_ascii_whitespace) => Err(wrong("the source is empty")),
            Self::Source(source) => {
                let (name, mode) = runtimes::entry_file(&function.runtime, &function.handler)
                    .map_err(|invalid| ApiError::invalid(Code::CodeInvalid, &invalid))?;
                archive_of(&name, mode, source).map(NewArchive).map_err(ApiError::internal)
            }
        }
    }
}

/// A zip archive of one file. Nothing in it depends on the time, the machine or the version of a compressor, so equal
/// source is one package.
fn archive_of(name: &str, mode: u32, content: &[u8]) -> zip::result::ZipResult<Bytes> {
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(mode);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::with_capacity(content.len() + 512)));
    writer.start_file(name, options)?;
    writer.write_all(content)?;
    Ok(Bytes::from(writer.finish()?.into_inner()))
}

fn wrong(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::CodeInvalid, detail)
}

/// Taking in packages: their bounds, and how much of them may be in memory at the same time.
pub(super) struct Packages {
    limits: PackageLimits,
    room: Arc<Semaphore>,
    room_mib: u32,
}

/// Megabytes of memory that a request holds until it is done.
pub(super) type Room = Option<OwnedSemaphorePermit>;

impl Packages {
    /// Bounds uploads.
    pub fn new(limits: PackageLimits, room_mib: u32) -> Self {
        let room_mib = room_mib.max(1);
        Self { limits, room: Arc::new(Semaphore::new(room_mib as usize)), room_mib }
    }

    fn packed_limit(&self) -> usize {
        usize::try_from(self.limits.packed_bytes).unwrap_or(usize::MAX)
    }

    /// Reads a JSON body that may carry code in base64.
    pub async fn read_with_code<T: DeserializeOwned>(&self, headers: &HeaderMap, body: Body) -> Result<(T, Room)> {
        let limit = (self.packed_limit() / 3).saturating_mul(4).saturating_add(ORDINARY_BODY);
        let room = self.room(headers, limit).await?;
        Ok((read_json(headers, body, limit).await?, room))
    }

    /// Waits until there is memory for a body, as large as it says it is. Small ones do not wait.
    async fn room(&self, headers: &HeaderMap, limit: usize) -> Result<Room> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let bytes = announced.unwrap_or(limit);
        if bytes > limit {
            return Err(too_large(limit));
        }
        if bytes <= ORDINARY_BODY {
            return Ok(None);
        }
        // Twice: what is read, and what is decoded from it.
        let mib = u32::try_from(bytes.div_ceil(1 << 19)).unwrap_or(u32::MAX).min(self.room_mib);
        Arc::clone(&self.room).acquire_many_owned(mib).await.map(Some).map_err(ApiError::internal)
    }

    /// Checks an archive and keeps it.
    pub async fn keep(&self, store: &dyn Store, archive: NewArchive) -> Result<PackageRef> {
        let NewArchive(archive) = archive;
        let size = archive.len() as u64;
        if size > self.limits.packed_bytes {
            return Err(over(&self.limits));
        }
        let (checked, limits) = (archive.clone(), self.limits);
        // Reading every entry takes up to a second for the largest: not on a thread that serves others.
        let sha256 =
            tokio::task::spawn_blocking(move || check(&checked, &limits).map(|()| PackageDigest::of(&checked)))
                .await
                .map_err(ApiError::internal)??;
        store.put_package(sha256, archive).await?;
        Ok(PackageRef { sha256, size })
    }
}

fn over(limits: &PackageLimits) -> ApiError {
    ApiError::new(Code::CodeTooLarge, format!("the archive may have at most {} bytes", limits.packed_bytes))
}

/// Reads a whole archive as the agent will, with the agent's own eyes: what it would refuse at start is refused here.
fn check(archive: &[u8], limits: &PackageLimits) -> Result<()> {
    let PackageLimits { packed_bytes: _, unpacked_bytes, entries, ratio } = *limits;
    let summary = check_archive(archive, ArchiveLimits { unpacked_bytes, entries, ratio }).map_err(|error| {
        let said = error.to_string();
        match error {
            ArchiveError::TooManyEntries { .. } | ArchiveError::TooLarge { .. } | ArchiveError::Ratio { .. } => {
                ApiError::new(Code::CodeTooLarge, said)
            }
            ArchiveError::Damaged(_) | ArchiveError::Unsupported(_) | ArchiveError::Entry { .. } => wrong(said),
            ArchiveError::Write(_) => ApiError::internal(error),
        }
    })?;
    if summary.entries == 0 {
        return Err(wrong("the package has no files"));
    }
    Ok(())
}

/// Upload the code of a function: a zip archive, or one Python file.
#[utoipa::path(put, path = "/v1/functions/{function}/code", tag = "functions", operation_id = "upload_code",
    params(("function" = String, Path, description = "Its id or its name."),
           ("If-Match" = Option<String>, Header, description = "ETags of which the function must have one.")),
    request_body(content((Vec<u8> = "application/zip"), (String = "text/x-python"), (UploadForm = "multipart/form-data"))),
    responses((status = 200, description = "The function with its new code.", body = FunctionView,
        headers(("ETag" = String, description = "Its revision.")))))]
pub(super) async fn upload(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    request: Request,
) -> Result<Response> {
    let precondition = if_match(request.headers())?;
    // Nobody shall send fifty megabytes to learn that the function is not there.
    functions::find(&api, &caller, &name).await?;
    let kind = media_type(request.headers())?;
    let limit = api.packages.packed_limit();
    let (code, _room) = match kind.as_deref() {
        Some(ZIP | PYTHON) => {
            let (parts, body) = request.into_parts();
            let room = api.packages.room(&parts.headers, limit).await.map_err(|_| over(&api.packages.limits))?;
            let bytes = read_body(&parts.headers, body, limit)
                .await
                .map_err(|error| if error.code() == Code::TooLarge { over(&api.packages.limits) } else { error })?;
            (if kind.as_deref() == Some(ZIP) { NewCode::Archive(bytes) } else { NewCode::Source(bytes) }, room)
        }
        Some(MULTIPART) => {
            let whole = limit.saturating_add(ORDINARY_BODY);
            let room = api.packages.room(request.headers(), whole).await.map_err(|_| over(&api.packages.limits))?;
            (from_form(request, limit, &api.packages.limits).await?, room)
        }
        other => {
            return Err(unsupported(
                other,
                "application/zip, text/x-python, or multipart/form-data with the field 'data'",
            ));
        }
    };
    let function = functions::change(&api, &caller, &name, &precondition, Edit::Code(code)).await?;
    functions::answer(&api, &caller, &function).await
}

/// The form that `curl -F data=@file` sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used; the form is read piece by piece")]
struct UploadForm {
    /// A `.zip` archive or a `.py` file.
    #[schema(format = Binary, value_type = String)]
    data: Vec<u8>,
}

async fn from_form(mut request: Request, limit: usize, limits: &PackageLimits) -> Result<NewCode> {
    let broken = |error: MultipartError| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return over(limits);
        }
        ApiError::new(Code::Malformed, "the form cannot be read: see that it is complete and names its boundary")
            .caused_by(error)
    };
    // The form's own limit is for what stands around the file; the file's is kept below.
    DefaultBodyLimit::max(limit.saturating_add(ORDINARY_BODY)).apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| {
        ApiError::new(Code::InvalidHeader, "Content-Type: multipart/form-data must name its boundary")
            .caused_by(error.to_string())
    })?;
    let mut code = None;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("data") {
            let name = shown(field.name().unwrap_or_default());
            return Err(wrong(format!("the form has a field '{name}'; send only 'data'")));
        }
        if code.is_some() {
            return Err(wrong("the form has the field 'data' more than once"));
        }
        code = Some(from_field(field, limit, limits).await.map_err(|error| match error {
            FieldError::Form(error) => broken(error),
            FieldError::Api(error) => error,
        })?);
    }
    code.ok_or_else(|| wrong("the form has no field 'data'"))
}

enum FieldError {
    Form(MultipartError),
    Api(ApiError),
}

async fn from_field(
    mut field: Field<'_>,
    limit: usize,
    limits: &PackageLimits,
) -> std::result::Result<NewCode, FieldError> {
    let filename = field.file_name().unwrap_or_default().to_owned();
    let mut bytes = BytesMut::new();
    while let Some(piece) = field.chunk().await.map_err(FieldError::Form)? {
        if bytes.len() + piece.len() > limit {
            return Err(FieldError::Api(over(limits)));
        }
        bytes.extend_from_slice(&piece);
    }
    let bytes = bytes.freeze();
    let extension = Path::new(&filename).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "zip" => Ok(NewCode::Archive(bytes)),
        "py" => Ok(NewCode::Source(bytes)),
        // A file without a telling name, such as the program `bootstrap`.
        _ if bytes.starts_with(ZIP_MAGIC) => Ok(NewCode::Archive(bytes)),
        "" if !filename.is_empty() => Ok(NewCode::Source(bytes)),
        _ => Err(FieldError::Api(wrong(format!("the file '{}' is neither .zip nor .py", shown(&filename))))),
    }
}

/// Download the code of a function, as the zip archive that its sandboxes unpack.
#[utoipa::path(get, path = "/v1/functions/{function}/code", tag = "functions", operation_id = "download_code",
    params(("function" = String, Path, description = "Its id or its name.")),
    responses((status = 200, description = "The package.", body = Vec<u8>, content_type = "application/zip",
        headers(("ETag" = String, description = "SHA-256 of the package."))),
        (status = 304, description = "The code is still that of If-None-Match.")))]
pub(super) async fn download(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response> {
    let function = functions::find(&api, &caller, &name).await?;
    let missing = || ApiError::new(Code::CodeNotFound, format!("upload code for '{}' first", function.name));
    let package = function.package.ok_or_else(missing)?;
    let etag = format!("\"{}\"", package.sha256);
    if has_already(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, header_value(&etag))]).into_response());
    }
    // The function names it, so it has to be there: that it is not is a fault of ours.
    let archive = api.store.package(package.sha256).await?;
    let disposition = format!("attachment; filename=\"{}.zip\"", function.name);
    Ok((
        [
            (header::CONTENT_TYPE, header_value(ZIP)),
            (header::ETAG, header_value(&etag)),
            (header::CONTENT_DISPOSITION, header_value(&disposition)),
        ],
        archive,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn equal_source_is_one_package() {
        let one = archive_of("main.py", 0o644, b"def handler(event, context): pass").unwrap();
        let two = archive_of("main.py", 0o644, b"def handler(event, context): pass").unwrap();
        assert_eq!(PackageDigest::of(&one), PackageDigest::of(&two));
        assert!(check(&one, &PackageLimits::default()).is_ok());
        // A release that writes other bytes for the same source would make every function's code new.
        assert_eq!(
            PackageDigest::of(&one).to_string(),
            "121ca939ad50a478a35f098ec3198ed7aef58aa61a48f8c7abeac889e5eb5744"
        );
    }

    #[test]
    fn what_the_agent_would_refuse_is_refused_at_upload() {
        let limits = PackageLimits { packed_bytes: 1 << 20, unpacked_bytes: 3 << 20, entries: 3, ratio: 100 };
        let noise: Vec<u8> = (0..4_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let whole = zip_of(&[("main.py", &[b'x'; 1000])]);
        for (what, archive, code) in [
            ("outside", zip_of(&[("../a", b"x")]), Code::CodeInvalid),
            ("truncated", whole[..whole.len() - 10].to_vec(), Code::CodeInvalid),
            ("no files", zip_of(&[]), Code::CodeInvalid),
            ("ratio", zip_of(&[("zeros", &vec![0; 2 << 20])]), Code::CodeTooLarge),
            ("size", zip_of(&[("noise", &noise)]), Code::CodeTooLarge),
            ("entries", zip_of(&[("a", b""), ("b", b""), ("c", b""), ("d", b"")]), Code::CodeTooLarge),
        ] {
            assert_eq!(check(&archive, &limits).unwrap_err().code(), code, "{what}");
        }
        assert!(check(&whole, &limits).is_ok());
    }
}
