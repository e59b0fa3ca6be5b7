//! `console`: who uses the console of this host.

use api::Role;
use api::dto::{ConsoleLinkRequest, EndSessionsRequest};
use clap::Subcommand;

use crate::change::{Consent, carry_out, finish};
use crate::exit::Exit;
use crate::render;
use crate::session::{Ending, Session};

/// The verbs of `console`.
#[derive(Subcommand)]
pub enum Verb {
    /// Print a link that opens the console once, within ten minutes, without a password
    Link {
        /// What the visitor may do: viewer, operator or administrator
        #[arg(long, value_name = "ROLE", default_value = "administrator", value_parser = role)]
        role: Role,
        /// The visitor's name in the audit [default: root's guest]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Who is signed in
    Sessions,
    /// Which groups of the system have which role
    Roles,
    /// Sign everybody out, or one person
    EndSessions {
        /// Only this person
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs one of them.
pub async fn run(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::Link { role, user, consent } => {
            let request = ConsoleLinkRequest { role, user };
            let call = async |dry| session.client.console_link(&request, dry).await;
            finish(session, carry_out(session, consent, "Make a link?", call).await?, render::console_link)
        }
        Verb::Sessions => {
            let sessions = session.client.console_sessions().await?;
            session.show(&sessions, |screen, sessions| render::console_sessions(screen, sessions));
            Ok(Exit::Ok)
        }
        Verb::Roles => {
            let roles = session.client.console_roles().await?;
            session.show(&roles, |screen, roles| render::console_roles(screen, roles));
            Ok(Exit::Ok)
        }
        Verb::EndSessions { user, consent } => {
            let request = EndSessionsRequest { user };
            let call = async |dry| session.client.console_end_sessions(&request, dry).await;
            finish(session, carry_out(session, consent, "Sign out?", call).await?, render::done)
        }
    }
}

fn role(text: &str) -> Result<Role, String> {
    let roles = [Role::Viewer, Role::Operator, Role::Administrator];
    let found = roles.into_iter().find(|role| role.words() == text);
    found.ok_or_else(|| "a role is viewer, operator or administrator".to_owned())
}
