//! A selection as MySQL writes it: values are parameters, in a type that compares with the column exactly.

use millrace_core::catalog::{Column, LogicalType, Table};
use millrace_core::config::Filter;
use millrace_core::selection::Operator;
use millrace_core::value::is_civil_date;
use millrace_core::{Error, Result};

use super::quote;
use super::wire::Param;

/// Marks the characters of a pattern that stand for themselves.
const ESCAPE: char = '|';

/// The conditions of a table's filters, to be joined with AND, and their parameters.
pub(super) fn conditions(table: &Table, all_columns: &[Column]) -> Result<(Vec<String>, Vec<Param>)> {
    let (mut conditions, mut params) = (Vec::new(), Vec::new());
    for (index, filter) in table.selection.filters.iter().enumerate() {
        let column = all_columns.iter().find(|column| column.name.eq_ignore_ascii_case(&filter.column));
        let (Some(column), Some(operator)) = (column, Operator::parse(&filter.operator)) else {
            return Err(Error::internal("a filter was not checked"));
        };
        let condition = condition(column, operator, filter, &mut params);
        conditions.push(condition.map_err(|error| error.field(format!("filters[{index}].value")))?);
    }
    Ok((conditions, params))
}

/// `ORDER BY … LIMIT …`; empty when the selection has neither.
pub(super) fn order_and_limit(table: &Table) -> String {
    let keys: Vec<String> = table
        .selection
        .sorts
        .iter()
        .map(|sort| format!("{} {}", quote(&sort.column), if sort.direction.eq_ignore_ascii_case("desc") { "DESC" } else { "ASC" }))
        .collect();
    let mut sql = if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) };
    if let Some(limit) = table.selection.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

fn condition(column: &Column, operator: Operator, filter: &Filter, params: &mut Vec<Param>) -> Result<String> {
    let name = quote(&column.name);
    let not = |negated: bool| if negated { "NOT " } else { "" };
    let values = operator.values(&filter.value);
    let mut typed = || -> Result<Vec<String>> { values.iter().map(|value| operand(column, value, params)).collect() };
    Ok(match operator {
        Operator::Compare(sign) => format!("{name} {sign} {}", typed()?.concat()),
        Operator::In { negated } => format!("{name} {}IN ({})", not(negated), typed()?.join(", ")),
        Operator::Between => format!("{name} BETWEEN {}", typed()?.join(" AND ")),
        Operator::IsNull { negated } => format!("{name} IS {}NULL", not(negated)),
        Operator::Like { negated } => {
            params.push(Param::Text(filter.value.clone()));
            format!("CONCAT({name}) {}LIKE ?", not(negated))
        }
        Operator::Part { before, after, negated } => {
            params.push(Param::Text(pattern(&filter.value, before, after)));
            format!("CONCAT({name}) {}LIKE ? ESCAPE '{ESCAPE}'", not(negated))
        }
    })
}

/// A placeholder whose value compares with the column without passing through floating point or another character set.
fn operand(column: &Column, value: &str, params: &mut Vec<Param>) -> Result<String> {
    let wrong = || {
        Error::invalid("filters", format!("`{value}` is not a value of the column `{}` ({})", column.name, column.native_type))
            .with("column", column.name.clone())
    };
    let (param, sql) = match &column.logical {
        LogicalType::Int { .. } | LogicalType::Year | LogicalType::Bit(_) | LogicalType::Bool => {
            let signed = value.trim().parse().map(Param::Int);
            (signed.or_else(|_| value.trim().parse().map(Param::UInt)).map_err(|_| wrong())?, "?")
        }
        LogicalType::Decimal { .. } => {
            let is_number = value.trim().parse::<f64>().is_ok_and(f64::is_finite);
            (is_number.then(|| Param::Text(value.trim().to_owned())).ok_or_else(wrong)?, "CAST(? AS DECIMAL(65,30))")
        }
        LogicalType::Float32 | LogicalType::Float64 => {
            let is_number = value.trim().parse::<f64>().is_ok_and(f64::is_finite);
            (is_number.then(|| Param::Text(value.trim().to_owned())).ok_or_else(wrong)?, "(? + 0e0)")
        }
        LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Timestamp(_) => {
            // What is no moment would become NULL, and no row would match.
            (is_moment(value.trim()).then(|| Param::Text(value.trim().to_owned())).ok_or_else(wrong)?, "CAST(? AS DATETIME(6))")
        }
        LogicalType::Time(_) => {
            (is_time(value.trim(), 838).then(|| Param::Text(value.trim().to_owned())).ok_or_else(wrong)?, "CAST(? AS TIME(6))")
        }
        LogicalType::Binary(_) | LogicalType::Bytes => (Param::Bytes(value.as_bytes().to_vec()), "?"),
        _ => (Param::Text(value.to_owned()), "?"),
    };
    params.push(param);
    Ok(sql.to_owned())
}

/// `YYYY-MM-DD`, with or without a time of day after a space or a `T`; zero months and days are dates here.
fn is_moment(text: &str) -> bool {
    let (date, time) = text.split_once([' ', 'T']).map_or((text, None), |(date, time)| (date, Some(time)));
    let parts: Vec<&str> = date.split('-').collect();
    let &[year, month, day] = parts.as_slice() else { return false };
    let number = |text: &str, digits: usize| {
        (text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u32>().ok()).flatten()
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else { return false };
    let is_date = parts[0].len() == 4 && month <= 12 && day <= 31 && (month == 0 || day == 0 || is_civil_date(year as i32, month, day));
    is_date && time.is_none_or(|time| !time.starts_with('-') && is_time(time, 23))
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`; a sign may stand before it.
fn is_time(text: &str, most_hours: u32) -> bool {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<Option<u32>> = clock
        .strip_prefix('-')
        .unwrap_or(clock)
        .split(':')
        .map(|part| (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok()).flatten())
        .collect();
    let is_fraction = !fraction.is_empty() && fraction.len() <= 6 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let is_clock = match parts.as_slice() {
        [Some(hours), Some(minutes)] => *hours <= most_hours && *minutes < 60 && !text.contains('.'),
        [Some(hours), Some(minutes), Some(seconds)] => *hours <= most_hours && *minutes < 60 && *seconds < 60,
        _ => false,
    };
    is_clock && is_fraction
}

fn pattern(text: &str, before: bool, after: bool) -> String {
    let mut pattern = String::from(if before { "%" } else { "" });
    for c in text.chars() {
        if matches!(c, '%' | '_' | ESCAPE) {
            pattern.push(ESCAPE);
        }
        pattern.push(c);
    }
    if after {
        pattern.push('%');
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::{is_moment, is_time, pattern};

    #[test]
    fn only_moments_are_moments() {
        for text in ["2024-02-29", "0000-00-00", "2021-05-00", "2024-02-29 23:59:59.999999", "2024-02-29T01:02", "0001-01-01 00:00:00"] {
            assert!(is_moment(text), "{text}");
        }
        for text in
            ["yesterday", "", "2023-02-29", "24-01-01", "2024-13-01", "2024-01-01 24:00", "2024-01-01 -1:00", "2024-01-01 1", "2024-01-01Z"]
        {
            assert!(!is_moment(text), "{text}");
        }
        assert!(is_time("-838:59:59.5", 838) && is_time("12:30", 838));
        assert!(!is_time("839:00:00", 838) && !is_time("12", 838) && !is_time("12:30.5", 838) && !is_time("noon", 838));
    }

    #[test]
    fn patterns_match_their_text_literally() {
        assert_eq!(pattern("50%_a|b", true, true), "%50|%|_a||b%");
        assert_eq!(pattern("x", false, true), "x%");
        assert_eq!(pattern("x", true, false), "%x");
    }
}
