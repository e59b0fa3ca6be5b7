//! Ways back that chance takes: branches that are taken after a crash, a cut link, lost power or a change of mind, and at no other time.
//! Each is said in the daemon's log, by the field `recovery`, and counted by the simulation, whose seeds must have taken every one. *Not*
//! events, which tell a person what became of a VM; nor ways back that need an exact place to fail at: tests of their own go there.

/// A way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// Tracking was lost: both copies are compared.
    Resynchronization,
    /// A step that was cut is done again.
    StepAgain,
    /// A step is taken back.
    StepTakenBack,
    /// The other host promised to refuse a late hand over.
    Promised,
    /// The other host took its failover back: this one is primary again.
    AskedBack,
    /// What this host wrote as an old primary is set aside.
    SetAside,
}

impl Recovery {
    /// Every one.
    pub const ALL: [Recovery; 6] = [
        Recovery::Resynchronization,
        Recovery::StepAgain,
        Recovery::StepTakenBack,
        Recovery::Promised,
        Recovery::AskedBack,
        Recovery::SetAside,
    ];

    /// As the log has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Recovery::Resynchronization => "resynchronization",
            Recovery::StepAgain => "step again",
            Recovery::StepTakenBack => "step taken back",
            Recovery::Promised => "promised",
            Recovery::AskedBack => "asked back",
            Recovery::SetAside => "set aside",
        }
    }

    /// Says that it is taken.
    pub(crate) fn taken(self) {
        tracing::info!(recovery = self.name(), "a way back is taken");
    }
}
