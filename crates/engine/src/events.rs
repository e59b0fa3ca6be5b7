//! What is told to people: events with the numbers of `docs/events.md`.

use store::{Event, EventSeverity};

use crate::{Engine, clock};

/// The catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // docs/events.md words each
pub(crate) enum Number {
    Enabled = 1001,
    InitialReplicationCompleted = 1002,
    Removed = 1003,
    CycleFailed = 1101,
    Recovered = 1102,
    ResynchronizationRequired = 1103,
    Paused = 1201,
    Resumed = 1202,
    PointMade = 1301,
    PointRemoved = 1302,
    NotConsistent = 1303,
    ConsistentAgain = 1304,
    FoundFrozen = 1305,
    DiskAdded = 1501,
    DiskRemoved = 1502,
    NotFollowed = 1503,
    FailoverStarted = 2001,
    FailoverCompleted = 2002,
    FailoverUndone = 2003,
    Unprotected = 2004,
    Reversed = 2005,
    Forced = 2006,
    FailoverBegun = 2101,
    FailedOver = 2102,
    FailoverCancelled = 2103,
    FailoverSettled = 2104,
    SetAside = 2105,
    SteppedDown = 2106,
    EpochAdopted = 2107,
    Resynchronized = 1401,
    Verified = 1402,
    MismatchFound = 1403,
    NotVerified = 1404,
    Seeded = 1405,
    Exported = 1406,
    Imported = 1407,
    NotImported = 1408,
    TestBegun = 2201,
    TestPassed = 2202,
    TestFailed = 2203,
    TestEnded = 2204,
    CertificateExpires = 3001,
    CertificateReplaced = 3002,
    Interference = 4001,
    Weakened = 4002,
    CarriedOver = 4003,
    Settled = 4004,
}

impl Number {
    fn severity(self) -> EventSeverity {
        match self {
            Number::CycleFailed
            | Number::ResynchronizationRequired
            | Number::FailoverUndone
            | Number::Weakened
            | Number::Unprotected
            | Number::Forced
            | Number::FailoverBegun
            | Number::FailedOver
            | Number::SetAside
            | Number::TestFailed
            | Number::NotConsistent
            | Number::FoundFrozen
            | Number::NotVerified
            | Number::NotImported
            | Number::NotFollowed
            | Number::CertificateExpires => EventSeverity::Warning,
            Number::Interference | Number::MismatchFound => EventSeverity::Critical,
            _ => EventSeverity::Info,
        }
    }
}

impl Engine {
    /// Something happened to a VM.
    pub(crate) fn event(&self, number: Number, vm_name: &str, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(EVENT = number as u32, VM = vm_name, "{text}");
        self.keep_event(number, Some(vm_name.to_owned()), text);
    }

    /// Something happened to this host.
    pub(crate) fn host_event(&self, number: Number, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(EVENT = number as u32, "{text}");
        self.keep_event(number, None, text);
    }

    fn keep_event(&self, number: Number, vm_name: Option<String>, text: String) {
        let event = Event {
            sequence: 0,
            at: clock::now(),
            number: number as u32,
            severity: number.severity(),
            vm_name,
            text,
        };
        if let Err(error) = self.store().add_event(&event) {
            tracing::warn!(%error, "an event could not be kept");
        }
    }
}
