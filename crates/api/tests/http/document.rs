//! The document that is checked in is the one that is served, and every row of it keeps the rules.

use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/openapi.json");

#[test]
fn the_document_is_checked_in_as_it_is_served() {
    let mut served = serde_json::to_string_pretty(&api::openapi()).expect("JSON");
    served.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &served).expect("docs/api can be written");
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(kept == served, "docs/api/openapi.json is old: UPDATE=1 cargo test -p api --test http document");
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().expect("methods").iter().map(move |it| (path, it)))
        .map(|(path, (method, operation))| (path.as_str(), method.as_str(), operation))
        .collect()
}

#[test]
fn a_viewer_reads_everything_but_the_audit_and_the_visitors_and_changes_nothing() {
    // The last is a question with a consequence: the running cycle lets go of the VM's files.
    let administrators = ["/audit", "/console/sessions", "/relationships/{vm}/may-start"];
    let document = api::openapi();
    for (path, method, operation) in operations(document) {
        let role = operation["x-role"].as_str().expect("a role");
        match (path, method) {
            (path, "get") if administrators.contains(&path) => assert_eq!(role, "administrator", "{path}"),
            (_, "get") => assert_eq!(role, "viewer", "{path}"),
            _ => assert_ne!(role, "viewer", "{path}"),
        }
    }
}

#[test]
fn every_name_is_said_once_and_every_reference_leads_somewhere() {
    let document = api::openapi();
    let mut names: Vec<&str> =
        operations(document).iter().map(|(_, _, it)| it["operationId"].as_str().expect("a name")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 50, "{count} routes");
    let text = document.to_string();
    let mut references =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().expect("a path"));
    assert!(references.clone().count() > 100);
    assert!(references.all(|path| document.pointer(path).is_some()));
}

#[test]
fn every_number_that_a_request_takes_has_a_most() {
    fn without_most<'a>(document: &'a Value, schema: &'a Value, name: &'a str, found: &mut Vec<String>) {
        if let Some(path) = schema["$ref"].as_str() {
            let form = document.pointer(path.trim_start_matches('#')).expect("a schema");
            return without_most(document, form, name, found);
        }
        let kinds = schema["type"].to_string();
        if kinds.contains("\"integer\"") && schema["maximum"].is_null() {
            found.push(name.to_owned());
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            without_most(document, schema, name, found);
        }
        for schema in ["oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
            without_most(document, schema, name, found);
        }
    }
    let document = api::openapi();
    let mut found = Vec::new();
    for (_, _, operation) in operations(document) {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        without_most(document, body, "the body", &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_request_takes_a_field_that_it_does_not_know() {
    let document = api::openapi();
    for (path, _, operation) in operations(document) {
        let Some(body) = operation.pointer("/requestBody/content/application~1json/schema/$ref") else {
            continue;
        };
        let form =
            document.pointer(body.as_str().expect("a path").trim_start_matches('#')).expect("a schema");
        assert_eq!(form["additionalProperties"], false, "{path}");
    }
}
