//! Answers in words. Pure: forms and a screen in, text out; nothing is asked or printed here.

mod audit;
mod console;
mod diverged;
mod event;
mod host;
mod operation;
mod plan;
mod point;
mod relationship;
mod table;
mod test_failover;

#[cfg(test)]
mod tests;

pub use audit::audit;
pub use console::{console_link, console_roles, console_sessions};
pub use diverged::diverged;
pub use event::events;
pub use host::{host, invitation, joined, peers};
pub use operation::{ending, news, operation, operations};
pub use plan::{checks, done, plan, problem};
pub use point::{chain, point_made, points};
pub use relationship::{detail, enabled, protected, relationships, speed};
pub use test_failover::{test_failover, test_failovers};
