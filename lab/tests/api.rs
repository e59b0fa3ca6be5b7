//! The API against its own document: schemathesis makes requests of it, right and wrong ones, thousands of them, and holds every
//! answer against what the document promises. The daemons, libvirt and the VM are real.

use std::process::Command;

use lab::{Api, HOSTS, Lab, LabOptions, Product, protected};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/schemathesis/bin/schemathesis");

/// Holds the API of the first host against its document, by the rules in a file beside this crate's manifest.
fn hold(lab: &Lab, rules: &str) {
    assert!(std::path::Path::new(PROGRAM).exists(), "schemathesis is missing: cargo xtask install");
    let rules = format!("{}/{rules}", env!("CARGO_MANIFEST_DIR"));
    let address = Api::of(lab.host(HOSTS[0])).unwrap().bridge().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args([
        "--no-color",
        "--config-file",
        &rules,
        "run",
        &format!("http://{address}/api/v1/openapi.json"),
    ]);
    // What it wants to remember for its next run stays nowhere.
    let folder = tempfile::tempdir().unwrap();
    let output = command.current_dir(folder.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}\n{}", lab.host(HOSTS[0]).log("virtreplicad").unwrap());
    println!("{said}");
}

#[test]
fn no_request_is_answered_otherwise_than_the_document_says() {
    let mut lab = Lab::up(LabOptions::named("api")).unwrap();
    let _product = Product::up(&mut lab).unwrap();
    hold(&lab, "schemathesis.toml");
    lab.down().unwrap();
}

#[test]
fn neither_is_one_that_reaches_a_vm() {
    let world = protected("api-named").unwrap();
    hold(&world.lab, "schemathesis-named.toml");
    world.lab.down().unwrap();
}
