//! The way of a convert: prepare, copy in lanes, finish.

mod copy;
mod finish;
mod lanes;
mod prepare;
pub(crate) mod report;

use std::sync::Arc;

use millrace_core::{Error, Kind, Result};

use crate::control::Control;
use crate::convert::ConvertTask;
use crate::progress::Progress;
pub(crate) use prepare::probe;
use report::Reporter;

/// Runs a convert to its end. Tables that failed do not stop others; they are named in the error at the end.
pub(crate) async fn run(task: &ConvertTask, progress: &Arc<Progress>, control: Control, reporter: &Arc<Reporter>) -> Result<()> {
    reporter.stage(1, "initialising");
    let prepared = prepare::prepare(task, progress, reporter).await?;
    reporter.stage(3, "transferring data");
    let failed = lanes::run(&prepared, progress, control, reporter).await?;
    finish::finish(&prepared, failed, progress, reporter).await
}

/// Whether an error concerns one table only.
fn is_table_failure(error: &Error) -> bool {
    matches!(error.disposition(), millrace_core::Disposition::TableFailed)
        || matches!(error.kind(), Kind::PlanRefused | Kind::TargetConflict | Kind::ObjectMissing | Kind::StatementRefused)
}
