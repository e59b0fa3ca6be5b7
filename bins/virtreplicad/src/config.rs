//! The configuration file. A key that is not known is an error: a typing mistake must not be a silent default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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
    /// Address and port of the console, or off.
    console: ConsoleAddress,
    /// The site's certificate for the console, with those that lead to its authority.
    console_certificate: Option<PathBuf>,
    /// Its key.
    console_key: Option<PathBuf>,
    /// Which groups of the system have which role in the console.
    pub(crate) roles: console::Roles,
}

/// Where the console is served.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
enum ConsoleAddress {
    Off,
    At(SocketAddr),
}

impl TryFrom<String> for ConsoleAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(ConsoleAddress::Off);
        }
        let address = text.parse().map(ConsoleAddress::At);
        address
            .map_err(|_| format!("{text:?} is neither ADDRESS:PORT, such as \"0.0.0.0:8444\", nor \"off\""))
    }
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
            console: ConsoleAddress::At(SocketAddr::from(([0, 0, 0, 0], 8444))),
            console_certificate: None,
            console_key: None,
            roles: console::Roles::default(),
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
        Self::of_text(&text).with_context(|| {
            let path = path.display();
            format!("the configuration {path} is not accepted; mend it, then: virtreplicad --check-config --config {path}")
        })
    }

    fn of_text(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        let halves = [&config.console_certificate, &config.console_key];
        let given = halves.iter().filter(|half| half.is_some()).count();
        ensure!(given != 1, "console_certificate and console_key belong together: give both, or neither");
        Ok(config)
    }

    /// Address and port of the console; none: it is turned off.
    pub(crate) fn console(&self) -> Option<SocketAddr> {
        match self.console {
            ConsoleAddress::Off => None,
            ConsoleAddress::At(address) => Some(address),
        }
    }

    /// The site's certificate and key for the console.
    pub(crate) fn console_certificate(&self) -> Option<(PathBuf, PathBuf)> {
        self.console_certificate.clone().zip(self.console_key.clone())
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

    #[test]
    fn the_console_is_on_at_an_address_or_off_and_a_certificate_has_its_key() {
        assert_eq!(read("").expect("a configuration").console().map(|it| it.port()), Some(8444));
        let at = read("console = \"127.0.0.1:9000\"").expect("a configuration");
        assert_eq!(at.console(), Some(SocketAddr::from(([127, 0, 0, 1], 9000))));
        assert_eq!(read("console = \"off\"").expect("a configuration").console(), None);
        for wrong in
            ["console = \"of\"", "console = 8444", "console_key = \"/k\"", "[roles]\nadmin = [\"wheel\"]"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let one_role = read("[roles]\nadministrator = [\"wheel\"]").expect("a configuration");
        assert_eq!(one_role.roles.administrator, ["wheel"]);
        assert_eq!(one_role.roles.viewer, console::Roles::default().viewer);
    }
}
