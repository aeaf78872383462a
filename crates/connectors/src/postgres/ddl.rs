//! Renders the statements that build a planned table. Pure text; names quoted, literals escaped.

use millrace_core::catalog::{Column, DefaultValue, ForeignKey, Index, LogicalType, TableName};
use millrace_core::plan::{ColumnPlan, TablePlan};

use super::expression::translate;
use super::names::{literal, qualified, quote};
use super::plan::target_column;

/// `CREATE TABLE` without keys and checks, then comments and, for automatic keys that no identity can hold, the sequence.
pub(super) fn create_table(plan: &TablePlan) -> Vec<String> {
    let table = qualified(&plan.target.schema, &plan.target.name);
    let columns: Vec<String> = plan.source.columns.iter().zip(&plan.columns).map(|(source, target)| column(plan, source, target)).collect();
    let mut statements = vec![format!("CREATE TABLE {table} ({})", columns.join(", "))];
    for (source, target) in plan.source.columns.iter().zip(&plan.columns) {
        if source.auto_increment && !is_identity_type(&target.to) {
            let sequence = qualified(&plan.target.schema, &sequence_name(plan, target));
            let place = format!("{table}.{}", quote(&target.target));
            statements.push(format!("CREATE SEQUENCE {sequence} OWNED BY {place}"));
            statements.push(format!(
                "ALTER TABLE {table} ALTER COLUMN {} SET DEFAULT nextval({})",
                quote(&target.target),
                literal(&sequence)
            ));
        }
        if !source.comment.is_empty() {
            statements.push(format!("COMMENT ON COLUMN {table}.{} IS {}", quote(&target.target), literal(&source.comment)));
        }
    }
    if !plan.source.comment.is_empty() {
        statements.push(format!("COMMENT ON TABLE {table} IS {}", literal(&plan.source.comment)));
    }
    statements
}

/// After the rows: primary key, indexes, checks, the sequence; each with the name by which a failure is reported.
pub(super) fn finish_table(plan: &TablePlan) -> Vec<(String, String)> {
    let table = qualified(&plan.target.schema, &plan.target.name);
    let mut statements = Vec::new();
    if !plan.source.primary_key.is_empty() {
        let columns = columns(plan, &plan.source.primary_key);
        statements.push(("primary key".to_owned(), format!("ALTER TABLE {table} ADD PRIMARY KEY ({columns})")));
    }
    for index in &plan.source.indexes {
        statements.push((format!("index `{}`", index.name), create_index(plan, &table, index)));
    }
    for check in &plan.source.checks {
        if let Ok(condition) = translate(&check.expression, &|name| target_column(plan, name)) {
            let sql = format!("ALTER TABLE {table} ADD CONSTRAINT {} CHECK ({condition})", quote(&check.name));
            statements.push((format!("check `{}`", check.name), sql));
        }
    }
    for (source, target) in plan.source.columns.iter().zip(&plan.columns) {
        if let (LogicalType::Enum(labels), true) = (&source.logical, plan.label_checks) {
            let column = quote(&target.target);
            let mut admitted: Vec<String> = labels.iter().map(|label| literal(label)).collect();
            // The value of an invalid insert in MySQL's lax mode.
            if !labels.iter().any(String::is_empty) {
                admitted.push("''".to_owned());
            }
            let sql = format!("ALTER TABLE {table} ADD CHECK ({column} IN ({}))", admitted.join(", "));
            statements.push((format!("labels of `{}`", source.name), sql));
        }
        if source.auto_increment {
            let next = plan.source.next_auto_value.unwrap_or(1).max(1);
            let sequence = if is_identity_type(&target.to) {
                format!("pg_get_serial_sequence({}, {})", literal(&table), literal(&target.target))
            } else {
                literal(&qualified(&plan.target.schema, &sequence_name(plan, target)))
            };
            // What the source says may be older than its rows.
            let column = quote(&target.target);
            let sql =
                format!("SELECT setval({sequence}, greatest({next}, (SELECT coalesce(max({column}), 0) + 1 FROM {table}))::bigint, false)");
            statements.push((format!("sequence of `{}`", source.name), sql));
        }
    }
    statements.push(("statistics".to_owned(), format!("ANALYZE {table}")));
    statements
}

/// `ALTER TABLE … ADD FOREIGN KEY`, for when all tables are complete.
pub(super) fn foreign_key(plan: &TablePlan, key: &ForeignKey, referenced: &TablePlan) -> String {
    let there: Vec<String> =
        key.referenced_columns.iter().map(|name| quote(&target_column(referenced, name).unwrap_or_else(|| name.clone()))).collect();
    format!(
        "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON UPDATE {} ON DELETE {}",
        qualified(&plan.target.schema, &plan.target.name),
        quote(&key.name),
        columns(plan, &key.columns),
        qualified(&referenced.target.schema, &referenced.target.name),
        there.join(", "),
        action(&key.on_update),
        action(&key.on_delete),
    )
}

/// `DROP TABLE` of what an unfinished run left.
pub(super) fn drop_table(table: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {} CASCADE", qualified(&table.schema, &table.name))
}

/// A default as it stands in DDL; none if it has no form here.
pub(super) fn default_sql(column: &Column, default: &DefaultValue) -> Option<String> {
    match (default, &column.logical) {
        (DefaultValue::Now(digits), LogicalType::Timestamp(_)) => Some(with_digits("CURRENT_TIMESTAMP", *digits)),
        (DefaultValue::Now(digits), LogicalType::DateTime(_)) => Some(with_digits("LOCALTIMESTAMP", *digits)),
        (DefaultValue::Now(_), _) => None,
        (DefaultValue::Literal(text), logical) => literal_default(text, logical),
        (DefaultValue::Expression(text), LogicalType::Uuid) if text.eq_ignore_ascii_case("uuid()") => Some("gen_random_uuid()".to_owned()),
        (DefaultValue::Expression(text), _) => translate(text, &|_| None).ok(),
    }
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
    } else if let Some(default) = source.default.as_ref().and_then(|default| default_sql(source, default)) {
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

fn literal_default(text: &str, logical: &LogicalType) -> Option<String> {
    match logical {
        LogicalType::Int { .. } | LogicalType::Year | LogicalType::Decimal { .. } | LogicalType::Float32 | LogicalType::Float64 => {
            text.parse::<f64>().ok().map(|_| text.to_owned())
        }
        LogicalType::Bool | LogicalType::Bit(1) => match text {
            "0" | "" => Some("false".to_owned()),
            "1" => Some("true".to_owned()),
            _ => None,
        },
        LogicalType::Bit(length) => {
            let is_bits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0' | b'1'));
            is_bits.then(|| format!("B'{text:0>width$}'", width = usize::from(*length)))
        }
        LogicalType::Set(_) => {
            let labels: Vec<String> = text.split(',').filter(|label| !label.is_empty()).map(literal).collect();
            Some(format!("ARRAY[{}]::text[]", labels.join(", ")))
        }
        LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Timestamp(_) if has_zero_part(text) => None,
        LogicalType::Timestamp(_) => Some(format!("{}::timestamptz", literal(&format!("{text}+00")))),
        LogicalType::Binary(_) | LogicalType::Bytes => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("'\\x{hex}'::bytea"))
        }
        LogicalType::Unsupported(_) => None,
        _ => Some(literal(text)),
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
