//! What of log text a model must not see: secrets of connections, and values that database servers quote in their messages.

use millrace_core::connection::Connection;

/// Shorter secrets stand in too many other words.
const SHORTEST: usize = 4;
const HIDDEN: &str = "***";

/// Takes secrets and quoted values out of texts.
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Knows the secrets of all these connections.
    pub(super) fn new(connections: &[Connection]) -> Self {
        let secrets =
            connections.iter().flat_map(|connection| connection.secrets().into_iter().map(|(_, secret)| secret.expose().to_owned()));
        Self { secrets: secrets.filter(|secret| secret.len() >= SHORTEST).collect() }
    }

    /// The text without them. Names stay: they stand in backticks or double quotes.
    pub(super) fn text(&self, text: &str) -> String {
        let text = self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN));
        without_values(&without_users(&text))
    }
}

/// `scheme://user:password@host` without user and password.
fn without_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '"' | '\'' | '`')).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str(HIDDEN);
                &after[sign..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// Values in single quotes (MySQL quotes them in most messages), after `)=(` (PostgreSQL's `Key (id)=(7)`) and after `password=` and the like become `?`.
fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let before = out.chars().next_back();
        // An apostrophe inside a word quotes nothing.
        if character == '\'' && !before.is_some_and(char::is_alphanumeric) {
            let end = closing(&rest[1..]).map_or(rest.len(), |at| at + 2);
            out.push_str("'?'");
            rest = &rest[end..];
        } else if rest.starts_with(")=(") {
            out.push_str(")=(?)");
            rest = rest[3..].find(')').map_or("", |at| &rest[at + 4..]);
        } else if let Some(word) = secret_word(rest).filter(|_| !before.is_some_and(char::is_alphanumeric)) {
            out.push_str(&rest[..word]);
            out.push_str(HIDDEN);
            let value = &rest[word..];
            let end = value.find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | ',' | '"' | ')')).unwrap_or(value.len());
            rest = &value[end..];
        } else {
            out.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    out
}

/// Where a quoted value ends; a doubled quote is part of it.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// The length of `password=` or another word that a secret follows.
fn secret_word(text: &str) -> Option<usize> {
    const WORDS: [&str; 8] = ["password=", "passwd=", "pwd=", "secret=", "token=", "api_key=", "apikey=", "bearer "];
    WORDS.iter().find(|word| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))).map(|word| word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_secrets_are_hidden_and_names_stay() {
        let redactor = Redactor { secrets: vec!["hunter2".to_owned()] };
        for (text, expected) in [
            ("the table `orders` has 7 rows", "the table `orders` has 7 rows"),
            ("login with hunter2 failed", "login with *** failed"),
            ("Duplicate entry 'o''Brien' for key 'mail'", "Duplicate entry '?' for key '?'"),
            ("Key (id, mail)=(7, a@b.example) already exists", "Key (id, mail)=(?) already exists"),
            ("cannot reach mysql://root:x@db:3306/shop", "cannot reach mysql://***@db:3306/shop"),
            ("host=db password=geheim user=x", "host=db password=*** user=x"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("the server's answer doesn't end", "the server's answer doesn't end"),
            ("open 'end", "open '?'"),
        ] {
            assert_eq!(redactor.text(text), expected);
        }
    }
}
