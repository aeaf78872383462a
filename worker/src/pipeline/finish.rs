//! After the rows: foreign keys, then the ledger's last word.

use millrace_core::bus::{Body, Level, Side};
use millrace_core::plan::Plan;
use millrace_core::{Error, Result};
use std::sync::Arc;

use super::lanes::FailedTables;
use super::prepare::Prepared;
use super::report::Reporter;
use crate::progress::Progress;

/// Creates foreign keys and marks the run finished. Fails, naming everything that failed, if a table or constraint did.
pub(super) async fn finish(prepared: &Prepared, failed: FailedTables, progress: &Arc<Progress>, reporter: &Reporter) -> Result<()> {
    report_losses(progress, reporter);
    let complete = without_failed(&prepared.plan, &failed);
    let mut errors: Vec<Error> = failed.into_values().collect();
    errors.extend(prepared.sink.finish_all(&complete).await?);
    if let Some(summary) = summary(errors) {
        return Err(summary);
    }
    prepared.sink.ledger().finish(&prepared.key, prepared.epoch).await?;
    reporter.publish(Level::Info, Side::Target, "the target is complete", Body::General);
    Ok(())
}

fn report_losses(progress: &Progress, reporter: &Reporter) {
    for (table, column, count) in progress.take_losses() {
        reporter.notice(format!("{table}.{column}: {count} values without a form in the target became NULL"));
    }
}

/// The plan of the tables that are complete; foreign keys to a failed table cannot be made, which its failure already says.
fn without_failed(plan: &Plan, failed: &FailedTables) -> Plan {
    let mut complete = plan.clone();
    let lost: Vec<_> = failed.keys().map(|&index| plan.tables[index].source.name.clone()).collect();
    complete.tables.retain(|table| !lost.contains(&table.source.name));
    for table in &mut complete.tables {
        table.source.foreign_keys.retain(|key| !lost.contains(&key.referenced));
    }
    complete
}

/// One error that names all: the first's kind and facts, everybody's text.
fn summary(errors: Vec<Error>) -> Option<Error> {
    let first = errors.first()?;
    let texts: Vec<String> = errors.iter().map(Error::chain).collect();
    let mut summary = Error::new(first.kind(), texts.join("; "));
    for (name, value) in first.details() {
        summary = summary.with(name, value.clone());
    }
    Some(summary)
}
