//! One store, ready to be asked.

use std::cell::OnceCell;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_sdk_s3::{Client, Config};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use millrace_core::objects::ObjectAccess;
use millrace_core::{Result, hosts};

use super::error::{Asked, failed};

/// An address that does not answer is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A store that says nothing is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Tries of one request; only what may be sent again is.
const TRIES: u32 = 3;

/// A store as one access reaches it; cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) client: Client,
    pub(super) access: ObjectAccess,
}

impl Store {
    /// The store of an access. Nothing is dialled yet.
    pub fn new(access: &ObjectAccess) -> Self {
        let token = access.session_token.as_ref().map(|token| token.expose().to_owned());
        let credentials = Credentials::new(&access.access_key, access.secret_key.expose(), token, None, "millrace");
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN).read_timeout(ANSWER_WITHIN).build();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client())
            .credentials_provider(credentials)
            .region(Region::new(access.region.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            .timeout_config(timeouts)
            // Older services know neither these checksums nor the trailers that carry them.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(access.is_path_style);
        if let Some(host) = &access.endpoint {
            let scheme = if access.use_ssl { "https" } else { "http" };
            config = config.endpoint_url(format!("{scheme}://{host}"));
        }
        Self { client: Client::from_conf(config.build()), access: access.clone() }
    }

    /// How this store is reached.
    pub fn access(&self) -> &ObjectAccess {
        &self.access
    }

    /// Asks once, so that wrong credentials, regions and addresses are known: for the bucket if one is named, else for the list of buckets. Keys that may
    /// not list buckets are good all the same.
    ///
    /// # Errors
    /// Those of the store, with the setting that is wrong.
    pub async fn check(&self, bucket: Option<&str>) -> Result<()> {
        if let Some(bucket) = bucket {
            let asked = Asked::bucket(&self.access, bucket);
            let answer = self.client.list_objects_v2().bucket(bucket).max_keys(1).send().await;
            return answer.map(|_| ()).map_err(|error| failed(&asked, error));
        }
        match self.buckets().await {
            Err(error) if error.detail("code") == Some("AccessDenied") => Ok(()),
            answer => answer.map(|_| ()),
        }
    }
}

/// Resolves names, and lets only those addresses through that the rules of this process allow.
#[derive(Debug, Clone)]
struct PolicyResolver;

impl ResolveDns for PolicyResolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = hosts::resolve(name, 0, "endpoint").await.map_err(ResolveDnsError::new)?;
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }
}

/// Connections are kept, for each thread by itself: they belong to the runtime that opened them, and a thread belongs to one runtime.
fn http_client() -> SharedHttpClient {
    thread_local! {
        static CLIENT: OnceCell<SharedHttpClient> = const { OnceCell::new() };
    }
    let make =
        || aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_with_resolver(PolicyResolver);
    CLIENT.with(|client| client.get_or_init(make).clone())
}
