//! Exercises the verbs on a real VM: `probe VM-UUID SCRATCH-FOLDER SOCKET [URI [SECONDS]]`. The VM is shut down and started.
//! With SECONDS it only looks on.
//!
//! Needs a VM with a guest agent, defined and running; its checkpoints that begin with `vr-` are deleted.

use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hypervisor::{BackupRequest, CHECKPOINT_PREFIX, Hypervisor, HypervisorError, VmFacts, VmState};
use libvirt::Libvirt;

const GUEST_LIMIT: Duration = Duration::from_secs(90);
const AGENT_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [id, scratch, socket, ..] = words.as_slice() else {
        return Err("probe VM-UUID SCRATCH SOCKET [URI]".into());
    };
    let host = Libvirt::new(words.get(3).map_or(Libvirt::SYSTEM, String::as_str));
    let id = id.parse()?;
    let (tell, told) = mpsc::channel();
    host.watch(Box::new(move |happening| {
        let _ = tell.send(happening);
    }))?;

    if let Some(seconds) = words.get(4) {
        look_on(&host, id, &told, seconds.parse()?);
        return Ok(());
    }
    let facts = host.host_facts()?;
    println!(
        "{:?}",
        hypervisor::HostFacts { machines: facts.machines.first().cloned().into_iter().collect(), ..facts }
    );
    let vm = host.vm(id)?.ok_or("no such VM")?;
    println!("{:?}", VmFacts { definition: String::new(), ..vm.clone() });
    println!("cpu obstacle: {:?}", host.cpu_obstacle(&vm.definition)?);
    let disks: Vec<_> = vm.disks.iter().map(|disk| disk.target.clone()).collect();
    for disk in &vm.disks {
        println!("{:?}", host.image_size(&disk.source, &disk.format)?);
    }
    for name in ours(&host, id)? {
        host.delete_checkpoint(id, &name)?;
    }
    if !host.vm_state(id)?.ok_or("gone")?.is_active() {
        host.start(id, false)?;
    }
    wait(|| host.agent_answers(id, AGENT_DEADLINE))?;

    let request = |checkpoint: &str, since: Option<&str>| BackupRequest {
        checkpoint: Some(checkpoint.to_owned()),
        since: since.map(str::to_owned),
        disks: disks.clone(),
        whole: Vec::new(),
        scratch_dir: PathBuf::from(scratch),
        socket: PathBuf::from(socket),
    };
    timed("frozen full backup", || {
        println!("  froze {}", host.freeze(id, AGENT_DEADLINE)?);
        let begun = host.begin_backup(id, &request("vr-1", None));
        println!("  thawed {}", host.thaw(id, AGENT_DEADLINE)?);
        println!("  {:?}", begun?);
        host.end_backup(id)
    })?;
    assert!(host.open_backup(id)?.is_none(), "the job is gone");
    host.end_backup(id)?;
    let open = timed("incremental backup", || host.begin_backup(id, &request("vr-2", Some("vr-1"))))?;
    println!("  {open:?}");
    assert_eq!(format!("{:?}", host.open_backup(id)?), format!("{:?}", Some(&open)), "read back");
    let second = host.begin_backup(id, &request("vr-3", None));
    assert!(matches!(second, Err(HypervisorError::Busy { .. })), "{second:?}");
    println!("  delete while open: {:?}", host.delete_checkpoint(id, "vr-1"));
    timed("end", || host.end_backup(id))?;
    timed("delete oldest", || host.delete_checkpoint(id, "vr-1"))?;
    host.delete_checkpoint(id, "vr-1")?;
    assert_eq!(ours(&host, id)?, ["vr-2"]);
    let unusable = host.begin_backup(id, &request("vr-3", Some("vr-1")));
    assert!(matches!(unusable, Err(HypervisorError::CheckpointUnusable { .. })), "{unusable:?}");
    timed("cycle", || {
        host.begin_backup(id, &request("vr-3", Some("vr-2")))?;
        host.end_backup(id)?;
        host.delete_checkpoint(id, "vr-2")
    })?;

    timed("shut down by agent", || host.shut_down(id, true))?;
    wait(|| Ok(!host.vm_state(id)?.is_some_and(VmState::is_active)))?;
    println!("  {:?}", host.vm_state(id)?);
    assert!(!host.agent_answers(id, AGENT_DEADLINE)?);
    assert_eq!(ours(&host, id)?, ["vr-3"]);
    timed("checkpoint while off", || host.create_checkpoint_offline(id, "vr-4", &disks))?;
    host.create_checkpoint_offline(id, "vr-4", &disks)?;
    timed("delete while off", || host.delete_checkpoint(id, "vr-3"))?;
    assert_eq!(ours(&host, id)?, ["vr-4"]);
    timed("start paused", || host.start(id, true))?;
    host.start(id, true)?;
    assert_eq!(host.vm_state(id)?, Some(VmState::Paused));
    timed("checkpoint while paused", || host.create_checkpoint(id, "vr-5", &disks))?;
    timed("resume", || host.resume(id))?;
    host.resume(id)?;
    wait(|| host.agent_answers(id, AGENT_DEADLINE))?;
    timed("backup since the checkpoint made while off", || {
        host.begin_backup(id, &request("vr-6", Some("vr-4")))?;
        host.end_backup(id)
    })?;
    sabotage(&host, &vm, &request("vr-7", Some("vr-6")))?;
    for name in ours(&host, id)? {
        host.delete_checkpoint(id, &name)?;
    }
    timed("shut down by ACPI", || host.shut_down(id, false))?;
    wait(|| Ok(!host.vm_state(id)?.is_some_and(VmState::is_active)))?;
    println!("  {:?}", host.vm_state(id)?);
    let placement = hypervisor::Placement {
        vm: id,
        strangers: Vec::new(),
        disks: vm.disks.iter().map(|disk| (disk.target.clone(), disk.source.clone())).collect(),
        local_definition: Some(vm.definition.clone()),
        networks: Vec::new(),
        nvram: None,
    };
    let placed = host.place_definition(&vm.definition, &placement)?;
    host.define(&placed)?;
    let after = host.vm(id)?.ok_or("gone")?;
    println!(
        "redefined from a placed definition, same: {}",
        host.same_definition(&vm.definition, &after.definition)?
    );
    if !host.same_definition(&vm.definition, &after.definition)? {
        println!("before {}\nafter {}", vm.definition, after.definition);
    }
    timed("undefine", || host.undefine(id))?;
    host.undefine(id)?;
    assert!(host.vm(id)?.is_none());
    host.define(&vm.definition)?;
    println!("events: {:?}", told.try_iter().collect::<Vec<_>>());
    Ok(())
}

/// A bitmap that vanished while the VM was off, and a job of another program.
fn sabotage(host: &Libvirt, vm: &VmFacts, request: &BackupRequest) -> Result<(), Box<dyn Error>> {
    let since = request.since.as_deref().ok_or("an incremental request")?;
    host.shut_down(vm.id, false)?;
    wait(|| Ok(!host.vm_state(vm.id)?.is_some_and(VmState::is_active)))?;
    let disk = vm.disks[0].source.to_string_lossy().into_owned();
    run("qemu-img", &["bitmap", "--remove", &disk, since])?;
    host.start(vm.id, true)?;
    let unusable = host.begin_backup(vm.id, request);
    println!("bitmap gone: {unusable:?}");
    assert!(matches!(unusable, Err(HypervisorError::CheckpointUnusable { .. })));
    host.delete_checkpoint(vm.id, since)?;
    assert!(!ours(host, vm.id)?.iter().any(|name| name == since));

    let foreign = request.scratch_dir.join("foreign");
    let xml = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{0}.nbd'/><disks><disk name='{1}' backup='yes' type='file'>\
         <scratch file='{0}.scratch'/></disk></disks></domainbackup>",
        request.socket.display(),
        vm.disks[0].target
    );
    std::fs::write(&foreign, xml)?;
    let (id, file) = (vm.id.to_string(), foreign.to_string_lossy().into_owned());
    run("virsh", &["backup-begin", &id, &file])?;
    std::fs::remove_file(&foreign)?;
    assert!(host.open_backup(vm.id)?.is_none(), "not ours");
    host.end_backup(vm.id)?;
    let refused = host.begin_backup(vm.id, request);
    assert!(matches!(refused, Err(HypervisorError::Busy { .. })), "{refused:?}");
    run("virsh", &["domjobabort", &id])?;
    host.resume(vm.id)?;
    wait(|| host.agent_answers(vm.id, AGENT_DEADLINE))
}

fn run(program: &str, words: &[&str]) -> Result<(), Box<dyn Error>> {
    let status = std::process::Command::new(program).args(words).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} {words:?} failed").into()) }
}

/// Prints states and events for so many seconds, for example while libvirtd is restarted.
fn look_on(host: &Libvirt, id: domain::VmId, told: &mpsc::Receiver<hypervisor::Happening>, seconds: u64) {
    for _ in 0..seconds * 2 {
        println!("{:?} {:?}", host.vm_state(id), told.try_iter().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn ours(host: &Libvirt, id: domain::VmId) -> Result<Vec<String>, HypervisorError> {
    let mut names = host.checkpoints(id)?;
    names.retain(|name| name.starts_with(CHECKPOINT_PREFIX));
    Ok(names)
}

fn timed<T>(name: &str, verb: impl FnOnce() -> hypervisor::Result<T>) -> hypervisor::Result<T> {
    let start = Instant::now();
    let result = verb();
    println!("{name}: {} in {:?}", if result.is_ok() { "done" } else { "FAILED" }, start.elapsed());
    result
}

fn wait(ready: impl Fn() -> hypervisor::Result<bool>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while !ready()? {
        if start.elapsed() > GUEST_LIMIT {
            return Err("the guest takes too long".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
