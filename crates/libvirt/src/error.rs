//! libvirt's errors as ours.

use domain::VmId;
use hypervisor::HypervisorError;
use virt::error::{Error, ErrorNumber};

/// The error of a verb on a VM.
pub(crate) fn of_vm(verb: &'static str, id: VmId, error: &Error) -> HypervisorError {
    if is(error, ErrorNumber::NoDomain) { HypervisorError::NoSuchVm { id } } else { of_host(verb, error) }
}

/// The error of a verb that concerns no VM.
pub(crate) fn of_host(verb: &'static str, error: &Error) -> HypervisorError {
    let detail = error.message().to_owned();
    if is_broken_line(error) {
        return HypervisorError::Unreachable { detail };
    }
    if is(error, ErrorNumber::OperationTimeout) || is(error, ErrorNumber::BlockCopyActive) {
        return HypervisorError::Busy { detail };
    }
    HypervisorError::Failed { verb, detail }
}

/// True if the error is this one.
pub(crate) fn is(error: &Error, number: ErrorNumber) -> bool {
    error.code() == number.into()
}

/// True if the connection to libvirt ended under the call.
fn is_broken_line(error: &Error) -> bool {
    use virt::error::ErrorDomain;
    let line =
        [ErrorDomain::Rpc, ErrorDomain::Remote].iter().any(|domain| error.domain() == (*domain).into());
    let broken =
        [ErrorNumber::InternalError, ErrorNumber::SystemError, ErrorNumber::Rpc, ErrorNumber::NoConnect];
    line && broken.iter().any(|number| is(error, *number))
}
