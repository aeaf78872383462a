//! A JSON record with some members changed. What is not changed keeps its text to the last digit.

use millrace_core::explore::ResultColumn;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

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

/// A value as its column writes it: numbers and truth values that came as text, because JSON readers round them, are written plainly.
fn written(name: &str, value: &Value, columns: &[ResultColumn]) -> Option<String> {
    let form = columns.iter().find(|column| column.name == name).map(|column| Form::of(&column.native_type));
    if let (Value::String(text), Some(form)) = (value, form) {
        let is_number = matches!(form, Form::Int | Form::Float | Form::Decimal)
            && text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_number());
        let is_bool = form == Form::Bool && matches!(text.as_str(), "true" | "false");
        if is_number || is_bool {
            return Some(text.clone());
        }
    }
    serde_json::to_string(value).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_that_do_not_change_keep_their_text() {
        let column = |name: &str, kind: &str| ResultColumn { name: name.into(), native_type: kind.into(), ..ResultColumn::default() };
        let columns = [column("id", "BIGINT"), column("s", "VARCHAR"), column("b", "BOOLEAN")];
        let changes = json!({"id": "9007199254740993", "s": "12", "b": "true", "new": null});
        let text = patched(
            "{\"n\": 1.50, \"id\":1,\"s\":\"x\",\"big\":123456789012345678901234567890, \"b\":false}",
            changes.as_object().unwrap(),
            &columns,
        );
        assert_eq!(
            text.unwrap(),
            "{\"n\":1.50,\"id\":9007199254740993,\"s\":\"12\",\"big\":123456789012345678901234567890,\"b\":true,\"new\":null}"
        );
        assert_eq!(patched("[1]", &Map::new(), &columns), None);
    }
}
