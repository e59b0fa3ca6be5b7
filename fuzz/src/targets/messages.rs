//! What one daemon says to another: requests and answers, the forms in them, journals; and what strangers bring to the door.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use choreography::{Entry, Mark, Operation, Options, Outcome, Procedure, Side, Step, fold};
use choreography::{advice, may_leave_out, next};
use domain::{
    Check, CheckName, Divergence, Epoch, HostId, OperationId, RecoveryPoint, RelationshipId, Settings,
    Timestamp,
};
use transport::{Identity, Invite, InviteToken, MemoryTrust};
use uuid::Uuid;
use wire::message::form::{
    CheckForm, DivergenceForm, EntryForm, OperationForm, OptionsForm, PointForm, SettingsForm,
};
use wire::message::{Answer, DiskRequirement, Request, Requirements, Unfinished, View, ViewOf};

use super::json;

pub(super) fn requests() -> Vec<Vec<u8>> {
    let relationship = Uuid::from_u128(1);
    let unfinished = Some(Unfinished { point: Uuid::from_u128(2), ordinal: 3 });
    let settings = || {
        let mut settings = Settings::of(vec![(domain::fixture::vda(), domain::DiskChoice::Replicated)]);
        settings.network_map = vec![("br0".into(), "br1".into())];
        SettingsForm::from(&settings)
    };
    let disk = DiskRequirement {
        target: "vda".into(),
        virtual_size: 1 << 30,
        allocated_bytes: Some(1 << 20),
        replicated: true,
    };
    let requirements = || Requirements {
        vm: Uuid::from_u128(8),
        name: "testVM01".into(),
        domain_xml: "<domain type='kvm'><name>testVM01</name></domain>".into(),
        memory_bytes: 1 << 30,
        disks: vec![disk.clone()],
        bridges: vec!["br1".into()],
        networks: Vec::new(),
        relationship: None,
    };
    let head = || PointForm::from(&domain::fixture::point(3));
    let handover = || OperationForm::from(&operation(Procedure::PlannedFailover));
    let entries = || {
        let marks = [Mark::Done(Step::Check, "found".into()), Mark::Intent(Step::Announce)];
        marks
            .map(|mark| EntryForm::from(&Entry { at: Timestamp(9), host: HostId(Uuid::from_u128(3)), mark }))
            .to_vec()
    };
    let all = [
        Request::Hello {},
        Request::Survey { requirements: requirements() },
        Request::Enable {
            relationship,
            epoch: 1,
            settings: settings(),
            requirements: requirements(),
            seeds: vec![("vda".into(), "/srv/seed.qcow2".into())],
        },
        Request::Settings { relationship, epoch: 4, settings: settings() },
        Request::PlanFailover {
            relationship,
            epoch: 4,
            options: OptionsForm::from(&Options::default()),
            requested_by: "root".into(),
            dry_run: true,
        },
        Request::Announce { operation: handover(), entries: entries() },
        Request::HandOver { operation: handover(), entries: entries(), head: head() },
        Request::Reverse { relationship, epoch: 4, head: head(), settings: settings(), dry_run: false },
        Request::News { operation: Uuid::from_u128(6), entries: entries() },
        Request::Remove { relationship, epoch: 4, delete_replica: true },
        Request::Digests {
            relationship,
            epoch: 4,
            point: Some(Uuid::from_u128(2)),
            disk: "vda".into(),
            offset: 0,
            length: 65536,
        },
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

pub(super) fn request(input: &[u8]) {
    drop(serde_json::from_slice::<Request>(input));
    drop(serde_json::from_slice::<Answer>(input));
}

pub(super) fn forms() -> Vec<Vec<u8>> {
    let settings = Settings::of(vec![(domain::fixture::vda(), domain::DiskChoice::Replicated)]);
    let divergence = Divergence {
        since: domain::fixture::point_id(1),
        at: Timestamp(5),
        disks: vec![(domain::fixture::vda(), Some(vec![(0, 65536), (131_072, 512)]))],
        covered_by: None,
    };
    vec![
        json(&SettingsForm::from(&settings)),
        json(&PointForm::from(&domain::fixture::point(3))),
        json(&DivergenceForm::from(&divergence)),
        json(&CheckForm::from(&Check::fail(CheckName::ALL[0], "found", "cure"))),
        json(&OperationForm::from(&operation(Procedure::Failover))),
    ]
}

/// The wire's forms become types of the core, or are refused.
pub(super) fn form(input: &[u8]) {
    fn into<F: serde::de::DeserializeOwned, T: TryFrom<F>>(input: &[u8]) {
        drop(serde_json::from_slice::<F>(input).map(T::try_from));
    }
    into::<SettingsForm, Settings>(input);
    into::<PointForm, RecoveryPoint>(input);
    into::<DivergenceForm, Divergence>(input);
    into::<CheckForm, Check>(input);
    drop(serde_json::from_slice::<OperationForm>(input).map(OperationForm::into_new_primary));
    let peer = HostId(Uuid::from_u128(3));
    drop(serde_json::from_slice::<OperationForm>(input).map(|form| form.from_old_primary(peer)));
    drop(serde_json::from_slice::<SettingsForm>(input).map(SettingsForm::from_peer));
}

fn operation(procedure: Procedure) -> Operation {
    Operation {
        id: OperationId(Uuid::from_u128(6)),
        procedure,
        relationship: RelationshipId(Uuid::from_u128(1)),
        old_primary: HostId(Uuid::from_u128(3)),
        side: Side::NewPrimary,
        proposed_epoch: Epoch::FIRST.next(),
        options: Options::default(),
        requested_by: "root".into(),
        begun: Timestamp(1),
    }
}

/// A whole journal of each procedure, and one that was turned round.
pub(super) fn journals() -> Vec<Vec<u8>> {
    let line =
        |mark: Mark| EntryForm::from(&Entry { at: Timestamp(9), host: HostId(Uuid::from_u128(3)), mark });
    let whole = |procedure: Procedure| {
        let steps = procedure.steps().flat_map(|step| [Mark::Intent(step), Mark::Done(step, "found".into())]);
        json(&steps.chain([Mark::Ended(Outcome::Completed)]).map(line).collect::<Vec<_>>())
    };
    let steps: Vec<_> = Procedure::PlannedFailover.steps().take(4).collect();
    let begun = steps.iter().flat_map(|step| [Mark::Intent(*step), Mark::Failed(*step, "no".into())]);
    let undone = steps.iter().rev().map(|step| Mark::Undone(*step));
    let turned = begun.chain([Mark::Cancel("root".into())]).chain(undone);
    Procedure::ALL.into_iter().map(whole).chain([json(&turned.map(line).collect::<Vec<_>>())]).collect()
}

/// The lines become a journal, and the journal is thought about as by the engine.
pub(super) fn journal(input: &[u8]) {
    let Ok(lines) = serde_json::from_slice::<Vec<EntryForm>>(input) else { return };
    let Ok(entries) = lines.into_iter().map(Entry::try_from).collect::<Result<Vec<_>, _>>() else { return };
    let progress = fold(&entries);
    for procedure in Procedure::ALL {
        for side in [Side::OldPrimary, Side::NewPrimary] {
            let operation = Operation { side, ..operation(procedure) };
            let _ = next(&operation, &progress);
            let _ = advice(&operation, &progress, Timestamp(10));
            let _ = may_leave_out(procedure, &progress);
        }
    }
}

/// A key, for what it can make.
fn identity() -> Option<Identity> {
    let folder = tempfile::tempdir().ok()?;
    Identity::open_or_create(folder.path(), "hvhost01", Timestamp(1_700_000_000_000)).ok()
}

pub(super) fn tokens() -> Vec<Vec<u8>> {
    let addresses = ["192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
    let (lifetime, now) = (Duration::from_secs(60), Timestamp(1_700_000_000_000));
    let invite = |identity: Identity| {
        Invite::create(&MemoryTrust::new(), &identity, &addresses, 7460, lifetime, now).ok()
    };
    identity().and_then(invite).map(|invite| invite.token.into_bytes()).into_iter().collect()
}

pub(super) fn token(input: &[u8]) {
    drop(InviteToken::parse(&String::from_utf8_lossy(input)));
}

pub(super) fn certificates() -> Vec<Vec<u8>> {
    identity().map(|identity| identity.certificate_der()).into_iter().collect()
}

/// What a host sends to whoever invited it.
pub(super) fn joins() -> Vec<Vec<u8>> {
    let whole = serde_json::json!({
        "secret": "ab".repeat(16), "host": Uuid::from_u128(3), "name": "hvhost02", "address": "192.0.2.2", "port": 7460,
    });
    let mut short = whole.clone();
    short["address"] = serde_json::Value::Null;
    vec![json(&whole), json(&short)]
}

/// What is kept of a stranger is short and can be printed, whatever it says.
pub(super) fn join(input: &[u8]) {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 7460));
    if let Ok((peer, _)) = transport::pairing::read_join(input, b"", from) {
        assert!(!peer.name.is_empty() && !peer.name.chars().any(char::is_control), "{:?}", peer.name);
        assert!(
            peer.name.chars().count() <= 64 && peer.address.len() <= transport::invite::ADDRESS_BYTES_MAX,
            "{peer:?}"
        );
    }
}

/// Read in the handshake, before anybody is trusted.
pub(super) fn certificate(input: &[u8]) {
    let _ = transport::expires(input);
}
