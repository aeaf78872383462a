//! What a connection or a session says, resolved.

use millrace_core::connection::S3Spec;
use millrace_core::objects::{ObjectAccess, ObjectLimits, SettingNames};
use millrace_core::{Error, Result, hosts};

use super::credentials::{Surroundings, credentials};
use super::endpoint::Endpoint;

/// How errors name the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// Where the store is.
    pub(super) endpoint: &'static str,
    /// What requests are signed for.
    pub(super) region: &'static str,
    /// Whether over TLS.
    pub(super) use_ssl: &'static str,
    /// Who asks.
    pub(super) credentials: &'static str,
    /// The public half of the credentials.
    pub(super) access_key: &'static str,
    /// The secret half.
    pub(super) secret_key: &'static str,
    /// Goes with credentials that expire.
    pub(super) session_token: &'static str,
    /// The profile of a file of credentials.
    pub(super) profile: &'static str,
}

/// The names that a client uses.
pub(super) fn names_of(names: SettingNames) -> Names {
    match names {
        SettingNames::Connection => Names {
            endpoint: "spec.s3.endpoint",
            region: "spec.s3.region",
            use_ssl: "spec.s3.useSSL",
            credentials: "spec.s3.credentials",
            access_key: "spec.s3.credentials.accessKey",
            secret_key: "spec.s3.credentials.secretKey",
            session_token: "spec.s3.credentials.sessionToken",
            profile: "spec.s3.profileName",
        },
        SettingNames::Session => Names {
            endpoint: "endpoint",
            region: "region",
            use_ssl: "useSSL",
            credentials: "credentials",
            access_key: "credentials.accessKeyId",
            secret_key: "credentials.secretAccessKey",
            session_token: "credentials.sessionToken",
            profile: "profileName",
        },
    }
}

/// Endpoint and credentials of a spec, from this process's surroundings where the spec leaves them to it.
///
/// # Errors
/// [`millrace_core::Kind::Invalid`], [`millrace_core::Kind::NotSupported`] or [`millrace_core::Kind::LoginRefused`] with the setting.
pub fn access(spec: &S3Spec, names: SettingNames) -> Result<ObjectAccess> {
    let is_shown = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    let Endpoint { host, use_ssl, region, is_path_style } = Endpoint::of(spec, names)?;
    let keys = credentials(spec, names, &Surroundings::of_process())?;
    let said = names_of(names);
    if let Some(endpoint) = &host {
        let name = endpoint
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(endpoint.as_str(), |(name, _)| name);
        hosts::policy().check_name(name.trim_matches(['[', ']']), said.endpoint)?;
    }
    // Both go into headers.
    if !is_shown(&keys.access_key) {
        return Err(Error::invalid(said.access_key, "the access key must be visible ASCII letters"));
    }
    if keys.session_token.as_ref().is_some_and(|token| !is_shown(token.expose())) {
        return Err(Error::invalid(said.session_token, "the session token must be visible ASCII letters"));
    }
    Ok(ObjectAccess {
        endpoint: host,
        use_ssl,
        region,
        is_path_style,
        access_key: keys.access_key,
        secret_key: keys.secret_key,
        session_token: keys.session_token,
        limits: ObjectLimits::default(),
        names,
    })
}
