//! Query parameters, as the document describes them.

use serde_json::{Value, json};

/// A query parameter that an endpoint reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Param {
    name: &'static str,
    kind: Kind,
    meaning: &'static str,
    is_required: bool,
    example: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
    Number { least: u64, most: u64 },
    OneOf(&'static [&'static str]),
}

impl Param {
    /// Any text.
    pub(crate) const fn text(name: &'static str, meaning: &'static str) -> Self {
        Self { name, kind: Kind::Text, meaning, is_required: false, example: None }
    }

    /// A text that may be given several times.
    pub(crate) const fn texts(name: &'static str, meaning: &'static str) -> Self {
        Self { name, kind: Kind::Texts, meaning, is_required: false, example: None }
    }

    /// `true` or `false`.
    pub(crate) const fn flag(name: &'static str, meaning: &'static str) -> Self {
        Self { name, kind: Kind::Flag, meaning, is_required: false, example: None }
    }

    /// A whole number within these bounds, both included.
    pub(crate) const fn number(name: &'static str, least: u64, most: u64, meaning: &'static str) -> Self {
        Self { name, kind: Kind::Number { least, most }, meaning, is_required: false, example: None }
    }

    /// One of these words.
    pub(crate) const fn one_of(name: &'static str, words: &'static [&'static str], meaning: &'static str) -> Self {
        Self { name, kind: Kind::OneOf(words), meaning, is_required: false, example: None }
    }

    /// The request is refused without it.
    pub(crate) const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// A value as it stands in the query string.
    pub(crate) const fn example(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// Whether any text will do.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Texts)
    }

    /// The parameter object of OpenAPI 3.0.
    pub(crate) fn describe(&self) -> Value {
        let schema = match self.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Number { least, most: MOST } => json!({"type": "integer", "minimum": least}),
            Kind::Number { least, most } => json!({"type": "integer", "format": "int64", "minimum": least, "maximum": most}),
            Kind::OneOf(words) => json!({"type": "string", "enum": words}),
        };
        let mut described = json!({"name": self.name, "in": "query", "description": self.meaning, "schema": schema});
        if self.is_required {
            described["required"] = true.into();
        }
        if let Some(example) = self.example {
            described["example"] = example.into();
        }
        described
    }
}

/// No bound.
pub(crate) const MOST: u64 = u64::MAX;
