//! JSON schemas of an OpenAPI 3.0 document, for comparing answers with.

use jsonschema::Draft;
use serde_json::{Value, json};

/// The schemas of a document.
pub struct Schemas(Value);

impl Schemas {
    /// Those of an OpenAPI 3.0 document.
    pub fn of(document: &Value) -> Self {
        let mut components = json!({"schemas": document["components"]["schemas"]});
        plain(&mut components);
        Self(components)
    }

    /// Asserts that an operation's answer is as its schema says.
    ///
    /// # Panics
    /// If it is not; the message names every place.
    pub fn check(&self, operation: &str, schema: &Value, answer: &Value) {
        let mut schema = schema.clone();
        plain(&mut schema);
        schema["components"] = self.0.clone();
        let validator = jsonschema::options().with_draft(Draft::Draft4).build(&schema).expect("the document's schemas hold together");
        let errors: Vec<String> = validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{operation}: {errors:#?}\n{answer}");
    }
}

/// `nullable` of OpenAPI 3.0 in the words of JSON Schema.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(plain);
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                let inner = Value::Object(std::mem::take(fields));
                *schema = json!({"anyOf": [{"type": "null"}, inner]});
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}
