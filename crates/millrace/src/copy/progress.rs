//! Shows a copy's progress: bars on a terminal, JSON lines otherwise.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use millrace_core::stats::{StatsReport, TableStats};
use millrace_core::stream::StreamState;
use millrace_worker::convert::Outcome;
use millrace_worker::progress::Progress;

/// Shows one copy.
pub(super) struct Display {
    progress: Arc<Progress>,
    /// On a terminal; JSON lines otherwise.
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    style: ProgressStyle,
    tables: Vec<ProgressBar>,
}

impl Display {
    pub(super) fn new(progress: Arc<Progress>, is_terminal: bool) -> Self {
        // The template is constant; its test below would fail first.
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bars = is_terminal.then(|| Bars { all: MultiProgress::new(), style, tables: Vec::new() });
        Self { progress, bars }
    }

    /// Shows progress until it is dropped.
    pub(super) async fn run(&mut self) -> Infallible {
        let pause = Duration::from_millis(if self.bars.is_some() { 100 } else { 1000 });
        loop {
            tokio::time::sleep(pause).await;
            let report = self.progress.report(false);
            match &mut self.bars {
                Some(bars) => bars.draw(&report),
                None => report
                    .tables
                    .iter()
                    .filter(|table| table.state == StreamState::Running)
                    .for_each(|table| print_line(&table_line(table))),
            }
        }
    }

    /// The last word.
    pub(super) fn finish(mut self, outcome: &Outcome) {
        let report = self.progress.report(false);
        match &mut self.bars {
            Some(bars) => {
                bars.draw(&report);
                let _ = std::io::stderr().write_all(summary(&report, outcome).as_bytes());
            }
            None => {
                report.tables.iter().for_each(|table| print_line(&table_line(table)));
                print_line(&end_line(&report, outcome));
            }
        }
    }
}

impl Bars {
    fn draw(&mut self, report: &StatsReport) {
        for (index, table) in report.tables.iter().enumerate() {
            if self.tables.len() == index {
                let bar = self.all.add(ProgressBar::new(table.estimated_rows.unwrap_or(0)).with_style(self.style.clone()));
                bar.set_prefix(table.table.clone());
                self.tables.push(bar);
            }
            let bar = &self.tables[index];
            if bar.is_finished() {
                continue;
            }
            bar.set_length(table.estimated_rows.unwrap_or(0).max(table.rows_read));
            bar.set_position(table.rows_read);
            bar.set_message(message(table));
            if table.state.is_terminal() {
                bar.set_length(table.rows_read);
                bar.abandon();
            }
        }
    }
}

fn end_line(report: &StatsReport, outcome: &Outcome) -> serde_json::Value {
    let mut line = serde_json::json!({
        "event": "end",
        "status": outcome.state.as_str(),
        "rows": report.target.rows,
        "bytes": report.target.bytes,
        "elapsedMs": report.target.elapsed_ms,
        "notices": report.notices,
    });
    if let Some(error) = &outcome.error {
        line["error"] = error.chain().into();
        line["kind"] = format!("{:?}", error.kind()).into();
    }
    line
}

const TEMPLATE: &str = "{prefix:>24.bold} {bar:30.cyan/blue} {human_pos:>11}/{human_len:<11} {msg}";

fn message(table: &TableStats) -> String {
    let rate = format!("{}/s", HumanBytes(table.rate() as u64));
    match table.state {
        StreamState::Finished => format!("{rate} done"),
        StreamState::Failed => "FAILED".to_owned(),
        StreamState::Running => {
            let left = table.estimated_rows.unwrap_or(0).saturating_sub(table.rows_read);
            let seconds = (left * table.elapsed_ms).checked_div(table.rows_read * 1000);
            match seconds {
                Some(0) | None => format!("{rate} building indexes"),
                Some(seconds) => format!("{rate} ETA {seconds}s"),
            }
        }
        _ => String::new(),
    }
}

fn summary(report: &StatsReport, outcome: &Outcome) -> String {
    let seconds = report.target.elapsed_ms.max(1) as f64 / 1000.0;
    let mut text = format!(
        "\n{}: {} rows, {} in {seconds:.2} s ({} rows/s, {}/s)\n",
        outcome.state.as_str(),
        HumanCount(report.target.rows),
        HumanBytes(report.target.bytes),
        HumanCount((report.target.rows as f64 / seconds) as u64),
        HumanBytes((report.target.bytes as f64 / seconds) as u64),
    );
    for notice in &report.notices {
        let _ = writeln!(text, "note: {notice}");
    }
    if let Some(error) = &outcome.error {
        let _ = writeln!(text, "millrace: {}", error.chain());
    }
    text
}

fn table_line(table: &TableStats) -> serde_json::Value {
    serde_json::json!({
        "event": "table",
        "table": table.table,
        "status": table.state.as_str(),
        "rowsRead": table.rows_read,
        "rowsWritten": table.rows_written,
        "estimatedRows": table.estimated_rows,
        "bytes": table.bytes,
        "elapsedMs": table.elapsed_ms,
        "error": table.error,
    })
}

fn print_line(line: &serde_json::Value) {
    // A reader that went away ends the report, not the copy.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bars_template_is_valid() {
        assert!(indicatif::ProgressStyle::with_template(super::TEMPLATE).is_ok());
    }
}
