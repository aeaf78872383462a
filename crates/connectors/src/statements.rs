//! Several statements in one text, told apart, and what each of them is.
//!
//! The tokenizer of `sqlparser` knows each dialect's quotes and comments; a statement ends at a `;` that stands outside of them and outside of the body of a
//! routine.

use millrace_core::explore::AffectedObject;
use millrace_core::{Error, Kind, Result};
use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::bodies::Body;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its text, without the `;`.
    pub(crate) text: String,
    /// Its first words in capitals (`SELECT`, `CREATE TABLE`).
    pub(crate) command: String,
    /// What it creates, changes or drops.
    pub(crate) affected: Option<AffectedObject>,
}

/// Statements that only read.
const READING: [&str; 9] = ["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "HELP"];

impl Statement {
    /// Whether it begins as one that reads; the server decides the rest.
    pub(crate) fn is_reading(&self) -> bool {
        READING.contains(&self.command.as_str())
    }
}

/// Tells the statements of a text apart. A text that cannot be read as tokens is one statement: its server will say what is wrong.
pub(crate) fn split(dialect: &dyn Dialect, sql: &str) -> Vec<Statement> {
    let Ok(tokens) = Tokenizer::new(dialect, sql).tokenize_with_location() else {
        return vec![Statement { text: sql.trim().to_owned(), command: first_word(sql), affected: None }];
    };
    let places = Places::new(sql);
    let mut statements = Vec::new();
    let mut current: Vec<&TokenWithSpan> = Vec::new();
    let mut body = Body::default();
    for token in &tokens {
        match &token.token {
            Token::SemiColon if !body.is_open() => {
                statements.extend(statement(&current, sql, &places));
                current.clear();
                body = Body::default();
            }
            Token::EOF => {}
            other => {
                current.push(token);
                body.take(other);
            }
        }
    }
    statements.extend(statement(&current, sql, &places));
    statements
}

/// Words that stand outside of quotes, in capitals.
fn words<'a>(tokens: &'a [&'a TokenWithSpan]) -> impl Iterator<Item = String> + 'a {
    tokens.iter().filter_map(|token| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
        _ => None,
    })
}

fn statement(tokens: &[&TokenWithSpan], sql: &str, places: &Places<'_>) -> Option<Statement> {
    let is_text = |token: &&&TokenWithSpan| !matches!(token.token, Token::Whitespace(_));
    let first = tokens.iter().find(is_text)?;
    let last = tokens.iter().rfind(is_text)?;
    let text = sql.get(places.of(first.span.start)..places.of(last.span.end)).unwrap_or(sql).trim().to_owned();
    let words: Vec<String> = words(tokens).take(12).collect();
    let (command, affected) = command(&words);
    Some(Statement { text, command, affected })
}

/// What the first words say.
fn command(words: &[String]) -> (String, Option<AffectedObject>) {
    let Some(first) = words.first() else { return (String::new(), None) };
    let first = first.as_str();
    if !matches!(first, "CREATE" | "ALTER" | "DROP" | "RENAME" | "COMMENT") {
        return (first.to_owned(), None);
    }
    const OBJECTS: [&str; 22] = [
        "DATABASE",
        "SCHEMA",
        "TABLE",
        "VIEW",
        "INDEX",
        "SEQUENCE",
        "FUNCTION",
        "PROCEDURE",
        "TRIGGER",
        "EVENT",
        "TYPE",
        "DOMAIN",
        "AGGREGATE",
        "EXTENSION",
        "RULE",
        "ROUTINE",
        "COLUMN",
        "CONSTRAINT",
        "COLLATION",
        "USER",
        "ROLE",
        "SERVER",
    ];
    let object = words.iter().skip(1).find(|word| OBJECTS.contains(&word.as_str())).map_or("", String::as_str);
    let affected = match object {
        "" | "USER" | "ROLE" | "SERVER" => None,
        "DATABASE" => Some(AffectedObject::Database),
        "SCHEMA" => Some(AffectedObject::Schema),
        _ => Some(AffectedObject::Table),
    };
    (format!("{first} {object}").trim_end().to_owned(), affected)
}

fn first_word(sql: &str) -> String {
    sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_uppercase()
}

/// Where lines begin, to find the byte of a line and column (both from 1; columns count characters).
struct Places<'a> {
    sql: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(sql: &'a str) -> Self {
        let lines = std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { sql, lines }
    }

    fn of(&self, location: Location) -> usize {
        let line = self.lines.get(location.line.saturating_sub(1) as usize).copied().unwrap_or(self.sql.len());
        let rest = &self.sql[line..];
        let column = location.column.saturating_sub(1) as usize;
        line + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }
}

/// Refuses everything but statements that read.
pub(crate) fn check_reading(statements: &[Statement]) -> Result<()> {
    match statements.iter().find(|statement| !statement.is_reading()) {
        None => Ok(()),
        Some(statement) => {
            let text = format!("only reading statements are allowed here, not `{}`", statement.command);
            Err(Error::new(Kind::StatementRefused, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::{MySqlDialect, PostgreSqlDialect};

    use super::*;

    fn texts(dialect: &dyn Dialect, sql: &str) -> Vec<String> {
        split(dialect, sql).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_comments_and_bodies() {
        let postgres = &PostgreSqlDialect {};
        let sql = "SELECT ';' AS \"a;b\"; -- x; y\n SELECT $$;$$ /* ; /* ; */ */, E'\\';' ;; \n SELECT 'ü☃', 2";
        assert_eq!(texts(postgres, sql), ["SELECT ';' AS \"a;b\"", "SELECT $$;$$ /* ; /* ; */ */, E'\\';'", "SELECT 'ü☃', 2"]);
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3";
        assert_eq!(texts(postgres, body).len(), 2);
        let mysql = &MySqlDialect {};
        let body = "CREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1; END IF; BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END; END; CALL p()";
        assert_eq!(texts(mysql, body).len(), 2, "{:?}", texts(mysql, body));
        assert_eq!(texts(mysql, "SELECT 'a\\';' # ; x\n, `;`; SELECT 2"), ["SELECT 'a\\';' # ; x\n, `;`", "SELECT 2"]);
        assert_eq!(texts(mysql, "BEGIN; SELECT 1; COMMIT").len(), 3);
        assert!(texts(postgres, " ; -- nothing\n").is_empty());
    }

    #[test]
    fn bodies_of_every_kind_are_whole() {
        let whole = [
            "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW IF NEW.a < 0 THEN SET NEW.a = 0; END IF",
            "CREATE TRIGGER t AFTER UPDATE ON x FOR EACH ROW FOLLOWS `u` IF (NEW.a) THEN SET @a = IF(1, 2, 3); ELSEIF 1 THEN DO 1; ELSE DO 2; END IF",
            "CREATE TRIGGER t AFTER INSERT ON x FOR EACH ROW PRECEDES u BEGIN DO 1; DO 2; END",
            "CREATE TRIGGER IF NOT EXISTS t BEFORE DELETE ON x FOR EACH ROW SET @a = IF(1, 2, 3)",
            "CREATE DEFINER=`root`@`localhost` TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET @a = 1; SET @b = 2; END",
            "CREATE DEFINER = 'a;b'@'%' PROCEDURE p(a INT, b ENUM('x')) COMMENT 'begin' SQL SECURITY INVOKER READS SQL DATA l: LOOP DO 1; LEAVE l; END LOOP l",
            "CREATE OR REPLACE DEFINER=CURRENT_USER() PROCEDURE p() WHILE @a > 0 DO SET @a = @a - 1; DO SLEEP(0); END WHILE",
            "CREATE PROCEDURE IF NOT EXISTS p() REPEAT SET @s = REPEAT('x', 3); UNTIL CASE WHEN @a THEN 1 ELSE 0 END = 1 END REPEAT",
            "CREATE PROCEDURE p(n INT) CASE n WHEN 1 THEN SELECT 1; SELECT CASE n WHEN 1 THEN IF(1, 2, 3) END; ELSE BEGIN END; END CASE",
            "CREATE FUNCTION f(a INT) RETURNS VARCHAR(10) CHARACTER SET latin1 DETERMINISTIC IF a THEN RETURN 'a'; ELSE RETURN 'b'; END IF",
            "CREATE AGGREGATE FUNCTION f(a INT) RETURNS INT BEGIN DECLARE CONTINUE HANDLER FOR NOT FOUND, SQLSTATE VALUE '02000', 1329 RETURN 1; LOOP FETCH GROUP NEXT ROW; END LOOP; END",
            "CREATE FUNCTION f() RETURNS INT RETURN IF(1, REPEAT('1', 2), 3)",
            "CREATE PROCEDURE p() SELECT IF(1, 2, 3), begin, x.end FROM t",
            "CREATE PROCEDURE p() BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END; DECLARE CONTINUE HANDLER FOR done IF 1 THEN DO 1; END IF; DO 2; END",
            "CREATE PROCEDURE p() BEGIN FOR i IN 1..3 DO SELECT i; END FOR; SELECT begin, t.end FROM t; END",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS NOW() + INTERVAL 1 HOUR ON COMPLETION PRESERVE COMMENT 'do' DO BEGIN DO 1; DO 2; END",
            "CREATE EVENT IF NOT EXISTS e ON SCHEDULE AT NOW() DO IF 1 THEN DO 1; END IF",
            "ALTER DEFINER=`a`@`b` EVENT e DO BEGIN DO 1; DO 2; END",
            "CREATE PROCEDURE p() outer_block: BEGIN inner_block: WHILE 1 DO IF 1 THEN LEAVE inner_block; END IF; END WHILE inner_block; END outer_block",
            "BEGIN NOT ATOMIC DECLARE a INT; SET a = 1; END",
            "CREATE TABLE event (id INT, begin DATETIME)",
            "CREATE TABLE t (a INT) COMMENT 'trigger'",
            "CREATE VIEW v AS SELECT 1 AS trigger_count, begin, function FROM event",
            "CREATE DEFINER=`a`@`b` SQL SECURITY INVOKER VIEW v AS SELECT begin FROM event",
            "CREATE FUNCTION f RETURNS STRING SONAME 'f.so'",
            "CREATE INDEX event ON procedure_calls (begin)",
            "SELECT begin, CASE WHEN 1 THEN 2 END FROM event",
        ];
        for body in whole {
            let text = format!("{body}; SELECT 9");
            assert_eq!(texts(&MySqlDialect {}, &text), [body, "SELECT 9"], "{body}");
        }
    }

    #[test]
    fn long_texts_are_split_in_a_moment() {
        let text = format!("CREATE PROCEDURE p() BEGIN {} END; SELECT 1", "SET @a = 1; ".repeat(20_000));
        assert_eq!(texts(&MySqlDialect {}, &text).len(), 2);
    }

    #[test]
    fn first_words_say_what_a_statement_is_and_concerns() {
        let one = |sql: &str| {
            let statement = split(&PostgreSqlDialect {}, sql).remove(0);
            (statement.command, statement.affected)
        };
        assert_eq!(one("select 1"), ("SELECT".into(), None));
        assert_eq!(one("(SELECT 1)").0, "SELECT");
        assert_eq!(one("create or replace view v as select 1"), ("CREATE VIEW".into(), Some(AffectedObject::Table)));
        assert_eq!(one("DROP DATABASE IF EXISTS x"), ("DROP DATABASE".into(), Some(AffectedObject::Database)));
        assert_eq!(one("CREATE UNIQUE INDEX i ON t (a)"), ("CREATE INDEX".into(), Some(AffectedObject::Table)));
        assert_eq!(one("CREATE SCHEMA s"), ("CREATE SCHEMA".into(), Some(AffectedObject::Schema)));
        assert_eq!(one("ALTER ROLE r LOGIN"), ("ALTER ROLE".into(), None));
        assert!(check_reading(&split(&PostgreSqlDialect {}, "SELECT 1; DELETE FROM t")).is_err());
        assert!(check_reading(&split(&PostgreSqlDialect {}, "SELECT 1; SHOW x")).is_ok());
    }
}
