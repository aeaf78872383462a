//! The plan: what becomes of every column, decided before the first byte moves.

use serde::{Deserialize, Serialize};

use crate::catalog::{Table, TableName};
use crate::error::{Error, Kind};
use crate::value::OnLoss;

/// What becomes of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every value arrives the same, in a type of the same range.
    Exact,
    /// Every value arrives the same, in a wider type.
    Widened,
    /// Values that the target cannot hold are treated by the policy and counted.
    Policy(OnLoss),
    /// The column cannot be moved faithfully; the run does not start.
    Refused,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Widened => "widened",
            Self::Policy(OnLoss::Null) => "policy(null)",
            Self::Policy(OnLoss::Error) => "policy(error)",
            Self::Refused => "refused",
        })
    }
}

/// One column's way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnPlan {
    /// Name at the source.
    pub source: String,
    /// Name at the target.
    pub target: String,
    /// Type as the source spells it.
    pub from: String,
    /// Type as the target spells it.
    pub to: String,
    /// What becomes of its values.
    pub verdict: Verdict,
    /// Why, in one clause; empty when the verdict needs none.
    pub reason: String,
}

/// One table's way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TablePlan {
    /// The table as the source's catalog describes it.
    pub source: Table,
    /// Where it goes.
    pub target: TableName,
    /// One entry per source column, in order; generated columns are planned but not written.
    pub columns: Vec<ColumnPlan>,
    /// Whether a check keeps text columns to the labels of their ENUM.
    pub label_checks: bool,
    /// What cannot be carried over, each a full sentence without its stop. Any entry refuses the plan.
    pub refusals: Vec<String>,
    /// What the user should know and does not stop the run: a renamed index, an order that compares differently.
    pub notes: Vec<String>,
}

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry per table.
    pub tables: Vec<TablePlan>,
    /// Notes that belong to no table: objects that are not moved.
    pub notes: Vec<String>,
}

impl Plan {
    /// Fails with [`Kind::PlanRefused`] if any column or constraint is refused; all are named, the first as the error's facts.
    pub fn check(&self) -> Result<(), Error> {
        let mut refused = Vec::new();
        let mut first = None;
        for table in &self.tables {
            for column in table.columns.iter().filter(|column| column.verdict == Verdict::Refused) {
                refused.push(format!("`{}`.`{}` ({}): {}", table.source.name, column.source, column.from, column.reason));
                first.get_or_insert((table.source.name.to_string(), Some(column.source.clone())));
            }
            for refusal in &table.refusals {
                refused.push(format!("`{}`: {refusal}", table.source.name));
                first.get_or_insert((table.source.name.to_string(), None));
            }
        }
        let Some((table, column)) = first else { return Ok(()) };
        let mut error = Error::new(Kind::PlanRefused, format!("the plan refuses {}", refused.join("; "))).with("table", table);
        if let Some(column) = column {
            error = error.with("column", column);
        }
        Err(error)
    }
}
