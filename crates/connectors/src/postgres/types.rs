//! Which PostgreSQL type holds a column, and what that means for its values: the one table from which plans, encoders and `docs/fidelity.md` come.

use millrace_core::catalog::{Column, LogicalType};
use millrace_core::plan::Verdict;
use millrace_core::value::OnLoss;

/// A target type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    /// Precision and scale; none for any number of digits.
    Numeric(Option<(u16, u16)>),
    Float4,
    Float8,
    Text,
    /// At most so many characters.
    Varchar(Option<u32>),
    Char(u32),
    Bytea,
    Bit(u16),
    VarBit(Option<u16>),
    Date,
    Timestamp(u8),
    Timestamptz(u8),
    Time(u8),
    Interval(u8),
    TextArray,
    Json,
    Jsonb,
    Uuid,
    Inet,
    /// PostGIS, as it is spelled.
    Geometry(String),
    /// An enumeration: its name and labels.
    Labels(String, Vec<String>),
}

impl PgType {
    /// Reads a type as `format_type` or a person spells it; `labels` are those of an enumeration.
    pub(super) fn parse(text: &str, labels: &[String]) -> Option<Self> {
        if !labels.is_empty() {
            return Some(Self::Labels(text.to_owned(), labels.to_vec()));
        }
        let lower = text.trim().to_ascii_lowercase();
        let (name, arguments, suffix) = match lower.split_once('(') {
            Some((name, rest)) => {
                let (inside, suffix) = rest.split_once(')')?;
                (name.trim().to_owned(), inside.to_owned(), suffix.trim().to_owned())
            }
            None => (lower.clone(), String::new(), String::new()),
        };
        let numbers: Vec<u32> = if arguments.is_empty() || name.ends_with("geometry") {
            Vec::new()
        } else {
            arguments.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().ok()?
        };
        let first = numbers.first().copied();
        let digits = first.map_or(Some(6), |digits| u8::try_from(digits).ok().filter(|digits| *digits <= 6));
        let name = if suffix.is_empty() { name } else { format!("{name} {suffix}") };
        Some(match name.as_str() {
            "bool" | "boolean" => Self::Bool,
            "smallint" | "int2" => Self::Int2,
            "integer" | "int" | "int4" => Self::Int4,
            "bigint" | "int8" => Self::Int8,
            "numeric" | "decimal" => match first {
                None => Self::Numeric(None),
                Some(precision) => Self::Numeric(Some((
                    u16::try_from(precision).ok().filter(|precision| (1..=1000).contains(precision))?,
                    u16::try_from(numbers.get(1).copied().unwrap_or(0)).ok().filter(|scale| *scale <= 1000)?,
                ))),
            },
            "real" | "float4" => Self::Float4,
            "double precision" | "float8" | "double" | "float" => Self::Float8,
            "text" => Self::Text,
            "character varying" | "varchar" => match first {
                None => Self::Varchar(None),
                Some(length @ 1..=10_485_760) => Self::Varchar(Some(length)),
                Some(_) => return None,
            },
            "character" | "char" | "bpchar" => Self::Char(first.unwrap_or(1)),
            "bytea" => Self::Bytea,
            "bit" => Self::Bit(u16::try_from(first.unwrap_or(1)).ok()?),
            "bit varying" | "varbit" => Self::VarBit(match first {
                None => None,
                Some(length) => Some(u16::try_from(length).ok()?),
            }),
            "date" => Self::Date,
            "timestamp" | "timestamp without time zone" => Self::Timestamp(digits?),
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz(digits?),
            "time" | "time without time zone" => Self::Time(digits?),
            "interval" => Self::Interval(digits?),
            "text[]" => Self::TextArray,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "uuid" => Self::Uuid,
            "inet" => Self::Inet,
            other if other == "geometry" || other.ends_with(".geometry") => Self::Geometry(text.trim().to_owned()),
            _ => return None,
        })
    }

    /// As it stands in DDL.
    pub(super) fn sql(&self) -> String {
        match self {
            Self::Bool => "boolean".into(),
            Self::Int2 => "smallint".into(),
            Self::Int4 => "integer".into(),
            Self::Int8 => "bigint".into(),
            Self::Numeric(None) => "numeric".into(),
            Self::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
            Self::Float4 => "real".into(),
            Self::Float8 => "double precision".into(),
            Self::Text => "text".into(),
            Self::Varchar(None) => "character varying".into(),
            Self::Varchar(Some(length)) => format!("character varying({length})"),
            Self::Char(length) => format!("character({length})"),
            Self::Bytea => "bytea".into(),
            Self::Bit(length) => format!("bit({length})"),
            Self::VarBit(None) => "bit varying".into(),
            Self::VarBit(Some(length)) => format!("bit varying({length})"),
            Self::Date => "date".into(),
            Self::Timestamp(digits) => format!("timestamp({digits}) without time zone"),
            Self::Timestamptz(digits) => format!("timestamp({digits}) with time zone"),
            Self::Time(digits) => format!("time({digits}) without time zone"),
            Self::Interval(digits) => format!("interval({digits})"),
            Self::TextArray => "text[]".into(),
            Self::Json => "json".into(),
            Self::Jsonb => "jsonb".into(),
            Self::Uuid => "uuid".into(),
            Self::Inet => "inet".into(),
            Self::Geometry(text) | Self::Labels(text, _) => text.clone(),
        }
    }

    /// Characters that a text type holds at most; none for no text type.
    pub(super) fn text_limit(&self) -> Option<u32> {
        match self {
            Self::Text | Self::Varchar(None) => Some(u32::MAX),
            Self::Varchar(Some(length)) | Self::Char(length) => Some(*length),
            _ => None,
        }
    }

    /// Smallest and largest whole number, where every one between fits.
    pub(super) fn whole_range(&self) -> Option<(i128, i128)> {
        Some(match self {
            Self::Int2 => (i128::from(i16::MIN), i128::from(i16::MAX)),
            Self::Int4 => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Self::Int8 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            Self::Numeric(None) => (i128::MIN, i128::MAX),
            Self::Numeric(Some((precision, scale))) => {
                let digits = u32::from(precision.saturating_sub(*scale)).min(38);
                let most = 10i128.pow(digits) - 1;
                (-most, most)
            }
            // Every whole number up to 2^24 and 2^53 has its own value.
            Self::Float4 => (-(1 << 24), 1 << 24),
            Self::Float8 => (-(1 << 53), 1 << 53),
            _ => return None,
        })
    }
}

/// How a pair of types treats values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    /// All arrive the same.
    Exact(String),
    /// All arrive the same, in a wider type.
    Widened(String),
    /// These do not fit.
    May(String),
}

/// What the data or the target say that types alone do not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints<'a> {
    /// Every TIME lies within one day.
    pub(super) is_time_of_day: bool,
    /// The one reference system of a spatial column.
    pub(super) srid: Option<u32>,
    /// Schema of PostGIS' types, if it is installed.
    pub(super) postgis: Option<&'a str>,
}

/// The type that a column gets when no rule says otherwise; none if there is none.
pub(super) fn default_type(column: &Column, hints: Hints<'_>) -> Result<PgType, String> {
    Ok(match &column.logical {
        LogicalType::Bool | LogicalType::Bit(1) => PgType::Bool,
        LogicalType::Int { bits: 8, .. } | LogicalType::Int { bits: 16, unsigned: false } | LogicalType::Year => PgType::Int2,
        LogicalType::Int { bits: 16 | 24, .. } | LogicalType::Int { bits: 32, unsigned: false } => PgType::Int4,
        LogicalType::Int { bits: 64, unsigned: true } => PgType::Numeric(Some((20, 0))),
        LogicalType::Int { .. } => PgType::Int8,
        LogicalType::Decimal { precision, scale } => PgType::Numeric(Some((*precision, *scale))),
        LogicalType::Float32 => PgType::Float4,
        LogicalType::Float64 => PgType::Float8,
        LogicalType::Char(0) | LogicalType::Varchar(0) | LogicalType::Text | LogicalType::Enum(_) => PgType::Text,
        LogicalType::Char(length) => PgType::Char(*length),
        LogicalType::Varchar(length) => PgType::Varchar(Some(*length)),
        LogicalType::Binary(_) | LogicalType::Bytes => PgType::Bytea,
        LogicalType::Bit(length) => PgType::Bit(*length),
        LogicalType::Date => PgType::Date,
        LogicalType::DateTime(digits) => PgType::Timestamp(*digits),
        LogicalType::Timestamp(digits) => PgType::Timestamptz(*digits),
        LogicalType::Time(digits) if hints.is_time_of_day => PgType::Time(*digits),
        LogicalType::Time(digits) => PgType::Interval(*digits),
        LogicalType::Set(_) => PgType::TextArray,
        LogicalType::JsonText => PgType::Json,
        LogicalType::Json => PgType::Jsonb,
        LogicalType::Uuid => PgType::Uuid,
        LogicalType::Inet => PgType::Inet,
        LogicalType::Spatial { shape } => match hints.postgis {
            Some(schema) => PgType::Geometry(geometry_type(schema, shape, hints.srid)),
            None => PgType::Bytea,
        },
        LogicalType::Unsupported(reason) => return Err(reason.clone()),
    })
}

/// `public.geometry(Point,4326)`.
fn geometry_type(schema: &str, shape: &str, srid: Option<u32>) -> String {
    let shape = match shape {
        "point" => "Point",
        "linestring" => "LineString",
        "polygon" => "Polygon",
        "multipoint" => "MultiPoint",
        "multilinestring" => "MultiLineString",
        "multipolygon" => "MultiPolygon",
        "geometrycollection" | "geomcollection" => "GeometryCollection",
        _ => "Geometry",
    };
    let geometry = format!("{}.geometry", super::names::quote(schema));
    match srid {
        Some(srid) => format!("{geometry}({shape},{srid})"),
        // With a type modifier and no number, PostGIS takes 0 and refuses every other one.
        None => geometry,
    }
}

/// How values of a source type fare in a target type; none if they do not belong together.
pub(super) fn fit(logical: &LogicalType, target: &PgType, hints: Hints<'_>) -> Option<Fit> {
    let exact = || Some(Fit::Exact(String::new()));
    let widened = |reason: &str| Some(Fit::Widened(reason.to_owned()));
    let may = |reason: String| Some(Fit::May(reason));
    let text_of = |longest: u32| as_text(longest, target);
    match logical {
        LogicalType::Bool => match target {
            PgType::Bool => exact(),
            _ => text_of(5),
        },
        LogicalType::Int { bits, unsigned } => whole(*bits, *unsigned, target).or_else(|| text_of(20)),
        LogicalType::Year => match target {
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Numeric(None) => widened("PostgreSQL has no YEAR"),
            _ => text_of(4),
        },
        LogicalType::Decimal { precision, scale } => match target {
            PgType::Numeric(None) => widened("any number of digits"),
            PgType::Numeric(Some((p, s))) if s >= scale && p - (*s).min(*p) >= precision - scale => exact(),
            PgType::Numeric(Some((p, s))) => may(format!("numbers with more digits than numeric({p},{s}) holds")),
            PgType::Int2 | PgType::Int4 | PgType::Int8 => may(format!("fractions and numbers beyond {}", target.sql())),
            PgType::Float8 => may("numbers whose digits a double cannot hold".to_owned()),
            _ => text_of(u32::from(*precision) + 2),
        },
        LogicalType::Float32 => match target {
            PgType::Float4 => exact(),
            PgType::Float8 => widened("twice the size"),
            _ => text_of(32),
        },
        LogicalType::Float64 => match target {
            PgType::Float8 => exact(),
            PgType::Float4 => may("numbers that single precision changes".to_owned()),
            _ => text_of(32),
        },
        LogicalType::Char(length) | LogicalType::Varchar(length) => text(*length, matches!(logical, LogicalType::Char(_)), target),
        LogicalType::Text => text(u32::MAX, false, target),
        LogicalType::Binary(length) => match target {
            PgType::Bytea => exact(),
            PgType::Uuid if *length == 16 => exact(),
            _ => target.text_limit().and_then(|_| may("bytes that are no UTF-8 text".to_owned())),
        },
        LogicalType::Bytes => match target {
            PgType::Bytea => exact(),
            _ => target.text_limit().and_then(|_| may("bytes that are no UTF-8 text".to_owned())),
        },
        LogicalType::Bit(length) => match target {
            PgType::Bool if *length == 1 => exact(),
            PgType::Bool => may("numbers other than 0 and 1".to_owned()),
            PgType::Bit(to) if to == length => exact(),
            PgType::VarBit(to) if to.is_none_or(|to| to >= *length) => widened("any number of bits"),
            PgType::Bytea => widened("whole bytes"),
            PgType::Int2 if *length <= 15 => widened("as a number"),
            PgType::Int4 if *length <= 31 => widened("as a number"),
            PgType::Int8 if *length <= 63 => widened("as a number"),
            PgType::Numeric(None) => widened("as a number"),
            _ => text_of(u32::from(*length)),
        },
        LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Timestamp(_) | LogicalType::Time(_) => moment(logical, target, hints),
        LogicalType::Enum(labels) => match target {
            PgType::Labels(_, known) if labels.iter().all(|label| known.contains(label)) && known.iter().any(String::is_empty) => exact(),
            PgType::Labels(..) => may("labels that the target's type does not have".to_owned()),
            _ => text_of(longest(labels)).map(|fit| match fit {
                Fit::Exact(_) => Fit::Exact("a check admits the labels".to_owned()),
                other => other,
            }),
        },
        LogicalType::Set(labels) => match target {
            PgType::TextArray => Some(Fit::Exact("one element per label".to_owned())),
            _ => text_of(labels.iter().map(|label| label.chars().count() as u32 + 1).sum()),
        },
        LogicalType::JsonText => match target {
            PgType::Json => exact(),
            PgType::Jsonb => may("JSON that jsonb does not take (\\u0000); spelling, key order and repeated keys are not kept".to_owned()),
            _ => text_of(u32::MAX),
        },
        LogicalType::Json => match target {
            PgType::Jsonb => may("JSON with \\u0000".to_owned()),
            PgType::Json => exact(),
            _ => text_of(u32::MAX),
        },
        LogicalType::Uuid => match target {
            PgType::Uuid => exact(),
            PgType::Bytea => widened("16 bytes"),
            _ => text_of(36),
        },
        LogicalType::Inet => match target {
            PgType::Inet => exact(),
            _ => text_of(45),
        },
        LogicalType::Spatial { .. } => match (target, hints.srid) {
            (PgType::Geometry(_), _) => exact(),
            (PgType::Bytea, Some(0)) => Some(Fit::Exact("well-known binary".to_owned())),
            (PgType::Bytea, Some(srid)) => Some(Fit::Exact(format!("well-known binary; a comment names its SRID {srid}"))),
            (PgType::Bytea, None) => Some(Fit::Exact("extended well-known binary, which holds each value's SRID".to_owned())),
            _ => None,
        },
        LogicalType::Unsupported(_) => None,
    }
}

/// Values of another kind in a text column, when their texts are so long at most.
fn as_text(longest: u32, target: &PgType) -> Option<Fit> {
    match target.text_limit()? {
        limit if longest <= limit => Some(Fit::Exact("as text".to_owned())),
        limit => Some(Fit::May(format!("values whose text is longer than {limit} characters"))),
    }
}

/// Dates and times.
fn moment(logical: &LogicalType, target: &PgType, hints: Hints<'_>) -> Option<Fit> {
    let may = |reason: String| Some(Fit::May(reason));
    let text_of = |longest: u32| as_text(longest, target);
    match logical {
        LogicalType::Date => match target {
            PgType::Date => may("zero dates".to_owned()),
            PgType::Timestamp(_) => may("zero dates".to_owned()),
            _ => text_of(10),
        },
        LogicalType::DateTime(digits) => match target {
            PgType::Timestamp(to) => may(dates(*digits, *to, "")),
            PgType::Timestamptz(to) => may(dates(*digits, *to, " (times are taken as UTC)")),
            PgType::Date => may("zero dates and times other than midnight".to_owned()),
            _ => text_of(26),
        },
        LogicalType::Timestamp(digits) => match target {
            PgType::Timestamptz(to) => may(dates(*digits, *to, "")),
            PgType::Timestamp(to) => may(dates(*digits, *to, " (times are written in UTC)")),
            _ => text_of(29),
        },
        LogicalType::Time(digits) => match target {
            PgType::Time(to) if to >= digits && hints.is_time_of_day => Some(Fit::Exact("every value lies within one day".to_owned())),
            PgType::Time(to) if to >= digits => may("times outside one day".to_owned()),
            PgType::Time(_) => may("times outside one day and further digits of a second".to_owned()),
            PgType::Interval(to) if to >= digits => Some(Fit::Exact("values may be negative or longer than a day".to_owned())),
            PgType::Interval(_) => may("further digits of a second".to_owned()),
            _ => text_of(17),
        },
        _ => None,
    }
}

fn dates(from: u8, to: u8, more: &str) -> String {
    if to >= from { format!("zero dates{more}") } else { format!("zero dates and further digits of a second{more}") }
}

fn longest(labels: &[String]) -> u32 {
    labels.iter().map(|label| label.chars().count() as u32).max().unwrap_or(0)
}

/// Whole numbers.
fn whole(bits: u8, unsigned: bool, target: &PgType) -> Option<Fit> {
    let (low, high) = if unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) };
    if *target == PgType::Bool {
        return Some(Fit::May("numbers other than 0 and 1".to_owned()));
    }
    let (from, to) = target.whole_range()?;
    if from > low || to < high {
        return Some(Fit::May(format!("numbers outside {from} to {to}")));
    }
    let reason = match (bits, unsigned) {
        (16 | 32 | 64, false) if (from, to) == (low, high) => return Some(Fit::Exact(String::new())),
        (8, _) => "PostgreSQL has no 8-bit integer",
        (24, _) => "PostgreSQL has no 24-bit integer",
        (_, true) => "PostgreSQL has no unsigned integers",
        _ => "a larger range",
    };
    Some(Fit::Widened(reason.to_owned()))
}

fn text(length: u32, is_padded: bool, target: &PgType) -> Option<Fit> {
    let may = |reason: String| Some(Fit::May(reason));
    match target {
        PgType::Char(to) if is_padded && length <= *to => Some(Fit::Exact(String::new())),
        PgType::Char(to) => may(format!("texts longer than {to} characters or with spaces at their end")),
        PgType::Text | PgType::Varchar(_) => match target.text_limit() {
            Some(limit) if length <= limit => Some(match target {
                _ if length == 0 => Fit::Widened("a length of 0 does not exist in PostgreSQL".to_owned()),
                PgType::Varchar(Some(to)) if *to == length => Fit::Exact(String::new()),
                PgType::Text if length == u32::MAX => Fit::Exact(String::new()),
                _ => Fit::Widened("longer texts fit too".to_owned()),
            }),
            Some(limit) => may(format!("texts longer than {limit} characters")),
            None => None,
        },
        PgType::Bytea => Some(Fit::Widened("as UTF-8 bytes".to_owned())),
        PgType::Uuid => may("texts that are no UUID".to_owned()),
        PgType::Inet => may("texts that are no address".to_owned()),
        PgType::Json | PgType::Jsonb => may("texts that are no JSON".to_owned()),
        _ => None,
    }
}

/// The verdict on a column, given what a rule asks for.
pub(super) fn verdict(column: &Column, fit: Fit, asked: Option<OnLoss>, is_strict: bool) -> (Verdict, String) {
    let text_policy = |reason: String| match asked {
        // What PostgreSQL's text cannot hold can be in any text.
        Some(on_loss @ (OnLoss::Null | OnLoss::Clamp)) if is_text(&column.logical) => {
            (Verdict::Policy(on_loss), join(&reason, &format!("NUL characters: {}", consequence(on_loss))))
        }
        _ => (Verdict::Exact, reason),
    };
    match fit {
        Fit::Exact(reason) => text_policy(reason),
        Fit::Widened(reason) => match text_policy(reason) {
            (Verdict::Exact, reason) => (Verdict::Widened, reason),
            other => other,
        },
        Fit::May(what) => {
            let is_date = matches!(column.logical, LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Timestamp(_));
            let default = if is_date && column.nullable && !is_strict { OnLoss::Null } else { OnLoss::Error };
            let on_loss = asked.unwrap_or(default);
            let because = if asked.is_none() && is_date && !column.nullable { ", because the column is NOT NULL" } else { "" };
            (Verdict::Policy(on_loss), format!("{what} {}{because}", consequence(on_loss)))
        }
    }
}

fn consequence(on_loss: OnLoss) -> &'static str {
    match on_loss {
        OnLoss::Error => "fail the table",
        OnLoss::Null => "become NULL and are counted",
        OnLoss::Clamp => "become the nearest value and are counted",
        OnLoss::Text => "are kept as text",
    }
}

fn join(reason: &str, more: &str) -> String {
    if reason.is_empty() { more.to_owned() } else { format!("{reason}; {more}") }
}

/// Whether a column holds free text.
pub(super) fn is_text(logical: &LogicalType) -> bool {
    matches!(logical, LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_catalogs_and_people_spell_them() {
        for (text, expected) in [
            ("boolean", PgType::Bool),
            ("INT", PgType::Int4),
            ("numeric(10, 2)", PgType::Numeric(Some((10, 2)))),
            ("numeric", PgType::Numeric(None)),
            ("varchar(20)", PgType::Varchar(Some(20))),
            ("character varying", PgType::Varchar(None)),
            ("timestamp(3) without time zone", PgType::Timestamp(3)),
            ("timestamp without time zone", PgType::Timestamp(6)),
            ("timestamptz(0)", PgType::Timestamptz(0)),
            ("bit varying(5)", PgType::VarBit(Some(5))),
            ("text[]", PgType::TextArray),
            ("public.geometry(Point,4326)", PgType::Geometry("public.geometry(Point,4326)".into())),
        ] {
            assert_eq!(PgType::parse(text, &[]), Some(expected), "{text}");
        }
        for wrong in ["money", "int[]", "numeric(0)", "varchar(0)", "timestamp(9)", "text; DROP TABLE x", "numeric(1", "varchar(x)"] {
            assert_eq!(PgType::parse(wrong, &[]), None, "{wrong}");
        }
        let labels = vec!["a".to_owned()];
        assert_eq!(PgType::parse("mood", &labels), Some(PgType::Labels("mood".into(), labels.clone())));
    }

    #[test]
    fn every_default_type_fits_its_source_and_round_trips_as_text() {
        let types = crate::postgres::fidelity::examples();
        assert!(types.len() > 30);
        for (_, logical) in types {
            let column = crate::postgres::fidelity::column(&logical);
            let Ok(target) = default_type(&column, Hints::default()) else { continue };
            assert!(fit(&logical, &target, Hints::default()).is_some(), "{logical:?}");
            assert_eq!(PgType::parse(&target.sql(), &[]), Some(target));
        }
    }

    #[test]
    fn narrower_numbers_are_a_policy_and_wider_ones_are_not() {
        let int = |bits, unsigned| LogicalType::Int { bits, unsigned };
        let fit = |from: &LogicalType, to: PgType| fit(from, &to, Hints::default());
        assert!(matches!(fit(&int(32, true), PgType::Int4), Some(Fit::May(_))));
        assert!(matches!(fit(&int(32, true), PgType::Int8), Some(Fit::Widened(_))));
        assert!(matches!(fit(&int(64, true), PgType::Numeric(Some((20, 0)))), Some(Fit::Widened(_))));
        assert!(matches!(fit(&int(64, true), PgType::Numeric(Some((19, 0)))), Some(Fit::May(_))));
        assert!(matches!(fit(&int(64, false), PgType::Int8), Some(Fit::Exact(_))));
        assert!(matches!(fit(&int(64, false), PgType::Float8), Some(Fit::May(_))));
        assert!(matches!(fit(&int(8, false), PgType::Text), Some(Fit::Exact(_))));
        assert_eq!(fit(&int(8, false), PgType::Date), None);
        let decimal = LogicalType::Decimal { precision: 10, scale: 2 };
        assert!(matches!(fit(&decimal, PgType::Numeric(Some((12, 4)))), Some(Fit::Exact(_))));
        assert!(matches!(fit(&decimal, PgType::Numeric(Some((11, 4)))), Some(Fit::May(_))));
    }
}
