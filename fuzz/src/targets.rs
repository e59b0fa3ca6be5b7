//! The decoders of outside bytes, each with valid inputs; and some that are broken on purpose, which must be found.

mod api;
mod definitions;
mod delta;
mod files;
mod messages;
mod server;

use domain::Attachment;

use crate::MEMORY_MAX;

/// A decoder and what it decodes.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Decodes, whatever comes of it.
    pub decode: fn(&[u8]),
    /// Valid inputs, from which damaged ones are made.
    pub inputs: fn() -> Vec<Vec<u8>>,
    /// Most memory that one input may cost, bytes.
    pub memory_max: usize,
}

/// Every decoder that is reached from here.
#[must_use]
pub fn targets() -> Vec<Target> {
    let target = |name, decode: fn(&[u8]), inputs: fn() -> Vec<Vec<u8>>| Target {
        name,
        decode,
        inputs,
        memory_max: MEMORY_MAX,
    };
    vec![
        // from a stranger
        target("token", messages::token, messages::tokens),
        target("certificate", messages::certificate, messages::certificates),
        target("join", messages::join, messages::joins),
        target("sign-in", api::sign_in, api::sign_ins),
        // from a peer
        target("request", messages::request, messages::requests),
        target("forms", messages::form, messages::forms),
        target("journal", messages::journal, messages::journals),
        target("stream", delta::stream, delta::streams),
        target("delta-header", delta::header, delta::headers),
        // A few bytes may hold the largest variable store, which is 80 MiB of zeroes.
        Target {
            memory_max: Attachment::Nvram.bytes_max() as usize + (16 << 20),
            ..target("attachment", delta::attachment, delta::attachments)
        },
        target("digests", delta::digests, delta::ranges),
        target("definition", definitions::definition, definitions::definitions),
        target("shown-by-a-peer", api::shown, api::views),
        // from programs and browsers
        target("api", api::body, api::bodies),
        // from files
        target("image", files::image, files::images),
        target("manifest", files::manifest, files::manifests),
        target("progress", files::progress, files::progresses),
        // from QEMU and guests
        target("nbd-server", server::listen, server::said),
        target("file-system", files::file_system, files::file_systems),
    ]
}

/// Broken on purpose: one panics, one takes the memory that it is told to take.
#[must_use]
pub fn canaries() -> Vec<Target> {
    let inputs = || vec![b"CANARY\x00\x00\x00\x04four".to_vec()];
    vec![
        Target {
            name: "canary that panics",
            decode: |input| assert!(claimed(input) < 1 << 31, "planted"),
            inputs,
            memory_max: MEMORY_MAX,
        },
        Target {
            name: "canary that hoards",
            decode: |input| drop(vec![1_u8; claimed(input).min(128 << 20)]),
            inputs,
            memory_max: MEMORY_MAX,
        },
    ]
}

fn claimed(input: &[u8]) -> usize {
    let length = input.strip_prefix(b"CANARY").and_then(|rest| rest.first_chunk::<4>());
    length.map_or(0, |length| u32::from_be_bytes(*length) as usize)
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// What a program made in an empty folder under this name.
fn made(name: &str, program: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().ok()?;
    let mut command = std::process::Command::new(program.first()?);
    let output = command.args(&program[1..]).current_dir(folder.path()).output().ok()?;
    output.status.success().then(|| std::fs::read(folder.path().join(name)).ok())?
}
