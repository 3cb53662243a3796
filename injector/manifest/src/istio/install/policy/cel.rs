//! JSON as an expression of the Common Expression Language. Knows no policy.

use serde_json::Value;

/// The value as a literal.
pub fn literal(value: &Value) -> String {
    with_expressions(value, &|_| None)
}

/// The value as a literal, in which `replace` puts an expression in the place of a text.
///
/// Values of maps are cast to `dyn`: Kubernetes compiles with literals that must have one type throughout.
pub fn with_expressions(value: &Value, replace: &dyn Fn(&str) -> Option<String>) -> String {
    match value {
        Value::String(text) => replace(text).unwrap_or_else(|| quoted(text)),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| with_expressions(item, replace))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let members: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    format!("{}: dyn({})", quoted(key), with_expressions(value, replace))
                })
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{}'", escaped.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_an_expression() {
        let value = json!({"a": 1, "b": [true, null], "it's": "x\\y", "c": "HERE"});
        assert_eq!(
            with_expressions(&value, &|text| (text == "HERE")
                .then(|| "object.x".to_owned())),
            r"{'a': dyn(1), 'b': dyn([true, null]), 'it\'s': dyn('x\\y'), 'c': dyn(object.x)}"
        );
    }
}
