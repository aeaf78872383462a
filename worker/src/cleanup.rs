//! The clean-up of a definition that is deleted: what its runs have left at the target, as far as it is ours to remove.

use millrace_core::catalog::TableName;
use millrace_core::connection::Connection;
use millrace_core::connector::{Forgotten, Scope};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::{Error, Result};

/// Removes the config's entries in the ledger of its one connection; answers what was done, in a sentence.
///
/// # Errors
/// Those of the target.
pub(crate) async fn run(connections: &[Connection], scope: &Scope, config: &ConfigId, abandoned: &[StreamId]) -> Result<String> {
    let [target] = connections else {
        return Err(Error::invalid("connections", "a clean-up has exactly one connection"));
    };
    let forgotten = millrace_connectors::connector(target.engine)?.forget(target, scope, config, abandoned).await?;
    Ok(sentence(&forgotten))
}

fn sentence(forgotten: &Forgotten) -> String {
    let mut text = match forgotten.runs {
        0 => "the target's ledger held nothing of this definition".to_owned(),
        1 => "the record of 1 run was removed from the target's ledger".to_owned(),
        runs => format!("the records of {runs} runs were removed from the target's ledger"),
    };
    if !forgotten.dropped.is_empty() {
        let names: Vec<String> = forgotten.dropped.iter().map(quoted).collect();
        text.push_str(&format!("; unfinished tables were dropped: {}", names.join(", ")));
    }
    for (table, reason) in &forgotten.kept {
        text.push_str(&format!("; the unfinished table {} stays: {reason}", quoted(table)));
    }
    text
}

fn quoted(table: &TableName) -> String {
    format!("`{table}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_a_sentence() {
        let table = |name: &str| TableName { schema: "public".to_owned(), name: name.to_owned() };
        let done = Forgotten { runs: 2, dropped: vec![table("a")], kept: vec![(table("b"), "another run has used it".to_owned())] };
        assert_eq!(
            sentence(&done),
            "the records of 2 runs were removed from the target's ledger; unfinished tables were dropped: `public.a`; \
             the unfinished table `public.b` stays: another run has used it"
        );
        assert_eq!(sentence(&Forgotten::default()), "the target's ledger held nothing of this definition");
    }
}
