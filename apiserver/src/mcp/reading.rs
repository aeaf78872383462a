//! Which statements a model may run: one `SELECT` or `WITH … SELECT` that changes nothing and locks nothing.
//!
//! The tree of the statement decides, in the dialect of its engine; words that no such statement needs are refused besides, so that places of the tree that are not
//! walked hide nothing. The engine is the second wall: the statement runs in a transaction that cannot write. What neither sees is what a function does by itself
//! (`pg_terminate_backend`, `SLEEP`, user-defined ones): that is a matter of the connection's database user.

use millrace_core::connection::Engine;
use sqlparser::ast::{Query, SetExpr, Statement, TableFactor};
use sqlparser::dialect::{Dialect, DuckDbDialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::errors::{ApiError, ApiResult, Code};
use crate::routes::sql::check;

/// The statement without a `;` at its end, if it only reads.
///
/// # Errors
/// [`Code::ValidationFailed`] without a statement, [`Code::StatementRefused`] for anything but one reading one.
pub(super) fn checked(sql: &str, engine: Engine) -> ApiResult<&str> {
    check(sql)?;
    let dialect: &dyn Dialect = match engine {
        Engine::MySql => &MySqlDialect {},
        Engine::PostgreSql => &PostgreSqlDialect {},
        _ => &DuckDbDialect {},
    };
    if engine == Engine::MySql && (sql.contains("/*!") || sql.contains("/*M!")) {
        return Err(refused("comments that the server executes are not allowed here"));
    }
    words(dialect, sql)?;
    let statements = Parser::parse_sql(dialect, sql).map_err(|error| refused(&format!("the statement cannot be read: {error}")))?;
    let [statement] = statements.as_slice() else {
        return Err(refused(&format!("one statement is expected, not {}", statements.len())));
    };
    match statement {
        Statement::Query(query) => self::query(query, 0)?,
        _ => return Err(only_select()),
    }
    Ok(sql.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace()))
}

fn refused(text: &str) -> ApiError {
    ApiError::new(Code::StatementRefused, text).detail("field", "query")
}

fn only_select() -> ApiError {
    refused("only one SELECT or WITH … SELECT is allowed here")
}

/// Words that write or lock wherever they stand outside of quotes.
fn words(dialect: &dyn Dialect, sql: &str) -> ApiResult<()> {
    let tokens = Tokenizer::new(dialect, sql).tokenize().map_err(|error| refused(&format!("the statement cannot be read: {error}")))?;
    let words: Vec<Option<String>> = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .map(|token| match token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
            _ => None,
        })
        .collect();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).and_then(Option::as_deref).unwrap_or_default();
        match word.as_deref() {
            Some("INTO" | "OUTFILE" | "DUMPFILE") => return Err(refused("SELECT … INTO is not allowed here")),
            Some("FOR") if matches!(next, "UPDATE" | "SHARE" | "NO" | "KEY") => return Err(locks()),
            Some("LOCK") if next == "IN" => return Err(locks()),
            _ => {}
        }
    }
    Ok(())
}

fn locks() -> ApiError {
    refused("locking rows is not allowed here")
}

/// A query with its common table expressions.
fn query(query: &Query, depth: usize) -> ApiResult<()> {
    if !query.locks.is_empty() {
        return Err(locks());
    }
    if let Some(with) = &query.with {
        with.cte_tables.iter().try_for_each(|table| self::query(&table.query, depth + 1))?;
    }
    body(&query.body, depth)
}

fn body(expression: &SetExpr, depth: usize) -> ApiResult<()> {
    match expression {
        SetExpr::Select(select) => {
            if select.into.is_some() {
                return Err(refused("SELECT … INTO is not allowed here"));
            }
            let mut tables =
                select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
            tables.try_for_each(table)
        }
        SetExpr::Query(inner) => query(inner, depth),
        SetExpr::SetOperation { left, right, .. } => {
            body(left, depth)?;
            body(right, depth + 1)
        }
        // Parts of a statement may be lists of values or whole tables; a statement that is nothing else is no SELECT.
        SetExpr::Values(_) | SetExpr::Table(_) if depth > 0 => Ok(()),
        _ => Err(only_select()),
    }
}

fn table(factor: &TableFactor) -> ApiResult<()> {
    match factor {
        TableFactor::Derived { subquery, .. } => query(subquery, 1),
        TableFactor::NestedJoin { table_with_joins, .. } => {
            table(&table_with_joins.relation)?;
            table_with_joins.joins.iter().try_for_each(|join| table(&join.relation))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: [Engine; 2] = [Engine::MySql, Engine::PostgreSql];

    #[test]
    fn reading_statements_are_let_through_without_their_end() {
        for sql in [
            "SELECT 1",
            "select a, b from t where c = 'INSERT INTO x' and d in (select e from u) order by 1 limit 5",
            "WITH x AS (SELECT 1 AS a), y AS (SELECT a FROM x) SELECT * FROM y UNION ALL SELECT 2",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
            "(SELECT 1) UNION (SELECT 2)",
            "SELECT * FROM (SELECT 1 AS a) t JOIN u ON t.a = u.a",
            "SELECT count(*), max(substring(name FROM 1 FOR 3)) FROM t GROUP BY kind HAVING count(*) > 1",
        ] {
            for engine in ENGINES {
                assert_eq!(checked(&format!(" {sql} ; "), engine).ok(), Some(sql), "{engine:?} {sql}");
            }
        }
        assert!(checked("SELECT \"INTO\", \"update\" FROM t WHERE a ~ 'x' AND b @> '{}'::jsonb", Engine::PostgreSql).is_ok());
        assert!(checked("SELECT `into` FROM `update` WHERE a REGEXP 'x'", Engine::MySql).is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        for sql in [
            "",
            "  ",
            ";",
            "-- nothing",
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "TRUNCATE t",
            "DROP TABLE t",
            "CREATE TABLE t (a int)",
            "SET x = 1",
            "SHOW TABLES",
            "EXPLAIN SELECT 1",
            "CALL p()",
            "VALUES (1)",
            "TABLE t",
            "BEGIN",
            "COMMIT",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE t",
            "SELECT a INTO b FROM t",
            "SELECT 1 UNION SELECT a INTO b FROM t",
            "SELECT * FROM t INTO OUTFILE '/tmp/x'",
            "SELECT 1 INTO @a",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR SHARE",
            "SELECT * FROM t FOR NO KEY UPDATE",
            "SELECT * FROM t LOCK IN SHARE MODE",
            "SELECT * FROM (SELECT * FROM t FOR UPDATE) x",
            "SELECT (SELECT a FROM t FOR UPDATE)",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "SELEKT 1",
        ] {
            for engine in ENGINES {
                assert!(checked(sql, engine).is_err(), "{engine:?} {sql}");
            }
        }
        for sql in ["SELECT 1 /*! INTO OUTFILE '/tmp/x' */", "SELECT /*M!100000 a */ 1", "/*!50000 DROP TABLE t */"] {
            assert!(checked(sql, Engine::MySql).is_err(), "{sql}");
        }
    }
}
