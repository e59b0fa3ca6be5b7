//! The network of a copy: a bridge of its own to which nothing else is plugged, and which this host itself does not enter.
//!
//! ```text
//!   copy ── vr-test-1234567 ── vr-prob-1234567 ┄┄ probe         the right end only while it is probed, in a network
//!           (bridge, no address, no routes)       (namespace)   namespace of its own
//! ```
//! The copy has the addresses of the VM, which may be reachable from this host all the while: a probe from here would reach
//! the VM and praise the copy. So probes run in a namespace in which there is the copy alone. NOT libvirt's isolated network:
//! on that the host answers to every address that it has, and it takes a driver that not every host has.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use domain::TestId;
use hypervisor::GuestAddress;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Command;

use super::short;
use crate::{Code, Refusal, Result};

/// Where `ip` keeps named namespaces.
const NAMESPACES: &str = "/run/netns";
/// Settings of the kernel without which this host would take part in the bridge's network: it forwards nothing that comes from
/// there, answers for none of its own addresses, and makes no address by itself.
const DEAF: [(&str, &str, &str); 3] =
    [("ipv4", "rp_filter", "1"), ("ipv4", "arp_ignore", "8"), ("ipv6", "disable_ipv6", "1")];

/// The bridge of a test.
pub(super) fn name(id: TestId) -> String {
    format!("vr-test-{}", short(id))
}

fn plug(id: TestId) -> String {
    format!("vr-prob-{}", short(id))
}

/// Makes the bridge.
pub(super) async fn make(id: TestId) -> Result<()> {
    let bridge = name(id);
    if !exists(&bridge) {
        ip(&["link", "add", &bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"]).await?;
    }
    for (family, setting, value) in DEAF {
        let file = format!("/proc/sys/net/{family}/conf/{bridge}/{setting}");
        match std::fs::write(&file, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(|error| Refusal::failed(format!("{file} cannot be set: {error}")))?,
        }
    }
    ip(&["link", "set", &bridge, "up"]).await.map(drop)
}

/// Removes the bridge and whatever was used to probe; what is not there is gone already.
pub(super) async fn remove(id: TestId) -> Result<()> {
    unplug(id).await?;
    let bridge = name(id);
    if exists(&bridge) { ip(&["link", "delete", &bridge]).await.map(drop) } else { Ok(()) }
}

fn exists(device: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(device).exists()
}

/// A place beside the copy from which it can be reached, and only it.
pub(super) async fn plug_in(id: TestId, guest: GuestAddress) -> Result<()> {
    unplug(id).await?;
    let (bridge, plug) = (name(id), plug(id));
    let own = neighbour(guest)
        .ok_or_else(|| Refusal::failed("the guest's network has no room for another address"))?;
    let own = format!("{own}/{}", guest.prefix);
    ip(&["netns", "add", &bridge]).await?;
    ip(&["link", "add", &plug, "type", "veth", "peer", "name", "probe", "netns", &bridge]).await?;
    ip(&["link", "set", &plug, "master", &bridge, "up"]).await?;
    ip(&["-n", &bridge, "link", "set", "lo", "up"]).await?;
    ip(&["-n", &bridge, "address", "add", &own, "dev", "probe"]).await?;
    ip(&["-n", &bridge, "link", "set", "probe", "up"]).await.map(drop)
}

/// Takes that place away.
pub(super) async fn unplug(id: TestId) -> Result<()> {
    let (bridge, plug) = (name(id), plug(id));
    if exists(&plug) {
        ip(&["link", "delete", &plug]).await?;
    }
    if !std::path::Path::new(NAMESPACES).join(&bridge).exists() {
        return Ok(());
    }
    // A probe outlives a daemon that is killed. In this namespace there are probes of this test and nobody else.
    for pid in ip(&["netns", "pids", &bridge]).await?.split_whitespace() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // it may have ended by itself
        }
    }
    ip(&["netns", "delete", &bridge]).await.map(drop)
}

/// A shell script that runs beside the copy, or on this host when `isolated` is none. What is left of it when the time is over
/// is killed, also when nobody waits any more.
pub(super) fn script(isolated: Option<TestId>, script: &str, limit: Duration) -> Command {
    let seconds = format!("{}", limit.as_secs().max(1));
    let bounded = ["timeout", "--kill-after=1", &seconds, "sh", "-c", script];
    let namespace = isolated.map(name);
    let inside = namespace.as_deref().map(|name| ["ip", "netns", "exec", name]);
    let mut words = inside.iter().flatten().chain(&bounded);
    let mut command = Command::new(words.next().unwrap_or(&"false"));
    command.args(words);
    command
}

/// Whether a port of the guest takes a connection, from beside the copy, or from this host when `isolated` is none.
pub(super) async fn connects(
    isolated: Option<TestId>,
    to: SocketAddrV4,
    limit: Duration,
) -> std::io::Result<()> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A thread that has gone into another network does not come back: it ends with the answer.
    std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let connected =
            enter(isolated).and_then(|()| TcpStream::connect_timeout(&to.into(), limit).map(drop));
        let _ = answer.send(connected); // nobody waits any more
    })?;
    answered.await.unwrap_or_else(|_| Err(std::io::Error::other("the probe ended without an answer")))
}

fn enter(isolated: Option<TestId>) -> std::io::Result<()> {
    let Some(id) = isolated else { return Ok(()) };
    let namespace = std::fs::File::open(std::path::Path::new(NAMESPACES).join(name(id)))?;
    use std::os::fd::AsFd;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Another address of the guest's network.
fn neighbour(guest: GuestAddress) -> Option<Ipv4Addr> {
    let host_bits = 32_u32.checked_sub(u32::from(guest.prefix)).filter(|bits| *bits >= 2)?;
    let (address, size) = (u32::from(guest.address), 1_u64 << host_bits);
    let first = address & !u32::try_from(size - 1).ok()?;
    // The last ones but the broadcast: first ones are often gateways, which the guest may know under another hardware address.
    let candidates =
        (1..size - 1).rev().take(2).filter_map(|offset| first.checked_add(u32::try_from(offset).ok()?));
    candidates.map(Ipv4Addr::from).find(|candidate| *candidate != guest.address)
}

/// Runs `ip`; gives what it said.
async fn ip(words: &[&str]) -> Result<String> {
    let said = Command::new("ip").args(words).kill_on_drop(true).output().await;
    let said = said.map_err(|error| {
        let found = format!("the command ip cannot be run ({error}): it makes the network of the copy");
        Refusal::new(Code::Refused, found, "apt-get install iproute2")
    })?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => {
            let why = String::from_utf8_lossy(&said.stderr);
            Err(Refusal::failed(format!("ip {} failed: {}", words.join(" "), why.trim())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbour_is_another_host_of_the_same_network() {
        let of = |address: &str, prefix| {
            neighbour(GuestAddress { address: address.parse().unwrap(), prefix }).map(|it| it.to_string())
        };
        assert_eq!(of("10.77.0.50", 24).as_deref(), Some("10.77.0.254"));
        assert_eq!(of("10.77.0.254", 24).as_deref(), Some("10.77.0.253"));
        assert_eq!(of("192.168.3.129", 30).as_deref(), Some("192.168.3.130"));
        assert_eq!(of("10.0.0.1", 0).as_deref(), Some("255.255.255.254"));
        assert_eq!(of("10.0.0.1", 31), None);
        assert_eq!(of("10.0.0.1", 32), None);
    }
}
