//! What a store's refusal means.
//!
//! The codes are those of the S3 reference, *Error responses*; services of others use the same words.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use millrace_core::objects::ObjectAccess;
use millrace_core::{Error, Kind, hosts};

use super::access::names_of;

/// Letters of a store's own words that are passed on.
const LONGEST: usize = 300;

/// What was asked, for errors.
pub(super) struct Asked<'a> {
    access: &'a ObjectAccess,
    bucket: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Something about no bucket.
    pub(super) fn store(access: &'a ObjectAccess) -> Self {
        Self { access, bucket: None, key: None }
    }

    /// Something about a bucket.
    pub(super) fn bucket(access: &'a ObjectAccess, bucket: &'a str) -> Self {
        Self { access, bucket: Some(bucket), key: None }
    }

    /// Something about an object.
    pub(super) fn object(access: &'a ObjectAccess, bucket: &'a str, key: &'a str) -> Self {
        Self { access, bucket: Some(bucket), key: Some(key) }
    }

    fn what(&self) -> String {
        match (self.bucket, self.key) {
            (Some(bucket), Some(key)) => format!("`s3://{bucket}/{key}`"),
            (Some(bucket), None) => format!("the bucket `{bucket}`"),
            (None, _) => "the object store".to_owned(),
        }
    }

    /// The field of a request that names what was asked for.
    fn field(&self) -> &'static str {
        match (self.bucket, self.key) {
            (Some(_), Some(_)) => "path",
            (Some(_), None) => "bucket",
            (None, _) => names_of(self.access.names).credentials,
        }
    }

    fn host(&self) -> String {
        self.access.endpoint.clone().unwrap_or_else(|| format!("s3.{}.amazonaws.com", self.access.region))
    }
}

/// The error of a request that did not succeed.
pub(super) fn failed<E>(asked: &Asked<'_>, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let names = names_of(asked.access.names);
    let status = error.raw_response().map(|response| response.status().as_u16());
    let region = error.raw_response().and_then(|response| response.headers().get("x-amz-bucket-region")).map(str::to_owned);
    if let Some(status) = status {
        let code = error.code().map(str::to_owned).unwrap_or_default();
        let words = error.message().unwrap_or_default();
        return refused(asked, status, &code, words, region.as_deref());
    }
    if let Some(refused) = refused_host(&error) {
        return Error::invalid(names.endpoint, refused.message().to_owned()).with("reason", hosts::REASON);
    }
    let text = causes(&error);
    let lower = text.to_lowercase();
    let host = asked.host();
    match error {
        SdkError::ConstructionFailure(_) => Error::invalid(asked.field(), format!("{} cannot be asked for", asked.what())),
        SdkError::TimeoutError(_) => Error::new(Kind::Unreachable, format!("`{host}` does not answer in time")).field(names.endpoint),
        _ if ["certificate", "tls", "handshake", "unknownissuer", "invalid peer", "corrupt message"]
            .iter()
            .any(|word| lower.contains(word)) =>
        {
            let text = format!("`{host}` is not trusted, or speaks no TLS: {}", short(&text));
            Error::new(Kind::Untrusted, text).field(if asked.access.use_ssl { names.use_ssl } else { names.endpoint })
        }
        SdkError::DispatchFailure(_) => {
            Error::new(Kind::Unreachable, format!("`{host}` cannot be reached: {}", short(&text))).field(names.endpoint)
        }
        _ => Error::new(Kind::ProtocolViolated, format!("what answers at `{host}` is no object store")).field(names.endpoint),
    }
}

/// Whether a request may have been done although it failed: it was sent, and what came back is not the store's own answer.
pub(super) fn may_be_done<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: StdError + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => false,
        // The client's own word for a failure before anything was sent.
        SdkError::DispatchFailure(_) => !causes(error).contains("(Connect)"),
        _ => error.raw_response().is_none_or(|response| response.status().as_u16() >= 500 && response.status().as_u16() != 503),
    }
}

/// The error of an answer with this status and code.
fn refused(asked: &Asked<'_>, status: u16, code: &str, words: &str, region: Option<&str>) -> Error {
    let names = names_of(asked.access.names);
    let what = asked.what();
    let (kind, field, text) = match (code, status) {
        ("InvalidAccessKeyId" | "InvalidClientTokenId", _) => {
            (Kind::LoginRefused, names.access_key, "the store does not know the access key".to_owned())
        }
        ("SignatureDoesNotMatch", _) => {
            (Kind::LoginRefused, names.secret_key, "the secret key is not the one of the access key".to_owned())
        }
        ("InvalidToken" | "ExpiredToken" | "TokenRefreshRequired", _) => {
            (Kind::LoginRefused, names.session_token, "the session token is wrong or has expired".to_owned())
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => {
            (Kind::LoginRefused, names.endpoint, "this server's clock and the store's differ too much; set the clock".to_owned())
        }
        ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | ("InvalidRegion" | "InvalidLocationConstraint", _)
        | ("", 301 | 307) => {
            let there = region.map_or(String::new(), |region| format!("; it is `{region}`"));
            (Kind::Invalid, names.region, format!("`{}` is not the region of {what}{there}", asked.access.region))
        }
        ("NoSuchBucket", _) => {
            let bucket = asked.bucket.unwrap_or_default();
            (Kind::NotFound, if asked.key.is_some() { "path" } else { "bucket" }, format!("there is no bucket `{bucket}`"))
        }
        ("NoSuchKey" | "NotFound" | "", 404) => (Kind::NotFound, asked.field(), format!("there is no {}", what.trim_start_matches("the "))),
        ("BucketAlreadyExists" | "BucketAlreadyOwnedByYou", _) => (Kind::Conflict, "bucket", format!("{what} exists already")),
        ("InvalidBucketName", _) => (Kind::Invalid, "bucket", format!("{what} has a name that the store does not allow")),
        ("PreconditionFailed" | "ConditionalRequestConflict", _) | ("", 412) => {
            let error = Error::new(Kind::Conflict, format!("{what} has changed meanwhile; read it again"));
            return error.field(asked.field()).with("reason", "etag");
        }
        ("InvalidObjectState", _) => (Kind::NotSupported, asked.field(), format!("{what} is archived and must be restored first")),
        ("NotImplemented" | "MethodNotAllowed", _) | ("", 405 | 501) => {
            (Kind::NotSupported, asked.field(), "the store does not do this".to_owned())
        }
        ("SlowDown" | "ServiceUnavailable" | "TooManyRequests" | "Busy", _) | (_, 429 | 503) => {
            (Kind::ServerExhausted, names.endpoint, "the store is too busy; try again".to_owned())
        }
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden", _) | (_, 401 | 403) => {
            (Kind::PermissionDenied, asked.field(), format!("the credentials do not allow this to {what}"))
        }
        ("InvalidArgument" | "InvalidRequest" | "KeyTooLongError" | "EntityTooLarge", _) => {
            (Kind::Invalid, asked.field(), format!("the store refuses the request about {what}"))
        }
        _ => (Kind::ProtocolViolated, names.endpoint, format!("`{}` answers with status {status}", asked.host())),
    };
    let words = short(words);
    let text = if words.is_empty() { text } else { format!("{text} (the store says: {words})") };
    let error = Error::new(kind, text).field(field);
    if code.is_empty() { error } else { error.with("code", short(code)) }
}

/// One line of limited length.
fn short(text: &str) -> String {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST).collect();
    line.trim().trim_end_matches('.').to_owned()
}

/// The refusal of the operator's rules about hosts, if it is why nothing was sent.
fn refused_host<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<Error>()).find(|error| error.detail("reason") == Some(hosts::REASON))
}

fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(found) = cause {
        let text = found.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = found.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use millrace_core::Secret;
    use millrace_core::objects::{ObjectLimits, SettingNames};

    use super::*;

    fn access(names: SettingNames) -> ObjectAccess {
        ObjectAccess {
            endpoint: Some("store:1".into()),
            use_ssl: true,
            region: "eu-a".into(),
            is_path_style: true,
            access_key: "AK".into(),
            secret_key: Secret::new("hunter2"),
            session_token: None,
            limits: ObjectLimits::default(),
            names,
        }
    }

    #[test]
    fn every_refusal_has_a_kind_and_names_the_field() {
        let access = access(SettingNames::Connection);
        let object = Asked::object(&access, "b", "k");
        let bucket = Asked::bucket(&access, "b");
        let store = Asked::store(&access);
        for (asked, status, code, kind, field) in [
            (&store, 403, "InvalidAccessKeyId", Kind::LoginRefused, "spec.s3.credentials.accessKey"),
            (&store, 403, "SignatureDoesNotMatch", Kind::LoginRefused, "spec.s3.credentials.secretKey"),
            (&bucket, 400, "ExpiredToken", Kind::LoginRefused, "spec.s3.credentials.sessionToken"),
            (&bucket, 403, "RequestTimeTooSkewed", Kind::LoginRefused, "spec.s3.endpoint"),
            (&bucket, 301, "PermanentRedirect", Kind::Invalid, "spec.s3.region"),
            (&bucket, 400, "AuthorizationHeaderMalformed", Kind::Invalid, "spec.s3.region"),
            (&bucket, 301, "", Kind::Invalid, "spec.s3.region"),
            (&bucket, 404, "NoSuchBucket", Kind::NotFound, "bucket"),
            (&object, 404, "NoSuchBucket", Kind::NotFound, "path"),
            (&object, 404, "NoSuchKey", Kind::NotFound, "path"),
            (&object, 404, "", Kind::NotFound, "path"),
            (&object, 403, "AccessDenied", Kind::PermissionDenied, "path"),
            (&bucket, 403, "", Kind::PermissionDenied, "bucket"),
            (&bucket, 409, "BucketAlreadyOwnedByYou", Kind::Conflict, "bucket"),
            (&bucket, 400, "InvalidBucketName", Kind::Invalid, "bucket"),
            (&object, 412, "PreconditionFailed", Kind::Conflict, "path"),
            (&object, 403, "InvalidObjectState", Kind::NotSupported, "path"),
            (&bucket, 503, "SlowDown", Kind::ServerExhausted, "spec.s3.endpoint"),
            (&store, 200, "", Kind::ProtocolViolated, "spec.s3.endpoint"),
            (&store, 500, "InternalError", Kind::ProtocolViolated, "spec.s3.endpoint"),
        ] {
            let error = refused(asked, status, code, "", None);
            assert_eq!((error.kind(), error.field_name()), (kind, Some(field)), "{code} {status}: {error}");
        }
        assert_eq!(refused(&object, 412, "PreconditionFailed", "", None).detail("reason"), Some("etag"));
        let moved = refused(&bucket, 301, "PermanentRedirect", "", Some("us-b"));
        assert!(moved.message().contains("`us-b`"), "{moved}");
    }

    #[test]
    fn a_session_s_settings_have_other_names_and_words_are_cut() {
        let access = access(SettingNames::Session);
        let error = refused(&Asked::store(&access), 403, "SignatureDoesNotMatch", &"a\n".repeat(1000), None);
        assert_eq!(error.field_name(), Some("credentials.secretAccessKey"));
        assert!(error.message().len() < 500 && !error.message().contains('\n'));
    }
}
