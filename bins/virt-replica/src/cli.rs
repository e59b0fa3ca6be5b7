//! The verbs, and which file carries each out.

use std::path::PathBuf;

use api::{Client, Problem, SOCKET_DEFAULT};
use clap::{Parser, Subcommand};

use crate::exit::{Exit, TABLE};
use crate::screen::Screen;
use crate::session::{Ending, Session};
use crate::{
    compare, console, failover, generate, host, observe, operation, peer, point, protect, render,
    test_failover, unplanned,
};

/// Replicates running virtual machines to a second libvirt host, hands them over with nothing lost, and brings them home.
#[derive(Parser)]
#[command(name = "virt-replica", version, arg_required_else_help = true, after_long_help = TABLE)]
pub struct Cli {
    /// Where the daemon listens [default: $VIRT_REPLICA_SOCKET, else /run/virt-replica/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// JSON on standard output (and problems as JSON on standard error)
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs, in the order in which an operator meets them.
#[derive(Subcommand)]
pub enum Verb {
    /// Trust between hosts
    #[command(subcommand)]
    Peer(peer::Verb),
    /// Protect a VM: replicate it to a peer
    Enable(protect::Enable),
    /// All relationships of this host
    List,
    /// View Replication Health of one VM
    Show(observe::Show),
    /// Wait until a VM is protected: synchronized, health Normal
    Wait(observe::Wait),
    /// Change the settings of a relationship
    Set(protect::Set),
    /// Hold replication of a VM
    Pause(protect::OneVm),
    /// Let replication of a VM go on
    Resume(protect::OneVm),
    /// Hand a VM over to its replica server, with nothing lost
    PlannedFailover(failover::PlannedFailover),
    /// Protect a VM again in the other direction, after a failover without reverse
    Reverse(failover::Reverse),
    /// Handovers, running and past
    #[command(subcommand)]
    Operation(operation::Verb),
    /// What happened
    Events(observe::Events),
    /// End the replication of a VM
    Remove(protect::Remove),
    /// This host
    #[command(subcommand)]
    Host(host::Verb),
    /// The console of this host, for browsers
    #[command(subcommand)]
    Console(console::Verb),
    /// Start a throw-away copy of a VM on its replica server, check it, and keep a report
    TestFailover(test_failover::TestFailover),
    /// End test failovers: nothing of them is left but their reports
    StopTestFailover(test_failover::Stop),
    /// Start a VM on its replica server, because its primary server is lost; what came after the recovery point is lost
    Failover(unplanned::Failover),
    /// Take a failover back: this host is the replica again
    CancelFailover(unplanned::CancelFailover),
    /// Make a failover final: its recovery points are merged while the VM runs
    CompleteFailover(unplanned::CompleteFailover),
    /// What only this host has of a VM's disks since a failover
    #[command(subcommand)]
    Diverged(unplanned::Diverged),
    /// Recovery points of a VM
    #[command(subcommand)]
    Point(point::Verb),
    /// Compare both sides now, and send what differs
    Resynchronize(compare::Resynchronize),
    /// Prove that the replica equals the VM's disks, while the VM runs
    Verify(compare::Verify),
    /// Take the first copies that were carried here in a directory
    Import(compare::Import),
    /// Put the raw disks of a VM that is off behind wrappers that can track changes; no data is copied
    WrapRawDisks(protect::OneVm),
    /// Put a VM that is off, and not replicated any more, back on its raw disks
    UnwrapRawDisks(protect::OneVm),
    /// Print the completion script of a shell
    Completion(generate::Completion),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(generate::Man),
}

/// Runs one verb and shows its problem, if it has one.
pub async fn run(cli: Cli) -> Exit {
    let session =
        Session { client: Client::new(socket(cli.socket)), screen: Screen::of_process(), json: cli.json };
    match dispatch(&session, cli.verb).await {
        Ok(exit) => exit,
        Err(problem) => {
            show(&session, &problem);
            problem.code.into()
        }
    }
}

async fn dispatch(session: &Session, verb: Verb) -> Ending {
    match verb {
        Verb::Peer(verb) => peer::run(session, verb).await,
        Verb::Enable(enable) => protect::enable(session, enable).await,
        Verb::List => observe::list(session).await,
        Verb::Show(show) => observe::show(session, show).await,
        Verb::Wait(wait) => observe::wait(session, wait).await,
        Verb::Set(set) => protect::set(session, set).await,
        Verb::Pause(vm) => protect::pause(session, vm).await,
        Verb::Resume(vm) => protect::resume(session, vm).await,
        Verb::PlannedFailover(failover) => failover::planned_failover(session, failover).await,
        Verb::Reverse(reverse) => failover::reverse(session, reverse).await,
        Verb::Operation(verb) => operation::run(session, verb).await,
        Verb::Events(events) => observe::events(session, events).await,
        Verb::Remove(remove) => protect::remove(session, remove).await,
        Verb::Host(verb) => host::run(session, verb).await,
        Verb::Console(verb) => console::run(session, verb).await,
        Verb::TestFailover(test) => test_failover::test_failover(session, test).await,
        Verb::StopTestFailover(stop) => test_failover::stop(session, stop).await,
        Verb::Failover(args) => unplanned::failover(session, args).await,
        Verb::CancelFailover(args) => unplanned::cancel(session, args).await,
        Verb::CompleteFailover(args) => unplanned::complete(session, args).await,
        Verb::Diverged(verb) => unplanned::diverged(session, verb).await,
        Verb::Point(verb) => point::run(session, verb).await,
        Verb::Resynchronize(args) => compare::resynchronize(session, args).await,
        Verb::Verify(args) => compare::verify(session, args).await,
        Verb::Import(args) => compare::import(session, args).await,
        Verb::WrapRawDisks(vm) => protect::wrap(session, vm).await,
        Verb::UnwrapRawDisks(vm) => protect::unwrap(session, vm).await,
        Verb::Completion(completion) => generate::completion(completion),
        Verb::Man(man) => generate::man(man),
    }
}

fn socket(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| {
            std::env::var_os("VIRT_REPLICA_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
        })
        .unwrap_or_else(|| PathBuf::from(SOCKET_DEFAULT))
}

fn show(session: &Session, problem: &Problem) {
    let json = session.json.then(|| serde_json::to_string_pretty(problem).ok()).flatten();
    eprintln!("{}", json.unwrap_or_else(|| render::problem(problem)));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_names_every_verb_and_every_option() {
        let manual = include_str!("../../../docs/cli.md");
        let mut missing = Vec::new();
        visit(&Cli::command(), "virt-replica", &mut |path, command| {
            if command.get_subcommands().next().is_none() && !manual.contains(path) {
                missing.push(path.to_owned());
            }
            for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
                if !manual.contains(&format!("--{option}")) {
                    missing.push(format!("{path} --{option}"));
                }
            }
        });
        assert!(missing.is_empty(), "docs/cli.md does not name {missing:?}");
    }

    fn visit(command: &clap::Command, path: &str, each: &mut impl FnMut(&str, &clap::Command)) {
        each(path, command);
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            visit(child, &format!("{path} {}", child.get_name()), each);
        }
    }
}
