//! The API against its own document: schemathesis makes requests of it, right and wrong ones, thousands of them, and holds every
//! answer against what the document promises. The daemon and its libvirt are real, and it is paired.

use std::process::Command;

use lab::{Api, HOSTS, Lab, LabOptions, Product};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/schemathesis/bin/schemathesis");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis.toml");

#[test]
fn no_request_is_answered_otherwise_than_the_document_says() {
    assert!(std::path::Path::new(PROGRAM).exists(), "schemathesis is missing: cargo xtask install");
    let mut lab = Lab::up(LabOptions::named("api")).unwrap();
    let _product = Product::up(&mut lab).unwrap();
    let address = Api::of(lab.host(HOSTS[0])).unwrap().bridge().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--config-file", RULES, "run", &format!("http://{address}/api/v1/openapi.json")]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}\n{}", lab.host(HOSTS[0]).log("virtreplicad").unwrap());
    println!("{said}");
    lab.down().unwrap();
}
