//! The calls that the `virt` crate does not wrap: checkpoints, backup, events, CPU comparison.
//!
//! Sound because:
//! - every `virDomainPtr` and `virConnectPtr` comes from a live [`Domain`] or [`Connect`] that is borrowed for the call;
//! - every text is a `CString` that outlives the call;
//! - pointers that libvirt hands out are freed exactly once, with the function that its documentation names, before the
//!   function here returns;
//! - what an event callback points to is `'static`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;

/// Result in libvirt's own words.
pub(crate) type Raw<T> = Result<T, Error>;

fn done(result: c_int) -> Raw<()> {
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// `virDomainBackupBegin`, with a checkpoint at the same instant.
pub(crate) fn begin_backup(domain: &Domain, backup: &str, checkpoint: Option<&str>) -> Raw<()> {
    let backup = CString::new(backup)?;
    let checkpoint = checkpoint.map(CString::new).transpose()?;
    let checkpoint = checkpoint.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: see the module; a null checkpoint is allowed.
    done(unsafe { virt_sys::virDomainBackupBegin(domain.as_ptr(), backup.as_ptr(), checkpoint, 0) })
}

/// `virDomainBackupGetXMLDesc`.
pub(crate) fn backup_xml(domain: &Domain) -> Raw<String> {
    // SAFETY: see the module.
    let text = unsafe { virt_sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0) };
    // SAFETY: null, or a string that is ours.
    unsafe { take(text) }
}

/// `virDomainBlockCommit` of the files from `top` down into `base`, by their paths.
pub(crate) fn block_commit(domain: &Domain, disk: &str, base: &str, top: &str, flags: u32) -> Raw<()> {
    let (disk, base, top) = (CString::new(disk)?, CString::new(base)?, CString::new(top)?);
    let (disk, base, top) = (disk.as_ptr(), base.as_ptr(), top.as_ptr());
    // SAFETY: see the module.
    done(unsafe { virt_sys::virDomainBlockCommit(domain.as_ptr(), disk, base, top, 0, flags) })
}

/// `virDomainGetBlockJobInfo`: how far the job of a disk is, and how far it goes; none when there is no job.
pub(crate) fn block_job(domain: &Domain, disk: &str) -> Raw<Option<(u64, u64)>> {
    let disk = CString::new(disk)?;
    // SAFETY: a structure of plain numbers, for which all zeroes is a value.
    let mut info: virt_sys::virDomainBlockJobInfo = unsafe { std::mem::zeroed() };
    // SAFETY: see the module; `info` lives on this stack frame.
    match unsafe { virt_sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &mut info, 0) } {
        0 => Ok(None),
        found if found > 0 => Ok(Some((info.cur, info.end))),
        _ => Err(Error::last_error()),
    }
}

/// `virDomainBlockJobAbort`.
pub(crate) fn abort_block_job(domain: &Domain, disk: &str, flags: u32) -> Raw<()> {
    let disk = CString::new(disk)?;
    // SAFETY: see the module.
    done(unsafe { virt_sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) })
}

/// `virDomainAbortJob`.
pub(crate) fn abort_job(domain: &Domain) -> Raw<()> {
    // SAFETY: see the module.
    done(unsafe { virt_sys::virDomainAbortJob(domain.as_ptr()) })
}

/// Takes a string that libvirt allocated with malloc.
///
/// # Safety
/// `text` is null or such a string, and nobody else frees it.
unsafe fn take(text: *mut c_char) -> Raw<String> {
    if text.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: a string that ends with NUL, by the caller's promise; it is copied before it is freed.
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: libvirt's documentation: "the caller must free() the returned value".
    unsafe { libc::free(text.cast()) };
    Ok(copy)
}

/// One checkpoint; its reference is released when it is dropped.
pub(crate) struct Checkpoint(virt_sys::virDomainCheckpointPtr);

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null and holds one reference, which is ours.
        unsafe { virt_sys::virDomainCheckpointFree(self.0) };
    }
}

impl Checkpoint {
    /// `virDomainCheckpointCreateXML`.
    pub(crate) fn create(domain: &Domain, xml: &str, flags: u32) -> Raw<Checkpoint> {
        let xml = CString::new(xml)?;
        // SAFETY: see the module.
        Self::owned(unsafe { virt_sys::virDomainCheckpointCreateXML(domain.as_ptr(), xml.as_ptr(), flags) })
    }

    /// `virDomainCheckpointLookupByName`.
    pub(crate) fn find(domain: &Domain, name: &str) -> Raw<Checkpoint> {
        let name = CString::new(name)?;
        // SAFETY: see the module.
        Self::owned(unsafe { virt_sys::virDomainCheckpointLookupByName(domain.as_ptr(), name.as_ptr(), 0) })
    }

    /// `virDomainListAllCheckpoints`, parents before children.
    pub(crate) fn all(domain: &Domain) -> Raw<Vec<Checkpoint>> {
        let mut list: *mut virt_sys::virDomainCheckpointPtr = ptr::null_mut();
        let flags = virt_sys::VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL;
        // SAFETY: see the module; `list` lives on this stack frame.
        let count = unsafe { virt_sys::virDomainListAllCheckpoints(domain.as_ptr(), &mut list, flags) };
        done(count)?;
        // SAFETY: libvirt filled `count` entries (not negative: checked), each a reference that is ours from now on.
        let all = (0..count as usize).map(|index| Checkpoint(unsafe { *list.add(index) })).collect();
        // SAFETY: the array itself was allocated with malloc; its entries were copied.
        unsafe { libc::free(list.cast()) };
        Ok(all)
    }

    fn owned(pointer: virt_sys::virDomainCheckpointPtr) -> Raw<Checkpoint> {
        if pointer.is_null() { Err(Error::last_error()) } else { Ok(Checkpoint(pointer)) }
    }

    /// Name.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the pointer is live; the name belongs to it and is copied.
        unsafe {
            let name = virt_sys::virDomainCheckpointGetName(self.0);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    /// `virDomainCheckpointGetXMLDesc`, with what changed on each disk since; the VM must run.
    pub(crate) fn xml_with_sizes(&self) -> Raw<String> {
        let flags = virt_sys::VIR_DOMAIN_CHECKPOINT_XML_SIZE | virt_sys::VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN;
        // SAFETY: the pointer is live.
        let text = unsafe { virt_sys::virDomainCheckpointGetXMLDesc(self.0, flags) };
        // SAFETY: null, or a string that is ours.
        unsafe { take(text) }
    }

    /// `virDomainCheckpointDelete`.
    pub(crate) fn delete(&self, flags: u32) -> Raw<()> {
        // SAFETY: the pointer is live; deleting does not release our reference.
        done(unsafe { virt_sys::virDomainCheckpointDelete(self.0, flags) })
    }
}

/// The reason of the present state, as its number in libvirt's enumeration for that state; and that state.
pub(crate) fn state(domain: &Domain) -> Raw<(u32, i32)> {
    let (mut state, mut reason) = (0, 0);
    // SAFETY: see the module; both places live on this stack frame.
    done(unsafe { virt_sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) })?;
    Ok((state.unsigned_abs(), reason))
}

/// `virConnectCompareHypervisorCPU`: false when the CPU cannot be had for that machine.
pub(crate) fn cpu_fits(connect: &Connect, arch: &str, machine: &str, kind: &str, cpu: &str) -> Raw<bool> {
    let (arch, machine) = (CString::new(arch)?, CString::new(machine)?);
    let (kind, cpu) = (CString::new(kind)?, CString::new(cpu)?);
    let flags = virt_sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE;
    // SAFETY: see the module; a null emulator means the default one.
    let result = unsafe {
        virt_sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            arch.as_ptr(),
            machine.as_ptr(),
            kind.as_ptr(),
            cpu.as_ptr(),
            flags,
        )
    };
    done(result)?;
    Ok(result != virt_sys::VIR_CPU_COMPARE_INCOMPATIBLE)
}

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Of these kinds (`VIR_DOMAIN_EVENT_…`).
    Lifecycle(c_int),
    /// A device came or went, or the medium of a drive changed.
    Device,
    /// A job on a disk (`VIR_DOMAIN_BLOCK_JOB_TYPE_…`).
    BlockJob(c_int),
}

/// Who is told of events: the UUID of the VM and what happened.
pub(crate) type Listener = Box<dyn Fn(uuid::Uuid, Event) + Send + Sync>;

/// Registers for all events of all VMs; they end with the connection.
pub(crate) fn listen(connect: &Connect, listener: &'static Listener) -> Raw<()> {
    type Generic = unsafe extern "C" fn(virt_sys::virConnectPtr, virt_sys::virDomainPtr, *mut c_void);
    let register = |event: virt_sys::virDomainEventID, callback: Generic| {
        let opaque = ptr::from_ref(listener).cast_mut().cast::<c_void>();
        // SAFETY: `opaque` is `'static` and only ever read as what it is; the callback has the signature of its event.
        done(unsafe {
            virt_sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque,
                None,
            )
        })
    };
    // SAFETY: libvirt's own convention (VIR_DOMAIN_EVENT_CALLBACK): it calls the function with the signature that belongs to
    // the event under which it is registered, which is the one it is defined with below.
    let callbacks: [(virt_sys::virDomainEventID, Generic); 5] = unsafe {
        [
            (
                virt_sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                std::mem::transmute::<*const (), Generic>(on_lifecycle as *const ()),
            ),
            (
                virt_sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
                std::mem::transmute::<*const (), Generic>(on_device as *const ()),
            ),
            (
                virt_sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                std::mem::transmute::<*const (), Generic>(on_device as *const ()),
            ),
            (
                virt_sys::VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
                std::mem::transmute::<*const (), Generic>(on_disk_change as *const ()),
            ),
            (
                virt_sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
                std::mem::transmute::<*const (), Generic>(on_block_job as *const ()),
            ),
        ]
    };
    callbacks.into_iter().try_for_each(|(event, callback)| register(event, callback))
}

/// Tells the listener.
///
/// # Safety
/// `domain` is live during the call, and `opaque` is what `listen` registered.
unsafe fn tell(domain: virt_sys::virDomainPtr, event: Event, opaque: *mut c_void) {
    let mut id = [0 as c_uchar; 16];
    // SAFETY: the domain is live; libvirt writes VIR_UUID_BUFLEN = 16 bytes.
    if unsafe { virt_sys::virDomainGetUUID(domain, id.as_mut_ptr()) } == 0 {
        // SAFETY: `opaque` came from a `&'static Listener`.
        let listener = unsafe { &*opaque.cast_const().cast::<Listener>() };
        listener(uuid::Uuid::from_bytes(id), event);
    }
}

unsafe extern "C" fn on_lifecycle(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt keeps the domain during the callback; `opaque` as registered.
    unsafe { tell(domain, Event::Lifecycle(event), opaque) };
    0
}

unsafe extern "C" fn on_device(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt keeps the domain during the callback; `opaque` as registered.
    unsafe { tell(domain, Event::Device, opaque) };
}

unsafe extern "C" fn on_disk_change(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    _old: *const c_char,
    _new: *const c_char,
    _alias: *const c_char,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt keeps the domain during the callback; `opaque` as registered.
    unsafe { tell(domain, Event::Device, opaque) };
}

unsafe extern "C" fn on_block_job(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    _disk: *const c_char,
    kind: c_int,
    _status: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt keeps the domain during the callback; `opaque` as registered.
    unsafe { tell(domain, Event::BlockJob(kind), opaque) };
}
