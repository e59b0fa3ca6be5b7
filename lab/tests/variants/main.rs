//! Ways to protect a VM, with the real parts: what travels beside the disks, which disks, when, how fast, under which name.

mod firmware;
mod ways;

use lab::{LIMIT, Lab, Product};
use serde_json::Value;

/// A number in an answer.
fn number(shown: &Value, pointer: &str) -> u64 {
    shown.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {shown:#}"))
}

/// What all acknowledged cycles of a VM carried and took together.
#[derive(Clone, Copy, Debug)]
struct Carried {
    bytes: u64,
    sent: u64,
    took_ms: u64,
}

impl Carried {
    fn of(shown: &Value) -> Carried {
        let cycles = number(shown, "/statistics/cycles_acknowledged");
        let sum = |mean: &str| cycles * number(shown, &format!("/statistics/{mean}"));
        Carried {
            bytes: sum("average_bytes"),
            sent: sum("average_sent_bytes"),
            took_ms: sum("average_latency_ms"),
        }
    }

    /// The sums come from whole means: each cycle may hide one.
    fn since(self, before: Carried) -> Carried {
        Carried {
            bytes: self.bytes.saturating_sub(before.bytes),
            sent: self.sent.saturating_sub(before.sent),
            took_ms: self.took_ms.saturating_sub(before.took_ms),
        }
    }
}

/// The head of a VM, once it is another than `before`.
fn next_head(product: &Product, lab: &Lab, host: &str, vm: &str, before: &Value) -> Value {
    let newer =
        |shown: &Value| shown.pointer("/head/id").is_some_and(|id| Some(id) != before.pointer("/head/id"));
    product.wait_show(lab, host, vm, LIMIT, newer).unwrap()
}
