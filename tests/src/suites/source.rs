//! The contract of `SourcePlanner` and `SourceReader`.

use std::collections::BTreeSet;

use millrace_core::Kind;
use millrace_core::catalog::Column;
use millrace_core::config::TableSelection;
use millrace_core::connection::Connection;
use millrace_core::connector::{Connector, Scope, SourceReader, Wanted};
use millrace_core::split::check_cover;
use millrace_core::value::{RowEncoder, ValueError, ValueRef};

/// What the source must hold: a table `numbered` with the integer key `id` from 1 to this, and `v` = id * 2; and an empty table `nothing`.
pub const ROWS: i64 = 30_000;

/// Collects the first column; refuses one id if told so.
struct Ids {
    seen: Vec<i64>,
    refuse: Option<i64>,
    batch: usize,
}

impl RowEncoder for Ids {
    fn begin_row(&mut self) {}

    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        let ValueRef::Int(value) = value else { panic!("not an integer: {value:?}") };
        match column {
            0 if self.refuse == Some(value) => return Err(ValueError::new(0, "refused by the suite")),
            0 => self.seen.push(value),
            _ => assert_eq!(self.seen.last().map(|id| id * 2), Some(value), "values belong to their row"),
        }
        Ok(())
    }

    fn end_row(&mut self) {
        self.batch += 1;
    }

    fn abandon_row(&mut self) {}

    fn is_full(&self) -> bool {
        self.batch >= 1000
    }
}

/// Runs the suite; `change` adds a row with the id 1,000,000 to `numbered` from another session.
pub async fn conformance<F: Future<Output = ()>>(
    connector: &dyn Connector,
    connection: &Connection,
    database: &str,
    change: impl FnOnce() -> F,
) {
    let scope = Scope { database: Some(database.to_owned()), schema: None };
    let mut planner = connector.source(connection, &scope).await.expect("a source");
    let missing =
        planner.catalog(Wanted { tables: &[selected("numbered"), selected("nowhere")], queries: &[] }).await.expect_err("a missing table");
    assert_eq!((missing.kind(), missing.detail("index")), (Kind::ObjectMissing, Some("1")));
    let catalog = planner.catalog(Wanted::default()).await.expect("a catalog");
    let find = |name: &str| catalog.tables.iter().find(|table| table.name.name == name).expect("the table").clone();
    let (numbered, nothing) = (find("numbered"), find("nothing"));
    assert_eq!(numbered.row_key(), Some(vec!["id".to_owned()]));

    let mut cut = planner.open_cut(2).await.expect("a cut");
    assert!(!cut.readers.is_empty() && cut.readers.len() <= 2);
    change().await;
    let columns: Vec<Column> = numbered.written_columns().cloned().collect();
    let splits = cut.readers[0].split(0, &numbered, 5_000).await.expect("splits");
    check_cover(&splits).expect("the splits cover the table");
    assert!(splits.len() > 1);
    // Every reader sees the same moment, so splits may go to any of them.
    let mut ids = Ids { seen: Vec::new(), refuse: None, batch: 0 };
    let lanes = cut.readers.len();
    for (index, split) in splits.iter().enumerate() {
        let reader = &mut cut.readers[index % lanes];
        reader.open(&numbered, &columns, split).await.expect("a split");
        read_all(reader.as_mut(), &mut ids).await;
        reader.close().await.expect("closed");
    }
    assert_eq!(ids.seen.len() as i64, ROWS, "the row that came later is not part of the moment");
    assert_eq!(ids.seen.iter().collect::<BTreeSet<_>>().len() as i64, ROWS, "no row twice");

    // A refused value names its place; after closing, the reader goes on with other splits.
    let reader = cut.readers[0].as_mut();
    reader.open(&numbered, &columns, &splits[0]).await.expect("a split");
    let mut refusing = Ids { seen: Vec::new(), refuse: Some(17), batch: 0 };
    let error = reader.next_batch(&mut refusing).await.expect_err("a refused value");
    assert_eq!((error.kind(), error.detail("column"), error.detail("key")), (Kind::ValueRefused, Some("id"), Some("id=17")));
    reader.close().await.expect("closed in the middle");
    let empty = reader.split(1, &nothing, 5_000).await.expect("splits of an empty table");
    check_cover(&empty).expect("an empty table is covered too");
    let none: Vec<Column> = nothing.written_columns().cloned().collect();
    reader.open(&nothing, &none, &empty[0]).await.expect("an empty split");
    let batch = reader.next_batch(&mut refusing).await.expect("no rows");
    assert!(batch.is_last && batch.rows == 0);
}

fn selected(name: &str) -> TableSelection {
    TableSelection { name: name.into(), selection: None, selected: None }
}

async fn read_all(reader: &mut dyn SourceReader, ids: &mut Ids) {
    loop {
        ids.batch = 0;
        let before = ids.seen.len() as u64;
        let batch = reader.next_batch(ids).await.expect("a batch");
        assert_eq!(batch.rows, ids.seen.len() as u64 - before);
        if batch.is_last {
            return;
        }
    }
}
