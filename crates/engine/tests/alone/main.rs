//! A host that is alone: the other one is dead, and its own disk fails, is full, or loses power. See `life.rs` for what it lives
//! through.

mod asked;
#[path = "../../../layer/tests/common/mod.rs"]
mod common;
mod faults;
mod host;
mod hypervisor;
mod life;
mod power;
mod refused_here;
