//! A text with several statements, cut where the server's lexer would cut it.
//!
//! The rules are those of `psqlscan.l`: quotes, dollar quotes, nested comments, parentheses (rules hold statements), and bodies between `BEGIN ATOMIC` and `END`.
//! `standard_conforming_strings` is on in every session.

/// One statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// Its text, without the semicolon.
    pub(super) text: &'a str,
    /// How many characters stand before it.
    pub(super) start: usize,
    /// Its unquoted words outside of parentheses, in capitals.
    pub(super) words: Vec<String>,
    /// Its first unquoted word, in capitals, parentheses or not.
    pub(super) first: String,
    /// Whether a word that changes rows stands anywhere outside of quotes.
    pub(super) has_write_word: bool,
    /// Whether it is cut off inside of a quote or comment.
    pub(super) is_open: bool,
    /// Whether parentheses do not pair up.
    pub(super) is_unbalanced: bool,
}

/// The statements of a text; pieces of nothing but spaces and comments are left out.
pub(super) fn split(sql: &str) -> Vec<Statement<'_>> {
    let mut scanner = Scanner {
        sql,
        at: 0,
        found: Vec::new(),
        current: Statement::default(),
        depth: 0,
        bodies: 0,
        begin: 0,
        counted: (0, 0),
        is_blank: true,
    };
    while scanner.at < sql.len() {
        scanner.step();
    }
    scanner.end(sql.len());
    scanner.found
}

struct Scanner<'a> {
    sql: &'a str,
    at: usize,
    found: Vec<Statement<'a>>,
    current: Statement<'a>,
    /// Open parentheses.
    depth: usize,
    /// Open `BEGIN ATOMIC` and, inside of these, `CASE`.
    bodies: usize,
    /// Where the current statement begins.
    begin: usize,
    /// A place, and how many characters stand before it.
    counted: (usize, usize),
    is_blank: bool,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.at..]
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(character) = rest.chars().next() else { return };
        if rest.starts_with("--") {
            self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            self.comment();
        } else if character.is_whitespace() {
            self.at += character.len_utf8();
        } else if character == ';' && self.depth == 0 && self.bodies == 0 {
            self.end(self.at);
            self.at += 1;
            self.begin = self.at;
        } else {
            self.is_blank = false;
            self.token(character);
        }
    }

    fn token(&mut self, character: char) {
        match character {
            '\'' => self.quoted('\'', false),
            '"' => self.quoted('"', false),
            '$' => self.dollar(),
            '(' => {
                self.depth += 1;
                self.at += 1;
            }
            ')' => {
                self.current.is_unbalanced |= self.depth == 0;
                self.depth = self.depth.saturating_sub(1);
                self.at += 1;
            }
            other if is_word(other) => self.word(),
            other => self.at += other.len_utf8(),
        }
    }

    /// Comments nest.
    fn comment(&mut self) {
        let mut level = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                level += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                level -= 1;
                self.at += 2;
                if level == 0 {
                    return;
                }
            } else if let Some(character) = rest.chars().next() {
                self.at += character.len_utf8();
            } else {
                self.current.is_open = true;
                self.is_blank = false;
                return;
            }
        }
    }

    /// A doubled quote ends one quote and begins the next, which comes to the same.
    fn quoted(&mut self, quote: char, has_escapes: bool) {
        self.at += 1;
        loop {
            let Some(character) = self.rest().chars().next() else {
                self.current.is_open = true;
                return;
            };
            self.at += character.len_utf8();
            if character == quote {
                return;
            }
            if has_escapes && character == '\\' {
                self.at += self.rest().chars().next().map_or(0, char::len_utf8);
            }
        }
    }

    fn dollar(&mut self) {
        let rest = self.rest();
        let tag_end = rest[1..].find(|character: char| !is_word(character) || character == '$').map(|end| end + 1);
        let tag = tag_end.filter(|end| rest[*end..].starts_with('$')).map(|end| &rest[..=end]);
        let Some(tag) = tag.filter(|tag| !tag[1..].starts_with(|first: char| first.is_ascii_digit())) else {
            self.at += 1;
            return;
        };
        match rest[tag.len()..].find(tag) {
            Some(end) => self.at += tag.len() + end + tag.len(),
            None => {
                self.at = self.sql.len();
                self.current.is_open = true;
            }
        }
    }

    fn word(&mut self) {
        let rest = self.rest();
        let length = rest.find(|character: char| !is_word(character)).unwrap_or(rest.len());
        let word = rest[..length].to_ascii_uppercase();
        self.at += length;
        if word == "E" && self.rest().starts_with('\'') {
            self.quoted('\'', true);
            return;
        }
        self.current.has_write_word |= matches!(word.as_str(), "INSERT" | "UPDATE" | "DELETE" | "MERGE");
        self.body(&word);
        if self.current.first.is_empty() {
            self.current.first.clone_from(&word);
        }
        if self.depth == 0 {
            self.current.words.push(word);
        }
    }

    /// Bodies of SQL functions hold semicolons.
    fn body(&mut self, word: &str) {
        let words = &self.current.words;
        let is_routine = words.first().is_some_and(|first| first == "CREATE")
            && words.iter().take(4).any(|word| matches!(word.as_str(), "FUNCTION" | "PROCEDURE"));
        match word {
            "ATOMIC" if is_routine && words.last().is_some_and(|last| last == "BEGIN") => self.bodies += 1,
            "CASE" if self.bodies > 0 => self.bodies += 1,
            "END" => self.bodies = self.bodies.saturating_sub(1),
            _ => {}
        }
    }

    fn end(&mut self, end: usize) {
        let mut statement = std::mem::take(&mut self.current);
        let whole = &self.sql[self.begin..end];
        if !self.is_blank {
            let before = self.begin + (whole.len() - whole.trim_start().len());
            statement.text = whole.trim();
            self.counted = (before, self.counted.1 + self.sql[self.counted.0..before].chars().count());
            statement.start = self.counted.1;
            statement.is_unbalanced |= self.depth > 0;
            self.found.push(statement);
        }
        (self.depth, self.bodies, self.is_blank) = (0, 0, true);
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$' || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::split;

    fn texts(sql: &str) -> Vec<&str> {
        split(sql).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_cut() {
        assert_eq!(texts("SELECT 1; SELECT 2;"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(texts(" ;; -- nothing ; here\n /* nor ; /* here; */ ; */ ;"), Vec::<&str>::new());
        let whole = [
            "SELECT 'a;''b;'",
            "SELECT E'a\\';b'",
            "SELECT \"a;b\"",
            "SELECT $$a;'b$$",
            "SELECT $x$a;$$;$y$;$x$",
            "SELECT a$b;",
            "SELECT $1",
            "SELECT 1 /* ; /* ; */ ; */ + 1",
            "SELECT 1 -- ; \n + 1",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
        ];
        for sql in whole {
            let twice = format!("{}; SELECT 9", sql.trim_end_matches(';'));
            assert_eq!(texts(&twice), [sql.trim_end_matches(';'), "SELECT 9"], "{sql}");
        }
        // Without standard strings a backslash does not escape.
        assert_eq!(texts("SELECT '\\'; SELECT 2"), ["SELECT '\\'", "SELECT 2"]);
        assert_eq!(texts("BEGIN; SELECT 1; END; SELECT 2").len(), 4);
    }

    #[test]
    fn a_statement_knows_its_place_and_words() {
        let found = split("ä;  with x as (delete from t returning *) Select \"From\" from x");
        assert_eq!((found[1].start, found[1].first.as_str(), found[1].has_write_word), (4, "WITH", true));
        assert_eq!(found[1].words, ["WITH", "X", "AS", "SELECT", "FROM", "X"]);
        assert!(!split("SELECT 'delete'")[0].has_write_word);
    }

    #[test]
    fn what_does_not_close_is_noticed() {
        for sql in ["SELECT 'a", "SELECT E'\\'", "SELECT \"a", "SELECT $$a", "SELECT 1 /* /* */"] {
            assert!(split(sql)[0].is_open, "{sql}");
        }
        for sql in ["SELECT (1", "SELECT 1)", "1) OR (1"] {
            assert!(split(sql)[0].is_unbalanced, "{sql}");
        }
        assert!(!split("SELECT (')')")[0].is_unbalanced);
    }
}
