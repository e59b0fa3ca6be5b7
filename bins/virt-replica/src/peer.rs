//! `peer`: which hosts this one trusts.

use api::dto::{InviteRequest, JoinRequest};
use api::{Code, Problem};
use clap::Subcommand;

use crate::change::{Consent, carry_out, finish};
use crate::exit::Exit;
use crate::session::{Ending, Session};
use crate::{parse, render};

/// The verbs of `peer`.
#[derive(Subcommand)]
pub enum Verb {
    /// Print a one-time token that another host joins with
    Invite {
        /// How long the token can be used, for example 30m
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse::seconds)]
        valid: u64,
        #[command(flatten)]
        consent: Consent,
    },
    /// Pair with the host that made the token
    Join {
        /// What `peer invite` printed on the other host; - reads it from standard input
        token: String,
        /// Where to reach the other host, when not at the address in the token
        #[arg(long, value_name = "HOST[:PORT]")]
        address: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// All peers
    List,
    /// Connect to a peer and check everything that replication needs
    Test {
        /// The peer's name or id
        peer: String,
    },
    /// No longer trust a peer
    Remove {
        /// The peer's name or id
        peer: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a new certificate for this host and announce it to every peer
    Rotate {
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs one of them.
pub async fn run(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::Invite { valid, consent } => invite(session, valid, consent).await,
        Verb::Join { token, address, consent } => join(session, token, address, consent).await,
        Verb::List => {
            session.show(&session.client.peers().await?, |screen, peers| render::peers(screen, peers));
            Ok(Exit::Ok)
        }
        Verb::Test { peer } => {
            let checks = session.client.peer_test(&peer).await?;
            session.show(&checks, |screen, checks| render::checks(screen, checks));
            Ok(if checks.iter().all(|check| check.ok) { Exit::Ok } else { Exit::Refused })
        }
        Verb::Remove { peer, consent } => {
            let question = format!("No longer trust {peer}?");
            let call = async |dry| session.client.peer_remove(&peer, dry).await;
            finish(session, carry_out(session, consent, &question, call).await?, render::done)
        }
        Verb::Rotate { consent } => {
            let call = async |dry| session.client.peer_rotate(dry).await;
            finish(session, carry_out(session, consent, "Make a new certificate?", call).await?, render::done)
        }
    }
}

async fn invite(session: &Session, valid_seconds: u64, consent: Consent) -> Ending {
    let request = InviteRequest { valid_seconds };
    let call = async |dry| session.client.peer_invite(&request, dry).await;
    finish(session, carry_out(session, consent, "Make a token?", call).await?, render::invitation)
}

async fn join(session: &Session, token: String, address: Option<String>, consent: Consent) -> Ending {
    let token = if token == "-" { token_from_input()? } else { token };
    let request = JoinRequest { token, address };
    let call = async |dry| session.client.peer_join(&request, dry).await;
    finish(session, carry_out(session, consent, "Pair with this host?", call).await?, render::joined)
}

fn token_from_input() -> Result<String, Problem> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    match read {
        Ok(_) if !line.trim().is_empty() => Ok(line.trim().to_owned()),
        _ => Err(Problem::new(Code::Invalid, "No token", "standard input holds no token")
            .with_cure("virt-replica peer invite   (on the other host)")),
    }
}
