//! The OpenAPI document, put together from the rows of the router and the schemas of the forms. Nothing in it is written twice:
//! words come from the doc comments of the forms, statuses from the codes, parameters from the paths and the queries.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::caller::Role;
use crate::dto::Answer;
use crate::problem::{Code, Problem};
use crate::router::{DryRun, Nothing, Row};

/// The media type of almost everything.
pub(crate) const JSON: &str = "application/json";
const CSV: &str = "text/csv";
/// Where schemas lie in the document.
const SCHEMAS: &str = "/components/schemas";

/// The document while rows are added.
pub(crate) struct Document {
    paths: BTreeMap<&'static str, Map<String, Value>>,
    /// Of what is sent: what may be left out is not required.
    taken: SchemaGenerator,
    /// Of what is answered: what is always there is.
    given: SchemaGenerator,
}

type Schemas = fn(&mut Document) -> Value;

/// What one method of a path takes and gives.
pub(crate) struct Operation {
    query: Schemas,
    body: Option<Schemas>,
    answer: Schemas,
    answer_media: Vec<&'static str>,
    in_pages: bool,
    changes: bool,
    if_match: bool,
    /// What of it needs an administrator.
    more: &'static str,
}

impl Operation {
    pub(crate) fn read<Q: JsonSchema, A: JsonSchema>() -> Operation {
        Operation {
            query: |document| document.taken.subschema_for::<Q>().to_value(),
            body: None,
            answer: |document| document.given.subschema_for::<A>().to_value(),
            answer_media: vec![JSON],
            in_pages: false,
            changes: false,
            if_match: false,
            more: "",
        }
    }

    pub(crate) fn change<B: JsonSchema, A: JsonSchema>(more: &'static str, if_match: bool) -> Operation {
        let no_body = B::schema_id() == Nothing::schema_id();
        let body: Schemas = |document| document.taken.subschema_for::<B>().to_value();
        Operation {
            body: (!no_body).then_some(body),
            changes: true,
            if_match,
            more,
            ..Operation::read::<DryRun, Answer<A>>()
        }
    }

    pub(crate) fn in_pages(self) -> Operation {
        Operation { in_pages: true, ..self }
    }

    pub(crate) fn or_csv(self) -> Operation {
        Operation { answer_media: vec![JSON, CSV], ..self }
    }

    pub(crate) fn only_csv(self) -> Operation {
        Operation { answer_media: vec![CSV], ..self }
    }

    /// A stream of events; `A` is the data of one.
    pub(crate) fn stream<A: JsonSchema>() -> Operation {
        Operation { answer_media: vec!["text/event-stream"], ..Operation::read::<Nothing, A>() }
    }
}

impl Document {
    pub(crate) fn new() -> Document {
        let generator = |contract| {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
            settings.contract = contract;
            SchemaGenerator::new(settings)
        };
        Document {
            paths: BTreeMap::new(),
            taken: generator(Contract::Deserialize),
            given: generator(Contract::Serialize),
        }
    }

    pub(crate) fn add(&mut self, method: &str, row: &Row, operation: Operation) {
        let mut parameters = path_parameters(row.path);
        parameters.extend(self.query_parameters(operation.query));
        parameters.extend(header_parameters(&operation));
        let mut described = json!({
            "operationId": row.name,
            "tags": [row.path.trim_start_matches('/').split(['/', '.']).next()],
            "summary": row.about,
            "description": role_words(row.role, operation.more),
            "x-role": row.role,
            "parameters": parameters,
            "responses": self.responses(row, &operation),
        });
        if let Some(body) = operation.body {
            let schema = body(self);
            // Whoever leaves it out asks for the defaults, where all fields have one.
            described["requestBody"] = json!({"required": false, "content": {JSON: {"schema": schema}}});
        }
        let path = self.paths.entry(row.path).or_default();
        path.insert(method.to_owned(), described);
    }

    fn query_parameters(&mut self, query: Schemas) -> Vec<Value> {
        // An inline copy: the type itself is no schema of the document.
        let schema = query(self);
        let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let Some(schema) = self.taken.definitions_mut().remove(name) else { return Vec::new() };
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let parameter = |(name, mut schema): (String, Value)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            // What is not known is left out of a query; there is no null in one.
            if let Some(kind) = schema["type"].as_array().and_then(|kinds| kinds.first().cloned()) {
                schema["type"] = kind;
            }
            if let Some(schema) = schema.as_object_mut() {
                schema.retain(|key, value| key != "default" || !value.is_null());
            }
            json!({"name": name, "in": "query", "description": description, "schema": schema})
        };
        properties.into_iter().map(parameter).collect()
    }

    fn responses(&mut self, row: &Row, operation: &Operation) -> Value {
        let schema = (operation.answer)(self);
        let content: Map<String, Value> = operation
            .answer_media
            .iter()
            .map(|media| {
                let schema = if *media == JSON { schema.clone() } else { json!({"type": "string"}) };
                ((*media).to_owned(), json!({"schema": schema}))
            })
            .collect();
        let mut success = json!({"description": "As asked.", "content": content});
        if !operation.changes && operation.answer_media.iter().any(|media| *media != "text/event-stream") {
            success["headers"] = json!({"ETag": {"description": "Of this content, for `If-None-Match`.", "schema": {"type": "string"}}});
            if operation.in_pages {
                success["headers"]["Link"] = json!({
                    "description": "Where the list goes on: `</api/v1/…?after=…>; rel=\"next\"`. Missing: this is its end.",
                    "schema": {"type": "string"}
                });
            }
        }
        let mut responses = Map::from_iter([("200".to_owned(), success)]);
        if !operation.changes && !operation.answer_media.contains(&"text/event-stream") {
            responses.insert(
                "304".to_owned(),
                json!({"description": "As the asker has it already (`If-None-Match`)."}),
            );
        }
        let mut codes: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for (code, about) in self.codes() {
            if may_answer(code, row, operation) {
                codes.entry(code.status()).or_default().push(about);
            }
        }
        let problem = self.given.subschema_for::<Problem>().to_value();
        for (status, about) in codes {
            let content = json!({Problem::MEDIA_TYPE: {"schema": problem}});
            responses.insert(status.to_string(), json!({"description": about.join(" "), "content": content}));
        }
        responses.into()
    }

    /// Every code with its words, from the doc comments of the type.
    fn codes(&mut self) -> Vec<(Code, String)> {
        let schema = SchemaGenerator::default().into_root_schema_for::<Code>();
        let variants = schema.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
        let read = |variant: &Value| {
            let name = variant["const"].as_str()?;
            let code = serde_json::from_value(variant["const"].clone()).ok()?;
            Some((code, format!("`{name}`: {}", variant["description"].as_str().unwrap_or_default())))
        };
        variants.iter().filter_map(read).collect()
    }

    /// The whole document.
    pub(crate) fn finish(mut self) -> Value {
        let mut schemas: Map<String, Value> = self.given.take_definitions(true);
        for (name, schema) in self.taken.take_definitions(true) {
            schemas.entry(name).or_insert(schema);
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "virt-replica",
                "version": "1",
                "summary": "Replication of libvirt VMs between two hosts, handed over with nothing lost.",
                "description": "The API of a host's daemon: over its control socket, and behind the sign-in of the console. How it is used: docs/api/README.md.",
                "license": {"name": "Apache-2.0 OR MIT"},
            },
            "servers": [{"url": "/api/v1"}],
            "paths": self.paths,
            "components": {"schemas": schemas},
        })
    }
}

fn may_answer(code: Code, row: &Row, operation: &Operation) -> bool {
    let of_peer = row.path.starts_with("/peers/{peer}/");
    match code {
        Code::Invalid | Code::NotSignedIn | Code::Forbidden | Code::Failed => true,
        Code::NotFound => row.path.contains('{') || operation.changes,
        Code::Refused | Code::NeedsOperator => {
            operation.changes || of_peer || row.path.starts_with("/relationships/{vm}/")
        }
        Code::Busy | Code::TooLarge => operation.changes,
        Code::Stale => operation.if_match,
        Code::PeerSilent => of_peer,
        Code::TooMany => true,
        // Made by the client, never sent.
        Code::Unreachable => false,
    }
}

fn role_words(role: Role, more: &str) -> String {
    let needed = format!("Needs the role {}.", role.words());
    if more.is_empty() { needed } else { format!("{needed} Of an administrator: {more}.") }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let about = match name {
                "vm" => "The VM's name, its UUID, or the relationship's id.",
                "peer" => "The peer's name or id.",
                "point" => "The recovery point's id, or its number in the list.",
                _ => "Its id.",
            };
            json!({"name": name, "in": "path", "required": true, "description": about, "schema": {"type": "string", "minLength": 1}})
        })
        .collect()
}

fn header_parameters(operation: &Operation) -> Vec<Value> {
    let header = |name: &str, about: &str| json!({"name": name, "in": "header", "description": about, "schema": {"type": "string"}});
    if operation.if_match {
        return vec![header(
            "If-Match",
            "An ETag of the relationship as it was seen: when it has changed since, nothing is done (412).",
        )];
    }
    if operation.changes || operation.answer_media.contains(&"text/event-stream") {
        return Vec::new();
    }
    vec![header(
        "If-None-Match",
        "The ETag of what the asker has: when it is still that, it is not sent again (304).",
    )]
}

/// Whether both directions say the same of a form that travels in both.
#[cfg(test)]
pub(crate) fn contradictions(mut document: Document) -> Vec<String> {
    let taken = document.taken.take_definitions(true);
    let given = document.given.take_definitions(true);
    taken
        .into_iter()
        .filter(|(name, schema)| given.get(name).is_some_and(|other| other != schema))
        .map(|(name, _)| name)
        .collect()
}
