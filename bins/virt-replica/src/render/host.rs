//! `host show` and `peer`.

use api::dto::{HostView, Invitation, Peer};
use api::units;

use super::table::{Cell, labelled, table};
use crate::screen::{Screen, printable};

/// Digits of a fingerprint in a table: enough to tell peers apart; `--json` has all.
const FINGERPRINT_DIGITS: usize = 16;

/// The page of `host show`.
pub fn host(screen: &Screen, host: &HostView) -> String {
    let unknown = || "unknown".to_owned();
    let limit = host.rate_limit_bytes_per_second;
    let lines = [
        ("Host", printable(&host.name)),
        ("Version", printable(&host.version)),
        ("Hypervisor", host.hypervisor.as_deref().map_or_else(unknown, printable)),
        ("Listens on", printable(&host.listen)),
        ("Certificate", printable(&host.fingerprint)),
        (
            "Valid until",
            host.certificate_expires_at_ms.map_or_else(unknown, |at| units::instant(at, &screen.zone)),
        ),
        ("Storage", printable(&host.storage)),
        ("Free there", host.storage_free_bytes.map_or_else(unknown, units::size)),
        ("Rate limit", limit.map_or_else(|| "none".to_owned(), |bytes| format!("{}/s", units::size(bytes)))),
        ("Primary of", host.primaries.to_string()),
        ("Replica of", host.replicas.to_string()),
        ("Id", printable(&host.id)),
    ];
    labelled(screen, &lines)
}

/// The table of `peer list`.
pub fn peers(screen: &Screen, peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "No peers. On one host: virt-replica peer invite. On the other: virt-replica peer join TOKEN"
            .to_owned();
    }
    let rows = peers.iter().map(|peer| {
        let instant = |at: Option<u64>, otherwise: &str| {
            at.map_or_else(|| otherwise.to_owned(), |at| units::instant(at, &screen.zone))
        };
        [
            Cell::plain(&peer.name),
            Cell::plain(&peer.address),
            Cell::plain(instant(peer.last_seen_at_ms, "not yet")),
            Cell::plain(peer.relationships.to_string()),
            Cell::plain(instant(peer.certificate_expires_at_ms, "unknown")),
            Cell::plain(peer.fingerprint.chars().take(FINGERPRINT_DIGITS).collect::<String>()),
        ]
    });
    let head = ["PEER", "ADDRESS", "LAST SEEN", "RELATIONSHIPS", "CERTIFICATE UNTIL", "FINGERPRINT"];
    table(screen, head, rows.collect())
}

/// After `peer invite`.
pub fn invitation(screen: &Screen, invitation: &Invitation) -> String {
    format!(
        "On the other host, before {}:\n\n  virt-replica peer join {}\n\nThe token works once; whoever holds it can pair with {}.",
        units::instant(invitation.expires_at_ms, &screen.zone),
        api::shell_word(&printable(&invitation.token)),
        printable(&invitation.host)
    )
}

/// After `peer join`.
pub fn joined(_: &Screen, peer: &Peer) -> String {
    format!(
        "Paired with {} at {}.\nIts certificate: {}\nTo protect a VM: virt-replica enable VM --peer {}",
        printable(&peer.name),
        printable(&peer.address),
        printable(&peer.fingerprint),
        api::shell_word(&peer.name)
    )
}
