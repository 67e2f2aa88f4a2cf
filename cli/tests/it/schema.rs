//! A check of a value against the published schema: the part of JSON Schema that it uses, and a
//! refusal of any other, so that nothing in it goes unchecked.

use serde_json::{Map, Value};

/// What the schema may say. `title` and the like say nothing about a value.
const KEYWORDS: [&str; 16] = [
    "$schema",
    "$defs",
    "$ref",
    "title",
    "description",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "minimum",
    "oneOf",
    "maximum",
    "minItems",
];

/// Returns the published schema.
pub(crate) fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench-result.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns what of `value` does not conform, each with its place.
pub(crate) fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, node: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let Some(rules) = node.as_object() else {
        return found.push(format!("{place}: the schema has no rule here"));
    };
    for keyword in rules.keys().filter(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
        found.push(format!("{place}: {keyword} is not understood"));
    }
    if let Some(reference) = rules.get("$ref").and_then(Value::as_str) {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        check(root, &root["$defs"][name], value, place, found);
    }
    if let Some(choices) = rules.get("oneOf").and_then(Value::as_array) {
        let fits = |choice: &&Value| {
            let mut inner = Vec::new();
            check(root, choice, value, place, &mut inner);
            inner.is_empty()
        };
        let fitting = choices.iter().filter(fits).count();
        if fitting != 1 {
            found.push(format!("{place}: {fitting} of the choices fit"));
        }
    }
    check_value(rules, value, place, found);
    if let Some(object) = value.as_object() {
        check_object(root, rules, object, place, found);
    }
    if let (Some(items), Some(rule)) = (value.as_array(), rules.get("items")) {
        for (index, item) in items.iter().enumerate() {
            check(root, rule, item, &format!("{place}[{index}]"), found);
        }
    }
}

fn check_value(rules: &Map<String, Value>, value: &Value, place: &str, found: &mut Vec<String>) {
    let kinds = match rules.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_kind(kind.as_str().unwrap(), value)) {
        found.push(format!("{place}: {value} is none of {kinds:?}"));
    }
    if rules.get("enum").is_some_and(|all| !all.as_array().unwrap().contains(value)) {
        found.push(format!("{place}: {value} is not allowed"));
    }
    if rules.get("const").is_some_and(|only| only != value) {
        found.push(format!("{place}: {value} is not {}", rules["const"]));
    }
    let limit = |name: &str| rules.get(name).and_then(Value::as_f64).zip(value.as_f64());
    if limit("minimum").is_some_and(|(least, number)| number < least) {
        found.push(format!("{place}: {value} is below the minimum"));
    }
}

fn check_object(
    root: &Value,
    rules: &Map<String, Value>,
    object: &Map<String, Value>,
    place: &str,
    found: &mut Vec<String>,
) {
    let required = rules.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for name in required.iter().filter(|name| !object.contains_key(name.as_str().unwrap())) {
        found.push(format!("{place}: {name} is missing"));
    }
    let no_more = Value::Bool(false);
    for (name, value) in object {
        let known = rules.get("properties").and_then(|properties| properties.get(name));
        match known.or(rules.get("additionalProperties")) {
            Some(rule) if *rule == no_more => found.push(format!("{place}: {name} is unknown")),
            Some(rule) => check(root, rule, value, &format!("{place}.{name}"), found),
            None => {}
        }
    }
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no kind"),
    }
}

#[test]
fn the_check_finds_what_does_not_conform() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {
            "a": { "type": ["number", "null"], "minimum": 0 },
            "b": { "type": "array", "items": { "enum": ["x", "y"] } },
            "c": { "oneOf": [{ "const": 1 }, { "const": 2 }] },
        },
    });
    for (value, expected) in [
        (serde_json::json!({ "a": 1.5, "b": ["x"], "c": 2 }), 0),
        (serde_json::json!({ "a": null }), 0),
        (serde_json::json!({}), 1),
        (serde_json::json!({ "a": -1 }), 1),
        (serde_json::json!({ "a": "1" }), 1),
        (serde_json::json!({ "a": 1, "d": 1 }), 1),
        (serde_json::json!({ "a": 1, "b": ["x", "z"] }), 1),
        (serde_json::json!({ "a": 1, "c": 3 }), 1),
        (serde_json::json!([]), 1),
    ] {
        assert_eq!(complaints(&schema, &value).len(), expected, "{value}");
    }
    assert_eq!(complaints(&serde_json::json!({ "pattern": "x" }), &Value::Null).len(), 1);
}
