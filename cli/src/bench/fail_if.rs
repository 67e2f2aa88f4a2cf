//! `--fail-if EXPR`: a figure of the result against a number, for scripts.

use std::str::FromStr;

use serde_json::Value;

/// The schema names every figure there is.
const SCHEMA: &str = include_str!("../../../docs/bench-result.schema.json");

/// Such as `ack_us.p99>500`: the run fails when it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    text: String,
    path: Vec<String>,
    comparison: Comparison,
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What a condition says of a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    /// It holds: the figure that makes it so.
    Failed(f64),
    /// The run gives no such figure: too few samples, or nothing to measure it by.
    Unknown,
}

impl Condition {
    pub(crate) fn judge(&self, result: &Value) -> Verdict {
        let found = self.path.iter().try_fold(result, |value, name| value.get(name));
        let figure = match found {
            Some(Value::Bool(flag)) => Some(f64::from(u8::from(*flag))),
            Some(value) => value.as_f64(),
            None => None,
        };
        let Some(figure) = figure else { return Verdict::Unknown };
        let holds = match self.comparison {
            Comparison::Above => figure > self.limit,
            Comparison::AtLeast => figure >= self.limit,
            Comparison::Below => figure < self.limit,
            Comparison::AtMost => figure <= self.limit,
        };
        if holds { Verdict::Failed(figure) } else { Verdict::Passed }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let comparisons = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let split = comparisons
            .iter()
            .find_map(|(sign, comparison)| Some((text.split_once(sign)?, *comparison)));
        let Some(((path, limit), comparison)) = split else {
            return Err("a figure, one of > >= < <=, and a number, such as ack_us.p99>500".into());
        };
        let limit = limit.trim();
        let limit: f64 = limit.parse().map_err(|_| format!("{limit:?} is not a number"))?;
        if !limit.is_finite() {
            return Err(format!("{limit} is not a number to compare with"));
        }
        let path: Vec<_> = path.trim().split('.').map(str::to_owned).collect();
        if !is_figure(&path) {
            return Err(format!(
                "there is no figure {:?}; there are such as ack_us.p99, flush_us.p50, \
                 stage_us.written.max, records_per_s, ratio_to_floor (docs/bench-result.schema.json)",
                path.join(".")
            ));
        }
        Ok(Condition { text: text.to_owned(), path, comparison, limit })
    }
}

/// Returns whether the result of an append has this figure, and as a number.
fn is_figure(path: &[String]) -> bool {
    let Ok(schema) = serde_json::from_str::<Value>(SCHEMA) else { return false };
    let mut node = &schema["$defs"]["append"];
    for name in path {
        node = follow(&schema, &node["properties"][name]);
    }
    let kinds = match &node["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    kinds.iter().any(|kind| ["number", "integer", "boolean"].contains(kind))
}

/// Returns what a node of the schema refers to.
fn follow<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    let name = node["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.map_or(node, |name| &schema["$defs"][name])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Verdict {
        let result = serde_json::json!({
            "ack_us": { "p99": 500.0, "p999": null }, "records_per_s": 7, "overloaded": true,
        });
        Condition::from_str(text).expect("a condition").judge(&result)
    }

    #[test]
    fn a_condition_fails_exactly_when_it_holds() {
        for (text, expected) in [
            ("ack_us.p99>500", Verdict::Passed),
            ("ack_us.p99 >= 500", Verdict::Failed(500.0)),
            ("ack_us.p99<500.5", Verdict::Failed(500.0)),
            ("ack_us.p99<=499", Verdict::Passed),
            ("records_per_s<8", Verdict::Failed(7.0)),
            ("overloaded>0", Verdict::Failed(1.0)),
            ("ack_us.p999>1", Verdict::Unknown),
            ("flush_us.p50>1", Verdict::Unknown),
        ] {
            assert_eq!(judge(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        for bad in [
            "",
            "ack_us.p99",
            "ack_us.p99>",
            "ack_us.p99>x",
            "ack_us.p98>1",
            "ack_us>1",
            ">1",
            "env.disk>1",
            "backend>1",
            "ack_us.p99>inf",
            "ack_us.p99.p50>1",
            "ack_us.p99=1",
        ] {
            assert!(Condition::from_str(bad).is_err(), "{bad}");
        }
        for good in ["stage_us.written.p50>1", "floor.latency_us.p50<1", "cpu_user_s>1"] {
            assert!(Condition::from_str(good).is_ok(), "{good}");
        }
    }
}
