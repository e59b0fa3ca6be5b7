//! `planned-failover` and `reverse`.

use api::dto::{OperationView, PlannedFailoverRequest, RelationshipDetail, ReverseRequest};
use api::{Code, Problem};
use clap::Args;

use crate::change::{Consent, Outcome, carry_out, finish};
use crate::exit::Exit;
use crate::follow;
use crate::parse;
use crate::protect::CompressionWord;
use crate::render;
use crate::session::{Ending, Session};

/// `planned-failover`
#[derive(Args)]
pub struct PlannedFailover {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Hand over to this host; nothing to do when the VM runs there already (makes a repeat in a script harmless)
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// Do not reverse the replication direction afterwards: the VM is unprotected until `reverse`
    #[arg(long)]
    no_reverse: bool,
    /// Do not start the VM on the new primary
    #[arg(long)]
    no_start: bool,
    /// How long the guest may take to shut down; it is never destroyed
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse::seconds)]
    shutdown_timeout: u64,
    #[command(flatten)]
    consent: Consent,
}

/// Hands a VM over and follows it to its end. The same command again joins a handover that is under way.
pub async fn planned_failover(session: &Session, args: PlannedFailover) -> Ending {
    let detail = session.client.relationship(&args.vm).await?;
    if let Some(open) = open_operation(session, &detail).await?.filter(|_| !args.consent.dry_run) {
        session.say(&format!("A {} of {} is under way already; following it.", open.kind, open.vm));
        return follow::to_completion(session, open).await;
    }
    if let Some(to) = &args.to {
        if *to == detail.summary.primary_server {
            session.show(&detail, |_, _| format!("{} runs on {to} already; nothing to do.", args.vm));
            return Ok(Exit::Ok);
        }
        if *to != detail.summary.replica_server {
            return Err(other_host(to, &detail));
        }
    }
    let request = PlannedFailoverRequest {
        reverse: !args.no_reverse,
        start: !args.no_start,
        shutdown_timeout_seconds: args.shutdown_timeout,
    };
    let question = format!(
        "Hand {} over from {} to {}?",
        args.vm, detail.summary.primary_server, detail.summary.replica_server
    );
    let call = async |dry| session.client.planned_failover(&args.vm, &request, dry).await;
    match carry_out(session, args.consent, &question, call).await? {
        Outcome::Done(operation) => follow::to_completion(session, operation).await,
        Outcome::Not(exit) => Ok(exit),
    }
}

/// The handover that is under way for this VM, if one is.
async fn open_operation(
    session: &Session,
    detail: &RelationshipDetail,
) -> Result<Option<OperationView>, Problem> {
    let Some(id) = &detail.summary.operation else { return Ok(None) };
    let operation = session.client.operation(id).await?;
    Ok((!operation.state.is_ended()).then_some(operation))
}

fn other_host(to: &str, detail: &RelationshipDetail) -> Problem {
    let summary = &detail.summary;
    let vm = api::vm_argument(&summary.vm);
    Problem::new(
        Code::Refused,
        "Refused",
        format!(
            "{} is replicated to {}, not to {to}; nothing was changed",
            summary.vm, summary.replica_server
        ),
    )
    .with_cure(format!(
        "virt-replica planned-failover --to {} {vm}",
        api::shell_word(&summary.replica_server)
    ))
}

/// `reverse`
#[derive(Args)]
pub struct Reverse {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// The new replica server [default: the old primary; another one is refused]
    #[arg(long, value_name = "HOST")]
    peer: Option<String>,
    /// Time between cycles [default: the original; another one is refused]
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    frequency: Option<u64>,
    /// Compression on the wire [default: the original; another one is refused]
    #[arg(long, value_name = "HOW")]
    compression: Option<CompressionWord>,
    #[command(flatten)]
    consent: Consent,
}

/// Protects a VM again, in the other direction.
pub async fn reverse(session: &Session, args: Reverse) -> Ending {
    let request = ReverseRequest {
        peer: args.peer,
        frequency_seconds: args.frequency,
        compression: args.compression.map(Into::into),
    };
    let question = format!("Reverse the replication of {}?", args.vm);
    let call = async |dry| session.client.reverse(&args.vm, &request, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::enabled)
}
