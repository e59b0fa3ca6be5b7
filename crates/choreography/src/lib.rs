//! The procedures as step tables, and the fold that tells from a journal what is done and what comes next.
//!
//! Pure. The daemon, the tests and any model run these same tables: [`table::Procedure::table`] says what each step does,
//! [`journal::fold`] reads a journal, [`next::next`] decides what is done, [`authority::Authority`] who may run the VM, [`other_host::OtherHost`] what the other host's
//! word means for that. What is *not* here: how a step is carried out (`engine`).

pub mod authority;
pub mod journal;
pub mod next;
pub mod operation;
pub mod other_host;
pub mod table;

pub use journal::{Entry, FORCED, Mark, Progress, StepState, fold};
pub use next::{Advice, Next, RestingState, advice, may_leave_out, next};
pub use operation::{Operation, Options, Outcome, Side};
pub use other_host::OtherHost;
pub use table::{Place, Procedure, Step, StepSpec, Undo, spec};
