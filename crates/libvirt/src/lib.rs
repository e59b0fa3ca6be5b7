//! libvirt behind the [`Hypervisor`] trait: the only crate that links it, and the only one that reads or writes domain XML.
//!
//! What is *not* here: waiting for guests, retries and deadlines (the engine's), and any knowledge of relationships.
#![allow(dead_code)]
mod definition;
