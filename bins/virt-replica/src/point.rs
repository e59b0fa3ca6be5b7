//! `point`: the recovery points of a VM, listed, made on demand, removed by name.

use api::dto::CreatePointRequest;
use clap::Subcommand;

use crate::change::{Consent, carry_out, finish};
use crate::exit::Exit;
use crate::render;
use crate::session::{Ending, Session};

/// `point`
#[derive(Subcommand)]
pub enum Verb {
    /// The recovery points of a VM, oldest first
    List {
        /// The VM's name, its UUID, or the relationship's id
        vm: String,
    },
    /// Make a recovery point now, which stays until it is removed; on the primary server
    Create {
        /// The VM's name, its UUID, or the relationship's id
        vm: String,
        /// What to call it [default: on demand]
        #[arg(long, value_name = "TEXT")]
        tag: Option<String>,
        /// Freeze the guest's file systems for it, by the guest agent
        #[arg(long)]
        application_consistent: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove a recovery point
    Remove {
        /// The VM's name, its UUID, or the relationship's id
        vm: String,
        /// The point's number or id, as `point list` shows them
        point: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Lists, makes or removes.
pub async fn run(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::List { vm } => {
            let points = session.client.points(&vm).await?;
            session.show(&points, render::points);
            Ok(Exit::Ok)
        }
        Verb::Create { vm, tag, application_consistent, consent } => {
            let request = CreatePointRequest { tag, application_consistent };
            let question = format!("Make a recovery point of {vm}?");
            let call = async |dry| session.client.create_point(&vm, &request, dry).await;
            finish(session, carry_out(session, consent, &question, call).await?, render::point_made)
        }
        Verb::Remove { vm, point, consent } => {
            let question = format!("Remove recovery point {point} of {vm}?");
            let call = async |dry| session.client.remove_point(&vm, &point, dry).await;
            finish(session, carry_out(session, consent, &question, call).await?, render::done)
        }
    }
}
