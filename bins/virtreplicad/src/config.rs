//! The configuration file. A key that is not known is an error: a typing mistake must not be a silent default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// `/etc/virt-replica/virtreplicad.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// This host's name.
    pub(crate) host_name: String,
    /// Address and port of the replication listener.
    pub(crate) listen: SocketAddr,
    /// Addresses that an invite names; empty: the host name.
    advertise: Vec<String>,
    /// Where replicas are kept.
    pub(crate) storage: PathBuf,
    /// Scratch files of backup jobs, overflow of the spool.
    pub(crate) scratch: PathBuf,
    /// Database, key and certificate.
    pub(crate) state: PathBuf,
    /// Sockets.
    pub(crate) run: PathBuf,
    /// Most that one cycle spools to disk.
    pub(crate) spool_max_mib: u64,
    /// Whether a VM starts when this host came back from a crash and the peer cannot be asked who is primary.
    pub(crate) start_when_peer_silent: bool,
    /// Limit of all replication traffic.
    pub(crate) rate_limit_mib_per_second: Option<u64>,
    /// Most resynchronizations at a time.
    pub(crate) resynchronizations_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        let state = PathBuf::from("/var/lib/virt-replica");
        Config {
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            advertise: Vec::new(),
            storage: state.join("replicas"),
            scratch: state.join("scratch"),
            run: PathBuf::from("/run/virt-replica"),
            state,
            spool_max_mib: 4096,
            start_when_peer_silent: true,
            rate_limit_mib_per_second: None,
            resynchronizations_max: 2,
        }
    }
}

impl Config {
    /// Reads the file; without one the defaults hold.
    pub(crate) fn read(path: &Path) -> Result<Config> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(error).with_context(|| format!("the configuration {}", path.display())),
        };
        toml::from_str(&text).with_context(|| {
            let path = path.display();
            format!("the configuration {path} is not accepted; mend it, then: virtreplicad --check-config --config {path}")
        })
    }

    /// Where the command line and the start hook find the daemon.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Addresses that an invite names.
    pub(crate) fn advertise(&self) -> Vec<String> {
        if self.advertise.is_empty() { vec![self.host_name.clone()] } else { self.advertise.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("virtreplicad.toml");
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn a_key_that_is_not_known_is_named() {
        let error = format!("{:#}", read("storrage = \"/srv\"").expect_err("refused"));
        assert!(error.contains("storrage") && error.contains("--check-config"), "{error}");
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let config = read("listen = \"127.0.0.1:9\"").expect("a configuration");
        assert_eq!((config.listen.port(), config.spool_max_mib), (9, 4096));
        assert!(read("").is_ok());
    }
}
