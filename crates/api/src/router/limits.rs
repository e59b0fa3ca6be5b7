//! What the document says of a number holds: the least and the most of a field stand in the schema of its form, are read from there,
//! and what is outside of them is refused before anything else looks at it. What is *not* here: limits that depend on the host.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The limits of a form.
pub(crate) struct Limits(Value);

impl Limits {
    pub(crate) fn of<B: JsonSchema>() -> Limits {
        let mut settings = SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        Limits(settings.into_generator().into_root_schema_for::<B>().to_value())
    }

    /// The first number of a body that is outside of its limits, in words; none: all are within.
    pub(crate) fn broken_by(&self, body: &[u8]) -> Option<String> {
        let body = serde_json::from_slice(body).ok()?;
        broken(&self.0, &body, "the value")
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
    use super::Limits;
    use crate::dto::{SettingsChange, TestFailoverRequest};

    #[test]
    fn a_number_is_held_against_its_limits_however_deep_it_lies() {
        let broken = |body: &str| Limits::of::<SettingsChange>().broken_by(body.as_bytes());
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
            (r#"{"thresholds": {"missed_cycles_percent_max": 101}}"#, "missed_cycles_percent_max is 0 to 100"),
            (r#"{"drills": {"every-seconds": 18446744073709551615}}"#, "every-seconds is 0 to 31622400"),
            (r#"{"rate_limit": {"bytes-per-second": 0}}"#, "bytes-per-second is 1 to"),
        ] {
            assert!(broken(bad).is_some_and(|why| why.contains(named)), "{bad}: {:?}", broken(bad));
        }
        let boots = br#"{"boot_timeout_seconds": 18446744073709551615}"#;
        assert!(Limits::of::<TestFailoverRequest>().broken_by(boots).is_some());
    }
}
