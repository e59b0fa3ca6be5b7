//! The console of this host: its parts put together, and kept up. What is *not* here: who may come in (`console`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use accounts::Accounts;
use api::Role;
use console::{
    Audit, BoxError, Certificate, Deed, Door, DoorOptions, Entry, Listener, Served, Session, SessionStore,
    Source, TokenHash, Vouched,
};
use store::{AuditResult, Audited, ConsoleSession, Store};
use tokio::sync::watch;

use crate::config::Config;

/// The argument with which this program asks PAM, in a process of its own.
pub(crate) const ASKING: &str = "--ask-about-account";
/// The word of the audit for coming in with a password.
const SIGN_IN: &str = "sign-in";
/// Pause between two looks at the certificate's files and its end.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);
/// Pause before a port that was not to be had is tried again: an address may come late when a host starts.
const BIND_AGAIN: Duration = Duration::from_secs(15);

/// The door of the console; none: it is turned off.
pub(crate) fn open(config: &Config, program: PathBuf, store: Store) -> Result<Option<Arc<Door>>, BoxError> {
    if config.console().is_none() {
        return Ok(None);
    }
    Door::open(DoorOptions {
        host_name: config.host_name.clone(),
        roles: config.roles.clone(),
        accounts: Accounts::new(program, ASKING),
        store: Arc::new(Kept(store.clone())),
        audit: Arc::new(Record(store)),
        clock: Arc::new(engine::clock::now),
        failure_takes: DoorOptions::FAILURE_TAKES,
    })
    .map(Some)
}

/// A console that is served, or that is tried to be.
pub(crate) struct Serving {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Begins in the background: replication never waits for the console, nor ends with it.
    pub(crate) fn begin(config: &Config, door: Arc<Door>, service: Arc<dyn api::Service>) -> Option<Serving> {
        let address = config.console()?;
        let source = source(config, address);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(keep_up(address, source, door, service, stopped));
        Some(Serving { stop, task })
    }

    /// Lets requests under way end.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// The site's certificate, or one that names this host as others know it.
fn source(config: &Config, address: SocketAddr) -> Source {
    if let Some((certificate, key)) = config.console_certificate() {
        return Source::Site { certificate, key };
    }
    let only = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
    let names = [config.host_name.clone()].into_iter().chain(config.advertise()).chain(only);
    let names = names.map(|name| without_port(&name));
    Source::Own { file: config.state.join("identity").join("console.pem"), names: names.collect() }
}

/// A name or an address that may be told with a port, without it.
pub(crate) fn without_port(name: &str) -> String {
    if let Ok(with_port) = name.parse::<SocketAddr>() {
        return with_port.ip().to_string();
    }
    let host = name.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(name, |(host, _)| host);
    host.to_owned()
}

async fn keep_up(
    address: SocketAddr,
    source: Source,
    door: Arc<Door>,
    service: Arc<dyn api::Service>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut told = String::new();
    while !*stopped.borrow() {
        let why = match listen(address, &source, &door, &service).await {
            Ok((listener, certificate)) => {
                tracing::info!(listen = %listener.local_address(), "the console is served");
                let (address, shown) = (listener.local_address(), certificate.clone());
                door.now_served(Ok(Served { address, certificate: shown }));
                mind(&certificate, &mut stopped).await;
                door.end_streams();
                return listener.stop().await;
            }
            Err(why) => shown(&*why),
        };
        if why != told {
            tracing::error!("the console is not served: {why}");
        }
        door.now_served(Err(why.clone()));
        told = why;
        let _ = tokio::time::timeout(BIND_AGAIN, stopped.wait_for(|stop| *stop)).await;
    }
}

async fn listen(
    address: SocketAddr,
    source: &Source,
    door: &Arc<Door>,
    service: &Arc<dyn api::Service>,
) -> Result<(Listener, Arc<Certificate>), BoxError> {
    let certificate = Arc::new(Certificate::open(source.clone(), engine::clock::now())?);
    let routes = console::routes(door.clone(), api::router(service.clone()));
    Ok((Listener::bind(address, certificate.clone(), routes).await?, certificate))
}

/// Until the daemon stops.
async fn mind(certificate: &Certificate, stopped: &mut watch::Receiver<bool>) {
    let mut told = String::new();
    while tokio::time::timeout(CERTIFICATE_LOOK, stopped.wait_for(|stop| *stop)).await.is_err() {
        let why = certificate.mind(engine::clock::now()).err().map(|error| shown(&error)).unwrap_or_default();
        if why != told && !why.is_empty() {
            tracing::warn!("the console shows the certificate of before: {why}");
        }
        told = why;
    }
}

/// An error with its causes.
fn shown(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Sessions in the state store.
struct Kept(Store);

impl SessionStore for Kept {
    fn sessions(&self) -> Result<Vec<Session>, BoxError> {
        let readable = self.0.console_sessions()?.into_iter().filter_map(|row| {
            let user = row.user.clone();
            let unreadable =
                |error: &BoxError| tracing::warn!(error, user, "a session of the console is not understood");
            session(row).inspect_err(unreadable).ok()
        });
        Ok(readable.collect())
    }

    fn keep_session(&self, session: &Session) -> Result<(), BoxError> {
        Ok(self.0.keep_console_session(&row(session))?)
    }

    fn forget_session(&self, hash: &TokenHash) -> Result<(), BoxError> {
        Ok(self.0.forget_console_session(hash)?)
    }
}

fn row(session: &Session) -> ConsoleSession {
    ConsoleSession {
        token_hash: session.hash,
        user: session.user.clone(),
        role: session.role.words().to_owned(),
        by_link: session.vouched == Vouched::Link,
        address: session.from.to_string(),
        begun: session.begun,
        used: session.used,
        role_seen: session.role_seen,
    }
}

fn session(row: ConsoleSession) -> Result<Session, BoxError> {
    let role =
        [Role::Viewer, Role::Operator, Role::Administrator].into_iter().find(|it| it.words() == row.role);
    Ok(Session {
        hash: row.token_hash,
        user: row.user,
        role: role.ok_or("a session of the console has an unknown role")?,
        vouched: if row.by_link { Vouched::Link } else { Vouched::Account },
        from: row.address.parse::<IpAddr>()?,
        begun: row.begun,
        used: row.used,
        role_seen: row.role_seen,
    })
}

/// Who came and went, in the audit and in the journal.
struct Record(Store);

impl Audit for Record {
    fn record(&self, entry: &Entry<'_>) {
        let Entry { who, from, deed } = entry;
        let (verb, role, result, why) = match deed {
            Deed::SignedIn(role) => (SIGN_IN, Some(*role), AuditResult::Accepted, ""),
            Deed::SignedInByLink(role) => ("sign-in-by-link", Some(*role), AuditResult::Accepted, ""),
            Deed::Refused(why) => (SIGN_IN, None, AuditResult::Refused, *why),
            Deed::Forged(why) => ("forged-request", None, AuditResult::Refused, *why),
            Deed::SignedOut => ("sign-out", None, AuditResult::Accepted, ""),
            Deed::PutOut(why) => ("session-ended", None, AuditResult::Accepted, *why),
        };
        let role = role.map(|role| role.words().to_owned());
        tracing::info!(who, %from, role, ?result, why, "{verb} at the console");
        if let Err(error) = self.keep(who, from, role, verb, result, why) {
            tracing::error!(%error, "what happened at the console is not in the audit");
        }
    }
}

impl Record {
    fn keep(
        &self,
        who: &str,
        from: &IpAddr,
        role: Option<String>,
        verb: &str,
        result: AuditResult,
        detail: &str,
    ) -> store::Result<()> {
        let sequence = self.0.audit(&Audited {
            sequence: 0,
            at: engine::clock::now(),
            who: who.to_owned(),
            from: Some(from.to_string()),
            role,
            verb: verb.to_owned(),
            target: None,
            with: String::new(),
            result: None,
            detail: String::new(),
        })?;
        self.0.audit_result(sequence, result, detail)
    }
}
