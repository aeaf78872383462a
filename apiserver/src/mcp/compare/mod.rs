//! Tools that compare two databases or tables, of one engine or of two.

mod data;
mod schemas;
mod verdicts;

use super::tool::Tool;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_compare_schemas",
            "Compare schemas",
            "Compares the tables of two databases: which are missing, and which columns and keys differ. Between MySQL or MariaDB and PostgreSQL, types are judged by \
             what becomes of their values in a convert stream (`exact`, `widened`, `policy(…)`, `refused`).",
            schemas::compare,
        ),
        Tool::new(
            "dbconvert_compare_data_sample",
            "Compare a sample of rows",
            "Takes the first rows of both tables by key, looks each up in the other table and compares the values. It is a sample: what it does not find may differ all the same.",
            data::compare,
        ),
    ]
}
