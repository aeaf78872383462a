//! Renders the statements that build a planned table. Pure text; names quoted, literals escaped.

use millrace_core::catalog::{Column, DefaultValue, ForeignKey, Index, LogicalType, TableName};
use millrace_core::plan::{ColumnPlan, Creation, TablePlan};

use super::expression::translate;
use super::names::{literal, qualified, quote};
use super::plan::target_column;
use super::types::PgType;

/// Marks enumerations that a copy has made, so that only those go with the tables that it replaces.
pub(super) const TYPE_COMMENT: &str = "labels of a copied ENUM column (made by millrace)";

/// `CREATE TABLE` without keys and checks, then comments and, for automatic keys that no identity can hold, the sequence.
pub(super) fn create_table(plan: &TablePlan) -> Vec<String> {
    let table = qualified(&plan.target.schema, &plan.target.name);
    let columns: Vec<String> = plan.source.columns.iter().zip(&plan.columns).map(|(source, target)| column(plan, source, target)).collect();
    let mut statements: Vec<String> = Vec::new();
    for column in plan.columns.iter().filter(|column| !column.labels.is_empty()) {
        let labels: Vec<String> = column.labels.iter().map(|label| literal(label)).collect();
        statements.push(format!("CREATE TYPE {} AS ENUM ({})", column.to, labels.join(", ")));
        statements.push(format!("COMMENT ON TYPE {} IS {}", column.to, literal(TYPE_COMMENT)));
    }
    statements.push(format!("CREATE TABLE {table} ({})", columns.join(", ")));
    for (source, target) in plan.source.columns.iter().zip(&plan.columns) {
        if source.auto_increment && !is_identity_type(&target.to) && is_number_type(target) {
            let sequence = qualified(&plan.target.schema, &sequence_name(plan, target));
            let place = format!("{table}.{}", quote(&target.target));
            statements.push(format!("CREATE SEQUENCE {sequence} OWNED BY {place}"));
            statements.push(format!(
                "ALTER TABLE {table} ALTER COLUMN {} SET DEFAULT nextval({})",
                quote(&target.target),
                literal(&sequence)
            ));
        }
        let comment = column_comment(source, target);
        if !comment.is_empty() {
            statements.push(format!("COMMENT ON COLUMN {table}.{} IS {}", quote(&target.target), literal(&comment)));
        }
    }
    if !plan.source.comment.is_empty() {
        statements.push(format!("COMMENT ON TABLE {table} IS {}", literal(&plan.source.comment)));
    }
    statements
}

/// A step after the rows.
pub(super) struct Part {
    /// The name by which a failure is reported.
    pub(super) what: String,
    pub(super) sql: String,
    /// Asks whether an earlier try has made it already.
    pub(super) is_there: Option<String>,
}

impl Part {
    fn new(what: impl Into<String>, sql: String) -> Self {
        Self { what: what.into(), sql, is_there: None }
    }

    fn unless(mut self, is_there: String) -> Self {
        self.is_there = Some(format!("SELECT EXISTS ({is_there})"));
        self
    }
}

/// After the rows: primary key, indexes, checks, the sequence.
pub(super) fn finish_table(plan: &TablePlan) -> Vec<Part> {
    let table = qualified(&plan.target.schema, &plan.target.name);
    if plan.creation == Creation::Use {
        return use_table(plan, &table);
    }
    let this = format!("{}::regclass", literal(&table));
    let constraint = |condition: String| format!("SELECT FROM pg_constraint WHERE conrelid = {this} AND {condition}");
    let mut parts = Vec::new();
    if !plan.source.primary_key.is_empty() {
        let columns = columns(plan, &plan.source.primary_key);
        let sql = format!("ALTER TABLE {table} ADD PRIMARY KEY ({columns})");
        parts.push(Part::new("primary key", sql).unless(constraint("contype = 'p'".to_owned())));
    }
    for index in &plan.source.indexes {
        let is_there = format!(
            "SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {this} AND c.relname = {}",
            literal(&index.name)
        );
        parts.push(Part::new(format!("index `{}`", index.name), create_index(plan, &table, index)).unless(is_there));
    }
    for check in &plan.source.checks {
        if let Ok(condition) = translate(&check.expression, &|name| target_column(plan, name)) {
            let sql = format!("ALTER TABLE {table} ADD CONSTRAINT {} CHECK ({condition})", quote(&check.name));
            let is_there = constraint(format!("contype = 'c' AND conname = {}", literal(&check.name)));
            parts.push(Part::new(format!("check `{}`", check.name), sql).unless(is_there));
        }
    }
    for (source, target) in plan.source.columns.iter().zip(&plan.columns) {
        if let (LogicalType::Enum(labels), true, true) = (&source.logical, plan.label_checks, target.labels.is_empty()) {
            parts.push(label_check(&table, &this, source, target, labels));
        }
        if source.auto_increment && is_number_type(target) {
            parts.push(set_sequence(plan, &table, source, target));
        }
    }
    parts.push(Part::new("statistics", format!("ANALYZE {table}")));
    parts
}

fn label_check(table: &str, this: &str, source: &Column, target: &ColumnPlan, labels: &[String]) -> Part {
    let mut admitted: Vec<String> = labels.iter().map(|label| literal(label)).collect();
    // The value of an invalid insert in MySQL's lax mode.
    if !labels.iter().any(String::is_empty) {
        admitted.push("''".to_owned());
    }
    let sql = format!("ALTER TABLE {table} ADD CHECK ({} IN ({}))", quote(&target.target), admitted.join(", "));
    let is_there = format!(
        "SELECT FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
         WHERE k.conrelid = {this} AND k.contype = 'c' AND a.attname = {} AND pg_get_constraintdef(k.oid) LIKE '%= ANY (%'",
        literal(&target.target)
    );
    Part::new(format!("labels of `{}`", source.name), sql).unless(is_there)
}

fn set_sequence(plan: &TablePlan, table: &str, source: &Column, target: &ColumnPlan) -> Part {
    let next = plan.source.next_auto_value.unwrap_or(1).max(1);
    let sequence = if is_identity_type(&target.to) {
        format!("pg_get_serial_sequence({}, {})", literal(table), literal(&target.target))
    } else {
        literal(&qualified(&plan.target.schema, &sequence_name(plan, target)))
    };
    // What the source says may be older than its rows.
    let column = quote(&target.target);
    let sql = format!("SELECT setval({sequence}, greatest({next}, (SELECT coalesce(max({column}), 0) + 1 FROM {table}))::bigint, false)");
    Part::new(format!("sequence of `{}`", source.name), sql)
}

/// A table in use keeps its structure; its sequences must not give out keys that the new rows have.
fn use_table(plan: &TablePlan, table: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for column in plan.columns.iter().filter(|column| column.is_written && is_number_type(column)) {
        let (name, sequence) = (quote(&column.target), format!("pg_get_serial_sequence({}, {})", literal(table), literal(&column.target)));
        let sql = format!(
            "SELECT setval(s, greatest(m + 1, nextval(s)), false) FROM (SELECT {sequence} AS s, (SELECT max({name})::bigint FROM {table}) AS m) x
             WHERE s IS NOT NULL AND m IS NOT NULL"
        );
        parts.push(Part::new(format!("sequence of `{}`", column.target), sql));
    }
    parts.push(Part::new("statistics", format!("ANALYZE {table}")));
    parts
}

/// `ALTER TABLE … ADD FOREIGN KEY`, for when all tables are complete.
pub(super) fn foreign_key(plan: &TablePlan, key: &ForeignKey, referenced: &TablePlan) -> String {
    let there: Vec<String> =
        key.referenced_columns.iter().map(|name| quote(&target_column(referenced, name).unwrap_or_else(|| name.clone()))).collect();
    format!(
        "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON UPDATE {} ON DELETE {} NOT VALID",
        qualified(&plan.target.schema, &plan.target.name),
        quote(&key.name),
        columns(plan, &key.columns),
        qualified(&referenced.target.schema, &referenced.target.name),
        there.join(", "),
        action(&key.on_update),
        action(&key.on_delete),
    )
}

/// `ALTER TABLE … VALIDATE CONSTRAINT`.
pub(super) fn validate(table: &TableName, constraint: &str) -> String {
    format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", qualified(&table.schema, &table.name), quote(constraint))
}

/// `DROP TABLE` of several at once, so that foreign keys among them do not matter; what else depends on them keeps them.
pub(super) fn drop_tables(tables: &[TableName]) -> String {
    let names: Vec<String> = tables.iter().map(|table| qualified(&table.schema, &table.name)).collect();
    format!("DROP TABLE IF EXISTS {}", names.join(", "))
}

/// A default as it stands in DDL; none if it has no form here.
pub(super) fn default_sql(column: &Column, default: &DefaultValue, target: &ColumnPlan) -> Option<String> {
    let kind = PgType::parse(&target.to, &target.labels)?;
    match (default, &kind) {
        (DefaultValue::Now(digits), PgType::Timestamptz(_)) => Some(with_digits("CURRENT_TIMESTAMP", *digits)),
        (DefaultValue::Now(digits), PgType::Timestamp(_)) if matches!(column.logical, LogicalType::Timestamp(_)) => {
            Some(format!("({} AT TIME ZONE 'UTC')", with_digits("CURRENT_TIMESTAMP", *digits)))
        }
        (DefaultValue::Now(digits), PgType::Timestamp(_)) => Some(with_digits("LOCALTIMESTAMP", *digits)),
        (DefaultValue::Now(_), _) => None,
        (DefaultValue::Literal(text), _) => literal_default(text, &column.logical, &kind),
        (DefaultValue::Expression(text), PgType::Uuid) if text.eq_ignore_ascii_case("uuid()") => Some("gen_random_uuid()".to_owned()),
        (DefaultValue::Expression(text), _) => translate(text, &|_| None).ok(),
    }
}

/// The column's comment, with the reference system that well-known binary does not hold.
fn column_comment(source: &Column, target: &ColumnPlan) -> String {
    let is_binary = matches!(source.logical, LogicalType::Spatial { .. }) && target.to == "bytea";
    let spatial = match (is_binary, target.srid) {
        (false, _) | (true, Some(0)) => return source.comment.clone(),
        (true, Some(srid)) => format!("WKB, SRID {srid}"),
        (true, None) => "EWKB".to_owned(),
    };
    if source.comment.is_empty() { spatial } else { format!("{} ({spatial})", source.comment) }
}

fn column(plan: &TablePlan, source: &Column, target: &ColumnPlan) -> String {
    let mut sql = format!("{} {}", quote(&target.target), target.to);
    if let Some(expression) = &source.generated {
        // The plan has refused what cannot be translated.
        let translated = translate(expression, &|name| target_column(plan, name)).unwrap_or_default();
        sql.push_str(&format!(" GENERATED ALWAYS AS ({translated}) STORED"));
        return sql;
    }
    if source.auto_increment && is_identity_type(&target.to) {
        sql.push_str(" GENERATED BY DEFAULT AS IDENTITY");
    } else if let Some(default) = source.default.as_ref().and_then(|default| default_sql(source, default, target)) {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    if !source.nullable {
        sql.push_str(" NOT NULL");
    }
    sql
}

fn create_index(plan: &TablePlan, table: &str, index: &Index) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let name = quote(&index.name);
    if index.method == "SPATIAL" {
        let columns: Vec<String> =
            index.parts.iter().filter_map(|part| target_column(plan, &part.column)).map(|name| quote(&name)).collect();
        return format!("CREATE INDEX {name} ON {table} USING gist ({})", columns.join(", "));
    }
    if index.method == "FULLTEXT" {
        let texts: Vec<String> = index
            .parts
            .iter()
            .filter_map(|part| target_column(plan, &part.column))
            .map(|column| format!("coalesce({}, '')", quote(&column)))
            .collect();
        return format!("CREATE INDEX {name} ON {table} USING gin (to_tsvector('simple', {}))", texts.join(" || ' ' || "));
    }
    let parts: Vec<String> = index
        .parts
        .iter()
        .map(|part| {
            let column = quote(&target_column(plan, &part.column).unwrap_or_else(|| part.column.clone()));
            let logical = plan.source.column(&part.column).map(|column| &column.logical);
            let value = match (part.prefix, logical) {
                (Some(length), Some(LogicalType::Binary(_) | LogicalType::Bytes)) => format!("substring({column} from 1 for {length})"),
                (Some(length), _) => format!("left({column}, {length})"),
                (None, _) => column,
            };
            format!("({value}){}", if part.descending { " DESC" } else { "" })
        })
        .collect();
    format!("CREATE {unique}INDEX {name} ON {table} ({})", parts.join(", "))
}

fn literal_default(text: &str, logical: &LogicalType, kind: &PgType) -> Option<String> {
    let is_date = matches!(logical, LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Timestamp(_));
    match kind {
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Numeric(_) | PgType::Float4 | PgType::Float8 => {
            text.parse::<f64>().ok().map(|_| text.to_owned())
        }
        PgType::Bool => match text {
            "0" | "" => Some("false".to_owned()),
            "1" => Some("true".to_owned()),
            _ => None,
        },
        PgType::Bit(length) => {
            let is_bits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0' | b'1'));
            is_bits.then(|| format!("B'{text:0>width$}'", width = usize::from(*length)))
        }
        PgType::TextArray => {
            let labels: Vec<String> = text.split(',').filter(|label| !label.is_empty()).map(literal).collect();
            Some(format!("ARRAY[{}]::text[]", labels.join(", ")))
        }
        PgType::Text | PgType::Varchar(_) | PgType::Char(_) => Some(literal(text)),
        _ if is_date && has_zero_part(text) => None,
        PgType::Timestamptz(_) => Some(format!("{}::timestamptz", literal(&format!("{text}+00")))),
        PgType::Bytea if matches!(logical, LogicalType::Binary(_) | LogicalType::Bytes) => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("'\\x{hex}'::bytea"))
        }
        PgType::Date
        | PgType::Timestamp(_)
        | PgType::Time(_)
        | PgType::Interval(_)
        | PgType::Json
        | PgType::Jsonb
        | PgType::Uuid
        | PgType::Inet
        | PgType::Labels(..) => Some(literal(text)),
        PgType::Bytea | PgType::VarBit(_) | PgType::Geometry(_) => None,
    }
}

/// `0000-00-00`, `2021-00-10`, `2021-01-00 …`.
fn has_zero_part(text: &str) -> bool {
    let date = text.split(' ').next().unwrap_or_default();
    date.split('-').any(|part| part.bytes().all(|byte| byte == b'0'))
}

fn with_digits(word: &str, digits: u8) -> String {
    if digits == 0 { format!("{word}(0)") } else { format!("{word}({digits})") }
}

fn is_identity_type(sql: &str) -> bool {
    matches!(sql, "smallint" | "integer" | "bigint")
}

fn is_number_type(column: &ColumnPlan) -> bool {
    PgType::parse(&column.to, &column.labels).is_some_and(|kind| kind.whole_range().is_some())
}

/// The name that PostgreSQL gives a serial column's sequence, shortened if need be.
fn sequence_name(plan: &TablePlan, column: &ColumnPlan) -> String {
    super::names::NameSpace::default().claim(&format!("{}_{}_seq", plan.target.name, column.target), &format!("{}_seq", plan.target.name))
}

fn columns(plan: &TablePlan, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(&target_column(plan, name).unwrap_or_else(|| name.clone()))).collect();
    names.join(", ")
}

fn action(rule: &str) -> &'static str {
    match rule.to_ascii_uppercase().as_str() {
        "CASCADE" => "CASCADE",
        "SET NULL" => "SET NULL",
        "SET DEFAULT" => "SET DEFAULT",
        // InnoDB's RESTRICT and NO ACTION both check at once, which is RESTRICT.
        _ => "RESTRICT",
    }
}
