//! Which host is dialled, and what is known of the services behind well-known names.

use millrace_core::connection::S3Spec;
use millrace_core::objects::{SettingNames, UrlStyle};
use millrace_core::validate::check_endpoint;
use millrace_core::{Error, Result};

use super::access::names_of;

/// A service whose addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// What people call it.
    pub name: &'static str,
    /// Its hosts end so.
    suffix: &'static str,
    /// The part of the host that says the region, counted from the end of what stands before the suffix; none if it has no regions.
    region_part: Option<usize>,
    /// The region where the host says none.
    region: &'static str,
    /// How buckets stand in addresses.
    is_path_style: bool,
}

/// Regions and styles as the services' own manuals give them. Behind any other name (MinIO, Ceph, SeaweedFS) the bucket stands in the path, which they all know.
const PROVIDERS: [Provider; 7] = [
    Provider { name: "Amazon S3", suffix: "amazonaws.com", region_part: Some(0), region: "us-east-1", is_path_style: false },
    Provider { name: "Google Cloud Storage", suffix: "storage.googleapis.com", region_part: None, region: "auto", is_path_style: true },
    Provider { name: "Cloudflare R2", suffix: "r2.cloudflarestorage.com", region_part: None, region: "auto", is_path_style: true },
    Provider { name: "DigitalOcean Spaces", suffix: "digitaloceanspaces.com", region_part: Some(0), region: "nyc3", is_path_style: true },
    Provider { name: "Backblaze B2", suffix: "backblazeb2.com", region_part: Some(0), region: "us-west-004", is_path_style: true },
    Provider { name: "Wasabi", suffix: "wasabisys.com", region_part: Some(0), region: "us-east-1", is_path_style: true },
    Provider { name: "Scaleway", suffix: "scw.cloud", region_part: Some(0), region: "fr-par", is_path_style: true },
];

/// The region of services that are not known and were not told one.
const DEFAULT_REGION: &str = "us-east-1";

/// The service behind a host; none if it is not known.
pub fn provider_of(host: &str) -> Option<&'static Provider> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    PROVIDERS.iter().find(|provider| before(name, provider).is_some())
}

/// What stands before a provider's suffix, if the host is the provider's.
fn before<'a>(name: &'a str, provider: &Provider) -> Option<&'a str> {
    let rest = name.strip_suffix(provider.suffix)?;
    if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
}

impl Provider {
    fn region_of(&self, host: &str) -> String {
        let said = before(host, self).zip(self.region_part).and_then(|(rest, part)| rest.rsplit('.').nth(part));
        // `s3` names the service; what follows a hyphen there is an old spelling of the region.
        let said = said.map(|word| word.strip_prefix("s3-").unwrap_or(word)).filter(|word| !word.is_empty() && *word != "s3");
        said.unwrap_or(self.region).to_owned()
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host` or `host:port`; none for AWS's own of the region.
    pub host: Option<String>,
    /// Whether over TLS.
    pub use_ssl: bool,
    /// What requests are signed for.
    pub region: String,
    /// Whether the bucket stands in the path.
    pub is_path_style: bool,
}

impl Endpoint {
    /// The endpoint of a spec. Every host that is dialled for an object store comes from here, so what may be dialled is decided here, too.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] with the setting.
    pub fn of(spec: &S3Spec, names: SettingNames) -> Result<Self> {
        let said = spec.endpoint.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let style = spec.url_style.unwrap_or_default();
        let is_auto = spec.region.is_empty() || spec.region.eq_ignore_ascii_case("auto");
        let Some(text) = said else {
            let region = if is_auto { DEFAULT_REGION.to_owned() } else { spec.region.clone() };
            return Ok(Self { host: None, use_ssl: spec.use_ssl.unwrap_or(true), region, is_path_style: style == UrlStyle::Path });
        };
        let names = names_of(names);
        check_endpoint(text).map_err(|wrong| Error::invalid(names.endpoint, wrong))?;
        let lower = text.to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").map_or((None, lower.as_str()), |(scheme, rest)| (Some(scheme), rest));
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let said_ssl = scheme.map(|scheme| scheme == "https");
        if let (Some(scheme), Some(option)) = (said_ssl, spec.use_ssl)
            && scheme != option
        {
            return Err(Error::invalid(names.use_ssl, "the endpoint's scheme says otherwise"));
        }
        let provider = provider_of(host);
        let region = match (is_auto, provider) {
            (false, _) => spec.region.clone(),
            (true, Some(provider)) => provider.region_of(host.rsplit_once(':').map_or(host, |(name, _)| name)),
            (true, None) => DEFAULT_REGION.to_owned(),
        };
        let is_path_style = match style {
            UrlStyle::Path => true,
            UrlStyle::Virtual => false,
            UrlStyle::Auto => provider.is_none_or(|provider| provider.is_path_style),
        };
        // A service on this machine, as MinIO is tried out, has no certificate.
        let use_ssl = said_ssl.or(spec.use_ssl).unwrap_or_else(|| !is_loopback(host));
        Ok(Self { host: Some(host.to_owned()), use_ssl, region, is_path_style })
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn endpoint(text: Option<&str>, region: &str) -> Endpoint {
        let spec = S3Spec { region: region.into(), endpoint: text.map(str::to_owned), ..S3Spec::default() };
        Endpoint::of(&spec, SettingNames::Connection).unwrap()
    }

    #[test]
    fn known_services_have_their_regions_styles_and_protection() {
        for (text, region, wanted) in [
            (None, "auto", (None, true, "us-east-1", false)),
            (None, "eu-central-1", (None, true, "eu-central-1", false)),
            (Some("s3.amazonaws.com"), "auto", (Some("s3.amazonaws.com"), true, "us-east-1", false)),
            (Some("https://s3.eu-west-3.amazonaws.com/"), "auto", (Some("s3.eu-west-3.amazonaws.com"), true, "eu-west-3", false)),
            (Some("s3-us-west-2.amazonaws.com"), "auto", (Some("s3-us-west-2.amazonaws.com"), true, "us-west-2", false)),
            (Some("storage.googleapis.com"), "auto", (Some("storage.googleapis.com"), true, "auto", true)),
            (Some("abc.r2.cloudflarestorage.com"), "auto", (Some("abc.r2.cloudflarestorage.com"), true, "auto", true)),
            (Some("nyc3.digitaloceanspaces.com"), "auto", (Some("nyc3.digitaloceanspaces.com"), true, "nyc3", true)),
            (Some("fra1.digitaloceanspaces.com"), "auto", (Some("fra1.digitaloceanspaces.com"), true, "fra1", true)),
            (Some("s3.us-west-004.backblazeb2.com"), "auto", (Some("s3.us-west-004.backblazeb2.com"), true, "us-west-004", true)),
            (Some("s3.wasabisys.com"), "auto", (Some("s3.wasabisys.com"), true, "us-east-1", true)),
            (Some("S3.EU-Central-1.wasabisys.com"), "auto", (Some("s3.eu-central-1.wasabisys.com"), true, "eu-central-1", true)),
            (Some("localhost:9000"), "auto", (Some("localhost:9000"), false, "us-east-1", true)),
            (Some("http://minio.example:9000"), "us-east-1", (Some("minio.example:9000"), false, "us-east-1", true)),
            (Some("minio.example:9000"), "eu-x", (Some("minio.example:9000"), true, "eu-x", true)),
            (Some("evil-amazonaws.com"), "auto", (Some("evil-amazonaws.com"), true, "us-east-1", true)),
        ] {
            let found = endpoint(text, region);
            let told = (found.host.as_deref(), found.use_ssl, found.region.as_str(), found.is_path_style);
            assert_eq!(told, wanted, "{text:?} {region}");
        }
    }

    #[test]
    fn the_style_can_be_chosen() {
        for (style, is_path_style) in [(UrlStyle::Path, true), (UrlStyle::Virtual, false)] {
            for host in ["s3.wasabisys.com", "s3.amazonaws.com", "minio:9000"] {
                let spec = S3Spec { endpoint: Some(host.into()), url_style: Some(style), ..S3Spec::default() };
                assert_eq!(Endpoint::of(&spec, SettingNames::Connection).unwrap().is_path_style, is_path_style, "{host} {style:?}");
            }
        }
    }

    #[test]
    fn wrong_endpoints_are_refused_by_their_field() {
        for (text, ssl, field) in [
            ("ftp://host", None, "endpoint"),
            ("https://user:secret@host", None, "endpoint"),
            ("host/path", None, "endpoint"),
            ("host:99999", None, "endpoint"),
            ("http://host", Some(true), "useSSL"),
        ] {
            let spec = S3Spec { endpoint: Some(text.into()), use_ssl: ssl, ..S3Spec::default() };
            let error = Endpoint::of(&spec, SettingNames::Session).unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{text}");
            assert!(!error.message().contains("secret"));
        }
    }
}
