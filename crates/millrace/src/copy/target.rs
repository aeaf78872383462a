//! Database URLs and where their passwords come from.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use millrace_core::Secret;
use millrace_core::connection::{Connection, ConnectionSpec, DatabaseSpec, Engine, Ssl, SslMode};
use millrace_core::id::ConnectionId;
use percent_encoding::percent_decode_str;

/// A parsed database URL.
#[derive(Debug)]
pub(super) struct Place {
    engine: Engine,
    spec: DatabaseSpec,
    ssl: Option<Ssl>,
    which: &'static str,
}

/// Options of a URL that protect the transport, in libpq's words.
#[derive(Default)]
struct Protection {
    mode: Option<SslMode>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Protection {
    /// Takes an option; answers whether it is one of these.
    fn take(&mut self, name: &str, value: &str) -> anyhow::Result<bool> {
        let file = || std::fs::read_to_string(value).with_context(|| format!("cannot read the file `{value}` that `{name}` names"));
        match name {
            "sslmode" => {
                self.mode = Some(match value {
                    "disable" | "disabled" => SslMode::Disabled,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    other => bail!("`sslmode` is `{other}`; it can be disable, require, verify-ca or verify-full"),
                });
            }
            "sslrootcert" => self.root = Some(file()?),
            "sslcert" => self.certificate = Some(file()?),
            "sslkey" => self.key = Some(file()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn ssl(self) -> anyhow::Result<Option<Ssl>> {
        let has_files = self.root.is_some() || self.certificate.is_some() || self.key.is_some();
        match self.mode {
            None if has_files => bail!("`sslrootcert`, `sslcert` and `sslkey` need `sslmode`"),
            None => Ok(None),
            Some(mode) => Ok(Some(Ssl { mode, ca: self.root, client_cert: self.certificate, client_key: self.key.map(Secret::new) })),
        }
    }
}

impl Place {
    /// Reads `mysql://user:password@host:port/database` or `postgres://…`. The error never repeats the URL, which may hold a password.
    pub(super) fn parse(text: &str, which: &'static str) -> anyhow::Result<Self> {
        let url = url::Url::parse(text).map_err(|error| anyhow::anyhow!("the {which} is not a URL: {error}"))?;
        let Some(engine) = Engine::parse(url.scheme()).filter(|engine| matches!(engine, Engine::MySql | Engine::PostgreSql)) else {
            bail!("the {which} URL has the scheme `{}`; use `mysql://` or `postgres://`", url.scheme());
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let database = decoded(url.path().trim_start_matches('/'));
        if database.is_empty() {
            bail!("the {which} URL names no database: {}://user@host:port/DATABASE", url.scheme());
        }
        let mut protection = Protection::default();
        for (name, value) in url.query_pairs() {
            if !(name == "schema" && engine == Engine::PostgreSql || protection.take(&name, &value)?) {
                bail!("the {which} URL has the option `{name}`, which is not supported");
            }
        }
        if let Some(password) = url.password() {
            let _ = writeln!(
                std::io::stderr(),
                "millrace: a password in the {which} URL is visible to other users of this machine; \
                 use the environment, a password file or the prompt instead"
            );
            debug_assert!(!password.is_empty());
        }
        Ok(Self {
            engine,
            which,
            ssl: protection.ssl()?,
            spec: DatabaseSpec {
                host: url.host_str().filter(|host| !host.is_empty()).unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned(),
                port: url.port().or(engine.default_port()).unwrap_or_default(),
                username: if url.username().is_empty() { default_user() } else { decoded(url.username()) },
                password: url.password().map(|password| Secret::new(decoded(password))),
                database: Some(database),
            },
        })
    }

    /// Looks for the password, in this order: the URL, the password file, the environment, a prompt on a terminal; else none.
    pub(super) fn with_password(mut self, variable: &str, file: Option<&Path>) -> anyhow::Result<Self> {
        if self.spec.password.is_some() {
            return Ok(self);
        }
        if let Some(file) = file {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the password file `{}`", file.display()))?;
            self.spec.password = Some(Secret::new(text.lines().next().unwrap_or_default()));
        } else if let Ok(password) = std::env::var(variable) {
            self.spec.password = Some(Secret::new(password));
        } else if std::io::stdin().is_terminal() {
            let prompt = format!("password of {} at the {}: ", self.spec.username, self.which);
            self.spec.password = Some(Secret::new(rpassword::prompt_password(prompt)?));
        }
        Ok(self)
    }

    /// As a connection of this run.
    pub(super) fn connection(&self, name: &str) -> Connection {
        Connection {
            id: ConnectionId::mint(),
            name: name.to_owned(),
            engine: self.engine,
            created: 0,
            ssl: self.ssl.clone(),
            cloud_provider: None,
            spec: ConnectionSpec::Database(self.spec.clone()),
        }
    }
}

fn default_user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_escapes() {
        let place = Place::parse("mysql://us%40er:p%2Fw@db.example.com/my%20shop", "source").unwrap();
        assert_eq!(place.spec.username, "us@er");
        assert_eq!(place.spec.password.as_ref().unwrap().expose(), "p/w");
        assert_eq!((place.spec.port, place.spec.database.as_deref()), (3306, Some("my shop")));
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for url in [
            "oracle://u:hunter2@h/d",
            "mysql://u:hunter2@h/",
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?x=1",
            "mysql://u:hunter2@h:x/d",
        ] {
            let error = Place::parse(url, "source").unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
