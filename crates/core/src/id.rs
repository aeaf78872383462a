//! Identifiers: a readable prefix and a KSUID (27 characters, sorted by creation second), minted before the object is created.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use svix_ksuid::{Ksuid, KsuidLike as _};

/// A text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}` followed by 27 letters and digits")]
pub struct ParseIdError {
    /// What was read.
    pub text: String,
    /// The prefix that this kind of id starts with.
    pub prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(with = "String"))]
        pub struct $name(String);

        impl $name {
            /// The prefix of this kind of id, with its underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A fresh id; ids minted later sort later, to the second.
            pub fn mint() -> Self {
                Self(format!("{}{}", $prefix, Ksuid::new(None::<std::time::SystemTime>, None)))
            }

            /// The id of something that got none when it was made: always the same for the same moment (Unix seconds) and 16 bytes.
            pub fn derive(created: i64, unique: [u8; 16]) -> Self {
                Self(format!("{}{}", $prefix, Ksuid::from_seconds(Some(created), Some(&unique))))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let is_id = text.strip_prefix($prefix).is_some_and(|rest| {
                    rest.len() == 27 && rest.bytes().all(|b| b.is_ascii_alphanumeric())
                });
                if is_id {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseIdError { text: text.chars().take(64).collect(), prefix: $prefix })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// Names a [`crate::connection::Connection`]: `conn_…`.
    ConnectionId,
    "conn_"
);
id!(
    /// Names a [`crate::config::StreamConfig`]: `config_…`.
    ConfigId,
    "config_"
);
id!(
    /// Names one start of a config: `stream_…`.
    StreamId,
    "stream_"
);
id!(
    /// Names a row of the run history: `run_…`; distinct from the stream's id.
    RunId,
    "run_"
);
id!(
    /// Names one reader or writer of a running stream: `node_…`.
    NodeId,
    "node_"
);
id!(
    /// Names an installation, as clients send it in `X-Install-ID`: `install_…`.
    InstallId,
    "install_"
);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_id_round_trips_and_other_kinds_are_refused() {
        let id = ConnectionId::mint();
        assert_eq!(id.as_str().len(), "conn_".len() + 27);
        assert_eq!(id.as_str().parse::<ConnectionId>().unwrap(), id);
        assert!(id.as_str().parse::<StreamId>().is_err());
        assert!("conn_1".parse::<ConnectionId>().is_err());
    }

    #[test]
    fn an_id_is_checked_when_it_is_deserialized() {
        assert!(serde_json::from_str::<StreamId>("\"stream_../../etc/passwd\"").is_err());
    }
}
