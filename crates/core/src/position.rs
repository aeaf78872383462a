//! A place in a source's log.
//!
//! Positions carry the identity of the source, have a partial order (two servers, or two servers' histories, do not compare)
//! and round-trip as text.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in a source's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Position {
    /// A binary log's file and offset on one MySQL or MariaDB server.
    Binlog {
        /// `server_uuid`, or for MariaDB `server_id` and the creation of the log's first file.
        server: String,
        /// Log file name with its running number (`binlog.000042`).
        file: String,
        /// Byte offset in the file.
        offset: u64,
    },
    /// A write-ahead log place on one PostgreSQL system and timeline.
    Wal {
        /// `system_identifier`.
        system: u64,
        /// Timeline id.
        timeline: u32,
        /// Log sequence number.
        lsn: u64,
    },
}

/// A text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position")]
pub struct ParsePositionError(String);

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Binlog { server: a, file: fa, offset: oa }, Self::Binlog { server: b, file: fb, offset: ob }) => {
                let (base_a, number_a) = split_log_name(fa)?;
                let (base_b, number_b) = split_log_name(fb)?;
                (a == b && base_a == base_b).then(|| number_a.cmp(&number_b).then(oa.cmp(ob)))
            }
            (Self::Wal { system: a, timeline: ta, lsn: la }, Self::Wal { system: b, timeline: tb, lsn: lb }) => {
                (a == b && ta == tb).then(|| la.cmp(lb))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binlog { server, file, offset } => write!(f, "binlog:{server}/{file}:{offset}"),
            Self::Wal { system, timeline, lsn } => {
                write!(f, "wal:{system}/{timeline}/{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
            }
        }
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        parse(text).ok_or_else(|| ParsePositionError(text.chars().take(200).collect()))
    }
}

impl TryFrom<String> for Position {
    type Error = ParsePositionError;

    fn try_from(text: String) -> Result<Self, ParsePositionError> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

fn parse(text: &str) -> Option<Position> {
    if let Some(rest) = text.strip_prefix("binlog:") {
        let (server, place) = rest.split_once('/')?;
        let (file, offset) = place.rsplit_once(':')?;
        split_log_name(file)?;
        return Some(Position::Binlog { server: server.to_owned(), file: file.to_owned(), offset: offset.parse().ok()? });
    }
    let mut parts = text.strip_prefix("wal:")?.split('/');
    let system = parts.next()?.parse().ok()?;
    let timeline = parts.next()?.parse().ok()?;
    let high = u64::from_str_radix(parts.next()?, 16).ok()?;
    let low = u64::from_str_radix(parts.next()?, 16).ok()?;
    let in_range = high <= u64::from(u32::MAX) && low <= u64::from(u32::MAX);
    (parts.next().is_none() && in_range).then_some(Position::Wal { system, timeline, lsn: high << 32 | low })
}

/// A log file's base name and running number; beyond 999999 the number grows longer, so text order would be wrong.
fn split_log_name(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn binlog(server: &str, file: &str, offset: u64) -> Position {
        Position::Binlog { server: server.into(), file: file.into(), offset }
    }

    #[test]
    fn positions_round_trip_as_text() {
        for position in [binlog("uuid-1", "mysql-bin.000042", 4), Position::Wal { system: 7, timeline: 1, lsn: 0x1_2345_6789 }] {
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
        for wrong in ["", "binlog:", "binlog:a/b:1", "wal:1/2/3", "wal:1/1/1FFFFFFFF/0", "wal:1/1/0/0/0"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_files_compare_by_number_and_other_servers_do_not_compare() {
        assert!(binlog("s", "b.999999", 900) < binlog("s", "b.1000000", 4));
        assert_eq!(binlog("s", "b.000001", 4).partial_cmp(&binlog("t", "b.000002", 4)), None);
    }

    #[test]
    fn timelines_do_not_compare() {
        let on = |timeline| Position::Wal { system: 1, timeline, lsn: 5 };
        assert_eq!(on(1).partial_cmp(&on(2)), None);
    }
}
