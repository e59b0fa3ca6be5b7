//! The decoders of outside bytes, each with valid inputs; and some that are broken on purpose, which must be found.

mod server;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::dto;
use bytes::Bytes;
use domain::{Attachment, Check, Divergence, RecoveryPoint, Settings};
use filesystem::{Disk, Limits, changed_files};
use hypervisor::{Hypervisor, Identity, NicKind, Placement};
use layer::{Gate, ReplicaDirectory};
use libvirt::Libvirt;
use transport::InviteToken;
use uuid::Uuid;
use wire::delta::DeltaDisk;
use wire::digests::DigestsForm;
use wire::frame::{data_frame, end_frame, zero_frame};
use wire::message::form::{CheckForm, DivergenceForm, EntryForm, OperationForm, PointForm, SettingsForm};
use wire::message::{Answer, Request, Unfinished, View, ViewOf};
use wire::{AttachmentForm, DeltaHeader, DeltaTrailer, FrameDecoder, Item};

/// A decoder and what it decodes.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Decodes, whatever comes of it.
    pub decode: fn(&[u8]),
    /// Valid inputs, from which damaged ones are made.
    pub inputs: fn() -> Vec<Vec<u8>>,
}

/// Every decoder that is reached from here.
#[must_use]
pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "stream", decode: stream, inputs: streams },
        Target { name: "delta-header", decode: header, inputs: || vec![json(&a_header())] },
        Target { name: "request", decode: request, inputs: requests },
        Target { name: "forms", decode: forms, inputs: form_inputs },
        Target { name: "attachment", decode: attachment, inputs: attachments },
        Target {
            name: "digests",
            decode: digests,
            inputs: || vec![json(&DigestsForm::pack(&[None, Some([7; 32])]))],
        },
        Target { name: "token", decode: token, inputs: || vec![b"vr1-0000-aaaa".to_vec(), Vec::new()] },
        Target { name: "image", decode: image, inputs: images },
        Target { name: "manifest", decode: manifest, inputs: manifests },
        Target { name: "nbd-server", decode: server::listen, inputs: server::said },
        Target { name: "definition", decode: definition, inputs: definitions },
        Target { name: "api", decode: api, inputs: bodies },
        Target { name: "shown-by-a-peer", decode: shown, inputs: views },
        Target { name: "file-system", decode: file_system, inputs: file_systems },
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
        },
        Target {
            name: "canary that hoards",
            decode: |input| drop(vec![1_u8; claimed(input).min(128 << 20)]),
            inputs,
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

fn a_header() -> DeltaHeader {
    DeltaHeader {
        relationship: Uuid::from_u128(1),
        epoch: 1,
        point: Uuid::from_u128(2),
        parent: None,
        ordinal: 1,
        instant_ms: 1_700_000_000_000,
        consistency: "crash".into(),
        disks: vec![DeltaDisk { target: "vda".into(), virtual_size: 1 << 20 }],
        resume_at: Some((0, 65536)),
        domain_xml: "<domain/>".into(),
        attachments: Vec::new(),
        expected_bytes: 100,
        tag: Some("tag".into()),
        autostart: Some(true),
    }
}

fn streams() -> Vec<Vec<u8>> {
    let header = DeltaHeader { resume_at: None, ..a_header() };
    let mut stream = header.to_bytes().to_vec();
    for compress in [true, false] {
        let (_, head, payload) = data_frame(0, 65536, &Bytes::from(vec![5; 70_000]), compress);
        stream.extend_from_slice(&head);
        stream.extend_from_slice(&payload);
    }
    stream.extend_from_slice(&zero_frame(0, 196_608, 65536).1);
    stream.extend_from_slice(&end_frame(b"{}"));
    vec![stream]
}

/// As the receiver does it: in pieces, every frame opened.
fn stream(input: &[u8]) {
    let mut decoder = FrameDecoder::new();
    for piece in input.chunks(1 + input.len() / 3) {
        decoder.feed(piece);
        while let Ok(Some(item)) = decoder.next() {
            match item {
                Item::Header(json) => {
                    let Ok(header) = DeltaHeader::from_json(&json) else { return };
                    let sizes = header.disks.iter().map(|disk| disk.virtual_size).collect();
                    decoder.expect_disks(sizes, header.resume_at.unwrap_or_default());
                }
                Item::Frame(frame) => match frame.open() {
                    Ok(content) => drop(DeltaTrailer::from_json(&content)),
                    Err(_) => return,
                },
            }
        }
    }
}

fn header(input: &[u8]) {
    drop(DeltaHeader::from_json(input));
    drop(DeltaTrailer::from_json(input));
}

fn requests() -> Vec<Vec<u8>> {
    let relationship = Uuid::from_u128(1);
    let unfinished = Some(Unfinished { point: Uuid::from_u128(2), ordinal: 3 });
    let all = [
        Request::Hello {},
        Request::Beliefs { relationship, epoch: 4, unfinished, is_primary: true },
        Request::Paused { relationship, epoch: 4, paused: false },
        Request::Pending { relationship, epoch: 4, bytes: 5 },
        Request::Doubt { relationship, epoch: 4, ordinal: 5, what: "64 KiB".into() },
        Request::Abandon { operation: Uuid::from_u128(6), relationship },
        Request::View(View {
            of: ViewOf::Events,
            after: Some("7".into()),
            limit: 9,
            vm: None,
            since: Some(8),
        }),
    ];
    let answers = [Answer::Done {}, Answer::Abandon { already_handed_over: true }];
    all.iter().map(json).chain(answers.iter().map(json)).collect()
}

fn request(input: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(input) {
        let _ = request.authority();
    }
    drop(serde_json::from_slice::<Answer>(input));
}

fn form_inputs() -> Vec<Vec<u8>> {
    let settings = Settings::of(vec![(domain::fixture::vda(), domain::DiskChoice::Replicated)]);
    vec![
        json(&SettingsForm::from(&settings)),
        br#"{"since":"00000000-0000-0000-0000-000000000001","at_ms":5,"disks":[["vda",[[0,65536]]]],"covered_by":null}"#.to_vec(),
    ]
}

/// The wire's forms become types of the core, or are refused.
fn forms(input: &[u8]) {
    fn into<F: serde::de::DeserializeOwned, T: TryFrom<F>>(input: &[u8]) {
        drop(serde_json::from_slice::<F>(input).map(T::try_from));
    }
    into::<SettingsForm, Settings>(input);
    into::<PointForm, RecoveryPoint>(input);
    into::<DivergenceForm, Divergence>(input);
    into::<CheckForm, Check>(input);
    drop(serde_json::from_slice::<EntryForm>(input));
    drop(serde_json::from_slice::<OperationForm>(input).map(OperationForm::into_new_primary));
}

fn attachments() -> Vec<Vec<u8>> {
    AttachmentForm::pack(Attachment::Nvram, &[3; 5000]).iter().map(json).collect()
}

fn attachment(input: &[u8]) {
    drop(serde_json::from_slice::<AttachmentForm>(input).map(|form| form.unpack().is_ok()));
}

fn digests(input: &[u8]) {
    if let Ok(form) = serde_json::from_slice::<DigestsForm>(input) {
        for count in [0, 2, 4096] {
            drop(form.unpack(count));
        }
    }
}

fn token(input: &[u8]) {
    drop(InviteToken::parse(&String::from_utf8_lossy(input)));
}

/// A file of these bytes, for a decoder that reads files.
fn as_file(name: &str, input: &[u8], read: impl FnOnce(&std::path::Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(name);
    if std::fs::write(&path, input).is_ok() {
        read(&path);
    }
}

/// What a program made in an empty folder under this name.
fn made(name: &str, program: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().ok()?;
    let mut command = std::process::Command::new(program.first()?);
    let output = command.args(&program[1..]).current_dir(folder.path()).output().ok()?;
    output.status.success().then(|| std::fs::read(folder.path().join(name)).ok())?
}

fn images() -> Vec<Vec<u8>> {
    let plain = ["qemu-img", "create", "-q", "-f", "qcow2", "image", "1M"];
    let over = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "below", "-F", "qcow2", "image", "1M"];
    let data =
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "image", "1M"];
    [&plain[..], &over[..], &data[..]].iter().filter_map(|program| made("image", program)).collect()
}

fn image(input: &[u8]) {
    as_file("image", input, |path| {
        drop(layer::inspect(path, Gate::Foreign));
        drop(layer::inspect(path, Gate::Ours(None)));
        drop(layer::chain_check(path));
    });
}

fn manifests() -> Vec<Vec<u8>> {
    let Ok(folder) = tempfile::tempdir() else { return Vec::new() };
    let manifest = layer::Manifest {
        vm_name: "vm".into(),
        vm: domain::VmId(Uuid::from_u128(1)),
        relationship: domain::RelationshipId(Uuid::from_u128(2)),
        disks: vec![layer::ManifestDisk::fresh(domain::fixture::vda(), 1 << 20)],
        points: Vec::new(),
        autostart: false,
    };
    let made = layer::Storage::initialise(folder.path())
        .and_then(|storage| ReplicaDirectory::create(&storage, manifest))
        .ok();
    let read = made.and_then(|directory| std::fs::read(directory.path().join("manifest.json")).ok());
    read.into_iter().collect()
}

fn manifest(input: &[u8]) {
    as_file("manifest.json", input, |path| {
        if let Some(folder) = path.parent() {
            drop(ReplicaDirectory::open(folder));
        }
    });
}

/// A whole VM as any administrator may have made it, and one that names everything a host has.
fn definitions() -> Vec<Vec<u8>> {
    let ordinary = include_bytes!("../../crates/libvirt/src/definition/tests/ordinary.xml");
    let hostile = include_bytes!("../../crates/libvirt/src/definition/tests/hostile.xml");
    vec![ordinary.to_vec(), hostile.to_vec()]
}

fn definition(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Nothing of this asks libvirt.
    let libvirt = Libvirt::new(Libvirt::SYSTEM);
    let Ok(facts) = libvirt.read_definition(text) else { return };
    let placement = Placement {
        vm: facts.id,
        disks: vec![(domain::fixture::vda(), PathBuf::from("/copy"))],
        strangers: Vec::new(),
        networks: Vec::new(),
        nvram: None,
        local_definition: Some(text.to_owned()),
    };
    drop(libvirt.place_definition(text, &placement));
    let identity =
        Identity { vm: facts.id, name: "test".into(), network: (NicKind::Bridge, "isolated".into()) };
    drop(libvirt.disguise_definition(text, &identity));
}

fn bodies() -> Vec<Vec<u8>> {
    let change = dto::SettingsChange { frequency_seconds: Some(30), ..dto::SettingsChange::default() };
    vec![
        json(&change),
        json(&dto::HostChange::default()),
        br#"{"vm":"vm","peer":"b","frequency_seconds":300,"networks":[["a","b"]],"exclude_disks":["vdb"]}"#
            .to_vec(),
        br#"{"ttl_seconds":60}"#.to_vec(),
        br#"{"address":"b:7460","token":"vr1","force":true,"point":"newest","start":true}"#.to_vec(),
    ]
}

/// Bodies of the REST API.
fn api(input: &[u8]) {
    fn read<T: serde::de::DeserializeOwned>(input: &[u8]) {
        drop(serde_json::from_slice::<T>(input));
    }
    read::<dto::HostChange>(input);
    read::<dto::InviteRequest>(input);
    read::<dto::JoinRequest>(input);
    read::<dto::EnableRequest>(input);
    read::<dto::SettingsChange>(input);
    read::<dto::RemoveRequest>(input);
    read::<dto::PlannedFailoverRequest>(input);
    read::<dto::ReverseRequest>(input);
    read::<dto::CancelRequest>(input);
    read::<dto::TestFailoverRequest>(input);
    read::<dto::FailoverRequest>(input);
    read::<dto::CancelFailoverRequest>(input);
    read::<dto::CreatePointRequest>(input);
    read::<dto::ImportRequest>(input);
}

fn views() -> Vec<Vec<u8>> {
    let event = dto::Event {
        sequence: 7,
        number: 2001,
        at_ms: 8,
        severity: dto::Severity::Warning,
        vm: Some("vm".into()),
        text: "it happened".into(),
    };
    let disk = dto::VmDisk {
        target: "vda".into(),
        format: "qcow2".into(),
        size_bytes: Some(9),
        allocated_bytes: None,
        obstacle: Some("raw file".into()),
        wraps: None,
    };
    let vm = dto::VmView {
        id: "i".into(),
        name: "vm".into(),
        state: dto::VmState::Off,
        memory_bytes: 5,
        processors: 2,
        relationship: None,
        mode: None,
        test_failover: None,
        disks: vec![disk],
        networks: vec!["br0".into()],
        obstacles: Vec::new(),
    };
    vec![json(&dto::Paged { shown: vec![event], next: Some("7".into()) }), json(&dto::Paged::whole(vec![vm]))]
}

/// What a peer shows of itself.
fn shown(input: &[u8]) {
    drop(serde_json::from_slice::<dto::Paged<dto::HostView>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::VmView>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::RelationshipSummary>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::OperationView>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::Event>>>(input));
}

struct Memory(Vec<u8>);

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = self.0.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn file_systems() -> Vec<Vec<u8>> {
    let make = |options: &str| {
        let script = format!("mkdir d && echo x >d/a && mkfs.ext4 -q -F -b 1024 {options} -d d image 1M");
        made("image", &["sh", "-c", &script])
    };
    // Without checksums damage goes deeper.
    ["-O ^has_journal", "-O ^has_journal,^metadata_csum", "-O ^has_journal,^metadata_csum,^extent"]
        .into_iter()
        .filter_map(make)
        .collect()
}

fn file_system(input: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(Memory(input.to_vec()));
    let limits = Limits { time: Duration::from_secs(1), entries: 1000, files: 100 };
    drop(changed_files(Arc::clone(&disk), disk, i64::MIN, limits));
}
