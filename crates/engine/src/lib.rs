//! The engine.
pub mod clock;
mod files;
mod spool;
