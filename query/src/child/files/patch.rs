//! A JSON record with some members changed. What is not changed keeps its text to the last digit.

use millrace_core::explore::ResultColumn;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fit::Shape;
use crate::child::run::Form;

/// A record's members in their order, each as it is written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                text.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// The record with the changes; none if it is no object.
pub(super) fn patched(record: &str, changes: &Map<String, Value>, columns: &[ResultColumn]) -> Option<String> {
    let Members(mut members) = serde_json::from_str(record).ok()?;
    for (name, value) in changes {
        let written = RawValue::from_string(written(name, value, columns)?).ok()?;
        match members.iter_mut().rev().find(|(member, _)| member == name) {
            Some((_, old)) => *old = written,
            None => members.push((name.clone(), written)),
        }
    }
    let members: Option<Vec<String>> =
        members.iter().map(|(name, value)| Some(format!("{}:{}", serde_json::to_string(name).ok()?, value.get()))).collect();
    Some(format!("{{{}}}", members?.join(",")))
}

/// A value as its column writes it.
fn written(name: &str, value: &Value, columns: &[ResultColumn]) -> Option<String> {
    let column = columns.iter().find(|column| column.name == name);
    written_as(value, &Shape::of(column.map_or("", |column| column.native_type.as_str())))
}

/// A value as its type writes it: numbers and truth values that came as text, because JSON readers round them, are written plainly.
fn written_as(value: &Value, shape: &Shape) -> Option<String> {
    match (value, shape) {
        (Value::Array(items), Shape::List(item)) => {
            let items: Option<Vec<String>> = items.iter().map(|value| written_as(value, item)).collect();
            Some(format!("[{}]", items?.join(",")))
        }
        (Value::Object(members), Shape::Struct(_) | Shape::Map(_)) => {
            let plain = Shape::of("");
            let shape_of = |name: &str| match shape {
                Shape::Struct(known) => known.iter().find(|(member, _)| member == name).map_or(&plain, |(_, shape)| shape),
                Shape::Map(parts) => &parts.1,
                _ => &plain,
            };
            let members: Option<Vec<String>> = members
                .iter()
                .map(|(name, value)| Some(format!("{}:{}", serde_json::to_string(name).ok()?, written_as(value, shape_of(name))?)))
                .collect();
            Some(format!("{{{}}}", members?.join(",")))
        }
        (Value::String(text), Shape::Plain(kind)) if is_plainly_written(text, Form::of(kind)) => Some(text.clone()),
        _ => serde_json::to_string(value).ok(),
    }
}

fn is_plainly_written(text: &str, form: Form) -> bool {
    let is_number = matches!(form, Form::Int | Form::Float | Form::Decimal)
        && text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_number());
    is_number || form == Form::Bool && matches!(text, "true" | "false")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_that_do_not_change_keep_their_text() {
        let column = |name: &str, kind: &str| ResultColumn { name: name.into(), native_type: kind.into(), ..ResultColumn::default() };
        let kind = "STRUCT(n BIGINT[], s VARCHAR)";
        let columns = [column("id", "BIGINT"), column("s", "VARCHAR"), column("b", "BOOLEAN"), column("nested", kind)];
        let changes =
            json!({"id": "9007199254740993", "s": "12", "b": "true", "new": null, "nested": {"n": ["9007199254740993", 1], "s": "1"}});
        let text = patched(
            "{\"n\": 1.50, \"id\":1,\"s\":\"x\",\"big\":123456789012345678901234567890, \"b\":false}",
            changes.as_object().unwrap(),
            &columns,
        );
        assert_eq!(
            text.unwrap(),
            "{\"n\":1.50,\"id\":9007199254740993,\"s\":\"12\",\"big\":123456789012345678901234567890,\"b\":true,\"new\":null,\"nested\":{\"n\":[9007199254740993,1],\"s\":\"1\"}}"
        );
        assert_eq!(patched("[1]", &Map::new(), &columns), None);
    }
}
