//! Where the body of a routine ends: its `;` belong to it.
//!
//! ```text
//!  CREATE [OR REPLACE] [DEFINER = …] [AGGREGATE] PROCEDURE | FUNCTION | TRIGGER | EVENT    ALTER [DEFINER = …] EVENT    BEGIN NOT ATOMIC
//!      ─▶ what stands before the body ─▶ a statement, or blocks: BEGIN, IF, CASE, LOOP, WHILE, REPEAT, FOR … END
//! ```
//!
//! The words that open a block are names and functions elsewhere (`IF(a, b, c)`, a column `begin`): they open one only where a statement may begin (MySQL manual,
//! "Compound Statements"; MariaDB Knowledge Base, "Programmatic & Compound Statements").

use sqlparser::tokenizer::Token;

/// How far a statement has been read.
#[derive(Debug, Default)]
pub(super) struct Body {
    stage: Stage,
    blocks: Vec<Block>,
    /// Whether a statement of the body may begin with the next word.
    is_start: bool,
    /// The word before, in capitals; empty after anything else.
    last: String,
    /// What stood before is a `.`: the next word is a name.
    is_qualified: bool,
    /// Open parentheses.
    depth: usize,
    handler: Option<Handler>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first words, which say whether it is a routine.
    #[default]
    Head,
    /// `DEFINER = …`
    Definer,
    /// A routine, before its body.
    Before(Routine),
    /// In the body.
    Within,
    /// No routine.
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routine {
    /// Procedure or function; whether its parameters have been read.
    Called {
        has_parameters: bool,
    },
    Trigger,
    Event,
}

/// What an `END` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Begin,
    If,
    Case,
    /// `CASE` as an expression, which ends with a mere `END`.
    Expression,
    Loop,
    /// `WHILE`, `FOR`: statements follow `DO`.
    While,
    Repeat,
}

/// `DECLARE … HANDLER FOR`: conditions, then a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    /// A condition comes next.
    Condition,
    /// A comma or the statement comes next.
    Statement,
}

impl Body {
    /// Whether a `;` belongs to a body.
    pub(super) fn is_open(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Reads on.
    pub(super) fn take(&mut self, token: &Token) {
        match token {
            Token::Whitespace(_) => return,
            Token::Word(word) if word.quote_style.is_none() && !self.is_qualified => {
                let word = word.value.to_uppercase();
                self.word(&word);
                self.last = word;
                return;
            }
            Token::LParen => {
                self.depth += 1;
                self.is_start = false;
            }
            Token::RParen => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0
                    && let Stage::Before(Routine::Called { has_parameters }) = &mut self.stage
                {
                    *has_parameters = true;
                }
            }
            Token::SemiColon => (self.is_start, self.handler) = (true, None),
            // The trigger that another one follows, in quotes.
            Token::Word(_) if matches!(self.last.as_str(), "FOLLOWS" | "PRECEDES") => {}
            // A label.
            Token::Colon => self.is_start = self.stage != Stage::Head,
            Token::Comma if self.handler.is_some() => self.handler = Some(Handler::Condition),
            _ if self.handler.is_some() => self.handler = Some(Handler::Statement),
            _ => self.is_start = false,
        }
        self.is_qualified = matches!(token, Token::Period);
        self.last.clear();
    }

    fn word(&mut self, word: &str) {
        match self.stage {
            Stage::Head => self.head(word),
            Stage::Definer => self.definer(word),
            Stage::Before(routine) => self.before(routine, word),
            Stage::Within => self.within(word),
            Stage::Plain => {}
        }
    }

    fn head(&mut self, word: &str) {
        self.stage = match (self.last.as_str(), word) {
            ("", "CREATE" | "ALTER" | "BEGIN") | ("BEGIN", "NOT") | ("CREATE", "OR") | ("OR", "REPLACE") => Stage::Head,
            ("NOT", "ATOMIC") => {
                self.blocks.push(Block::Begin);
                self.is_start = true;
                Stage::Within
            }
            ("CREATE" | "ALTER" | "REPLACE", "DEFINER") => Stage::Definer,
            ("ALTER", "EVENT") => Stage::Before(Routine::Event),
            ("CREATE" | "REPLACE" | "AGGREGATE", _) => object(word).unwrap_or(Stage::Plain),
            _ => Stage::Plain,
        };
    }

    fn definer(&mut self, word: &str) {
        match word {
            "SQL" | "VIEW" => self.stage = Stage::Plain,
            _ => self.stage = object(word).unwrap_or(Stage::Definer),
        }
    }

    /// What stands before a body ends with its first statement.
    fn before(&mut self, routine: Routine, word: &str) {
        let begins = match routine {
            Routine::Event => self.depth == 0 && word == "DO",
            Routine::Trigger => self.last == "EACH" && word == "ROW",
            Routine::Called { has_parameters } => {
                if has_parameters && self.depth == 0 && begins_statement(&self.last, word) {
                    (self.stage, self.is_start) = (Stage::Within, true);
                    self.within(word);
                }
                return;
            }
        };
        if begins {
            (self.stage, self.is_start) = (Stage::Within, true);
        }
    }

    fn within(&mut self, word: &str) {
        if let Some(handler) = self.handler
            && !self.is_handled(handler, word)
        {
            return;
        }
        let was_start = std::mem::take(&mut self.is_start);
        let top = self.blocks.last().copied();
        let opened = match word {
            // `END IF` and the like; labels may follow.
            "IF" | "CASE" | "LOOP" | "WHILE" | "REPEAT" | "FOR" if self.last == "END" => return,
            "BEGIN" if was_start => Some(Block::Begin),
            "IF" if was_start => Some(Block::If),
            "CASE" if was_start => Some(Block::Case),
            "CASE" => Some(Block::Expression),
            "LOOP" if was_start => Some(Block::Loop),
            "WHILE" | "FOR" if was_start => Some(Block::While),
            "REPEAT" if was_start => Some(Block::Repeat),
            _ => None,
        };
        if let Some(block) = opened {
            self.blocks.push(block);
            self.is_start = matches!(block, Block::Begin | Block::Loop | Block::Repeat);
            return;
        }
        match word {
            "END" if was_start || matches!(top, Some(Block::Expression | Block::Repeat)) => _ = self.blocks.pop(),
            "THEN" | "ELSE" => self.is_start = matches!(top, Some(Block::If | Block::Case)),
            "DO" => self.is_start = !was_start && top == Some(Block::While),
            // `BEGIN ATOMIC`, `BEGIN NOT ATOMIC`
            "NOT" | "ATOMIC" => self.is_start = was_start && matches!(self.last.as_str(), "BEGIN" | "NOT"),
            // The order of triggers stands between `FOR EACH ROW` and the body.
            "FOLLOWS" | "PRECEDES" if self.last == "ROW" => self.is_start = true,
            "FOR" if self.last == "HANDLER" => self.handler = Some(Handler::Condition),
            _ => self.is_start = matches!(self.last.as_str(), "FOLLOWS" | "PRECEDES") && was_start,
        }
    }

    /// Reads a word of a handler's declaration; whether it begins the handler's statement.
    fn is_handled(&mut self, handler: Handler, word: &str) -> bool {
        match (handler, word) {
            (Handler::Condition, _) => self.handler = Some(Handler::Statement),
            (Handler::Statement, "VALUE" | "FOUND") => {}
            (Handler::Statement, _) => {
                (self.handler, self.is_start) = (None, true);
                return true;
            }
        }
        false
    }
}

fn object(word: &str) -> Option<Stage> {
    Some(match word {
        "PROCEDURE" | "FUNCTION" => Stage::Before(Routine::Called { has_parameters: false }),
        "TRIGGER" => Stage::Before(Routine::Trigger),
        "EVENT" => Stage::Before(Routine::Event),
        "AGGREGATE" => Stage::Head,
        _ => return None,
    })
}

/// Whether a word after a routine's parameters begins its body, and is none of its characteristics or its type.
fn begins_statement(last: &str, word: &str) -> bool {
    const BLOCKS: [&str; 7] = ["BEGIN", "IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR"];
    const STATEMENTS: [&str; 40] = [
        "RETURN",
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "REPLACE",
        "SET",
        "CALL",
        "DO",
        "WITH",
        "VALUES",
        "TABLE",
        "CREATE",
        "ALTER",
        "DROP",
        "RENAME",
        "TRUNCATE",
        "PREPARE",
        "EXECUTE",
        "DEALLOCATE",
        "START",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "LOCK",
        "UNLOCK",
        "SIGNAL",
        "RESIGNAL",
        "SHOW",
        "EXPLAIN",
        "ANALYZE",
        "OPTIMIZE",
        "CHECK",
        "FLUSH",
        "GRANT",
        "REVOKE",
        "KILL",
        "LOAD",
        "XA",
    ];
    let is_character_set = word == "SET" && matches!(last, "CHARACTER" | "CHAR");
    !is_character_set && (BLOCKS.contains(&word) || STATEMENTS.contains(&word))
}
