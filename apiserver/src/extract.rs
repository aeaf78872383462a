//! Reads requests: JSON bodies with the path of what is wrong, ids from the path, query parameters.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::errors::{ApiError, ApiResult, Code};
use crate::policy::Stalled;

mod numbers;

/// The largest request body, bytes.
pub(crate) const MAX_BODY: usize = 2 << 20;

/// All of a body.
///
/// Errors: [`Code::BodyTooLarge`]; [`Code::BodyStalled`] for one that does not come to its end in time.
pub(crate) async fn whole(body: Body) -> ApiResult<Bytes> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(found) = cause {
            if let Some(stalled) = found.downcast_ref::<Stalled>() {
                return ApiError::new(Code::BodyStalled, stalled.to_string());
            }
            cause = found.source();
        }
        ApiError::new(Code::BodyTooLarge, format!("the body is larger than {MAX_BODY} bytes"))
    })
}

/// A JSON body as it came; an absent or empty one is `null`.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let bytes = whole(request.into_body()).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Null));
        }
        let value = serde_json::from_slice(&bytes);
        let value = value.map_err(|error| ApiError::new(Code::InvalidJson, format!("the body is not JSON: {error}")))?;
        numbers::check(&bytes)?;
        Ok(Self(value))
    }
}

/// A plain text body.
pub(crate) struct TextBody(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for TextBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let bytes = whole(request.into_body()).await?;
        String::from_utf8(bytes.into()).map(Self).map_err(|_| ApiError::invalid("", "the body is not UTF-8 text"))
    }
}

/// Query parameters that may be given several times.
pub(crate) struct Repeated(Vec<(String, String)>);

impl Repeated {
    /// All values of a parameter that are not empty, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.clone()).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Repeated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// Reads a document, naming the field that is wrong.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> ApiResult<T> {
    // Its reader would take an array for the fields in order.
    if value.is_array() {
        return Err(ApiError::invalid("", "the body must be a JSON object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut field = error.path().to_string();
        let text = error.inner().to_string();
        // The reader of structs reports an unknown or missing field at the struct; its text names the field.
        let named = text.split('`').nth(1).filter(|_| text.starts_with("unknown field") || text.starts_with("missing field"));
        if let Some(name) = named
            && field.rsplit('.').next() != Some(name)
        {
            field = if field == "." { name.to_owned() } else { format!("{field}.{name}") };
        }
        if field == "." || field == "?" {
            field.clear();
        }
        ApiError::invalid(field, text)
    })
}

/// Whatever the body holds, it is not needed: start, stop and the like take `null`, `{}` or nothing.
pub(crate) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        match JsonBody::from_request(request, state).await?.0 {
            Value::Null => Ok(Self),
            Value::Object(fields) if fields.is_empty() => Ok(Self),
            Value::Object(fields) => {
                let field = fields.keys().next().cloned().unwrap_or_default();
                Err(ApiError::invalid(field, "this request takes no body"))
            }
            _ => Err(ApiError::invalid("", "this request takes no body")),
        }
    }
}

/// An id in the path. A text that cannot be an id names nothing, so it is "not found" rather than "invalid".
pub(crate) struct PathId<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for PathId<T>
where
    S: Send + Sync,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Path(text): Path<String> =
            Path::from_request_parts(parts, state).await.map_err(|error| ApiError::new(Code::NotFound, error.body_text()))?;
        parse_id(&text).map(Self)
    }
}

/// Reads an id.
pub(crate) fn parse_id<T>(text: &str) -> ApiResult<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| ApiError::new(Code::NotFound, error.to_string()).detail("id", text))
}

/// Query parameters.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Query(params) = Query::from_request_parts(parts, state).await.map_err(|error| {
            let text = error.body_text();
            let field = text.rsplit_once(": ").and_then(|(start, _)| start.rsplit(": ").next()).unwrap_or_default();
            ApiError::invalid(field.to_owned(), text.clone())
        })?;
        Ok(Self(params))
    }
}
