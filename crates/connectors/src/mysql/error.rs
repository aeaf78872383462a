//! What the server's and the socket's errors mean to us.

use millrace_core::{Error, Kind};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::ErrPacket;

/// The kind of a server error, by its number (MySQL 8.0 Error Message Reference; MariaDB Error Codes).
pub(super) fn kind_of(number: u16) -> Kind {
    match number {
        1045 | 1698 | 1820 | 1862 | 3118 | 3955 | 4151 => Kind::LoginRefused,
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 | 1419 => Kind::PermissionDenied,
        1049 | 1051 | 1054 | 1109 | 1146 | 1305 | 1356 => Kind::ObjectMissing,
        1205 | 1213 | 1020 | 3572 => Kind::Contention,
        1021 | 1037 | 1038 | 1040 | 1041 | 1114 | 1129 | 1135 | 1203 | 1226 => Kind::ServerExhausted,
        1053 | 1077..=1080 | 1152 | 1154..=1161 | 1184 | 1927 | 4031 => Kind::ConnectionLost,
        1317 | 1028 => Kind::Cancelled,
        1969 | 3024 => Kind::TimedOut,
        1412 => Kind::DefinitionChanged,
        1048 | 1062 | 1364 | 1526 | 1169 | 1216 | 1217 | 1451 | 1452 | 1557 | 1586 | 3819 | 4025 => Kind::ConstraintViolated,
        1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 1411 | 1416 | 1690 | 3037 | 3140 => Kind::ValueRefused,
        1153 | 1301 => Kind::ValueRefused,
        1236 | 1220 => Kind::PositionLost,
        _ => Kind::StatementRefused,
    }
}

/// The error of an ERR packet.
pub(super) fn server_error(place: &str, packet: &[u8], capabilities: CapabilityFlags) -> Error {
    let parsed: Result<ErrPacket<'_>, _> = ParseBuf(packet).parse(capabilities | CapabilityFlags::CLIENT_PROTOCOL_41);
    let (number, text) = match &parsed {
        Ok(ErrPacket::Error(error)) => {
            (error.error_code(), String::from_utf8_lossy(error.message_ref()).trim_start_matches("#").to_string())
        }
        // Errors before the handshake carry no SQLSTATE, which the parser misses: number, then text.
        _ if packet.len() >= 3 => (u16::from_le_bytes([packet[1], packet[2]]), String::from_utf8_lossy(&packet[3..]).into_owned()),
        _ => (0, String::from("an error without a number")),
    };
    let kind = kind_of(number);
    let message = match kind {
        Kind::LoginRefused => format!("`{place}` refused the login: {text}"),
        _ => format!("`{place}` answered: {text}"),
    };
    Error::new(kind, message).with("errno", number.to_string())
}

/// The error of a socket that was open.
pub(super) fn io_error(place: &str, error: std::io::Error) -> Error {
    Error::new(Kind::ConnectionLost, format!("the connection to `{place}` broke")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_map_to_kinds() {
        let table = [
            (1045, Kind::LoginRefused),
            (1698, Kind::LoginRefused),
            (1044, Kind::PermissionDenied),
            (1142, Kind::PermissionDenied),
            (1049, Kind::ObjectMissing),
            (1146, Kind::ObjectMissing),
            (1205, Kind::Contention),
            (1213, Kind::Contention),
            (1040, Kind::ServerExhausted),
            (1927, Kind::ConnectionLost),
            (1412, Kind::DefinitionChanged),
            (1062, Kind::ConstraintViolated),
            (1236, Kind::PositionLost),
            (1064, Kind::StatementRefused),
        ];
        for (number, kind) in table {
            assert_eq!(kind_of(number), kind, "{number}");
        }
    }

    #[test]
    fn an_error_before_the_handshake_is_read_too() {
        let packet = b"\xff\x10\x04Too many connections";
        let error = server_error("db:3306", packet, CapabilityFlags::empty());
        assert_eq!(error.kind(), Kind::ServerExhausted);
        assert!(error.message().contains("Too many connections"), "{error}");
    }
}
