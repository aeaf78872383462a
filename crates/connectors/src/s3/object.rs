//! One object: what is known of it, its bytes, and putting another one in its place on a condition.
//!
//! ```text
//!  head ─▶ etag ─▶ fetch (if it has it) ─▶ … ─▶ put: one request up to 8 MiB, else parts; the last request carries the condition
//! ```
//!
//! A put that ends early leaves the old object. What parts it has sent are given up; those of a process that was killed stay until the bucket's own rule
//! for unfinished uploads removes them.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::path::Path;

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTimeFormat, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass};
use millrace_core::objects::ObjectEntry;
use millrace_core::{Error, Kind, Result};
use tokio::io::AsyncWriteExt as _;

use super::client::Store;
use super::error::{Asked, failed, may_be_done};
use super::path::ObjectPath;

/// Up to this size an object is sent in one request, bytes.
const WHOLE: u64 = 8 << 20;
/// Parts of one upload; the store's own bound is 10,000.
const MOST_PARTS: u64 = 9_000;
/// Larger objects are not edited, because they are fetched whole for it, bytes.
pub const LARGEST_EDITED: u64 = 1 << 30;

/// What is known of an object without its bytes.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// As a listing tells it.
    pub entry: ObjectEntry,
    content_type: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    content_disposition: Option<String>,
    cache_control: Option<String>,
    metadata: Option<HashMap<String, String>>,
    storage_class: Option<StorageClass>,
    encryption: Option<ServerSideEncryption>,
    key_id: Option<String>,
}

/// When a put may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Whatever is there.
    Always,
    /// The object has this etag, without quotes.
    Unchanged(&'a str),
    /// There is none.
    Absent,
}

impl Condition<'_> {
    fn headers(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Always => (None, None),
            Self::Unchanged(etag) => (Some(format!("\"{etag}\"")), None),
            Self::Absent => (None, Some("*".to_owned())),
        }
    }
}

impl Store {
    /// What is known of an object.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none.
    pub async fn head(&self, at: &ObjectPath) -> Result<Head> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let found = match self.client.head_object().bucket(&at.bucket).key(&at.key).send().await {
            Ok(found) => found,
            Err(error) => return Err(self.explained(at, failed(&asked, error)).await),
        };
        Ok(Head {
            entry: ObjectEntry {
                key: at.key.clone(),
                size: found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                last_modified: found.last_modified().and_then(|time| time.fmt(DateTimeFormat::DateTime).ok()).unwrap_or_default(),
                etag: found.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
                storage_class: found.storage_class().map_or("STANDARD", StorageClass::as_str).to_owned(),
            },
            content_type: found.content_type().map(str::to_owned),
            content_encoding: found.content_encoding().map(str::to_owned),
            content_language: found.content_language().map(str::to_owned),
            content_disposition: found.content_disposition().map(str::to_owned),
            cache_control: found.cache_control().map(str::to_owned),
            metadata: found.metadata().filter(|metadata| !metadata.is_empty()).cloned(),
            storage_class: found.storage_class().cloned(),
            encryption: found.server_side_encryption().cloned(),
            key_id: found.ssekms_key_id().map(str::to_owned),
        })
    }

    /// An answer to HEAD has no body that says what is wrong; one to GET has.
    async fn explained(&self, at: &ObjectPath, error: Error) -> Error {
        if !matches!(error.kind(), Kind::NotFound | Kind::PermissionDenied | Kind::ProtocolViolated | Kind::Invalid) {
            return error;
        }
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        match self.client.get_object().bucket(&at.bucket).key(&at.key).range("bytes=0-0").send().await {
            Err(told) => failed(&asked, told),
            Ok(_) => error,
        }
    }

    /// A small object's bytes and etag.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the field `path` if it is larger than `most` bytes.
    pub async fn bytes(&self, at: &ObjectPath, most: u64) -> Result<(Vec<u8>, String)> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let answer = self.client.get_object().bucket(&at.bucket).key(&at.key).send().await;
        let mut answer = answer.map_err(|error| failed(&asked, error))?;
        let too_large = || Error::invalid("path", format!("`{at}` is larger than {most} bytes"));
        if answer.content_length().is_some_and(|size| u64::try_from(size).is_ok_and(|size| size > most)) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(part) = answer.body.next().await {
            bytes.extend_from_slice(&part.map_err(|error| broken(at, error))?);
            if bytes.len() as u64 > most {
                return Err(too_large());
            }
        }
        Ok((bytes, answer.e_tag().unwrap_or_default().trim_matches('"').to_owned()))
    }

    /// Writes an object that has this etag into a file.
    ///
    /// # Errors
    /// [`Kind::Conflict`] with the detail `reason` = `etag` if it has another one.
    pub async fn fetch(&self, at: &ObjectPath, etag: &str, file: &Path) -> Result<()> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let request = self.client.get_object().bucket(&at.bucket).key(&at.key).if_match(format!("\"{etag}\""));
        let mut answer = request.send().await.map_err(|error| failed(&asked, error))?;
        let unwritable =
            |error: std::io::Error| Error::new(Kind::ServerExhausted, "the object cannot be kept for the change").because(error);
        let mut out = tokio::fs::File::create(file).await.map_err(unwritable)?;
        let mut written = 0;
        while let Some(part) = answer.body.next().await {
            let part = part.map_err(|error| broken(at, error))?;
            written += part.len() as u64;
            out.write_all(&part).await.map_err(unwritable)?;
        }
        out.flush().await.map_err(unwritable)?;
        match answer.content_length().and_then(|size| u64::try_from(size).ok()) {
            Some(size) if size != written => Err(Error::new(Kind::ConnectionLost, format!("`{at}` ended after {written} of {size} bytes"))),
            _ => Ok(()),
        }
    }

    /// Puts bytes in the place of an object; answers the new etag.
    ///
    /// # Errors
    /// [`Kind::Conflict`] with the detail `reason` = `etag` if the condition does not hold.
    pub async fn put(&self, at: &ObjectPath, bytes: Vec<u8>, content_type: &str, condition: Condition<'_>) -> Result<String> {
        let head = Head { content_type: Some(content_type.to_owned()), ..Head::default() };
        self.put_whole(at, ByteStream::from(bytes), &head, condition).await
    }

    /// Puts a file in the place of an object, with what `like` says beside the bytes; answers the new etag.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_file(&self, at: &ObjectPath, file: &Path, like: &Head, condition: Condition<'_>) -> Result<String> {
        let unreadable = |error: std::io::Error| Error::internal("the changed object cannot be read").because(error);
        let size = tokio::fs::metadata(file).await.map_err(unreadable)?.len();
        if size <= WHOLE {
            let bytes = tokio::fs::read(file).await.map_err(unreadable)?;
            return self.put_whole(at, ByteStream::from(bytes), like, condition).await;
        }
        self.put_parts(at, file, size, like, condition).await
    }

    async fn put_whole(&self, at: &ObjectPath, body: ByteStream, like: &Head, condition: Condition<'_>) -> Result<String> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let (if_match, if_none_match) = condition.headers();
        let request = self.client.put_object().bucket(&at.bucket).key(&at.key).body(body);
        let request = request
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_content_type(like.content_type.clone())
            .set_content_encoding(like.content_encoding.clone())
            .set_content_language(like.content_language.clone())
            .set_content_disposition(like.content_disposition.clone())
            .set_cache_control(like.cache_control.clone())
            .set_metadata(like.metadata.clone())
            .set_storage_class(like.storage_class.clone())
            .set_server_side_encryption(like.encryption.clone())
            .set_ssekms_key_id(like.key_id.clone());
        let answer = request.customize().config_override(once(condition)).send().await;
        let answer = answer.map_err(|error| refusal(&asked, error, at, condition))?;
        Ok(answer.e_tag().unwrap_or_default().trim_matches('"').to_owned())
    }

    async fn put_parts(&self, at: &ObjectPath, file: &Path, size: u64, like: &Head, condition: Condition<'_>) -> Result<String> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let request = self.client.create_multipart_upload().bucket(&at.bucket).key(&at.key);
        let request = request
            .set_content_type(like.content_type.clone())
            .set_content_encoding(like.content_encoding.clone())
            .set_content_language(like.content_language.clone())
            .set_content_disposition(like.content_disposition.clone())
            .set_cache_control(like.cache_control.clone())
            .set_metadata(like.metadata.clone())
            .set_storage_class(like.storage_class.clone())
            .set_server_side_encryption(like.encryption.clone())
            .set_ssekms_key_id(like.key_id.clone());
        let begun = request.send().await.map_err(|error| failed(&asked, error))?;
        let id = begun.upload_id().unwrap_or_default().to_owned();
        let done = self.send_parts(at, file, size, &id, condition).await;
        if done.is_err() {
            // The parts are nobody's use; what cannot be given up is left to the bucket's own rule.
            let _ = self.client.abort_multipart_upload().bucket(&at.bucket).key(&at.key).upload_id(&id).send().await;
        }
        done
    }

    async fn send_parts(&self, at: &ObjectPath, file: &Path, size: u64, id: &str, condition: Condition<'_>) -> Result<String> {
        let asked = Asked::object(&self.access, &at.bucket, &at.key);
        let length = WHOLE.max(size.div_ceil(MOST_PARTS));
        let mut parts = Vec::new();
        let mut offset = 0;
        for number in 1.. {
            if offset >= size {
                break;
            }
            let part = length.min(size - offset);
            let body = ByteStream::read_from().path(file).offset(offset).length(Length::Exact(part)).build().await;
            let body = body.map_err(|error| Error::internal("the changed object cannot be read").because(error))?;
            let request = self.client.upload_part().bucket(&at.bucket).key(&at.key).upload_id(id).part_number(number).body(body);
            let sent = request.send().await.map_err(|error| failed(&asked, error))?;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned)).build());
            offset += part;
        }
        let (if_match, if_none_match) = condition.headers();
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&at.bucket).key(&at.key).upload_id(id).multipart_upload(all);
        let request = request.set_if_match(if_match).set_if_none_match(if_none_match);
        // An upload that is completed is gone, so the second try of a first one that succeeded would fail.
        let answer = request.customize().config_override(once(Condition::Absent)).send().await;
        let answer = answer.map_err(|error| refusal(&asked, error, at, condition))?;
        Ok(answer.e_tag().unwrap_or_default().trim_matches('"').to_owned())
    }
}

/// A request with a condition is sent once: if the first try has succeeded and its answer was lost, a second one would meet its own object and be told that
/// somebody has changed it.
fn once(condition: Condition<'_>) -> Builder {
    match condition {
        Condition::Always => Builder::new(),
        _ => Builder::new().retry_config(RetryConfig::disabled()),
    }
}

/// An object that was removed is one that has changed; and of a request that was sent and not answered nobody knows whether it was done.
fn refusal<E>(asked: &Asked<'_>, error: SdkError<E, HttpResponse>, at: &ObjectPath, condition: Condition<'_>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let may_be_done = may_be_done(&error);
    let error = failed(asked, error);
    if may_be_done {
        let text = format!(
            "whether `{at}` was written is not known, because the store's answer did not come; read it again before you repeat this"
        );
        return Error::new(Kind::ConnectionLost, text).field("path").because(error);
    }
    if error.kind() == Kind::NotFound && matches!(condition, Condition::Unchanged(_)) && error.detail("code") != Some("NoSuchBucket") {
        return Error::new(Kind::Conflict, format!("`{at}` was removed meanwhile")).field("path").with("reason", "etag");
    }
    error
}

fn broken(at: &ObjectPath, error: aws_sdk_s3::primitives::ByteStreamError) -> Error {
    Error::new(Kind::ConnectionLost, format!("the connection broke while `{at}` was read")).because(error)
}
