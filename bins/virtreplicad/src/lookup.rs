//! What a command names, found; and how the daemon shows it. Nothing here changes anything.

use api::dto;
use api::{Code, Problem};
use domain::{Compression, Frequency, OperationId, Role, Settings, Timestamp};
use engine::EnableRequest;
use store::{Peer, Record};
use transport::Fingerprint;

use crate::choices::{choose_disks, freeze_every};
use crate::operations;
use crate::problems::{failed, invalid, problem};
use crate::service::Daemon;

impl Daemon {
    pub(crate) fn find(&self, vm: &str) -> Result<Record, Problem> {
        self.engine.find(vm).map_err(problem)
    }

    /// A relationship that is about to be changed: not while an operation of it is open.
    pub(crate) fn find_idle(&self, vm: &str) -> Result<Record, Problem> {
        let record = self.find(vm)?;
        self.engine.must_be_idle(&record).map_err(problem)?;
        Ok(record)
    }

    pub(crate) fn peer(&self, named: &str) -> Result<Peer, Problem> {
        the_one_called(named, self.engine.store().peers().map_err(failed)?)
    }

    pub(crate) fn shown_peer(&self, peer: &Peer) -> dto::Peer {
        let records = self.engine.store().relationships().unwrap_or_default();
        dto::Peer {
            id: peer.host.to_string(),
            name: peer.name.clone(),
            address: format!("{}:{}", peer.address, peer.port),
            fingerprint: Fingerprint::of(&peer.certificate_der).to_string(),
            certificate_expires_at_ms: transport::expires(&peer.certificate_der).map(Timestamp::millis),
            last_seen_at_ms: self.engine.last_seen(peer.host).map(Timestamp::millis),
            relationships: records.iter().filter(|record| record.relationship.peer == peer.host).count()
                as u64,
        }
    }

    pub(crate) fn host_view(&self) -> Result<dto::HostView, Problem> {
        let engine = &self.engine;
        let records = engine.store().relationships().map_err(failed)?;
        let count = |role| records.iter().filter(|record| record.relationship.role() == role).count() as u64;
        Ok(dto::HostView {
            id: engine.host().to_string(),
            name: engine.config().host_name.clone(),
            version: engine.config().version.clone(),
            listen: self.listen.to_string(),
            fingerprint: self.identity.fingerprint().to_string(),
            certificate_expires_at_ms: self.identity.expires().map(Timestamp::millis),
            storage: engine.config().storage.display().to_string(),
            storage_free_bytes: layer::Storage::open(&engine.config().storage)
                .and_then(|it| it.free_bytes())
                .ok(),
            rate_limit_bytes_per_second: engine.limiter().bytes_per_second(),
            hypervisor: None,
            primaries: count(Role::Primary),
            replicas: count(Role::Replica),
        })
    }

    pub(crate) fn operation_view(&self, id: &str) -> Result<dto::OperationView, Problem> {
        let missing = || Problem::not_found("operation", id, "virt-replica operation list");
        let id: OperationId = id.parse().map_err(|_| missing())?;
        let found = self.engine.store().operation(id).map_err(failed)?;
        let (operation, entries) = found.ok_or_else(missing)?;
        Ok(operations::view(&self.engine, &operation, &entries))
    }

    pub(crate) async fn enable_request(
        &self,
        request: &dto::EnableRequest,
    ) -> Result<EnableRequest, Problem> {
        let vm = self.engine.vm_named(&request.vm).await.map_err(problem)?;
        let vm = vm.ok_or_else(|| Problem::not_found("VM", &request.vm, "virsh list --all"))?;
        let disks = choose_disks(vm.disks.iter().map(|disk| disk.target.clone()), &request.disks)?;
        let mut settings = Settings {
            compression: request.compression.map_or(Compression::Adaptive, Into::into),
            rate_limit_bytes_per_second: request.rate_limit_bytes_per_second,
            network_map: request.networks.clone(),
            ..Settings::of(disks)
        };
        if let Some(seconds) = request.frequency_seconds {
            settings.frequency = Frequency::from_seconds(seconds).map_err(invalid)?;
        }
        if let Some(text) = &request.recovery_points {
            settings.retention = text.parse().map_err(invalid)?;
        }
        if let Some(every) = request.application_consistent_every {
            settings.application_consistent_every = freeze_every(every)?;
        }
        let peer = self.peer(&request.peer)?.host;
        let (initial_at, seeds) = (request.initial_at_ms.map(Timestamp), request.seeds.clone());
        let export = request.export.as_ref().map(Into::into);
        Ok(EnableRequest { vm: vm.id, peer, settings, initial_at, seeds, export })
    }
}

/// The peer that is meant by a name or an id. Names are what the hosts call themselves, so two may have one: then only the id will do.
fn the_one_called(named: &str, peers: Vec<Peer>) -> Result<Peer, Problem> {
    let means = |peer: &Peer| peer.name == named || peer.host.to_string() == named;
    let mut meant = peers.into_iter().filter(means);
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let why =
                format!("{named:?} is the name of {} and of {}; nothing was changed", one.host, other.host);
            Err(Problem::new(Code::Invalid, "Two peers have this name", why)
                .with_cure("name it by its id; to tell them apart for good, set host_name in virtreplicad.toml of one of them"))
        }
        (None, _) => {
            let cure = "virt-replica peer list; to pair with it: virt-replica peer invite there, then virt-replica peer join here";
            Err(Problem::not_found("peer", named, cure))
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::HostId;

    use super::*;

    #[test]
    fn of_two_peers_with_one_name_neither_is_meant_by_it() {
        let peer = |number, name: &str| Peer {
            host: HostId(uuid::Uuid::from_u128(number)),
            name: name.to_owned(),
            address: "192.0.2.1".to_owned(),
            port: 1,
            certificate_der: Vec::new(),
            next_certificate_der: None,
            paired_at: Timestamp(0),
        };
        let peers = || vec![peer(1, "one"), peer(2, "two"), peer(3, "two")];
        let found = |named: &str| the_one_called(named, peers()).map(|peer| peer.host.0.as_u128());
        assert_eq!(found("one"), Ok(1));
        assert_eq!(found(&peer(3, "").host.to_string()), Ok(3));
        assert_eq!(found("two").map_err(|problem| problem.code), Err(Code::Invalid));
        assert_eq!(found("three").map_err(|problem| problem.code), Err(Code::NotFound));
    }
}
