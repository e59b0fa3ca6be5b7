//! The API of a host's daemon: what can be asked and changed, in the words of the operator.
//!
//! [`dto`] are the JSON forms, [`service::Service`] is what the daemon implements, [`router()`] serves it under
//! `/api/v1`, [`client::Client`] speaks to it over a unix socket. What is *not* here: any decision (`engine`), and how
//! the forms look on a terminal (`virt-replica`).

mod caller;
pub mod client;
mod convert;
pub mod dto;
mod openapi;
pub mod problem;
pub mod report;
mod router;
pub mod service;
pub mod units;

pub use caller::{Caller, Person, Role};
pub use client::Client;
pub use domain::retention::{BadRetention, Retention};
pub use domain::{counted, shell_word, vm_argument};
pub use problem::{Code, Problem};
pub use router::{BODY_BYTES_MAX, openapi, router, serve};
pub use service::{Asked, Reply, Service};

/// Where the daemon listens unless configured otherwise.
pub const SOCKET_DEFAULT: &str = "/run/virt-replica/control.sock";
