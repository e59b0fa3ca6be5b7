//! Exit codes: what a script learns without reading. Documented in `docs/cli.md` and the man page.

use api::Code;

/// How the command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done, or already done.
    Ok = 0,
    /// Tried and failed, or the operator said no.
    Failed = 1,
    /// The command itself is wrong.
    Usage = 2,
    /// A prerequisite does not hold; nothing was changed.
    Refused = 3,
    /// No such VM, peer or operation.
    NotFound = 4,
    /// Another operation is under way.
    Busy = 5,
    /// The daemon does not answer.
    Unreachable = 6,
    /// It rests in a state that a person must resolve; the command to do so was printed.
    NeedsOperator = 7,
}

/// Every code with its meaning, as the man page shows it.
pub const TABLE: &str = "Exit codes:
  0  done, or already done
  1  failed, or the question was answered with no
  2  the command itself is wrong
  3  refused: a prerequisite does not hold, nothing was changed
  4  no such VM, peer or operation
  5  busy: another operation is under way
  6  the daemon does not answer
  7  in doubt: a person must decide, the next command was printed";

impl From<Code> for Exit {
    fn from(code: Code) -> Exit {
        match code {
            Code::Invalid | Code::TooLarge => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::Refused | Code::Stale => Exit::Refused,
            Code::Busy | Code::TooMany => Exit::Busy,
            Code::NeedsOperator => Exit::NeedsOperator,
            Code::Unreachable => Exit::Unreachable,
            Code::NotSignedIn | Code::Forbidden | Code::PeerSilent | Code::Failed => Exit::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Refused,
            Exit::NotFound,
            Exit::Busy,
            Exit::Unreachable,
            Exit::NeedsOperator,
        ];
        let documented = include_str!("../../../docs/cli.md");
        for exit in all {
            assert!(TABLE.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
            assert!(documented.contains(&format!("\n| {} | ", exit as u8)), "{exit:?}");
        }
    }
}
