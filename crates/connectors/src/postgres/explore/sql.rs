//! Statements in two forms: with placeholders, as records show them, and with values, as they are sent.
//!
//! Rows are wanted in the server's own text form, which only the simple query protocol gives with this driver, and that one knows no parameters: values become
//! literals, quoted by [`literal`] alone.

use super::super::names::{literal, quote};

/// A statement that grows.
#[derive(Debug, Default)]
pub(super) struct Sql {
    shown: String,
    sent: String,
    count: usize,
}

impl Sql {
    /// Begins with a text.
    pub(super) fn new(text: &str) -> Self {
        let mut sql = Self::default();
        sql.push(text);
        sql
    }

    /// Adds a text that holds no values.
    pub(super) fn push(&mut self, text: &str) {
        self.shown.push_str(text);
        self.sent.push_str(text);
    }

    /// Adds a name.
    pub(super) fn name(&mut self, name: &str) {
        self.push(&quote(name));
    }

    /// Adds names between commas.
    pub(super) fn list<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.name(name);
        }
    }

    /// Adds a value of the type that its place asks for, NULL if there is none.
    pub(super) fn value(&mut self, text: Option<&str>) {
        self.count += 1;
        self.shown.push_str(&format!("${}", self.count));
        match text {
            None => self.sent.push_str("NULL"),
            Some(text) => self.sent.push_str(&literal(text)),
        }
    }

    /// Adds a value of a type.
    pub(super) fn typed(&mut self, text: Option<&str>, native_type: &str) {
        self.value(text);
        self.push("::");
        self.push(native_type);
    }

    /// How many characters stand there already.
    pub(super) fn characters(&self) -> usize {
        self.sent.chars().count()
    }

    /// The statement with placeholders.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The statement with its values.
    pub(super) fn sent(&self) -> &str {
        &self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::Sql;

    #[test]
    fn values_are_quoted_where_they_are_sent_and_absent_where_they_are_shown() {
        let mut sql = Sql::new("UPDATE ");
        sql.name("a\"b");
        sql.push(" SET x = ");
        sql.value(Some("it's \\"));
        sql.push(", y = ");
        sql.typed(None, "integer");
        assert_eq!(sql.shown(), "UPDATE \"a\"\"b\" SET x = $1, y = $2::integer");
        assert_eq!(sql.sent(), "UPDATE \"a\"\"b\" SET x = E'it''s \\\\', y = NULL::integer");
        assert_eq!(sql.characters(), sql.sent().len());
    }
}
