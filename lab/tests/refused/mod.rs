//! How a refusal is judged: exit code, words, and a photograph of everything before and after.

mod version;

use lab::{HOSTS, Lab, Product};
use serde_json::Value;

pub use version::{StandIn, ask_as};

/// Files of libvirt and of the product that a refused command could leave behind. Layers of cycles that run meanwhile are not
/// among them: a case that looks at them holds the cycles.
const FILES: &str = "cd / && find var/lib/virt-replica/replicas var/lib/libvirt/images etc/libvirt/qemu \
     ! -name '*.partial' -printf '%p\n' | sort";

/// A check that must fail, with the words under it.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// Name of the check, as it is shown.
    pub check: &'a str,
    /// Words of what was found and of the cure.
    pub says: &'a [&'a str],
}

/// Everything that must be the same after a refusal, on both hosts.
#[derive(Debug, PartialEq, Eq)]
pub struct State(Vec<String>);

impl State {
    /// The state now.
    pub fn of(lab: &Lab, product: &Product) -> State {
        let mut facts = Vec::new();
        for name in HOSTS {
            let host = lab.host(name);
            let vms = host.virsh(["list", "--all", "--uuid"]).unwrap();
            for vm in vms.lines() {
                let power = host.virsh(["domstate", "--reason", vm]).unwrap();
                let id = host.virsh(["domid", vm]).unwrap();
                facts.push(format!("{name}: {vm} {power} {id}"));
                facts.push(host.virsh(["dumpxml", "--inactive", vm]).unwrap());
            }
            facts.push(host.sh(FILES).unwrap());
            facts.push(steady(product.json(lab, name, &["list"]).unwrap()));
            facts.push(steady(product.json(lab, name, &["peer", "list"]).unwrap()));
            let operations = product.json(lab, name, &["operation", "list"]).unwrap();
            let open = operations.as_array().unwrap().iter().filter(|it| it["ended_at_ms"].is_null());
            assert_eq!(open.count(), 0, "an operation is open on {name}: {operations:#}");
        }
        State(facts)
    }
}

/// What `list` and `peer list` say, without what cycles and time change.
fn steady(mut listed: Value) -> String {
    for entry in listed.as_array_mut().into_iter().flatten() {
        for moving in ["health", "last_synchronized_at_ms", "last_seen_at_ms"] {
            entry.as_object_mut().map(|entry| entry.remove(moving));
        }
    }
    listed.to_string()
}

/// The command with `--dry-run` shows the check as failed, with its words and with the checks that hold; with `--yes` it is
/// refused with the same words, and everything stays as it was.
pub fn is_refused(lab: &Lab, product: &Product, host: &str, words: &[&str], case: Case<'_>) {
    let before = State::of(lab, product);
    for consent in ["--dry-run", "--yes"] {
        let words = [&words[..1], &[consent], &words[1..]].concat();
        let (code, said) = product.attempt(lab, host, &words).unwrap();
        println!("$ {words:?} on {host}\n{said}");
        assert_eq!(code, Some(3), "{said}");
        assert!(
            said.contains(&format!("✗ {}", case.check)) && said.contains('✓'),
            "{} in:\n{said}",
            case.check
        );
        assert!(said.contains("Fix: "), "{said}");
        says(&said, case.says);
    }
    assert_eq!(State::of(lab, product), before);
}

/// The command ends with this code and these words, and everything stays as it was.
pub fn ends_with(lab: &Lab, product: &Product, host: &str, words: &[&str], code: i32, expected: &[&str]) {
    let before = State::of(lab, product);
    let (ended, said) = product.attempt(lab, host, words).unwrap();
    println!("$ {words:?} on {host}\n{said}");
    assert_eq!(ended, Some(code), "{said}");
    says(&said, expected);
    assert_eq!(State::of(lab, product), before);
}

/// All of the words, and none that only a programmer reads.
fn says(said: &str, expected: &[&str]) {
    for words in expected {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    for debug in ["Some(", "None", "{ ", "ShutOff(", "Err("] {
        assert!(!said.contains(debug), "{debug:?} is in:\n{said}");
    }
}
