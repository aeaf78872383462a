//! `millrace copy SOURCE TARGET`: the whole product in one command.

mod progress;
mod target;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use millrace_bus::LocalBus;
use millrace_core::config::{
    DbTarget, Mode, OnCutLost, PlanOptions, PlanRule, SchemaPolicy, Source, SourceConnection, StreamSpec, TableSelection, Target,
    TargetSpec, WriteMode,
};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::stream::StreamState;
use millrace_worker::control::{Control, Desired};
use millrace_worker::convert::{ConvertTask, Outcome, preflight, run, unfinished_run};
use millrace_worker::progress::Progress;

use target::Place;

/// Copies a database with its structure, once.
///
/// Exit codes: 0 everything arrived, 1 it failed, 2 the command is wrong, 130 it was interrupted (nothing half-written stays: the next copy of the same
/// source and target replaces what an interrupted one left, or goes on with it: `--on-cut-lost continue`).
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Where from: mysql://user@host:port/database
    source: String,
    /// Where to: postgres://user@host:port/database[?schema=name]
    target: String,
    /// Copy only this table; may be given several times
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
    /// Readers and writers at once; chosen from the machine by default
    #[arg(long, value_name = "N")]
    parallelism: Option<u16>,
    /// What happens with tables that exist
    #[arg(long, value_name = "POLICY", value_parser = word::<SchemaPolicy>)]
    schema_policy: Option<SchemaPolicy>,
    /// What happens with rows that exist
    #[arg(long, value_name = "MODE", value_parser = word::<WriteMode>)]
    write_mode: Option<WriteMode>,
    /// What happens after an interruption: `restart` copies everything again at one new moment, `continue` keeps what is committed
    #[arg(long, value_name = "POLICY", value_parser = word::<OnCutLost>)]
    on_cut_lost: Option<OnCutLost>,
    /// Change no value unless a rule asks for it
    #[arg(long)]
    strict: bool,
    /// File with rules about columns: a JSON array of {table?, column?, type?, to?, onLoss?}
    #[arg(long, value_name = "FILE")]
    rules: Option<std::path::PathBuf>,
    /// File whose first line is the source's password
    #[arg(long, value_name = "FILE")]
    source_password_file: Option<std::path::PathBuf>,
    /// File whose first line is the target's password
    #[arg(long, value_name = "FILE")]
    target_password_file: Option<std::path::PathBuf>,
}

/// Runs the command.
pub(crate) async fn copy(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let source = Place::parse(&args.source, "source")?.with_password("MILLRACE_SOURCE_PASSWORD", args.source_password_file.as_deref())?;
    let target = Place::parse(&args.target, "target")?.with_password("MILLRACE_TARGET_PASSWORD", args.target_password_file.as_deref())?;
    let mut task = task(&args, &source, &target)?;
    let progress = Arc::new(Progress::new(now_ms()));
    let (desired, control) = Control::channel();
    let mut display = progress::Display::new(progress.clone(), std::io::stdout().is_terminal());
    let running = async {
        let broken_off = match args.on_cut_lost {
            Some(OnCutLost::Continue) => unfinished_run(&task).await,
            _ => Ok(None),
        };
        match broken_off {
            Ok(Some(stream)) => task.stream = stream,
            Ok(None) => {}
            Err(error) => return Outcome { state: StreamState::Failed, error: Some(error) },
        }
        if let Err(error) = preflight(&task).await {
            return Outcome { state: StreamState::Failed, error: Some(error) };
        }
        run(task, progress.clone(), control, Arc::new(LocalBus::default())).await
    };
    let interrupted = async {
        // Without the signal there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        let _ = desired.send(Desired::Stop);
        std::future::pending::<std::convert::Infallible>().await
    };
    let outcome = tokio::select! {
        outcome = running => outcome,
        never = interrupted => match never {},
        never = display.run() => match never {},
    };
    display.finish(&outcome);
    Ok(match outcome.state {
        StreamState::Finished => ExitCode::SUCCESS,
        StreamState::Stopped => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    })
}

/// Shows what a copy would do with every column, and does nothing. Exit codes: 0 the copy could start, 1 it would be refused, 2 the command is wrong.
pub(crate) async fn plan(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let source = Place::parse(&args.source, "source")?.with_password("MILLRACE_SOURCE_PASSWORD", args.source_password_file.as_deref())?;
    let target = Place::parse(&args.target, "target")?.with_password("MILLRACE_TARGET_PASSWORD", args.target_password_file.as_deref())?;
    let planned = match millrace_worker::convert::plan(&task(&args, &source, &target)?).await {
        Ok(planned) => planned,
        Err(error) => {
            writeln!(std::io::stderr(), "millrace: {}", error.chain())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut text = String::new();
    for table in &planned.tables {
        text.push_str(&format!("{} → {}\n", table.source.name.name, table.target));
        for column in &table.columns {
            text.push_str(&format!(
                "  {:<24} {:<24} → {:<32} {:<14} {}\n",
                column.source,
                column.from,
                column.to,
                column.verdict.to_string(),
                column.reason
            ));
        }
        let obstacles = planned.obstacles.iter().filter(|obstacle| obstacle.table == table.target.name);
        obstacles.for_each(|obstacle| text.push_str(&format!("  IN THE WAY: {}\n", obstacle.text)));
        table.refusals.iter().for_each(|refusal| text.push_str(&format!("  REFUSED: {refusal}\n")));
        table.source.notes.iter().chain(&table.notes).for_each(|note| text.push_str(&format!("  note: {note}\n")));
    }
    planned.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    std::io::stdout().write_all(text.as_bytes())?;
    match planned.check() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            writeln!(std::io::stderr(), "millrace: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn task(args: &CopyArgs, source: &Place, target: &Place) -> anyhow::Result<ConvertTask> {
    let (source, target) = (source.connection("source"), target.connection("target"));
    let database = |connection: &millrace_core::connection::Connection| connection.database().and_then(|spec| spec.database.clone());
    let tables: Vec<TableSelection> =
        args.tables.iter().map(|name| TableSelection { name: name.clone(), selection: None, selected: None }).collect();
    let spec = StreamSpec {
        name: "copy".to_owned(),
        mode: Mode::Convert,
        description: None,
        reporting_interval: None,
        source: Source {
            connections: vec![SourceConnection {
                alias: None,
                connection_id: source.id.clone(),
                database: database(&source),
                schema: None,
                scope_path: None,
                tables: (!tables.is_empty()).then_some(tables),
                queries: None,
                s3: None,
                files: None,
            }],
            options: None,
        },
        target: Target {
            id: target.id.clone(),
            spec: TargetSpec::Db(DbTarget {
                database: database(&target).ok_or_else(|| anyhow::anyhow!("the target URL names no database"))?,
                schema: target_schema(&args.target),
                structure_options: None,
                schema_policy: args.schema_policy,
                write_mode: args.write_mode,
                skip_data: None,
            }),
        },
        limits: None,
        parallelism: args.parallelism,
        plan: Some(PlanOptions { strict: args.strict, rules: rules(args.rules.as_deref())? }),
        on_cut_lost: args.on_cut_lost,
        pause_hold: None,
    };
    Ok(ConvertTask { stream: StreamId::mint(), config: config_id(&source, &target)?, spec, sources: vec![source], target })
}

fn rules(path: Option<&std::path::Path>) -> anyhow::Result<Vec<PlanRule>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the rules `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("the rules `{}` are not what they should be", path.display()))
}

/// Reads one of the words of the wire.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

/// The same source and target always give the same config id, so that a copy finds what an interrupted one left.
fn config_id(source: &millrace_core::connection::Connection, target: &millrace_core::connection::Connection) -> anyhow::Result<ConfigId> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let place = |connection: &millrace_core::connection::Connection| {
        connection.database().map(|spec| (spec.host.clone(), spec.port, spec.database.clone()))
    };
    let mut text = String::new();
    for salt in 0..2u8 {
        let mut hasher = DefaultHasher::new();
        (salt, place(source), place(target)).hash(&mut hasher);
        text.push_str(&format!("{:014x}", hasher.finish() & 0xFF_FFFF_FFFF_FFFF));
    }
    Ok(format!("{}{}", ConfigId::PREFIX, &text[..27]).parse()?)
}

fn target_schema(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    url.query_pairs().find(|(name, _)| name == "schema").map(|(_, value)| value.into_owned())
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
