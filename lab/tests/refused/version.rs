//! Hosts of another version of the protocol: the real transport with the real keys of the lab's hosts, told to speak others.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use domain::{HostId, Timestamp};
use futures_util::future::BoxFuture;
use lab::{HOSTS, Lab};
use tokio::runtime::Runtime;
use transport::{
    ClientOptions, DeltaBody, ErrorClass, Identity, Introduction, MemoryTrust, PeerClient, PeerHandler,
    PeerRecord, PeerServer, Refusal, ServerOptions, TrustStore,
};
use uuid::Uuid;

/// The port of every daemon in the lab.
const PORT: u16 = 8443;

/// Answers in the place of the second host's daemon, which must not run.
pub struct StandIn {
    _server: PeerServer,
    _runtime: Runtime,
}

/// Nobody gets as far as to ask it.
struct Mute;

impl PeerHandler for Mute {
    fn command(&self, _: PeerRecord, _: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async { Err(Refusal::new("mute", ErrorClass::Permanent, "a stand-in answers nothing")) })
    }

    fn delta(&self, peer: PeerRecord, _: DeltaBody) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        self.command(peer, Bytes::new())
    }
}

impl StandIn {
    /// Listens on the second host with its key, and trusts the first.
    pub fn speaking(lab: &Lab, versions: &str) -> StandIn {
        let (identity, trust) = (identity(lab, HOSTS[1]), Arc::new(MemoryTrust::new()));
        trust.add_peer(&record(lab, HOSTS[0])).unwrap();
        let name = HOSTS[1].to_owned();
        let own = Introduction { host: HostId(Uuid::new_v4()), name, address: None, port: PORT };
        let options = ServerOptions { versions: versions.parse().unwrap(), ..ServerOptions::new(own) };
        let runtime = Runtime::new().unwrap();
        let listening =
            PeerServer::bind(([0, 0, 0, 0], PORT).into(), identity, trust, Arc::new(Mute), options);
        let server = lab.host(HOSTS[1]).within(|| runtime.block_on(listening)).unwrap().unwrap();
        StandIn { _server: server, _runtime: runtime }
    }
}

/// What a first host of these versions is told by the second host's daemon.
pub fn ask_as(lab: &Lab, versions: &str) -> String {
    let (trust, peer) = (Arc::new(MemoryTrust::new()), record(lab, HOSTS[1]));
    trust.add_peer(&peer).unwrap();
    let options = ClientOptions { versions: versions.parse().unwrap(), ..ClientOptions::default() };
    let client = PeerClient::new(peer.host, identity(lab, HOSTS[0]), trust, options);
    let asked = client.command(Bytes::from_static(b"{}"), Duration::from_secs(10));
    let answer = lab.host(HOSTS[0]).within(|| Runtime::new().unwrap().block_on(asked)).unwrap();
    answer.expect_err("no version in common").to_string()
}

fn identity(lab: &Lab, host: &str) -> Arc<Identity> {
    let state = lab.host(host).path("/var/lib/virt-replica").unwrap();
    Arc::new(Identity::open_or_create(&state, host, now()).unwrap())
}

fn record(lab: &Lab, host: &str) -> PeerRecord {
    PeerRecord {
        host: HostId(Uuid::new_v4()),
        name: host.to_owned(),
        address: lab.host(host).address(),
        port: PORT,
        certificate_der: identity(lab, host).certificate_der(),
        next_certificate_der: None,
        paired_at: now(),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}
