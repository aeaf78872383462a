//! What of a table is wanted: applies a selection to the catalog's description of the table.

use crate::catalog::Table;
use crate::config::{Filter, RowSelection};
use crate::error::{Error, Kind, Result};

/// A comparison of a column with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`: the operator as SQL writes it.
    Compare(&'static str),
    /// One of, or none of, the operand's comma-separated values.
    In {
        /// None of them.
        negated: bool,
    },
    /// SQL's pattern match.
    Like {
        /// No match.
        negated: bool,
    },
    /// Between two comma-separated values, both included.
    Between,
    /// NULL or not.
    IsNull {
        /// Not NULL.
        negated: bool,
    },
    /// The operand as a part of the text: anywhere, at the start, at the end.
    Part {
        /// Whether something may stand before it.
        before: bool,
        /// Whether something may stand after it.
        after: bool,
        /// No match.
        negated: bool,
    },
}

impl Operator {
    /// Reads the word of a config, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.trim().to_ascii_uppercase();
        Some(match word.split_whitespace().collect::<Vec<_>>().join(" ").as_str() {
            "=" => Self::Compare("="),
            "!=" => Self::Compare("<>"),
            "<" => Self::Compare("<"),
            "<=" => Self::Compare("<="),
            ">" => Self::Compare(">"),
            ">=" => Self::Compare(">="),
            "IN" => Self::In { negated: false },
            "NOT IN" => Self::In { negated: true },
            "LIKE" => Self::Like { negated: false },
            "NOT LIKE" => Self::Like { negated: true },
            "BETWEEN" => Self::Between,
            "IS NULL" => Self::IsNull { negated: false },
            "IS NOT NULL" => Self::IsNull { negated: true },
            "CONTAINS" => Self::Part { before: true, after: true, negated: false },
            "NOT_CONTAINS" => Self::Part { before: true, after: true, negated: true },
            "STARTS_WITH" => Self::Part { before: false, after: true, negated: false },
            "ENDS_WITH" => Self::Part { before: true, after: false, negated: false },
            _ => return None,
        })
    }

    /// The operand's values.
    pub fn values(self, operand: &str) -> Vec<String> {
        match self {
            Self::In { .. } | Self::Between => operand.split(',').map(|value| value.trim().to_owned()).collect(),
            Self::IsNull { .. } => Vec::new(),
            _ => vec![operand.to_owned()],
        }
    }
}

/// Reduces a table to the selected columns and keeps the rest of the selection for the reader. `at` is the selection's path in the config.
///
/// Keys, indexes and checks over columns that are left out cannot be kept; the table's notes name them.
///
/// # Errors
/// [`Kind::ObjectMissing`] for a column that does not exist, [`Kind::Invalid`] for an operator or direction that is none; the field is named.
pub fn apply(table: &mut Table, selection: &RowSelection, at: &str) -> Result<()> {
    let missing = |field: String, name: &str, table: &Table| {
        Error::new(Kind::ObjectMissing, format!("the table `{}` has no column `{name}`", table.name)).field(field).with("column", name)
    };
    for (index, filter) in selection.filters.iter().enumerate() {
        if table.column(&filter.column).is_none() {
            return Err(missing(format!("{at}.filters[{index}].column"), &filter.column, table));
        }
        check_operator(filter, &format!("{at}.filters[{index}]"))?;
    }
    for (index, sort) in selection.sorts.iter().enumerate() {
        if table.column(&sort.column).is_none() {
            return Err(missing(format!("{at}.sorts[{index}].column"), &sort.column, table));
        }
        if !["ASC", "DESC"].iter().any(|word| word.eq_ignore_ascii_case(&sort.direction)) {
            return Err(Error::invalid(format!("{at}.sorts[{index}].direction"), "the direction must be `ASC` or `DESC`"));
        }
    }
    if !selection.selected_columns.is_empty() {
        for (index, name) in selection.selected_columns.iter().enumerate() {
            if table.column(name).is_none() {
                return Err(missing(format!("{at}.selectedColumns[{index}]"), name, table));
            }
        }
        keep_columns(table, &selection.selected_columns);
    }
    table.selection = selection.clone();
    Ok(())
}

fn check_operator(filter: &Filter, at: &str) -> Result<()> {
    let Some(operator) = Operator::parse(&filter.operator) else {
        return Err(Error::invalid(format!("{at}.operator"), format!("`{}` is not an operator", filter.operator)));
    };
    if operator == Operator::Between && operator.values(&filter.value).len() != 2 {
        return Err(Error::invalid(format!("{at}.value"), "`BETWEEN` needs two values, separated by a comma"));
    }
    Ok(())
}

fn keep_columns(table: &mut Table, selected: &[String]) {
    let is_selected = |name: &str| selected.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    table.columns.retain(|column| is_selected(&column.name));
    let mut lost = Vec::new();
    if table.primary_key.iter().any(|name| !is_selected(name)) {
        lost.push("the primary key".to_owned());
        table.primary_key.clear();
    }
    table.indexes.retain(|index| {
        let is_kept = index.parts.iter().all(|part| is_selected(&part.column));
        if !is_kept {
            lost.push(format!("the index `{}`", index.name));
        }
        is_kept
    });
    table.foreign_keys.retain(|key| {
        let is_kept = key.columns.iter().all(|name| is_selected(name));
        if !is_kept {
            lost.push(format!("the foreign key `{}`", key.name));
        }
        is_kept
    });
    let all: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    table.checks.retain(|check| {
        // Without parsing the source's dialect here: a check stays only if every quoted name in it is a column that stays.
        let is_kept = check.expression.split('`').skip(1).step_by(2).all(|name| all.iter().any(|column| column.eq_ignore_ascii_case(name)));
        if !is_kept {
            lost.push(format!("the check `{}`", check.name));
        }
        is_kept
    });
    if !lost.is_empty() {
        table.notes.push(format!("left out, because columns of theirs are not selected: {}", lost.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_operators_of_the_contract_are_read() {
        let words = [
            "=",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "IN",
            "NOT IN",
            "LIKE",
            "NOT LIKE",
            "BETWEEN",
            "IS NULL",
            "IS NOT NULL",
            "CONTAINS",
            "NOT_CONTAINS",
            "STARTS_WITH",
            "ENDS_WITH",
        ];
        for word in words {
            assert!(Operator::parse(word).is_some(), "{word}");
            assert_eq!(Operator::parse(&word.to_lowercase()), Operator::parse(word));
        }
        assert_eq!(Operator::parse("~"), None);
        assert_eq!(Operator::parse(""), None);
    }

    #[test]
    fn lists_are_split_and_other_operands_are_not() {
        assert_eq!(Operator::In { negated: false }.values("a, b,c"), ["a", "b", "c"]);
        assert_eq!(Operator::Compare("=").values("a, b"), ["a, b"]);
    }
}
