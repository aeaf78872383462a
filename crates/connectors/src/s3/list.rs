//! Buckets, and what they hold.

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use millrace_core::objects::ObjectEntry;
use millrace_core::validate::check_bucket;
use millrace_core::{Error, Kind, Result};

use super::client::Store;
use super::error::{Asked, failed};
use super::path::ObjectPath;

/// The most objects that a store gives at once.
pub(super) const MOST_KEYS: i32 = 1000;
/// The most buckets that are listed.
const MOST_BUCKETS: usize = 10_000;

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Default)]
pub struct Paging<'a> {
    /// Whether objects below further slashes are listed, too; without it they are summed up as prefixes.
    pub is_recursive: bool,
    /// At most so many objects and prefixes, 1 to 1000.
    pub limit: u32,
    /// Where the page before has ended.
    pub token: Option<&'a str>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub objects: Vec<ObjectEntry>,
    /// Where keys go on below a further slash, with that slash.
    pub prefixes: Vec<String>,
    /// Where the next part begins; none if this is the last.
    pub next: Option<String>,
}

impl Store {
    /// The names of all buckets that the credentials may see, in order.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn buckets(&self) -> Result<Vec<String>> {
        let asked = Asked::store(&self.access);
        let mut names = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let answer = self.client.list_buckets().set_continuation_token(token.clone()).send().await;
            let answer = answer.map_err(|error| failed(&asked, error))?;
            names.extend(answer.buckets().iter().filter_map(|bucket| bucket.name().map(str::to_owned)));
            token = answer.continuation_token().filter(|next| !next.is_empty() && Some(*next) != token.as_deref()).map(str::to_owned);
            if token.is_none() || names.len() >= MOST_BUCKETS {
                break;
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Makes a bucket; answers its region.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if it exists; [`Kind::Invalid`] for a name or region that the store does not allow.
    pub async fn create_bucket(&self, bucket: &str, region: Option<&str>) -> Result<String> {
        check_bucket(bucket).map_err(|text| Error::invalid("bucket", text))?;
        let is_new = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        if bucket.len() > 63 || !bucket.bytes().all(is_new) {
            return Err(Error::invalid("bucket", "a new bucket's name has 3 to 63 lower case letters, digits, dots and hyphens"));
        }
        let region = region.unwrap_or(&self.access.region);
        // AWS wants its first region left out, and services without regions know none.
        let place = Some(region).filter(|region| !["us-east-1", "auto"].contains(region));
        let place =
            place.map(|region| CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build());
        let asked = Asked::bucket(&self.access, bucket);
        let answer = self.client.create_bucket().bucket(bucket).set_create_bucket_configuration(place).send().await;
        answer.map_err(|error| failed(&asked, error))?;
        Ok(region.to_owned())
    }

    /// A part of what a bucket holds below a prefix.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a bucket that does not exist; [`Kind::Invalid`] for a token that the store did not give.
    pub async fn page(&self, bucket: &str, prefix: &str, paging: Paging<'_>) -> Result<Page> {
        let asked = Asked::bucket(&self.access, bucket);
        let limit = i32::try_from(paging.limit).unwrap_or(MOST_KEYS).clamp(1, MOST_KEYS);
        let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix).max_keys(limit);
        let request = request.set_continuation_token(paging.token.map(str::to_owned));
        let request = if paging.is_recursive { request } else { request.delimiter("/") };
        let answer = request.send().await.map_err(|error| {
            let error = failed(&asked, error);
            let is_token = paging.token.is_some() && error.kind() == Kind::Invalid && error.field_name() == Some("bucket");
            if is_token { Error::invalid("continuationToken", "the store did not give this token") } else { error }
        })?;
        let text = |time: Option<&DateTime>| time.and_then(|time| time.fmt(DateTimeFormat::DateTime).ok()).unwrap_or_default();
        let objects = answer.contents().iter().map(|object| ObjectEntry {
            key: object.key().unwrap_or_default().to_owned(),
            size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            last_modified: text(object.last_modified()),
            etag: object.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            storage_class: object.storage_class().map(|class| class.as_str().to_owned()).unwrap_or_default(),
        });
        let next = answer.next_continuation_token().filter(|_| answer.is_truncated() == Some(true)).map(str::to_owned);
        Ok(Page {
            objects: objects.collect(),
            prefixes: answer.common_prefixes().iter().filter_map(|prefix| prefix.prefix().map(str::to_owned)).collect(),
            next,
        })
    }

    /// Everything below a prefix, or everything just below it with the prefixes that go on.
    ///
    /// # Errors
    /// As [`Store::page`]; [`Kind::Invalid`] with the field `path` if there are more objects than the access allows.
    pub(super) async fn all(&self, at: &ObjectPath, prefix: &str, is_recursive: bool) -> Result<Page> {
        let most = self.access.limits.objects;
        let mut all = Page::default();
        let mut token: Option<String> = None;
        loop {
            let paging = Paging { is_recursive, limit: 1000, token: token.as_deref() };
            let mut page = self
                .page(&at.bucket, prefix, paging)
                .await
                .map_err(|error| if error.kind() == Kind::NotFound { error.field("path") } else { error })?;
            all.objects.append(&mut page.objects);
            all.prefixes.append(&mut page.prefixes);
            if all.objects.len() + all.prefixes.len() > most {
                return Err(Error::invalid("path", format!("`{at}` names more than {most} objects")));
            }
            token = page.next;
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}
