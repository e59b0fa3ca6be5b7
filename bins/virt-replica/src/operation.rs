//! `operation`: handovers, running and past.

use api::dto::{CancelRequest, OperationState};
use api::report;
use clap::Subcommand;

use crate::change::{Consent, Outcome, carry_out};
use crate::exit::Exit;
use crate::session::{Ending, Session, print_text};
use crate::{follow, render};

/// The verbs of `operation`.
#[derive(Subcommand)]
pub enum Verb {
    /// All operations, the newest first
    List,
    /// One operation with its steps and its report
    Show {
        /// The operation's id
        id: String,
        /// As Markdown, for the runbook
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
    },
    /// Try again now, and follow it
    Resume {
        /// The operation's id
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Take back an operation that has not handed over yet
    Cancel {
        /// The operation's id
        id: String,
        /// Without the other host's word that it did not take over: you vouch for that
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs one of them.
pub async fn run(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::List => {
            let operations = session.client.operations().await?;
            session.show(&operations, |screen, operations| render::operations(screen, operations));
            Ok(Exit::Ok)
        }
        Verb::Show { id, markdown } => {
            let operation = session.client.operation(&id).await?;
            if markdown {
                print_text(&report::markdown(&operation, &session.screen.zone));
            } else {
                session.show(&operation, render::operation);
            }
            Ok(Exit::Ok)
        }
        Verb::Resume { id, consent } => {
            let call = async |dry| session.client.operation_resume(&id, dry).await;
            match carry_out(session, consent, "Try again now?", call).await? {
                Outcome::Done(operation) if operation.state.is_ended() => {
                    session.say("The operation has ended; nothing was left to do.");
                    session.show(&operation, render::ending);
                    Ok(Exit::Ok)
                }
                Outcome::Done(operation) => follow::to_completion(session, operation).await,
                Outcome::Not(exit) => Ok(exit),
            }
        }
        Verb::Cancel { id, force, consent } => cancel(session, &id, force, consent).await,
    }
}

async fn cancel(session: &Session, id: &str, force: bool, consent: Consent) -> Ending {
    let request = CancelRequest { force };
    let call = async |dry| session.client.operation_cancel(id, &request, dry).await;
    match carry_out(session, consent, "Take this operation back?", call).await? {
        // Behind the hand over, force does not take back: it finishes without the other host.
        Outcome::Done(operation)
            if matches!(operation.state, OperationState::Finishing | OperationState::Completed) =>
        {
            follow::to_completion(session, operation).await
        }
        Outcome::Done(operation) => follow::to_undone(session, operation).await,
        Outcome::Not(exit) => Ok(exit),
    }
}
