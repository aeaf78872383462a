//! Who asks: keys of the request, else of this process's environment, else of its file of credentials.
//!
//! Of the file's many forms the one with plain keys is read. Profiles that lend their keys from elsewhere (roles, single sign-on, programs) are refused by
//! name, because guessing at them would ask as somebody else than the operator meant.

use std::path::PathBuf;

use millrace_core::connection::S3Spec;
use millrace_core::objects::{CredentialSource, SettingNames};
use millrace_core::{Error, Kind, Result, Secret};

use super::access::{Names, names_of};

/// Settings of a profile that lend keys from elsewhere.
const LENT: [&str; 8] = [
    "role_arn",
    "source_profile",
    "credential_source",
    "credential_process",
    "web_identity_token_file",
    "sso_session",
    "sso_start_url",
    "login_session",
];

/// The value of a variable, by its name.
type Variables = Box<dyn Fn(&str) -> Option<String>>;

/// What a process finds around it.
pub(super) struct Surroundings {
    variable: Variables,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        Self { variable: Box::new(|name| std::env::var(name).ok()) }
    }

    /// Made up, for tests.
    #[cfg(test)]
    pub(super) fn of(pairs: Vec<(&'static str, String)>) -> Self {
        Self { variable: Box::new(move |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())) }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn file(&self) -> Option<PathBuf> {
        let named = self.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        named.or_else(|| self.get("HOME").map(|home| PathBuf::from(home).join(".aws/credentials")))
    }
}

/// Resolved credentials.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    pub(super) session_token: Option<Secret>,
}

pub(super) fn credentials(spec: &S3Spec, names: SettingNames, around: &Surroundings) -> Result<Keys> {
    let names = names_of(names);
    let given = spec.credentials.clone().unwrap_or_default();
    let access_key = given.access_key.filter(|key| !key.is_empty());
    let secret_key = given.secret_key.filter(|key| !key.is_empty());
    let session_token = given.session_token.filter(|token| !token.is_empty());
    let is_static = spec.credential_source == Some(CredentialSource::Static) || access_key.is_some() || secret_key.is_some();
    if !is_static || spec.credential_source == Some(CredentialSource::Aws) {
        return of_surroundings(spec.profile_name.as_deref().filter(|name| !name.is_empty()), &names, around);
    }
    let access_key = access_key.ok_or_else(|| Error::invalid(names.access_key, "the access key is missing"))?;
    let secret_key = secret_key.ok_or_else(|| Error::invalid(names.secret_key, "the secret key is missing"))?;
    Ok(Keys { access_key, secret_key, session_token })
}

fn of_surroundings(profile: Option<&str>, names: &Names, around: &Surroundings) -> Result<Keys> {
    if profile.is_none()
        && let (Some(access_key), Some(secret)) = (around.get("AWS_ACCESS_KEY_ID"), around.get("AWS_SECRET_ACCESS_KEY"))
    {
        return Ok(Keys { access_key, secret_key: Secret::new(secret), session_token: around.get("AWS_SESSION_TOKEN").map(Secret::new) });
    }
    let wanted = profile.map(str::to_owned).or_else(|| around.get("AWS_PROFILE"));
    let none = || {
        let text =
            "the server has no credentials of its own: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a file of credentials";
        Error::new(Kind::LoginRefused, text).field(names.credentials)
    };
    let text = around.file().and_then(|file| std::fs::read_to_string(file).ok());
    let name = wanted.as_deref().unwrap_or("default");
    let no_profile = || Error::invalid(names.profile, format!("the server's file of credentials has no profile `{name}`"));
    let section = match text.as_deref().map(|text| section(text, name)) {
        Some(Some(section)) => section,
        _ if wanted.is_some() => return Err(no_profile()),
        _ => return Err(none()),
    };
    let value =
        |key: &str| section.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()).filter(|value| !value.is_empty());
    if let Some(lent) = LENT.iter().find(|key| value(key).is_some()) {
        let text = format!("the profile `{name}` uses `{lent}`, which is not supported; a profile with plain keys is");
        return Err(Error::not_supported(names.profile, text));
    }
    let (Some(access_key), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) else {
        return Err(Error::invalid(names.profile, format!("the profile `{name}` has no keys")));
    };
    Ok(Keys { access_key, secret_key: Secret::new(secret), session_token: value("aws_session_token").map(Secret::new) })
}

/// The settings of one section, names in lower case.
fn section(text: &str, wanted: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut is_in = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split_once(']')).map(|(name, _)| name.trim()) {
            is_in = name == wanted || name.strip_prefix("profile ").map(str::trim) == Some(wanted);
            if is_in {
                found.get_or_insert_default();
            }
        } else if let (true, Some((key, value)), Some(found)) = (is_in, line.split_once('='), &mut found) {
            found.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use millrace_core::connection::S3Credentials;

    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = AKD\naws_secret_access_key=sd=x\n\n[ other ]\nAWS_ACCESS_KEY_ID=AKO\naws_secret_access_key = so\n\
                        aws_session_token = to\n[lent]\nrole_arn = arn:x\nsource_profile = default\n[empty]\nregion = x\n";

    fn spec(profile: Option<&str>) -> S3Spec {
        S3Spec { profile_name: profile.map(str::to_owned), ..S3Spec::default() }
    }

    #[test]
    fn keys_come_from_the_request_the_environment_and_the_file_in_this_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let in_file = ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string());
        let both = vec![in_file.clone(), ("AWS_ACCESS_KEY_ID", "AKE".into()), ("AWS_SECRET_ACCESS_KEY", "se".into())];
        let told = |spec: &S3Spec, around: Vec<(&'static str, String)>| {
            let keys = credentials(spec, SettingNames::Connection, &Surroundings::of(around)).unwrap();
            let token = keys.session_token.map(|token| token.expose().to_owned()).unwrap_or_default();
            (keys.access_key, keys.secret_key.expose().to_owned(), token)
        };
        let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let given = S3Credentials { access_key: Some("AKR".into()), secret_key: Some(Secret::new("sr")), ..S3Credentials::default() };
        assert_eq!(told(&S3Spec { credentials: Some(given), ..S3Spec::default() }, both.clone()), three("AKR", "sr", ""));
        assert_eq!(told(&spec(None), both.clone()), three("AKE", "se", ""));
        assert_eq!(told(&spec(None), vec![in_file.clone()]), three("AKD", "sd=x", ""));
        assert_eq!(told(&spec(Some("other")), both), three("AKO", "so", "to"));
        let by_variable = vec![in_file, ("AWS_PROFILE", "other".into())];
        assert_eq!(told(&spec(None), by_variable), three("AKO", "so", "to"));
    }

    #[test]
    fn what_is_missing_or_lent_is_refused_by_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let around = || Surroundings::of(vec![("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string())]);
        let half = |access: Option<&str>, secret: Option<&str>| S3Spec {
            credentials: Some(S3Credentials {
                access_key: access.map(str::to_owned),
                secret_key: secret.map(Secret::new),
                ..S3Credentials::default()
            }),
            ..S3Spec::default()
        };
        for (spec, around, kind, field) in [
            (spec(Some("lent")), around(), Kind::NotSupported, "profileName"),
            (spec(Some("empty")), around(), Kind::Invalid, "profileName"),
            (spec(Some("nobody")), around(), Kind::Invalid, "profileName"),
            (spec(None), Surroundings::of(Vec::new()), Kind::LoginRefused, "credentials"),
            (half(Some("AK"), None), around(), Kind::Invalid, "credentials.secretAccessKey"),
            (half(None, Some("s")), around(), Kind::Invalid, "credentials.accessKeyId"),
            (
                S3Spec { credential_source: Some(CredentialSource::Static), ..S3Spec::default() },
                around(),
                Kind::Invalid,
                "credentials.accessKeyId",
            ),
        ] {
            let error = credentials(&spec, SettingNames::Session, &around).unwrap_err();
            assert_eq!((error.kind(), error.field_name()), (kind, Some(field)), "{error}");
        }
    }
}
