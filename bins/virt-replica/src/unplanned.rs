//! `failover`, `cancel-failover`, `complete-failover` and `diverged`: what is left to do when the other host is lost.

use api::dto::{CancelFailoverRequest, FailoverRequest};
use clap::{Args, Subcommand};

use crate::change::{Consent, Outcome, carry_out, finish};
use crate::exit::Exit;
use crate::follow;
use crate::parse;
use crate::render;
use crate::session::{Ending, Session};

/// `failover`
#[derive(Args)]
pub struct Failover {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// From this recovery point, by its id or its number in `point list` [default: latest]
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// Also when the other host does not answer with a clear "off", or the recovery point is doubted: you vouch for both
    #[arg(long)]
    force: bool,
    /// Make it final by itself after this time
    #[arg(long, value_name = "TIME", value_parser = parse::seconds, conflicts_with = "roll_back_after")]
    complete_after: Option<u64>,
    /// Take it back by itself after this time, unless it was made final before
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    roll_back_after: Option<u64>,
    /// Take it back by itself when the VM does not start, or its guest agent does not answer, within this time
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    roll_back_unless_boots: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

/// `cancel-failover`
#[derive(Args)]
pub struct CancelFailover {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Turn the VM off when it does not shut down in time
    #[arg(long)]
    turn_off: bool,
    /// How long the guest may take to shut down
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse::seconds)]
    shutdown_timeout: u64,
    #[command(flatten)]
    consent: Consent,
}

/// `complete-failover`
#[derive(Args)]
pub struct CompleteFailover {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    #[command(flatten)]
    consent: Consent,
}

/// Files of a file system that are shown unless all are asked for.
const FILES_SHOWN: usize = 20;

/// `diverged …`
#[derive(Subcommand)]
pub enum Diverged {
    /// What only this host has of a VM's disks since a failover
    List {
        /// The VM's name, its UUID, or the relationship's id
        vm: String,
        /// All of the guest's files, not only the first of each file system
        #[arg(long)]
        all_files: bool,
    },
    /// Delete what was set aside, for good
    Remove {
        /// The VM's name, its UUID, or the relationship's id
        vm: String,
        /// Which, by the id that `diverged list` shows
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Starts a VM from its replica; the other host is not needed.
pub async fn failover(session: &Session, args: Failover) -> Ending {
    let request = FailoverRequest {
        point: args.point,
        force: args.force,
        complete_after_seconds: args.complete_after,
        roll_back_after_seconds: args.roll_back_after,
        boots_within_seconds: args.roll_back_unless_boots,
    };
    let question = format!("Fail {} over to this host, and lose what is said above?", args.vm);
    let call = async |dry| session.client.failover(&args.vm, &request, dry).await;
    match carry_out(session, args.consent, &question, call).await? {
        Outcome::Done(operation) => follow::to_completion(session, operation).await,
        Outcome::Not(exit) => Ok(exit),
    }
}

/// Takes a failover back.
pub async fn cancel(session: &Session, args: CancelFailover) -> Ending {
    let request =
        CancelFailoverRequest { turn_off: args.turn_off, shutdown_timeout_seconds: args.shutdown_timeout };
    let question = format!("Take the failover of {} back?", args.vm);
    let call = async |dry| session.client.cancel_failover(&args.vm, &request, dry).await;
    match carry_out(session, args.consent, &question, call).await? {
        Outcome::Done(operation) => follow::to_completion(session, operation).await,
        Outcome::Not(exit) => Ok(exit),
    }
}

/// Makes a failover final.
pub async fn complete(session: &Session, args: CompleteFailover) -> Ending {
    let question = format!("Make the failover of {} final?", args.vm);
    let call = async |dry| session.client.complete_failover(&args.vm, dry).await;
    match carry_out(session, args.consent, &question, call).await? {
        Outcome::Done(operation) => follow::to_completion(session, operation).await,
        Outcome::Not(exit) => Ok(exit),
    }
}

/// Lists or removes what was set aside.
pub async fn diverged(session: &Session, verb: Diverged) -> Ending {
    match verb {
        Diverged::List { vm, all_files } => {
            let found = session.client.diverged(&vm).await?;
            let shown = if all_files { usize::MAX } else { FILES_SHOWN };
            session.show(&found, |screen, found| render::diverged(screen, found, shown));
            Ok(Exit::Ok)
        }
        Diverged::Remove { vm, id, consent } => {
            let call = async |dry| session.client.remove_diverged(&vm, &id, dry).await;
            let done = carry_out(session, consent, "Delete it for good?", call).await?;
            finish(session, done, render::done)
        }
    }
}
