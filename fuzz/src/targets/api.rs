//! What programs and browsers send to the API, and what a peer shows of itself.

use api::dto;

use super::json;

pub(super) fn bodies() -> Vec<Vec<u8>> {
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
pub(super) fn body(input: &[u8]) {
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
    read::<dto::ConsoleLinkRequest>(input);
    read::<dto::EndSessionsRequest>(input);
}

pub(super) fn sign_ins() -> Vec<Vec<u8>> {
    vec![
        br#"{"user":"alice","password":"right horse battery"}"#.to_vec(),
        br#"{"token":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#.to_vec(),
    ]
}

/// What anybody may send to the console's door.
pub(super) fn sign_in(input: &[u8]) {
    drop(console::Credentials::read(input));
}

pub(super) fn views() -> Vec<Vec<u8>> {
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
pub(super) fn shown(input: &[u8]) {
    drop(serde_json::from_slice::<dto::Paged<dto::HostView>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::VmView>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::RelationshipSummary>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::OperationView>>>(input));
    drop(serde_json::from_slice::<dto::Paged<Vec<dto::Event>>>(input));
}
