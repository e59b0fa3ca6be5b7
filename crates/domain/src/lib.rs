//! The words of virt-replica: ids, roles and epochs, the state of a relationship, recovery points, health, checks.
//!
//! Pure: no I/O, no clock, no randomness; time and ids are arguments. What is *not* here: how these things are
//! stored (`store`), sent (`wire`) or shown (`api`); each of those owns its own serialised form.

pub mod attachment;
pub mod checks;
pub mod comparing;
pub mod divergence;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod health;
pub mod ids;
pub mod point;
pub mod relationship;
pub mod retention;
pub mod settings;
pub mod statistics;
pub mod time;
pub mod words;

pub use attachment::Attachment;
pub use checks::{Check, CheckName, GUARD_PROBE, Verdict};
pub use comparing::{Comparing, Resynchronize};
pub use divergence::Divergence;
pub use health::{Health, HealthReport, Notice, Reason};
pub use ids::{DiskTarget, Epoch, HostId, OperationId, PointId, RelationshipId, TestId, VmId};
pub use point::{Consistency, Doubt, Lineage, RecoveryPoint};
pub use relationship::{Phase, Relationship, Role, Settlement};
pub use retention::{Retention, Tier};
pub use settings::{Compression, DiskChoice, Frequency, NewDisks, Settings, Thresholds};
pub use statistics::{CycleOutcome, CycleRecord, Statistics};
pub use time::Timestamp;
pub use words::{counted, shell_word, vm_argument};
