//! The planned failover as a table: step, place, what it does, how it is undone, and why it stands where it stands.

/// A step of the planned failover, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Every prerequisite by name.
    Check,
    /// The intent is journaled on both sides; other operations wait.
    Announce,
    /// Cycles while the guest runs, until the rest is small.
    PreSync,
    /// Graceful shut-down of the guest.
    ShutDown,
    /// The primary's phase becomes Yielding.
    Lock,
    /// The last delta; digests of both sides are compared.
    FinalSync,
    /// One transaction on the replica: role primary, epoch + 1. The point of no return.
    HandOver,
    /// The old primary becomes the replica.
    Demote,
    /// The VM is defined on the new primary and started unless that was not asked for, tracked from its first write.
    Start,
    /// Directions swap.
    Reverse,
    /// The guest answers.
    Confirm,
    /// Hooks that send the users to the new place.
    Redirect,
    /// Who, when, times, bytes, digests.
    Report,
}

/// Which host carries a step out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The host that is primary when the operation begins.
    OldPrimary,
    /// The host that is replica when the operation begins.
    NewPrimary,
}

/// What takes a step back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undo {
    /// The step changed nothing that must be taken back.
    Nothing,
    /// What is done.
    By(&'static str),
    /// After this step there is only forward.
    PointOfNoReturn(&'static str),
    /// The step lies behind the point of no return: it is retried until it succeeds.
    ForwardOnly,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct StepSpec {
    /// Which step.
    pub step: Step,
    /// Its name in CLI, journal and documents.
    pub name: &'static str,
    /// Who carries it out.
    pub place: Place,
    /// What it does.
    pub does: &'static str,
    /// How it is taken back.
    pub undo: Undo,
    /// Why it stands here.
    pub why: &'static str,
}

const fn row(
    step: Step,
    name: &'static str,
    place: Place,
    does: &'static str,
    undo: Undo,
    why: &'static str,
) -> StepSpec {
    StepSpec { step, name, place, does, undo, why }
}

/// The planned failover.
#[rustfmt::skip]
pub const PLANNED_FAILOVER: [StepSpec; 13] = [
    row(Step::Check,     "check",      Place::OldPrimary, "prove every prerequisite on both hosts",               Undo::Nothing,                           "refuse before touching anything"),
    row(Step::Announce,  "announce",   Place::OldPrimary, "journal the intent on both hosts",                     Undo::By("clear the intent"),            "one attempt, one id"),
    row(Step::PreSync,   "pre-sync",   Place::OldPrimary, "run cycles until the rest is small",                   Undo::Nothing,                           "short downtime"),
    row(Step::ShutDown,  "shut down",  Place::OldPrimary, "shut the guest down, bounded, never destroy it",       Undo::By("start the VM again"),          "nothing in flight"),
    row(Step::Lock,      "lock",       Place::OldPrimary, "refuse every start of the VM here",                    Undo::By("unlock"),                      "no write may follow"),
    row(Step::FinalSync, "final sync", Place::OldPrimary, "send the last changes and compare both digests",       Undo::Nothing,                           "zero loss is measured"),
    row(Step::HandOver,  "hand over",  Place::NewPrimary, "one transaction: role primary, next epoch",            Undo::PointOfNoReturn("two writes could leave both hosts or neither"), "authority before action"),
    row(Step::Demote,    "demote",     Place::OldPrimary, "become the replica; the VM cannot start here",         Undo::ForwardOnly,                       "may lag: the epoch refuses this side already"),
    row(Step::Start,     "start",      Place::NewPrimary, "define and start the VM, tracked from its first write", Undo::ForwardOnly,                       "not one write escapes the reverse"),
    row(Step::Reverse,   "reverse",    Place::NewPrimary, "swap directions; the final point is the common base",  Undo::ForwardOnly,                       "protected again at once"),
    row(Step::Confirm,   "confirm",    Place::NewPrimary, "wait for the guest to answer",                         Undo::ForwardOnly,                       "started is not the same as works"),
    row(Step::Redirect,  "redirect",   Place::NewPrimary, "run the hooks that send users here",                   Undo::ForwardOnly,                       "users must find it"),
    row(Step::Report,    "report",     Place::NewPrimary, "keep who, when, times, bytes and digests on both hosts", Undo::ForwardOnly,                     "the runbook's evidence"),
];

/// The row of a step.
#[must_use]
pub fn spec(step: Step) -> &'static StepSpec {
    &PLANNED_FAILOVER[step as usize]
}

impl Step {
    /// Every step in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Step> {
        PLANNED_FAILOVER.iter().map(|row| row.step)
    }

    /// The step's name in CLI, journal and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        spec(self).name
    }

    /// Reads what [`Step::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Step> {
        Step::all().find(|step| step.name() == name)
    }

    /// Whether the step lies behind the point of no return.
    #[must_use]
    pub fn is_forward_only(self) -> bool {
        self > Step::HandOver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_steps_and_only_one_row_has_no_way_back() {
        for (index, row) in PLANNED_FAILOVER.iter().enumerate() {
            assert_eq!(row.step as usize, index);
            assert_eq!(Step::from_name(row.name), Some(row.step));
            assert_eq!(row.undo == Undo::ForwardOnly, row.step.is_forward_only(), "{}", row.name);
        }
        let returns = PLANNED_FAILOVER.iter().filter(|row| matches!(row.undo, Undo::PointOfNoReturn(_)));
        assert_eq!(returns.count(), 1);
    }
}
