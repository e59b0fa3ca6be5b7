//! The procedures as tables: step, place, what it does, how it is undone, and why it stands where it stands.

/// A procedure: one table, one verb of the command line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Procedure {
    /// Both hosts work together, and nothing is lost.
    #[default]
    PlannedFailover,
    /// The replica starts from a recovery point, alone; what came after the point is lost.
    Failover,
    /// A failover is taken back: this host is the replica again.
    CancelFailover,
    /// A failover is final: its recovery points are merged.
    CompleteFailover,
}

/// A step of a procedure; those of the planned failover come first, in order.
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
    /// One transaction on the survivor: role primary, epoch + 1, from a recovery point. No other host is asked.
    TakeOver,
    /// One transaction: this host is the replica again, in one more epoch.
    GiveBack,
    /// What the VM wrote meanwhile is kept apart from the replica's files.
    SetAside,
    /// One transaction: the other recovery points are given up.
    Settle,
    /// The layers below the running VM become one file.
    Merge,
}

/// Which host carries a step out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The host that is primary when the operation begins.
    OldPrimary,
    /// The host that is replica when the operation begins.
    NewPrimary,
    /// The host on which it was asked for; no other takes part.
    Here,
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

/// The failover that nobody planned: the other host may be gone, and what it wrote last with it.
#[rustfmt::skip]
pub const FAILOVER: [StepSpec; 6] = [
    row(Step::Check,    "check",     Place::Here, "prove that the point can be trusted and that the VM runs nowhere", Undo::Nothing, "refuse before touching anything"),
    row(Step::TakeOver, "take over", Place::Here, "one transaction: role primary, next epoch, from this point", Undo::PointOfNoReturn("authority is changed in one place; cancel-failover gives it back in one more epoch"), "authority before action"),
    row(Step::Start,    "start",     Place::Here, "tell the other host; then define and start the VM, tracked from its first write", Undo::ForwardOnly, "a host that can be told starts no stale copy; not one write escapes the reverse"),
    row(Step::Confirm,  "confirm",   Place::Here, "wait for the guest to answer",                              Undo::ForwardOnly, "started is not the same as works"),
    row(Step::Redirect, "redirect",  Place::Here, "run the hooks that send users here",                        Undo::ForwardOnly, "users must find it"),
    row(Step::Report,   "report",    Place::Here, "keep who, when, and what was lost",                         Undo::ForwardOnly, "the runbook's evidence"),
];

/// Taking a failover back.
#[rustfmt::skip]
pub const CANCEL_FAILOVER: [StepSpec; 6] = [
    row(Step::Check,    "check",     Place::Here, "prove that there is a failover to take back",               Undo::Nothing, "refuse before touching anything"),
    row(Step::ShutDown, "shut down", Place::Here, "shut the guest down, bounded",                              Undo::Nothing, "nothing in flight"),
    row(Step::GiveBack, "give back", Place::Here, "one transaction: role replica, next epoch",                 Undo::PointOfNoReturn("the other host may be primary again from here on"), "authority before action"),
    row(Step::SetAside, "set aside", Place::Here, "keep what the VM wrote here apart; show the replica again", Undo::ForwardOnly, "nothing is lost unasked"),
    row(Step::Redirect, "redirect",  Place::Here, "run the hooks that send users away from here",              Undo::ForwardOnly, "the VM is not here any more"),
    row(Step::Report,   "report",    Place::Here, "keep who and when",                                         Undo::ForwardOnly, "the runbook's evidence"),
];

/// Making a failover final.
#[rustfmt::skip]
pub const COMPLETE_FAILOVER: [StepSpec; 4] = [
    row(Step::Check,  "check",  Place::Here, "prove that the VM has started",                                  Undo::Nothing, "the other points are the way out until then"),
    row(Step::Settle, "settle", Place::Here, "one transaction: no other recovery point is offered any more",   Undo::PointOfNoReturn("a merged point cannot be brought back"), "decision before deed"),
    row(Step::Merge,  "merge",  Place::Here, "merge the layers below the VM while it runs",                    Undo::ForwardOnly, "space and speed"),
    row(Step::Report, "report", Place::Here, "keep who and when",                                              Undo::ForwardOnly, "the runbook's evidence"),
];

impl Procedure {
    /// Every procedure.
    pub const ALL: [Procedure; 4] = [
        Procedure::PlannedFailover,
        Procedure::Failover,
        Procedure::CancelFailover,
        Procedure::CompleteFailover,
    ];

    /// Its name in journal and documents; also its verb.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Procedure::PlannedFailover => "planned-failover",
            Procedure::Failover => "failover",
            Procedure::CancelFailover => "cancel-failover",
            Procedure::CompleteFailover => "complete-failover",
        }
    }

    /// Reads what [`Procedure::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Procedure> {
        Procedure::ALL.into_iter().find(|procedure| procedure.name() == name)
    }

    /// Its table.
    #[must_use]
    pub fn table(self) -> &'static [StepSpec] {
        match self {
            Procedure::PlannedFailover => &PLANNED_FAILOVER,
            Procedure::Failover => &FAILOVER,
            Procedure::CancelFailover => &CANCEL_FAILOVER,
            Procedure::CompleteFailover => &COMPLETE_FAILOVER,
        }
    }

    /// Its steps in order.
    pub fn steps(self) -> impl DoubleEndedIterator<Item = Step> + ExactSizeIterator {
        self.table().iter().map(|row| row.step)
    }

    /// Whether one host carries it out and no other is asked.
    #[must_use]
    pub fn is_solitary(self) -> bool {
        self != Procedure::PlannedFailover
    }
}

/// The row of a step of the planned failover.
///
/// # Panics
/// For a step of another procedure.
#[must_use]
pub fn spec(step: Step) -> &'static StepSpec {
    &PLANNED_FAILOVER[step as usize]
}

impl Step {
    /// The steps that no procedure comes back from; each belongs to one of them.
    pub const POINTS_OF_NO_RETURN: [Step; 4] = [Step::HandOver, Step::TakeOver, Step::GiveBack, Step::Settle];

    /// Every step of the planned failover in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Step> {
        Procedure::PlannedFailover.steps()
    }

    /// The step's name in CLI, journal and documents: the same in every procedure that has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let rows = Procedure::ALL.iter().flat_map(|procedure| procedure.table());
        rows.into_iter().find(|row| row.step == self).map_or("", |row| row.name)
    }

    /// Reads what [`Step::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Step> {
        let mut rows = Procedure::ALL.iter().flat_map(|procedure| procedure.table());
        rows.find(|row| row.name == name).map(|row| row.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_has_one_row_without_a_way_back_and_only_forward_behind_it() {
        for procedure in Procedure::ALL {
            let rows = procedure.table();
            let turn = rows.iter().position(|row| matches!(row.undo, Undo::PointOfNoReturn(_)));
            let turn = turn.expect("a point of no return");
            assert!(Step::POINTS_OF_NO_RETURN.contains(&rows[turn].step), "{procedure:?}");
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(row.undo == Undo::ForwardOnly, index > turn, "{procedure:?}: {}", row.name);
                assert_eq!((Step::from_name(row.name), row.step.name()), (Some(row.step), row.name));
                assert_eq!(row.place == Place::Here, procedure.is_solitary(), "{procedure:?}: {}", row.name);
            }
            assert_eq!(Procedure::from_name(procedure.name()), Some(procedure));
        }
    }

    #[test]
    fn the_planned_failover_is_in_the_order_of_its_steps() {
        for (index, row) in PLANNED_FAILOVER.iter().enumerate() {
            assert_eq!(row.step as usize, index);
        }
    }
}
