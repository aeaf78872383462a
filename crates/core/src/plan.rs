//! The plan: what becomes of every table and column, decided before the first byte moves.

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
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Widened => f.write_str("widened"),
            Self::Policy(on_loss) => write!(f, "policy({})", on_loss.as_str()),
            Self::Refused => f.write_str("refused"),
        }
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
    /// Whether values are read and written; the target computes generated columns itself.
    pub is_written: bool,
    /// Labels of the target's type, if it is an enumeration.
    pub labels: Vec<String>,
    /// The one reference system of a spatial column's values; none if they differ.
    pub srid: Option<u32>,
}

impl ColumnPlan {
    /// What happens to a value that does not fit.
    pub fn on_loss(&self) -> OnLoss {
        match self.verdict {
            Verdict::Policy(on_loss) => on_loss,
            _ => OnLoss::Error,
        }
    }
}

/// What happens to a table's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Creation {
    /// It is made; nothing of that name exists.
    Create,
    /// What exists under its name is dropped first, in the same transaction.
    Replace,
    /// It exists and is used as it is.
    Use,
}

/// How rows get into a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowsAction {
    /// Into an empty table; a table in use must be found empty.
    Load,
    /// Beside the rows that are there.
    Append,
    /// The table is emptied first.
    Truncate,
    /// By this key: a row that exists is overwritten.
    Upsert {
        /// The key's columns at the target.
        key: Vec<String>,
    },
}

/// One table's way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TablePlan {
    /// The table as the source's catalog describes it.
    pub source: Table,
    /// Index of the source connection that it is read from.
    pub part: usize,
    /// Where it goes.
    pub target: TableName,
    /// One entry per source column, in order.
    pub columns: Vec<ColumnPlan>,
    /// What happens to its definition.
    pub creation: Creation,
    /// How its rows get in.
    pub rows: RowsAction,
    /// Target tables whose rows must be there first, because the target enforces foreign keys while rows arrive.
    pub after: Vec<TableName>,
    /// Whether all rows must come in one transaction, because the table's rows refer to each other and the target enforces that.
    pub is_indivisible: bool,
    /// Whether a check keeps text columns to the labels of their ENUM.
    pub label_checks: bool,
    /// What cannot be carried over, each a full sentence without its stop. Any entry refuses the plan.
    pub refusals: Vec<String>,
    /// What the user should know and does not stop the run: a renamed index, an order that compares differently.
    pub notes: Vec<String>,
}

impl TablePlan {
    /// What a resumed run must find unchanged: names and types of both sides. FNV-1a, so that it is the same in every build.
    pub fn fingerprint(&self) -> String {
        let mut text = format!("{}\u{1f}{}", self.source.name, self.target);
        for column in &self.columns {
            text.push_str(&format!(
                "\u{1e}{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{}",
                column.source, column.target, column.from, column.to, column.is_written
            ));
        }
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("{hash:016x}")
    }
}

/// A state of the target that the policies forbid to touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The target's table.
    pub table: String,
    /// The config's field whose value forbids it.
    pub field: String,
    /// In words.
    pub text: String,
}

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry per table.
    pub tables: Vec<TablePlan>,
    /// What stands in the way at the target.
    pub obstacles: Vec<Obstacle>,
    /// Notes that belong to no table: objects that are not moved.
    pub notes: Vec<String>,
}

impl Plan {
    /// Fails with [`Kind::PlanRefused`] if any column or constraint is refused, with [`Kind::TargetConflict`] if something stands in the way;
    /// all are named, the first as the error's facts.
    pub fn check(&self) -> Result<(), Error> {
        self.check_refusals()?;
        let Some(first) = self.obstacles.first() else { return Ok(()) };
        let texts: Vec<&str> = self.obstacles.iter().map(|obstacle| obstacle.text.as_str()).collect();
        Err(Error::new(Kind::TargetConflict, texts.join("; ")).field(first.field.clone()).with("table", first.table.clone()))
    }

    fn check_refusals(&self) -> Result<(), Error> {
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
