//! Handshake and login. The methods themselves (native, caching_sha2, sha256, ed25519) are `mysql_common`'s.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_core::connection::DatabaseSpec;
use millrace_core::{Error, Kind, Result};
use mysql_common::auth::plugins::{AuthProc, ChallengeResponsePlugin as _, Context, Response};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize as _;
use rustls::ClientConfig;

use super::Wire;

/// `utf8mb4_general_ci`, which every server knows.
const UTF8MB4: u8 = 45;

/// Largest packet that we announce to take.
const MAX_PACKET: u32 = 0x4000_0000;

struct Login<'a> {
    password: &'a [u8],
    is_protected: bool,
    nonce: Vec<u8>,
}

impl Context for &Login<'_> {
    fn pass(&self) -> &[u8] {
        self.password
    }

    fn is_ipc_transport(&self) -> bool {
        false
    }

    fn is_tls_transport(&self) -> bool {
        self.is_protected
    }

    fn scramble(&self) -> &[u8] {
        &self.nonce
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}

impl Wire {
    pub(super) async fn log_in(&mut self, spec: &DatabaseSpec, tls: Option<Arc<ClientConfig>>, database: Option<&str>) -> Result<()> {
        let greeting = self.packet().await?.to_vec();
        if greeting.first() == Some(&0xFF) {
            return Err(self.refusal(&greeting));
        }
        let handshake: HandshakePacket<'_> =
            ParseBuf(&greeting).parse(()).map_err(|_| self.malformed("greeting; is this a MySQL server?"))?;
        let offered = handshake.capabilities();
        if !offered.contains(CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_PLUGIN_AUTH) {
            return Err(Error::not_supported("spec.database", format!("`{}` speaks a protocol older than MySQL 5.5", self.place)));
        }
        self.version = handshake.server_version_str().trim_start_matches("5.5.5-").to_owned();
        self.thread_id = handshake.connection_id();
        self.capabilities = offered & wanted_capabilities(database.is_some());

        if let Some(tls) = tls {
            if !offered.contains(CapabilityFlags::CLIENT_SSL) {
                let text = format!("`{}` offers no TLS, which `ssl.mode` asks for", self.place);
                return Err(Error::new(Kind::Untrusted, text).field("ssl.mode"));
            }
            self.capabilities |= CapabilityFlags::CLIENT_SSL;
            let mut payload = Vec::new();
            SslRequest::new(self.capabilities, MAX_PACKET, UTF8MB4).serialize(&mut payload);
            self.send(&payload).await?;
            self.protect(tls, &spec.host).await?;
        }
        let password = spec.password.as_ref().map_or("", |password| password.expose());
        let mut login = Login { password: password.as_bytes(), is_protected: self.is_protected, nonce: handshake.nonce() };
        let plugin = handshake.auth_plugin().map_or(AuthPlugin::MysqlNativePassword, AuthPlugin::into_owned);
        let (mut method, plugin) = match self.method(&plugin) {
            Ok(method) => (method, plugin),
            // The greeting only names the server's default; the account may use a method that we know.
            Err(_) => (self.method(&AuthPlugin::MysqlNativePassword)?, AuthPlugin::MysqlNativePassword),
        };
        let first = answer(&self.place, &mut method, &login, &login.nonce)?;
        let response = HandshakeResponse::new(
            first.data().map(<[u8]>::to_vec),
            handshake.server_version_parsed().unwrap_or((5, 5, 5)),
            Some(spec.username.as_bytes()),
            database.map(str::as_bytes),
            Some(plugin),
            self.capabilities,
            Some(HashMap::from([("program_name".to_owned(), "millrace".to_owned())])),
            MAX_PACKET,
        );
        let mut payload = Vec::new();
        response.serialize(&mut payload);
        self.send(&payload).await?;
        self.finish_login(method, &mut login).await
    }

    async fn finish_login(&mut self, mut method: AuthProc, login: &mut Login<'_>) -> Result<()> {
        loop {
            let packet = self.packet().await?.to_vec();
            let response = match packet.first() {
                Some(0x00) => return Ok(()),
                Some(0xFF) => return Err(self.refusal(&packet)),
                Some(0x01) => answer(&self.place, &mut method, login, &packet[1..])?,
                Some(0xFE) => {
                    let switch: AuthSwitchRequest<'_> = ParseBuf(&packet).parse(()).map_err(|_| self.malformed("authentication switch"))?;
                    method = self.method(&switch.auth_plugin())?;
                    login.nonce = switch.plugin_data().to_vec();
                    answer(&self.place, &mut method, login, &login.nonce)?
                }
                _ => return Err(self.malformed("authentication packet")),
            };
            if let Some(data) = response.data() {
                self.send(data).await?;
            }
        }
    }

    fn method(&self, plugin: &AuthPlugin<'_>) -> Result<AuthProc> {
        // Without TLS a clear-text method would show the password to the network; the pre-4.1 hash is as good as clear text.
        if matches!(plugin, AuthPlugin::MysqlClearPassword | AuthPlugin::MysqlOldPassword) {
            let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
            return Err(Error::not_supported(
                "spec.database.username",
                format!("`{}` asks for the authentication method `{name}`, which needs TLS", self.place),
            ));
        }
        plugin.init().map_err(|_| {
            let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
            Error::not_supported(
                "spec.database.username",
                format!("`{}` asks for the authentication method `{name}`, which is not supported", self.place),
            )
        })
    }
}

fn wanted_capabilities(with_database: bool) -> CapabilityFlags {
    let mut wanted = CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_LONG_FLAG
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_CONNECT_ATTRS
        | CapabilityFlags::CLIENT_MULTI_RESULTS
        | CapabilityFlags::CLIENT_PS_MULTI_RESULTS;
    if with_database {
        wanted |= CapabilityFlags::CLIENT_CONNECT_WITH_DB;
    }
    wanted
}

fn answer(place: &str, method: &mut AuthProc, login: &Login<'_>, challenge: &[u8]) -> Result<Response> {
    method
        .run(login, challenge)
        .map_err(|error| Error::new(Kind::LoginRefused, format!("cannot authenticate at `{place}`")).because(error.to_string()))
}
