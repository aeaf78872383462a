//! Tables of random types, keys, names and values, the same for the same seed.
//!
//! The values are those that a copy must carry exactly; what policies are for (zero dates, NUL characters) is not among them. The server itself is the oracle: what
//! it reads back is compared, so a literal that it rounds or pads when it stores it is no matter.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// A table and the statements that make and fill it.
#[derive(Debug, Clone)]
pub struct RandomTable {
    /// The table's name.
    pub name: String,
    /// `CREATE TABLE` and, unless the table stays empty, `INSERT`.
    pub statements: Vec<String>,
}

/// So many tables.
pub fn random(seed: u64, tables: usize) -> Vec<RandomTable> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..tables).map(|number| table(&mut rng, number)).collect()
}

/// What a column holds.
#[derive(Debug, Clone)]
enum Kind {
    /// Bits, and whether it is unsigned.
    Int(u32, bool),
    Decimal(u32, u32, bool),
    Float,
    Double,
    Bit(u32),
    /// Characters that its values may have, and the repertoire.
    Text(u32, Repertoire),
    Bytes(u32),
    Date,
    DateTime(u32),
    Timestamp(u32),
    Time(u32),
    Year,
    Enum(Vec<String>),
    Set(Vec<String>),
    Json,
    Uuid,
    Inet4,
    Inet6,
}

/// The characters of a character set.
#[derive(Debug, Clone, Copy)]
enum Repertoire {
    Ascii,
    Latin,
    Cyrillic,
    Basic,
    Full,
}

struct Column {
    name: String,
    native: String,
    kind: Kind,
    is_nullable: bool,
}

fn table(rng: &mut StdRng, number: usize) -> RandomTable {
    let name = format!("t{number}{}", pick(rng, &["", "", " Mit Leer", "\"q'", "_ünï", ".dot", "`tick", "%s", "_表"]));
    let keys = keys(rng);
    let mut columns = keys.iter().map(|(column, _)| definition(rng, column, true)).collect::<Vec<_>>();
    let others: Vec<Column> = (0..rng.random_range(1..=14)).map(|index| column(rng, index)).collect();
    columns.extend(others.iter().map(|column| definition(rng, column, false)));
    if !keys.is_empty() {
        let list: Vec<String> = keys.iter().map(|(column, _)| quote(&column.name)).collect();
        columns.push(format!("PRIMARY KEY ({})", list.join(", ")));
    }
    for column in others.iter().filter(|column| can_be_indexed(&column.kind)) {
        if rng.random_bool(0.15) {
            columns.push(format!("KEY {} ({})", quote(&format!("by {}", column.name)), quote(&column.name)));
        }
    }
    let mut statements = vec![format!("CREATE TABLE {} ({})", quote(&name), columns.join(", "))];
    let rows = if rng.random_bool(0.08) { 0 } else { rng.random_range(1..=40) };
    let rows: Vec<String> = (0..rows)
        .map(|row| {
            let key = keys.iter().map(|(_, value)| value(row));
            let values: Vec<String> = key.chain(others.iter().map(|column| literal(rng, column))).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    if !rows.is_empty() {
        statements.push(format!("INSERT INTO {} VALUES {}", quote(&name), rows.join(", ")));
    }
    RandomTable { name, statements }
}

type KeyValue = Box<dyn Fn(u32) -> String>;

/// The primary key's columns, with a value that every row has for its own.
fn keys(rng: &mut StdRng) -> Vec<(Column, KeyValue)> {
    let key = |name: &str, native: &str, kind: Kind, value: KeyValue| {
        (Column { name: name.to_owned(), native: native.to_owned(), kind, is_nullable: false }, value)
    };
    let whole =
        |native: &str, base: i128| key("id", native, Kind::Int(64, false), Box::new(move |row| (base + i128::from(row)).to_string()));
    match rng.random_range(0..9) {
        0 => Vec::new(),
        1 => vec![whole("BIGINT AUTO_INCREMENT", 1)],
        2 => vec![whole("BIGINT UNSIGNED", i128::from(i64::MAX) - 10)],
        3 => vec![whole("TINYINT", -100)],
        4 => vec![key("k", "VARCHAR(30) COLLATE utf8mb4_bin", Kind::Json, Box::new(|row| text_literal(&format!("Schlüssel {row}'\\"))))],
        5 => vec![key("k", "VARBINARY(20)", Kind::Json, Box::new(|row| format!("x'00FF{row:04x}00'")))],
        6 => vec![key("k", "DECIMAL(20,5)", Kind::Json, Box::new(|row| format!("-{row}.{row:05}")))],
        7 => vec![key("k", "DATETIME(3)", Kind::Json, Box::new(|row| format!("'2024-02-29 01:02:03' + INTERVAL {row} SECOND")))],
        _ => vec![
            key("b", "INT UNSIGNED", Kind::Json, Box::new(|row| (row % 3).to_string())),
            key("a", "VARCHAR(10)", Kind::Json, Box::new(|row| text_literal(&format!("a{row}")))),
        ],
    }
}

fn column(rng: &mut StdRng, index: u32) -> Column {
    let names = ["c", "select", "Größe", "a\"b", "O'Neil", "with space", "dot.ted", "per%cent", "back\\slash", "UPPER", "日本", "tick`"];
    let (native, kind) = kind(rng);
    Column { name: format!("{}{index}", pick(rng, &names)), native, kind, is_nullable: rng.random_bool(0.7) }
}

fn kind(rng: &mut StdRng) -> (String, Kind) {
    let fraction = |rng: &mut StdRng, name: &str| {
        let digits = rng.random_range(0..=6);
        (format!("{name}({digits})"), digits)
    };
    match rng.random_range(0..24) {
        0..=3 => {
            let (name, bits) =
                pick(rng, &[("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64), ("TINYINT(1)", 8)]);
            let is_unsigned = rng.random_bool(0.5);
            (format!("{name}{}", if is_unsigned { " UNSIGNED" } else { "" }), Kind::Int(bits, is_unsigned))
        }
        4 | 5 => {
            let precision = rng.random_range(1..=65);
            let scale = rng.random_range(0..=precision.min(30));
            let is_unsigned = rng.random_bool(0.2);
            let native = format!("DECIMAL({precision},{scale}){}", if is_unsigned { " UNSIGNED" } else { "" });
            (native, Kind::Decimal(precision, scale, is_unsigned))
        }
        6 => ("FLOAT".into(), Kind::Float),
        7 => ("DOUBLE".into(), Kind::Double),
        8 => {
            let bits = rng.random_range(1..=64);
            (format!("BIT({bits})"), Kind::Bit(bits))
        }
        9..=12 => {
            let sets = [
                ("utf8mb4", Repertoire::Full),
                ("utf8mb4", Repertoire::Full),
                ("utf8mb3", Repertoire::Basic),
                ("latin1", Repertoire::Latin),
                ("cp1251", Repertoire::Cyrillic),
                ("utf16", Repertoire::Full),
                ("ascii", Repertoire::Ascii),
            ];
            let (set, repertoire) = pick(rng, &sets);
            let length = rng.random_range(0..=40);
            let native = match rng.random_range(0..4) {
                0 => format!("CHAR({length})"),
                1 => format!("VARCHAR({length})"),
                2 => "MEDIUMTEXT".to_owned(),
                _ => "TEXT".to_owned(),
            };
            (format!("{native} CHARACTER SET {set}"), Kind::Text(length, repertoire))
        }
        13 | 14 => {
            let length = rng.random_range(1..=60);
            let kinds = [format!("BINARY({length})"), format!("VARBINARY({length})"), "BLOB".to_owned(), "LONGBLOB".to_owned()];
            (pick(rng, &kinds), Kind::Bytes(length))
        }
        15 => ("DATE".into(), Kind::Date),
        16 => {
            let (native, digits) = fraction(rng, "DATETIME");
            (native, Kind::DateTime(digits))
        }
        17 => {
            let (native, digits) = fraction(rng, "TIMESTAMP");
            (native, Kind::Timestamp(digits))
        }
        18 => {
            let (native, digits) = fraction(rng, "TIME");
            (native, Kind::Time(digits))
        }
        19 => ("YEAR".into(), Kind::Year),
        20 => {
            let labels: Vec<String> = ["a", "B b", "it's", "com,ma", "ü☃", "", "\\n"]
                .iter()
                .take(rng.random_range(1..=7))
                .map(|label| (*label).to_owned())
                .collect();
            (labelled("ENUM", &labels), Kind::Enum(labels))
        }
        21 => {
            let labels: Vec<String> =
                ["a", "B b", "it's", "ü☃", "\"q\"", "{}"].iter().take(rng.random_range(1..=6)).map(|label| (*label).to_owned()).collect();
            (labelled("SET", &labels), Kind::Set(labels))
        }
        22 => ("JSON".into(), Kind::Json),
        _ => pick(rng, &[("UUID".to_owned(), Kind::Uuid), ("INET4".to_owned(), Kind::Inet4), ("INET6".to_owned(), Kind::Inet6)]),
    }
}

fn labelled(name: &str, labels: &[String]) -> String {
    let quoted: Vec<String> = labels.iter().map(|label| format!("'{}'", label.replace('\\', "\\\\").replace('\'', "''"))).collect();
    format!("{name}({})", quoted.join(", "))
}

fn definition(rng: &mut StdRng, column: &Column, is_key: bool) -> String {
    let mut text = format!("{} {}", quote(&column.name), column.native);
    // Without a word on NULL a TIMESTAMP is not nullable and changes by itself.
    text.push_str(if column.is_nullable { " NULL" } else { " NOT NULL" });
    if !is_key && rng.random_bool(0.3) && can_have_default(&column.kind) {
        let value = if column.is_nullable && rng.random_bool(0.2) { "NULL".to_owned() } else { value(rng, &column.kind) };
        let _ = write!(text, " DEFAULT {value}");
    }
    if rng.random_bool(0.2) {
        text.push_str(" COMMENT 'it''s a \"comment\" \\\\ über alles'");
    }
    text
}

/// Literals that `DEFAULT` takes everywhere.
fn can_have_default(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Text(..) | Kind::Bytes(_) | Kind::Json | Kind::Timestamp(_) | Kind::Float | Kind::Double | Kind::Time(_) | Kind::Bit(_)
    )
}

fn can_be_indexed(kind: &Kind) -> bool {
    !matches!(kind, Kind::Text(..) | Kind::Bytes(_) | Kind::Json)
}

fn literal(rng: &mut StdRng, column: &Column) -> String {
    if column.is_nullable && rng.random_bool(0.2) { "NULL".to_owned() } else { value(rng, &column.kind) }
}

fn value(rng: &mut StdRng, kind: &Kind) -> String {
    match kind {
        Kind::Int(bits, is_unsigned) => int(rng, *bits, *is_unsigned),
        Kind::Decimal(precision, scale, is_unsigned) => decimal(rng, *precision, *scale, *is_unsigned),
        Kind::Float => loop {
            let value = f32::from_bits(rng.random());
            if value.is_finite() {
                break format!("{value:e}");
            }
        },
        Kind::Double => loop {
            let value = f64::from_bits(rng.random());
            if value.is_finite() {
                break format!("{value:e}");
            }
        },
        Kind::Bit(bits) => {
            let all = u64::MAX >> (64 - bits);
            let random = rng.random::<u64>() & all;
            format!("b'{:b}'", pick(rng, &[0, 1, all, random]))
        }
        Kind::Text(length, repertoire) => text_literal(&text(rng, *length, *repertoire)),
        Kind::Bytes(length) => {
            let length = rng.random_range(0..=*length);
            let bytes: String = (0..length).fold(String::new(), |hex, _| format!("{hex}{:02X}", rng.random::<u8>()));
            format!("x'{bytes}'")
        }
        Kind::Date => format!("'{}'", date(rng, 1)),
        Kind::DateTime(digits) => format!("'{} {}{}'", date(rng, 1), clock(rng), fraction(rng, *digits)),
        Kind::Timestamp(digits) => {
            let seconds = rng.random_range(1..=2_147_483_646u32);
            format!("FROM_UNIXTIME({}{})", pick(rng, &[1, 2_147_483_646, 1_699_164_000, 1_710_057_600, seconds]), fraction(rng, *digits))
        }
        Kind::Time(digits) => {
            let hours = pick(rng, &[0, 12, 23, 24, 838]);
            let sign = pick(rng, &["", "-"]);
            format!("'{sign}{hours}:{:02}:{:02}{}'", rng.random_range(0..60), rng.random_range(0..59), fraction(rng, *digits))
        }
        Kind::Year => pick(rng, &["0000", "1901", "2155", "1999", "2026"]).to_owned(),
        Kind::Enum(labels) => text_literal(&pick(rng, labels)),
        Kind::Set(labels) => {
            let chosen: Vec<&str> = labels.iter().filter(|_| rng.random_bool(0.5)).map(String::as_str).collect();
            text_literal(&chosen.join(","))
        }
        Kind::Json => text_literal(&json(rng, 0)),
        Kind::Uuid => {
            // MariaDB refuses variants that are not those of RFC 9562.
            let bits = rng.random::<u128>() & !(0xF << 76 | 0xC << 60) | pick(rng, &[1, 4, 7]) << 76 | 0x8 << 60;
            let hex = format!("{:032x}", pick(rng, &[0, bits, bits]));
            format!("'{}-{}-{}-{}-{}'", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        Kind::Inet4 => format!("'{}'", std::net::Ipv4Addr::from_bits(rng.random())),
        Kind::Inet6 => {
            let bits = rng.random::<u128>();
            format!(
                "'{}'",
                std::net::Ipv6Addr::from_bits(pick(
                    rng,
                    &[0, 1, bits, 0xFFFF_0000_0000 | bits >> 96, bits >> 96, bits & !0xFFFF_FFFF_0000]
                ))
            )
        }
    }
}

fn int(rng: &mut StdRng, bits: u32, is_unsigned: bool) -> String {
    let most = if is_unsigned { u64::MAX >> (64 - bits) } else { (1 << (bits - 1)) - 1 };
    let random = rng.random::<u64>() & most;
    let positive = pick(rng, &[0, 1, most, most, random, random]);
    if !is_unsigned && rng.random_bool(0.5) { (-i128::from(positive) - 1).to_string() } else { positive.to_string() }
}

fn decimal(rng: &mut StdRng, precision: u32, scale: u32, is_unsigned: bool) -> String {
    let digit = |rng: &mut StdRng, style: u32| match style {
        0 => '0',
        1 => '9',
        _ => char::from(b'0' + rng.random_range(0..10u8)),
    };
    let (before, after) = (rng.random_range(0..4), rng.random_range(0..4));
    let whole: String = (0..precision - scale).map(|_| digit(rng, before)).collect();
    let part: String = (0..scale).map(|_| digit(rng, after)).collect();
    let sign = if is_unsigned { "" } else { pick(rng, &["", "-"]) };
    format!("{sign}{}.{}", if whole.is_empty() { "0" } else { &whole }, if part.is_empty() { "0" } else { &part })
}

fn text(rng: &mut StdRng, length: u32, repertoire: Repertoire) -> String {
    let ascii = [
        "a", "Z", " ", "  ", "'", "\"", "\\", "\\n", "\n", "\r", "\t", "\u{1}", "\u{7f}", "%", "_", "NULL", "\\N", "0", ";", "--", "/*",
        "$1", "{}",
    ];
    let more: &[&str] = match repertoire {
        Repertoire::Ascii => &["~"],
        Repertoire::Latin => &["ä", "ß", "é", "€", "ÿ", "\u{a0}"],
        Repertoire::Cyrillic => &["ж", "Я", "ё", "№"],
        Repertoire::Basic => &["ä", "☃", "日本", "\u{200b}", "\u{feff}", "e\u{301}", "\u{fffd}"],
        Repertoire::Full => &["ä", "☃", "日本", "😀", "𝒳", "👨‍👩‍👧", "\u{10ffff}", "\u{202e}"],
    };
    let wanted = rng.random_range(0..=length as usize);
    let mut text = String::new();
    while text.chars().count() < wanted {
        text.push_str(if rng.random_bool(0.6) { pick(rng, &ascii) } else { pick(rng, more) });
    }
    text.chars().take(wanted).collect()
}

fn json(rng: &mut StdRng, depth: u32) -> String {
    match rng.random_range(0..if depth > 3 { 7 } else { 9 }) {
        0 => "null".into(),
        1 => "true".into(),
        2 => pick(rng, &["0", "-0", "1e400", "3.141592653589793238462643383279", "18446744073709551616", "-1.50", "1E5"]).to_owned(),
        3 => r#""""#.into(),
        4 => r#""\u00e4 \"q\" \\ \/ \n ☃ 😀 \ud83d\ude00""#.into(),
        5 => "[ ]".into(),
        6 => "{}".into(),
        7 => {
            let items: Vec<String> = (0..rng.random_range(1..4)).map(|_| json(rng, depth + 1)).collect();
            format!("[{}]", items.join(pick(rng, &[",", ", ", " ,\n"])))
        }
        _ => {
            let items: Vec<String> = (0..rng.random_range(1..4))
                .map(|index| format!("\"{}{}\": {}", pick(rng, &["a", "ä", "", "same"]), index % 2, json(rng, depth + 1)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

fn date(rng: &mut StdRng, first_year: u32) -> String {
    let year = rng.random_range(first_year..=9999);
    let random = format!("{year:04}-{:02}-{:02}", rng.random_range(1..=12), rng.random_range(1..=28));
    pick(
        rng,
        &[
            "0001-01-01".to_owned(),
            "9999-12-31".to_owned(),
            "2000-02-29".to_owned(),
            "1969-12-31".to_owned(),
            "1582-10-10".to_owned(),
            random.clone(),
            random,
        ],
    )
}

fn clock(rng: &mut StdRng) -> String {
    let random = format!("{:02}:{:02}:{:02}", rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
    pick(rng, &["00:00:00".to_owned(), "23:59:59".to_owned(), "02:30:00".to_owned(), random.clone(), random])
}

fn fraction(rng: &mut StdRng, digits: u32) -> String {
    if digits == 0 {
        return String::new();
    }
    let all = 10u32.pow(digits);
    let random = rng.random_range(0..all);
    format!(".{:0width$}", pick(rng, &[0, all - 1, random]), width = digits as usize)
}

/// Whatever the session's character set and SQL mode are.
fn text_literal(text: &str) -> String {
    if text.is_empty() {
        return "''".to_owned();
    }
    let hex = text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
    format!("_utf8mb4 x'{hex}'")
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn pick<T: Clone>(rng: &mut StdRng, choices: &[T]) -> T {
    choices.choose(rng).cloned().unwrap_or_else(|| choices[0].clone())
}
