//! What one host keeps, and what it answers to the other: `engine`'s listener without its files.

use choreography::authority::{Asked, Authority, HandOverVerdict, Open};
use choreography::{Entry, Mark, Operation, Step, fold};
use domain::{Epoch, HostId, OperationId, Phase, Role, Timestamp};
use uuid::Uuid;

use crate::{Replication, Sabotage};

/// All clocks stand still.
pub(crate) const NOW: Timestamp = Timestamp(0);

/// What a store keeps across everything but its own loss, and the VM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    /// Without the open operation, which follows from the journals.
    pub authority: Authority,
    /// Operations that this host knows, oldest first.
    pub journals: Vec<(Operation, Vec<Entry>)>,
    /// Those in which it took over.
    pub taken: Vec<OperationId>,
    /// Those that it promised to refuse.
    pub promised: Vec<OperationId>,
    /// Whether the VM runs here.
    pub runs: bool,
    /// The relationship was ended here, by a command for this host alone: nothing but the last epoch and role are kept.
    pub ended: bool,
    /// The VM here was a stale copy when that ended: the guard refuses it for good.
    pub kept_off: bool,
    /// It has no power: it does nothing, and answers nothing.
    pub dark: bool,
    /// Whether the other host was heard since the power came back.
    pub confirmed: bool,
    /// Writes that the disk, or the newest recovery point, holds: one bit each.
    pub disk: u8,
    /// Those of the recovery point that the VM was failed over from.
    pub point: u8,
    /// Those in files over the recovery points, of a failover that was taken back.
    pub over: u8,
    /// Those that are kept apart.
    pub aside: u8,
}

/// What one host asks the other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Request {
    /// An operation begins.
    Announce(u8),
    /// Take over: content of the final point.
    HandOver(u8, u8),
    /// Promise to refuse a late hand over.
    Abandon(u8),
    /// How far is it there?
    News(u8),
    /// A recovery point of this epoch with this content.
    Delta(u64, u8),
    /// What do you believe? Role and epoch of who asks.
    Beliefs(bool, u64),
    /// Become my replica in this epoch; the second: only say whether you would.
    Reverse(u64, bool),
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done, or would be.
    Done,
    /// It is not, and nothing was changed.
    Refused,
    /// The journal of the operation there.
    Journal(Vec<Entry>),
    /// Role, epoch, whether the VM runs there, and whether that is the last word of an ended relationship.
    Beliefs(bool, Epoch, bool, bool),
    /// The promise; true: too late, it took over.
    Promise(bool),
}

pub(crate) fn host_id(index: usize) -> HostId {
    HostId(Uuid::from_u128(index as u128 + 1))
}

pub(crate) fn operation_id(number: u8) -> OperationId {
    OperationId(Uuid::from_u128(u128::from(number)))
}

impl Host {
    /// Which role it plays.
    #[must_use]
    pub fn role(&self) -> Role {
        self.authority.phase.role()
    }

    /// The operation that has not ended here, as (its place among the journals).
    pub(crate) fn open(&self) -> Option<usize> {
        self.journals.iter().position(|(operation, entries)| !self.has_ended(operation, entries))
    }

    /// This host's own end: the other's is not ours.
    fn has_ended(&self, operation: &Operation, entries: &[Entry]) -> bool {
        let own = self.own_id(operation);
        entries.iter().any(|entry| matches!(entry.mark, Mark::Ended(_)) && entry.host == own)
    }

    /// In the world of the model the first host's journals bear id 1 where it is the old primary of the operation, and so on.
    pub(crate) fn own_id(&self, operation: &Operation) -> HostId {
        let other = if operation.old_primary == host_id(0) { host_id(1) } else { host_id(0) };
        match operation.side {
            choreography::Side::OldPrimary => operation.old_primary,
            choreography::Side::NewPrimary => other,
        }
    }

    /// All that the rules look at.
    pub(crate) fn authority(&self) -> Authority {
        let open = self.open().map(|place| {
            let (operation, entries) = &self.journals[place];
            let (id, procedure) = (operation.id, operation.procedure);
            Open { id, procedure, took_effect: fold(entries).handed_over() }
        });
        Authority { open, ..self.authority.clone() }
    }

    pub(crate) fn become_of(&mut self, after: Authority) {
        if after.epoch > self.authority.epoch {
            self.confirmed = true;
        }
        self.authority = Authority { open: None, ..after };
    }

    pub(crate) fn asked(&self, id: OperationId) -> Asked {
        let given_up = |entry: &Entry| matches!(entry.mark, Mark::Cancel(_) | Mark::Ended(_));
        let journal = self.journals.iter().find(|(operation, _)| operation.id == id);
        let saw_it_end = journal.is_some_and(|(_, entries)| entries.iter().any(given_up));
        Asked { taken: self.taken.contains(&id), refused: self.promised.contains(&id) || saw_it_end }
    }

    pub(crate) fn journal(&mut self, id: OperationId) -> Option<&mut (Operation, Vec<Entry>)> {
        self.journals.iter_mut().find(|(operation, _)| operation.id == id)
    }

    /// Adds a line, unless the same is there.
    pub(crate) fn write(&mut self, id: OperationId, by: HostId, mark: Mark) {
        let entry = Entry { at: NOW, host: by, mark };
        if let Some((_, entries)) = self.journal(id)
            && !entries.contains(&entry)
        {
            entries.push(entry);
        }
    }

    /// Keeps what the other host says of its part: facts, but neither its end nor a hand over that this host did not take.
    pub(crate) fn keep(&mut self, id: OperationId, theirs: &[Entry], takes_hand_over: bool) {
        let own =
            self.journal(id).map(|(operation, _)| operation.clone()).map(|operation| self.own_id(&operation));
        for entry in theirs.iter().filter(|entry| Some(entry.host) != own) {
            let is_end = matches!(entry.mark, Mark::Ended(_));
            let is_hand_over = matches!(entry.mark, Mark::Done(Step::HandOver, _));
            if !is_end && (takes_hand_over || !is_hand_over) {
                self.write(id, entry.host, entry.mark.clone());
            }
        }
    }

    /// Answers a request about an operation that the asker holds as `operation` with `entries`.
    pub(crate) fn answer(
        &mut self,
        model: &Replication,
        request: &Request,
        asker: Option<(&Operation, &[Entry])>,
    ) -> Answer {
        let is_primary = self.role() == Role::Primary;
        if self.ended {
            return match request {
                Request::Beliefs(..) if !model.is(Sabotage::NothingStays) => {
                    Answer::Beliefs(is_primary, self.authority.epoch, self.runs, true)
                }
                _ => Answer::Refused,
            };
        }
        match request {
            Request::Announce(_) => self.announced(asker),
            Request::HandOver(number, content) => self.handed_over(*number, *content, asker),
            Request::Abandon(number) => {
                let id = operation_id(*number);
                if self.taken.contains(&id) {
                    return Answer::Promise(true);
                }
                if !self.promised.contains(&id) {
                    self.promised.push(id);
                }
                if let Some((operation, _)) = self.journal(id) {
                    let operation = operation.clone();
                    let own = self.own_id(&operation);
                    self.write(id, own, Mark::Cancel("the primary took it back".into()));
                }
                Answer::Promise(false)
            }
            Request::News(number) => {
                let id = operation_id(*number);
                if let Some((_, entries)) = asker {
                    self.keep(id, entries, false);
                }
                let known = self.journals.iter().find(|(operation, _)| operation.id == id);
                Answer::Journal(known.map(|(_, entries)| entries.clone()).unwrap_or_default())
            }
            Request::Delta(epoch, content) => {
                let fits = self.authority.epoch.number() == *epoch;
                // A layer stands on the newest one: one that comes late stands on none.
                let stands = self.disk & !content == 0;
                let follows = stands || self.authority.diverged || model.is(Sabotage::AnyOrder);
                if !fits || !follows || self.authority.phase != Phase::Receiving {
                    return Answer::Refused;
                }
                if !model.is(Sabotage::EarlyAcknowledgement) {
                    // In the same breath.
                    if std::mem::take(&mut self.authority.diverged) {
                        self.set_aside(model, self.disk & !content);
                    }
                    self.disk = *content;
                }
                Answer::Done
            }
            Request::Beliefs(they_are_primary, epoch) => {
                if *they_are_primary {
                    self.hear(model, true, *epoch);
                }
                Answer::Beliefs(self.role() == Role::Primary, self.authority.epoch, self.runs, false)
            }
            Request::Reverse(epoch, dry_run) => self.reversed(model, *epoch, *dry_run),
        }
    }

    pub(crate) fn hear(&mut self, model: &Replication, they_are_primary: bool, epoch: u64) {
        if model.is(Sabotage::EpochUnheeded) {
            return;
        }
        let Some(theirs) = Epoch::new(epoch) else { return };
        let before = self.authority();
        let standing = before.hear(they_are_primary, theirs);
        self.become_of(before.heed(standing));
    }

    pub(crate) fn set_aside(&mut self, model: &Replication, writes: u8) {
        if !model.is(Sabotage::NothingAside) {
            self.aside |= writes;
        }
    }

    /// The relationship ends here; a person wants all files gone that may go, on hosts of which none is the VM's home.
    pub(crate) fn end(&mut self, model: &Replication) {
        if self.authority().deletes_files(true, false).unwrap_or(model.is(Sabotage::RemoveDeletesAll)) {
            self.disk = 0;
        }
        self.ended = true;
    }

    fn announced(&mut self, asker: Option<(&Operation, &[Entry])>) -> Answer {
        let Some((theirs, entries)) = asker else { return Answer::Refused };
        let operation = Operation { side: choreography::Side::NewPrimary, ..theirs.clone() };
        let authority = self.authority();
        let fits = authority.phase == Phase::Receiving && authority.epoch.next() == operation.proposed_epoch;
        if self.journal(operation.id).is_some() {
            return Answer::Done;
        }
        if !fits || authority.begin(&operation, self.asked(operation.id)).is_err() {
            return Answer::Refused;
        }
        self.journals.push((operation, entries.to_vec()));
        Answer::Done
    }

    fn handed_over(&mut self, number: u8, content: u8, asker: Option<(&Operation, &[Entry])>) -> Answer {
        let id = operation_id(number);
        let known =
            self.journals.iter().find(|(operation, _)| operation.id == id).map(|(operation, _)| operation);
        let told = asker.map(|(operation, _)| operation);
        let Some(operation) = known.or(told).cloned() else { return Answer::Refused };
        let operation = Operation { side: choreography::Side::NewPrimary, ..operation };
        if self.role() == Role::Replica && self.disk != content {
            return Answer::Refused;
        }
        let phase = Phase::Unprotected { since: NOW };
        match self.authority().hand_over(&operation, self.asked(id), phase) {
            Ok((HandOverVerdict::Taken, after)) => {
                self.become_of(after);
                self.taken.push(id);
                if self.journal(id).is_none() {
                    self.journals.push((operation.clone(), Vec::new()));
                }
                if let Some((_, entries)) = asker {
                    self.keep(id, entries, false);
                }
                let own = self.own_id(&operation);
                self.write(id, own, Mark::Done(Step::HandOver, "primary".into()));
                let entries = self.journal(id).map(|(_, entries)| entries.clone()).unwrap_or_default();
                Answer::Journal(entries)
            }
            Ok((HandOverVerdict::AlreadyTaken, _)) => {
                Answer::Journal(self.journal(id).map(|(_, entries)| entries.clone()).unwrap_or_default())
            }
            _ => Answer::Refused,
        }
    }

    fn reversed(&mut self, model: &Replication, epoch: u64, dry_run: bool) -> Answer {
        let Some(theirs) = Epoch::new(epoch) else { return Answer::Refused };
        let authority = self.authority();
        if authority.phase == Phase::Receiving && authority.epoch == theirs {
            return Answer::Done;
        }
        if self.role() == Role::Primary && theirs > authority.epoch {
            self.hear(model, true, epoch);
            let Ok(after) = self.authority().step_down(theirs) else { return Answer::Refused };
            if self.runs {
                return Answer::Refused;
            }
            if !dry_run {
                self.become_of(after);
            }
            return Answer::Done;
        }
        if !matches!(authority.phase, Phase::Stopped { .. }) || authority.epoch != theirs {
            return Answer::Refused;
        }
        if !dry_run && let Ok(after) = authority.go_to(Phase::Receiving) {
            self.become_of(after);
        }
        Answer::Done
    }
}
