//! What the schema of a form says, held where the form is taken: the least and the most of its numbers, and which of its fields are
//! secrets (`writeOnly`). So that neither can say what the other does not. What is *not* here: limits that depend on the host.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema of a form, whole in itself.
pub(crate) struct Schema(Value);

impl Schema {
    pub(crate) fn of<B: JsonSchema>() -> Schema {
        let mut settings = SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        Schema(settings.into_generator().into_root_schema_for::<B>().to_value())
    }

    /// The first number of a body that is outside of its limits, in words; none: all are within.
    pub(crate) fn broken_by(&self, body: &[u8]) -> Option<String> {
        let body = serde_json::from_slice(body).ok()?;
        broken(&self.0, &body, "the value")
    }

    /// What a body asks for, as the audit keeps it: the fields of the form that say something, but no secret.
    pub(crate) fn recorded(&self, body: &[u8]) -> String {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_told = |name: &str| self.0["properties"].get(name).is_some_and(|it| it["writeOnly"] != true);
        let fields = body.as_object().into_iter().flatten().filter(|(name, _)| is_told(name));
        let fields = fields.filter_map(|(name, value)| Some(format!("{name}: {}", said(value)?)));
        fields.collect::<Vec<_>>().join(", ")
    }
}

/// A value without what is left out in it.
fn said(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(all) if all.is_empty() => None,
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| Some((name.clone(), said(value)?)));
            Some(fields.collect()).filter(|it: &serde_json::Map<_, _>| !it.is_empty()).map(Value::Object)
        }
        other => Some(other.clone()),
    }
}

fn broken(schema: &Value, value: &Value, name: &str) -> Option<String> {
    if let Some(number) = value.as_u64() {
        let limit = |key: &str| schema[key].as_u64();
        let (least, most) = (limit("minimum").unwrap_or(0), limit("maximum").unwrap_or(u64::MAX));
        let within = (least..=most).contains(&number);
        return (!within).then(|| format!("{name} is {least} to {most}, and {number} was asked for"));
    }
    let fields = value.as_object().into_iter().flatten();
    let in_fields = fields.filter_map(|(name, value)| broken(schema["properties"].get(name)?, value, name));
    let variants = ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
    let in_variants = variants.filter_map(|variant| broken(variant, value, name));
    in_fields.chain(in_variants).next()
}

#[cfg(test)]
mod tests {
    use super::Schema;
    use crate::dto::{JoinRequest, SettingsChange, TestFailoverRequest};

    #[test]
    fn what_is_recorded_is_what_was_asked_for_and_no_secret() {
        let join = br#"{"token": "vr1secret", "address": "192.0.2.1", "other": "unknown"}"#;
        assert_eq!(Schema::of::<JoinRequest>().recorded(join), r#"address: "192.0.2.1""#);
        let change =
            serde_json::to_vec(&SettingsChange { frequency_seconds: Some(30), ..Default::default() });
        let recorded = Schema::of::<SettingsChange>().recorded(&change.expect("JSON"));
        assert_eq!(recorded, "frequency_seconds: 30");
        assert_eq!(Schema::of::<SettingsChange>().recorded(b"no JSON"), "");
    }

    #[test]
    fn a_number_is_held_against_its_limits_however_deep_it_lies() {
        let broken = |body: &str| Schema::of::<SettingsChange>().broken_by(body.as_bytes());
        for good in [
            "{}",
            r#"{"frequency_seconds": 5}"#,
            r#"{"frequency_seconds": null}"#,
            r#"{"drills": "never", "thresholds": {"missed_cycles_percent_max": 100}}"#,
            r#"{"rate_limit": {"bytes-per-second": 1}}"#,
        ] {
            assert_eq!(broken(good), None, "{good}");
        }
        for (bad, named) in [
            (r#"{"frequency_seconds": 4}"#, "frequency_seconds is 5 to 86400"),
            (
                r#"{"thresholds": {"missed_cycles_percent_max": 101}}"#,
                "missed_cycles_percent_max is 0 to 100",
            ),
            (r#"{"drills": {"every-seconds": 18446744073709551615}}"#, "every-seconds is 0 to 31622400"),
            (r#"{"rate_limit": {"bytes-per-second": 0}}"#, "bytes-per-second is 1 to"),
        ] {
            assert!(broken(bad).is_some_and(|why| why.contains(named)), "{bad}: {:?}", broken(bad));
        }
        let boots = br#"{"boot_timeout_seconds": 18446744073709551615}"#;
        assert!(Schema::of::<TestFailoverRequest>().broken_by(boots).is_some());
    }
}
