//! The daemon: puts the parts together and runs them. What is *not* here: decisions.

mod allocator;
mod audit;
mod changes;
mod choices;
mod comparing;
mod config;
mod door;
mod failovers;
mod handovers;
mod host;
mod lists;
mod lookup;
mod operations;
mod peers;
mod points;
mod problems;
mod protecting;
mod service;
mod showing;
mod start_guard;
mod test_failovers;
mod thaw;
mod views;
mod visitors;
mod vms;
mod wrapping;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use config::Config;
use domain::HostId;
use engine::Engine;
use layer::Storage;
use libvirt::Libvirt;
use store::Store;
use tokio::net::UnixListener;
use transport::{Identity, Introduction, PeerServer, ServerOptions};
use uuid::Uuid;

/// Replicates libvirt VMs to another host, and takes replicas of others.
#[derive(Parser)]
#[command(name = "virtreplicad", version)]
struct Arguments {
    /// Configuration file; a missing file means the defaults.
    #[arg(long, default_value = "/etc/virt-replica/virtreplicad.toml")]
    config: PathBuf,
    /// Checks the configuration file and ends.
    #[arg(long)]
    check_config: bool,
    /// Is the watchdog over a VM whose file systems are frozen.
    #[arg(long, hide = true, value_name = "VM")]
    thaw_when_orphaned: Option<Uuid>,
    /// Is the process that asks PAM about one account.
    #[arg(long, hide = true)]
    ask_about_account: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(vm) = arguments.thaw_when_orphaned {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("threads")?;
        return runtime.block_on(thaw::when_orphaned(vm.into()));
    }
    if arguments.ask_about_account {
        return accounts::answer().context("the account cannot be asked about");
    }
    let config = Config::read(&arguments.config)?;
    if arguments.check_config {
        println!("{} is fine", arguments.config.display());
        return Ok(());
    }
    allocator::prepare();
    start_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("threads")?;
    runtime.block_on(run(config))
}

/// To the journal under systemd, else to standard error.
fn start_logging() {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = tracing_subscriber::EnvFilter::try_from_env("VIRT_REPLICA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match tracing_journald::layer() {
        Ok(journal) if std::env::var_os("JOURNAL_STREAM").is_some() => registry.with(journal).init(),
        _ => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
            .init(),
    }
}

async fn run(config: Config) -> Result<()> {
    prepare_directories(&config)?;
    let store = Store::open(&config.state.join("state.db"))?;
    let host = store.host_identity(HostId(Uuid::new_v4()))?;
    let now = engine::clock::now();
    let identity = Arc::new(Identity::open_or_create(&config.state, &config.host_name, now)?);
    let trust = Arc::new(engine::Trust(store.clone()));
    let hook = start_guard::install(Path::new(start_guard::HOOK), &config)?;
    let parts = engine::Config {
        host_name: config.host_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        storage: config.storage.clone(),
        scratch: config.scratch.clone(),
        sockets: config.run.join("nbd"),
        hook,
        spool_bytes_max: config.spool_max_mib << 20,
        reports: config.state.join("test-failovers"),
        evidence: config.state.join("evidence"),
        resynchronizations_max: config.resynchronizations_max,
        redirect_hooks: PathBuf::from("/etc/virt-replica/redirect.d"),
        program: std::env::current_exe().context("the path of this program")?,
        holds: std::env::var_os("VIRT_REPLICA_HOLDS").map(PathBuf::from),
    };
    let program = parts.program.clone();
    let door = door::open(&config, program, store.clone()).map_err(anyhow::Error::from_boxed)?;
    let hypervisor = Arc::new(Libvirt::new("qemu:///system"));
    let engine = Engine::new(parts, host, store, hypervisor, trust.clone(), identity.clone());
    engine.restore_limit(config.rate_limit_mib_per_second.map(|mib| mib << 20))?;

    let own =
        Introduction { host, name: config.host_name.clone(), address: None, port: config.listen.port() };
    engine.end_orphans().await;
    // Before anybody asks, this host knows what it holds.
    engine.start()?;
    let handler = Arc::new(engine.clone());
    let server = PeerServer::bind(
        config.listen,
        identity.clone(),
        trust.clone(),
        handler,
        ServerOptions::new(own.clone()),
    )
    .await?;

    let socket = config.control_socket();
    let _ = std::fs::remove_file(&socket);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("the control socket {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660))?;
    tokio::spawn(mind_certificates(engine.clone()));
    let service = service::Daemon {
        changes: changes::Changes::of(&engine),
        showing: showing::Turns::default(),
        door: door.clone(),
        engine: engine.clone(),
        identity,
        trust,
        own,
        advertise: config.advertise(),
        listen: config.listen,
    };
    engine.show_peers(Arc::new(service.clone()));
    let service: Arc<dyn api::Service> = Arc::new(service);
    let serving = tokio::spawn(api::serve(listener, service.clone()));
    let console = door.and_then(|door| door::Serving::begin(&config, door, service));
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    tracing::info!(host = config.host_name, listen = %server.local_address(), "virtreplicad is ready");

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        ended = serving => { ended??; }
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    if let Some(console) = console {
        console.stop().await;
    }
    server.stop().await;
    Ok(())
}

async fn mind_certificates(engine: Engine) {
    loop {
        if let Err(error) = engine.mind_certificates(engine::clock::now()).await {
            tracing::warn!(%error, "certificates could not be looked after");
        }
        tokio::time::sleep(engine::CERTIFICATE_LOOK).await;
    }
}

fn prepare_directories(config: &Config) -> Result<()> {
    let sockets = config.run.join("nbd");
    for directory in [&config.state, &config.run, &config.storage, &config.scratch, &sockets] {
        std::fs::create_dir_all(directory).with_context(|| format!("directory {}", directory.display()))?;
    }
    // QEMU makes its sockets here as its own user, and libvirt its scratch files.
    for directory in [&sockets, &config.scratch] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o1777))?;
    }
    // Storage that lost its marker is an unmounted file system: it is refused, not made anew. Another path is new storage.
    let (declared, storage) = (config.state.join("storage-declared"), config.storage.display().to_string());
    if !std::fs::read_to_string(&declared).is_ok_and(|known| known == storage) {
        Storage::initialise(&config.storage)?;
        std::fs::write(&declared, storage)?;
    }
    Ok(())
}
