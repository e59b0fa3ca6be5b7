//! The JSON forms. Times are milliseconds since 1970-01-01 UTC (`…_ms` for instants ends in `_at_ms`), sizes are bytes,
//! and what is not known is `null`: no zero stands for "don't know".

mod audit;
mod console;
mod cycle;
mod event;
mod failover;
mod host;
mod live;
mod operation;
mod page;
mod peer;
mod plan;
mod point;
mod relationship;
mod settings;
mod test_failover;
mod vm;

pub use audit::{AuditRecord, AuditResult};
pub use console::{ConsoleLink, ConsoleLinkRequest, ConsoleRole, ConsoleSession, EndSessionsRequest};
pub use cycle::{CycleOutcome, CycleView};
pub use event::{Event, EventQuery, Severity};
pub use failover::{
    CancelFailoverRequest, DivergedDisk, DivergedFile, DivergedFileSystem, DivergedView, FailoverRequest,
};
pub use host::{HostChange, HostView};
pub use live::{Changed, What};
pub use operation::{
    CancelRequest, OperationQuery, OperationState, OperationView, PlannedFailoverRequest, Report, StepState,
    StepView, Transfer,
};
pub use page::{LIMIT_MAX, Page, Paged};
pub use peer::{Invitation, InviteRequest, JoinRequest, Peer};
pub use plan::{Answer, Check, Done, Importing, Plan};
pub use point::{ChainView, CreatePointRequest, PointList, PointMade, PointView, consistency};
pub use relationship::{
    CarriedCopy, ComparisonView, DiskView, Health, InitialCopy, Mode, Reason, RecoveryPointView,
    RelationshipDetail, RelationshipSummary, StartWord, Statistics,
};
pub use settings::{
    Compression, DiskSelection, Drills, EnableRequest, FreezeEvery, ImportRequest, NewDisks, RateLimit,
    RemoveRequest, ReplicaFate, ReverseRequest, SettingsChange, Thresholds, ThresholdsChange,
};
pub use test_failover::{Finding, TestFailoverRequest, TestFailoverState, TestFailoverView};
pub use vm::{VmDisk, VmState, VmView};
