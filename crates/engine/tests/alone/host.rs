//! One real engine with its store and its replica's files, the other host of whose relationship is dead. Deltas and requests of that
//! host come in where its connection would end.
//!
//! ```text
//!   base/        identity, scratch, sockets, …
//!   base/disk/   what a power cut is about: state.db, storage
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use domain::fixture::{point_id, vda};
use domain::{DiskChoice, Epoch, HostId, Lineage, Phase, RecoveryPoint, Relationship, Settings, Timestamp};
use engine::{Config, Engine, Trust};
use layer::{Backing, Manifest, ManifestDisk, ReplicaDirectory, Storage};
use store::{Peer, Record, Store};
use transport::{DeltaBody, Identity, PeerHandler, PeerRecord};
use uuid::Uuid;
use wire::delta::{DeltaDisk, DeltaHeader, DeltaTrailer};
use wire::frame::{DeltaDigest, data_frame, end_frame, zero_frame};
use wire::message::Request;

use crate::hypervisor::{Form, OneVm};

const CLUSTER: u64 = layer::CLUSTER_BYTES;
/// Size of the VM's disk.
pub(crate) const SIZE: u64 = 4 * CLUSTER;
/// The VM's name.
pub(crate) const VM: &str = "vm";
/// A host whose daemon runs.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) hypervisor: OneVm,
    pub(crate) peer: PeerRecord,
    base: PathBuf,
}

fn id() -> Uuid {
    Uuid::from_u128(2)
}

fn peer(port: u16, certificate_der: Vec<u8>) -> PeerRecord {
    PeerRecord {
        host: HostId(Uuid::from_u128(3)),
        name: "dead".into(),
        address: "127.0.0.1".into(),
        port,
        certificate_der,
        next_certificate_der: None,
        paired_at: Timestamp(1),
    }
}

/// The part of a host's folder that a power cut is about.
pub(crate) fn disk(base: &Path) -> PathBuf {
    base.join("disk")
}

/// The VM's disk at a point: each writes one cluster, and clears the next.
pub(crate) fn content(ordinal: u64) -> Vec<u8> {
    let mut content: Vec<u8> = (0..SIZE).map(|at| (at / 511) as u8 | 1).collect();
    for point in 2..=ordinal {
        let at = (point % 3 * CLUSTER) as usize;
        content[at..at + CLUSTER as usize].fill(point as u8);
        content[at + CLUSTER as usize..at + 2 * CLUSTER as usize].fill(0);
    }
    content
}

/// Runs something with a host, made or found in `base`, whose other host listens at `port`, with this certificate.
pub(crate) fn with_host<T>(base: &Path, there: (u16, Vec<u8>), body: impl AsyncFnOnce(&Host) -> T) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let result = runtime.block_on(async {
        let host = Host::start(base, peer(there.0, there.1)).await;
        body(&host).await
    });
    // As a kill does.
    runtime.shutdown_background();
    result
}

/// The same, with nobody at the other end.
pub(crate) fn with_host_alone<T>(base: &Path, body: impl AsyncFnOnce(&Host) -> T) -> T {
    with_host(base, (1, vec![1]), body)
}

impl Host {
    async fn start(base: &Path, peer: PeerRecord) -> Host {
        for folder in ["disk/storage", "scratch", "n", "reports", "evidence"] {
            std::fs::create_dir_all(base.join(folder)).expect("a folder");
        }
        let hook = base.join("hook");
        std::fs::write(&hook, "").expect("a hook");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let state = disk(base).join("state.db");
        let store = Store::open(&state).expect("a store");
        let own = store.host_identity(HostId(Uuid::from_u128(4))).expect("an id");
        let identity =
            Arc::new(Identity::open_or_create(base, "alone", engine::clock::now()).expect("an identity"));
        let hypervisor = OneVm::new(&state);
        if store.peers().expect("peers").is_empty() {
            let PeerRecord { host, name, address, port, certificate_der, next_certificate_der, paired_at } =
                peer.clone();
            let row = Peer { host, name, address, port, certificate_der, next_certificate_der, paired_at };
            store.add_peer(&row).expect("a peer");
        }
        let storage = disk(base).join("storage");
        make_replica(&store, &hypervisor, &storage);
        let config = Config {
            host_name: "alone".into(),
            version: "tested".into(),
            storage,
            scratch: base.join("scratch"),
            sockets: base.join("n"),
            hook,
            spool_bytes_max: 1 << 20,
            reports: base.join("reports"),
            evidence: base.join("evidence"),
            resynchronizations_max: 1,
            redirect_hooks: base.join("redirect.d"),
            program: "/bin/true".into(),
            holds: Some(base.join("holds")),
        };
        let trust = Arc::new(Trust(store.clone()));
        let engine = Engine::new(config, own, store, Arc::new(hypervisor.clone()), trust, identity);
        engine.start().expect("it starts");
        Host { engine, hypervisor, peer, base: base.to_owned() }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn record(&self) -> Record {
        self.engine.store().relationships().expect("readable").pop().expect("a relationship")
    }

    pub(crate) fn directory(&self) -> ReplicaDirectory {
        let path = self.record().directory.expect("a directory");
        ReplicaDirectory::open(&path).expect("a replica")
    }

    pub(crate) fn head(&self) -> Option<RecoveryPoint> {
        self.engine.store().points(self.record().relationship.id).expect("readable").pop()
    }

    /// The other host sends the delta of the next point; what it is told.
    pub(crate) async fn receive_next(&self) -> Result<u64, String> {
        let (record, parent) = (self.record(), self.head());
        let ordinal = parent.as_ref().map_or(1, |parent| parent.ordinal + 1);
        let form = Form { id: record.relationship.vm.0, name: VM.into(), disk: "/there.qcow2".into() };
        let header = DeltaHeader {
            relationship: record.relationship.id.0,
            epoch: record.relationship.epoch.number(),
            point: point_id(ordinal).0,
            parent: parent.as_ref().map(|parent| parent.id.0),
            ordinal,
            instant_ms: 1_700_000_000_000 + ordinal * 3_600_000,
            consistency: "crash".into(),
            disks: vec![DeltaDisk { target: "vda".into(), virtual_size: SIZE }],
            resume_at: None,
            domain_xml: serde_json::to_string(&form).expect("plain data"),
            attachments: Vec::new(),
            expected_bytes: 0,
            tag: None,
            autostart: None,
        };
        let pieces = pieces(&header, ordinal, parent.map_or(Lineage::ORIGIN, |parent| parent.lineage));
        let body = DeltaBody::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok)));
        let told = self.engine.delta(self.peer.clone(), body).await;
        told.map(|_| ordinal).map_err(|refusal| format!("{refusal:?}"))
    }

    /// The other host asks something.
    pub(crate) async fn asked(&self, request: &Request) -> Result<(), String> {
        let message = Bytes::from(serde_json::to_vec(request).expect("plain data"));
        let told = self.engine.command(self.peer.clone(), message).await;
        told.map(drop).map_err(|refusal| format!("{refusal:?}"))
    }
}

/// The bytes of a delta.
fn pieces(header: &DeltaHeader, ordinal: u64, parent: Lineage) -> Vec<Bytes> {
    let all = content(ordinal);
    let first = ordinal % 3;
    let clusters = if ordinal == 1 { 0..SIZE / CLUSTER } else { first..first + 2 };
    let (mut pieces, mut digest, mut data_bytes) = (vec![header.to_bytes()], DeltaDigest::default(), 0);
    for at in clusters.map(|cluster| cluster * CLUSTER) {
        let data = Bytes::copy_from_slice(&all[at as usize..(at + CLUSTER) as usize]);
        if data.iter().all(|byte| *byte == 0) {
            let (frame, head) = zero_frame(0, at, CLUSTER);
            digest.take(&frame);
            pieces.push(head);
        } else {
            let (frame, head, payload) = data_frame(0, at, &data, false);
            digest.take(&frame);
            pieces.extend([head, payload]);
            data_bytes += CLUSTER;
        }
    }
    let lineage = digest.lineage(parent).to_hex();
    let trailer = DeltaTrailer { digest: Lineage(digest.0).to_hex(), lineage, data_bytes };
    pieces.push(end_frame(&trailer.to_json()));
    pieces
}

/// The relationship and its directory, where they are not there yet; libvirt shows the replica.
fn make_replica(store: &Store, hypervisor: &OneVm, storage: &Path) {
    use hypervisor::Hypervisor;
    if let Some(record) = store.relationships().expect("readable").pop() {
        let directory = record.directory.expect("a directory");
        let directory = ReplicaDirectory::open(&directory).expect("a replica");
        // libvirt's own memory is not what this is about: whatever it was, it is put back.
        let shown = std::fs::read_to_string(directory.definition_path()).expect("a definition");
        return hypervisor.define(&shown).expect("defined");
    }
    let mut settings = Settings::of(vec![(vda(), DiskChoice::Replicated)]);
    settings.retention = "24xall".parse().expect("a retention");
    let relationship = Relationship {
        id: Uuid::from_u128(1).into(),
        vm: id().into(),
        vm_name: VM.into(),
        peer: HostId(Uuid::from_u128(3)),
        epoch: Epoch::FIRST,
        phase: Phase::Receiving,
        paused_since: None,
        settings,
    };
    let manifest = Manifest {
        vm_name: VM.into(),
        vm: relationship.vm,
        relationship: relationship.id,
        disks: vec![ManifestDisk::on(vda(), SIZE, Backing::beside(&ReplicaDirectory::base_name()))],
        points: Vec::new(),
        autostart: false,
    };
    let storage = Storage::initialise(storage).expect("storage");
    let directory = ReplicaDirectory::create(&storage, manifest).expect("a directory");
    let form = Form { id: id(), name: VM.into(), disk: directory.active_path(&vda()) };
    let shown = serde_json::to_string(&form).expect("plain data");
    directory.write_definition(&shown).expect("written");
    directory.write_primary_definition(&shown).expect("written");
    hypervisor.define(&shown).expect("defined");
    store.insert_relationship(&relationship, Some(&directory.path().to_owned())).expect("a row");
}
