//! `host`: this host.

use api::dto::{HostChange, RateLimit};
use api::{Code, Problem};
use clap::Subcommand;

use crate::change::{Consent, carry_out, finish};
use crate::exit::Exit;
use crate::session::{Ending, Session};
use crate::{parse, render};

/// A few screens.
const AUDIT_SHOWN: u32 = 100;

/// The verbs of `host`.
#[derive(Subcommand)]
pub enum Verb {
    /// Name, version, listener, storage, limits
    Show,
    /// Check everything that replication needs on this host
    Check,
    /// Who changed what, from where, and what came of it; the newest first
    Audit {
        /// At most so many records
        #[arg(long, value_name = "N", default_value_t = AUDIT_SHOWN)]
        limit: u32,
    },
    /// Change this host's settings
    Set {
        /// Upper limit of all replication traffic, for example 100MiB/s, or none
        #[arg(long, value_name = "SIZE/s", value_parser = parse::rate_limit)]
        rate_limit: Option<RateLimit>,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs one of them.
pub async fn run(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::Show => {
            session.show(&session.client.host().await?, render::host);
            Ok(Exit::Ok)
        }
        Verb::Check => {
            let checks = session.client.host_check().await?;
            session.show(&checks, |screen, checks| render::checks(screen, checks));
            Ok(if checks.iter().all(|check| check.ok) { Exit::Ok } else { Exit::Refused })
        }
        Verb::Audit { limit } => {
            let records = session.client.audit(limit).await?;
            session.show(&records, |screen, records| render::audit(screen, records));
            Ok(Exit::Ok)
        }
        Verb::Set { rate_limit, consent } => {
            let change = HostChange { rate_limit };
            if change == HostChange::default() {
                return Err(Problem::new(Code::Invalid, "Nothing to set", "no setting was given")
                    .with_cure("virt-replica host set --help"));
            }
            let call = async |dry| session.client.host_set(&change, dry).await;
            finish(
                session,
                carry_out(session, consent, "Change this host's settings?", call).await?,
                render::host,
            )
        }
    }
}
