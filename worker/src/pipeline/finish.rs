//! After the rows: foreign keys, then the ledger's last word.

use std::sync::Arc;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::plan::Plan;
use millrace_core::{Error, Result};

use super::Ending;
use super::lanes::{Copied, FailedTables};
use super::patience::Patience;
use super::prepare::Prepared;
use super::report::Reporter;
use crate::control::Control;
use crate::progress::Progress;

/// Creates foreign keys and marks the run finished. Fails, naming everything that failed, if a table or constraint did.
pub(super) async fn finish(
    prepared: &Prepared,
    copied: Copied,
    progress: &Arc<Progress>,
    reporter: &Reporter,
    control: &Control,
) -> Result<Ending> {
    report_losses(prepared, progress, reporter);
    let complete = without_failed(&prepared.plan, &copied.failed);
    let mut errors: Vec<Error> = copied.failed.into_values().collect();
    let mut control = control.clone();
    if copied.is_limited {
        if complete.tables.iter().any(|table| !table.source.foreign_keys.is_empty()) {
            reporter.notice("the limit on rows was reached: foreign keys are left out, because rows that they refer to may be missing");
        }
    } else {
        let mut patience = Patience::default();
        loop {
            match prepared.sink.finish_all(&complete).await {
                Ok(failed) => break errors.extend(failed),
                Err(error) => patience.wait(error, &mut control).await?,
            }
        }
    }
    if let Some(summary) = summary(errors) {
        return Err(summary);
    }
    let mut patience = Patience::default();
    while let Err(error) = prepared.sink.ledger().finish(&prepared.key, prepared.epoch).await {
        patience.wait(error, &mut control).await?;
    }
    if copied.is_limited {
        return Ok(Ending::EventLimit);
    }
    reporter.publish(Level::Info, Side::Target, "the target is complete", Body::General);
    Ok(Ending::Complete)
}

fn report_losses(prepared: &Prepared, progress: &Progress, reporter: &Reporter) {
    for (table, column, count) in progress.take_losses() {
        let planned = prepared.plan.tables.iter().find(|planned| planned.target.name == table);
        let planned = planned.and_then(|planned| planned.columns.iter().find(|planned| planned.target == column));
        let became = match planned.map(millrace_core::plan::ColumnPlan::on_loss) {
            Some(millrace_core::value::OnLoss::Clamp) => "became the nearest value",
            _ => "became NULL",
        };
        reporter.notice(format!("{table}.{column}: {count} values without a form in the target {became}"));
    }
}

/// The plan of the tables that are complete; foreign keys to a failed table cannot be made, which its failure already says.
fn without_failed(plan: &Plan, failed: &FailedTables) -> Plan {
    let mut complete = plan.clone();
    let lost: Vec<_> = failed.keys().map(|&index| (plan.tables[index].part, plan.tables[index].source.name.clone())).collect();
    complete.tables.retain(|table| !lost.contains(&(table.part, table.source.name.clone())));
    for table in &mut complete.tables {
        let part = table.part;
        table.source.foreign_keys.retain(|key| !lost.contains(&(part, key.referenced.clone())));
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
