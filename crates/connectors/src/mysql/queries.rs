//! Custom statements as tables: their columns as the server announces them.

use millrace_core::catalog::{Column, LogicalType, Table, TableName};
use millrace_core::config::{QuerySelection, RowSelection};
use millrace_core::{Error, Result};
use mysql_common::constants::{ColumnFlags, ColumnType};

use super::wire::{Announced, Wire};

/// The character set number of bytes.
const BINARY: u16 = 63;
/// The most bytes of one character in the session's character set.
const CHARACTER_BYTES: u32 = 4;

/// The table that a statement's result is. The statement is prepared, not run.
pub(super) async fn describe(wire: &mut Wire, database: &str, query: &QuerySelection, at: &str) -> Result<Table> {
    let sql = query.query.trim().trim_end_matches(';').trim_end();
    let announced = wire.describe(sql).await.map_err(|error| error.field(format!("{at}.query")))?;
    if announced.is_empty() {
        return Err(Error::invalid(
            format!("{at}.query"),
            format!("the query `{}` returns no rows; only reading statements can be copied", query.name),
        ));
    }
    let columns: Vec<Column> = announced.iter().map(column).collect();
    for (index, column) in columns.iter().enumerate() {
        if column.name.is_empty() || columns[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&column.name)) {
            let text = format!("the query `{}` has two columns named `{}`; give each a name of its own with AS", query.name, column.name);
            return Err(Error::invalid(format!("{at}.query"), text));
        }
    }
    Ok(Table {
        name: TableName { schema: database.to_owned(), name: query.name.clone() },
        all_columns: columns.clone(),
        columns,
        primary_key: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        next_auto_value: None,
        comment: String::new(),
        estimated_rows: None,
        estimated_bytes: None,
        refused: None,
        notes: vec!["it is the result of a query: it has no key and is read in one piece".to_owned()],
        selection: RowSelection::default(),
        query: Some(sql.to_owned()),
    })
}

pub(super) fn column(announced: &Announced) -> Column {
    Column {
        name: announced.name.clone(),
        native_type: native_type(announced),
        logical: logical_type(announced),
        nullable: !announced.flags.contains(ColumnFlags::NOT_NULL_FLAG),
        default: None,
        auto_increment: false,
        generated: None,
        comment: String::new(),
    }
}

fn native_type(announced: &Announced) -> String {
    let unsigned = if announced.flags.contains(ColumnFlags::UNSIGNED_FLAG) { " unsigned" } else { "" };
    format!("{}{unsigned}", format!("{:?}", announced.kind).trim_start_matches("MYSQL_TYPE_").to_lowercase())
}

fn logical_type(announced: &Announced) -> LogicalType {
    use ColumnType as C;
    let unsigned = announced.flags.contains(ColumnFlags::UNSIGNED_FLAG);
    let int = |bits| LogicalType::Int { bits, unsigned };
    let digits = announced.decimals.min(6);
    match announced.kind {
        C::MYSQL_TYPE_TINY => int(8),
        C::MYSQL_TYPE_SHORT => int(16),
        C::MYSQL_TYPE_INT24 => int(24),
        C::MYSQL_TYPE_LONG => int(32),
        C::MYSQL_TYPE_LONGLONG => int(64),
        C::MYSQL_TYPE_YEAR => LogicalType::Year,
        C::MYSQL_TYPE_FLOAT => LogicalType::Float32,
        C::MYSQL_TYPE_DOUBLE => LogicalType::Float64,
        C::MYSQL_TYPE_DECIMAL | C::MYSQL_TYPE_NEWDECIMAL => {
            // The announced length counts the point and the sign.
            let scale = u16::from(announced.decimals);
            let signs = u32::from(!unsigned) + u32::from(scale > 0);
            LogicalType::Decimal { precision: announced.length.saturating_sub(signs).clamp(u32::from(scale).max(1), 65) as u16, scale }
        }
        C::MYSQL_TYPE_DATE | C::MYSQL_TYPE_NEWDATE => LogicalType::Date,
        C::MYSQL_TYPE_DATETIME | C::MYSQL_TYPE_DATETIME2 => LogicalType::DateTime(digits),
        C::MYSQL_TYPE_TIMESTAMP | C::MYSQL_TYPE_TIMESTAMP2 => LogicalType::Timestamp(digits),
        C::MYSQL_TYPE_TIME | C::MYSQL_TYPE_TIME2 => LogicalType::Time(digits),
        C::MYSQL_TYPE_BIT => LogicalType::Bit(announced.length.clamp(1, 64) as u16),
        C::MYSQL_TYPE_JSON => LogicalType::Json,
        C::MYSQL_TYPE_GEOMETRY => LogicalType::Spatial { shape: "geometry".to_owned() },
        _ if announced.charset == BINARY && announced.kind != C::MYSQL_TYPE_NULL => LogicalType::Bytes,
        _ => match announced.length / CHARACTER_BYTES {
            length @ 1..=16_383 => LogicalType::Varchar(length),
            _ => LogicalType::Text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(kind: ColumnType, length: u32, decimals: u8, flags: ColumnFlags, charset: u16) -> Announced {
        Announced { name: "c".into(), kind, flags, length, decimals, charset }
    }

    #[test]
    fn announced_columns_become_the_types_that_hold_them() {
        let none = ColumnFlags::empty();
        let unsigned = ColumnFlags::UNSIGNED_FLAG;
        let table = [
            (announced(ColumnType::MYSQL_TYPE_LONGLONG, 20, 0, unsigned, BINARY), LogicalType::Int { bits: 64, unsigned: true }),
            (announced(ColumnType::MYSQL_TYPE_NEWDECIMAL, 12, 2, none, BINARY), LogicalType::Decimal { precision: 10, scale: 2 }),
            (announced(ColumnType::MYSQL_TYPE_NEWDECIMAL, 10, 0, unsigned, BINARY), LogicalType::Decimal { precision: 10, scale: 0 }),
            (announced(ColumnType::MYSQL_TYPE_VAR_STRING, 40, 0, none, 45), LogicalType::Varchar(10)),
            (announced(ColumnType::MYSQL_TYPE_VAR_STRING, 40, 0, none, BINARY), LogicalType::Bytes),
            (announced(ColumnType::MYSQL_TYPE_BLOB, u32::MAX, 0, none, 45), LogicalType::Text),
            (announced(ColumnType::MYSQL_TYPE_DATETIME, 26, 6, none, BINARY), LogicalType::DateTime(6)),
            (announced(ColumnType::MYSQL_TYPE_NULL, 0, 0, none, BINARY), LogicalType::Text),
        ];
        for (announced, expected) in table {
            assert_eq!(logical_type(&announced), expected, "{announced:?}");
        }
    }
}
