//! The `millrace` binary: arguments and wiring, no logic.

mod copy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "millrace", version, about = "Moves data between databases, exactly")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy a database with its structure, once
    Copy(copy::CopyArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Copy(args) => copy::copy(args).await,
    };
    result.unwrap_or_else(|error| {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "millrace: {error:#}");
        ExitCode::from(2)
    })
}
