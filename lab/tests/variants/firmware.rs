//! A VM with UEFI and a TPM: its variables, the state of its TPM and its definition are where it runs.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Guest, GuestOptions, HOSTS, Lab, LabOptions, Product, is_normal};

use super::{Carried, LIMIT};

const VM: &str = "uefi";
/// A UEFI variable, as the guest's kernel shows it; the first four bytes are its attributes.
const VARIABLE: &str = "/sys/firmware/efi/efivars/VrProof-11111111-2222-3333-4444-555555555555";
/// Speaks to the TPM: one command in printf's words, the answer as hexadecimal digits.
const TPM: &str = r#"tpm() {
    exec 3<>/dev/tpm0
    printf "$1" >&3
    dd bs=4096 count=1 <&3 2>/dev/null | hexdump -ve '1/1 "%02x"'
    exec 3>&-
}
"#;
/// An authorization by the empty password of the owner.
const OWNER: &str = r"\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00";
/// TPM2_NV_DefineSpace of 8 bytes at 0x01500020, without its authorization.
const DEFINE: [&str; 2] = [
    r"\x80\x02\x00\x00\x00\x2d\x00\x00\x01\x2a\x40\x00\x00\x01",
    r"\x00\x00\x00\x0e\x01\x50\x00\x20\x00\x0b\x02\x06\x00\x06\x00\x00\x00\x08",
];
/// TPM2_NV_Write of `vr-proof` to it.
const WRITE: [&str; 2] = [
    r"\x80\x02\x00\x00\x00\x2b\x00\x00\x01\x37\x40\x00\x00\x01\x01\x50\x00\x20",
    r"\x00\x08vr-proof\x00\x00",
];
/// TPM2_NV_Read of it.
const READ: [&str; 2] =
    [r"\x80\x02\x00\x00\x00\x23\x00\x00\x01\x4e\x40\x00\x00\x01\x01\x50\x00\x20", r"\x00\x08\x00\x00"];

fn tpm(lab: &Lab, host: &str, vm: &str, [head, tail]: [&str; 2]) -> String {
    lab.host(host).guest_sh(vm, &format!("{TPM}tpm '{head}{OWNER}{tail}'")).unwrap()
}

fn write_proofs(lab: &Lab, host: &str) {
    let efi = "mount -t efivarfs none /sys/firmware/efi/efivars";
    lab.host(host).guest_sh(VM, &format!(r"{efi}; printf '\x07\x00\x00\x00proof' > {VARIABLE}")).unwrap();
    for command in [DEFINE, WRITE] {
        let answer = tpm(lab, host, VM, command);
        assert_eq!(&answer[12..20], "00000000", "the TPM answered {answer}");
    }
}

fn assert_proofs(lab: &Lab, host: &str, vm: &str) {
    let script = format!("mount -t efivarfs none /sys/firmware/efi/efivars; tail -c 5 {VARIABLE}");
    assert_eq!(lab.host(host).guest_sh(vm, &script).unwrap(), "proof");
    let answer = tpm(lab, host, vm, READ);
    let proof: String = b"vr-proof".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(answer.contains(&proof), "the TPM answered {answer}");
}

/// Where libvirt keeps the variables and the TPM's state of the VM on a host, as seen from outside.
fn files(lab: &Lab, host: &str) -> [PathBuf; 2] {
    let host = lab.host(host);
    let definition = host.virsh(["dumpxml", "--inactive", VM]).unwrap();
    let (_, nvram) =
        definition.split_once("</nvram>").map(|(before, _)| before.rsplit_once('>').unwrap()).unwrap();
    let id = host.virsh(["domuuid", VM]).unwrap();
    let tpm = format!("/var/lib/libvirt/swtpm/{id}/tpm2/tpm2-00.permall");
    [host.path(nvram).unwrap(), host.path(tpm).unwrap()]
}

/// Changes the definition on one host, and waits until the other host has the changed part.
fn edit(lab: &Lab, [from, to]: [&str; 2], command: &[&str], part: &str) {
    let parts = |host| -> Vec<String> {
        let definition = lab.host(host).virsh(["dumpxml", "--inactive", VM]).unwrap();
        definition.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    };
    let before = parts(from);
    lab.host(from).virsh(command).unwrap();
    let wanted = parts(from);
    assert_ne!(before, wanted);
    let begun = Instant::now();
    while parts(to) != wanted {
        let logs = || HOSTS.map(|host| lab.host(host).log("virtreplicad").unwrap()).join("\n");
        assert!(
            begun.elapsed() < LIMIT,
            "{wanted:?} did not come to {to}, which has {:?}\n{}",
            parts(to),
            logs()
        );
        sleep(Duration::from_millis(300));
    }
}

fn protected() -> (Lab, Product, Guest) {
    let mut lab = Lab::up(LabOptions::named("firmware")).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let options =
        GuestOptions { name: VM.into(), memory_mib: 256, uefi_and_tpm: true, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &options).unwrap();
    lab.host(HOSTS[0]).virsh(["start", VM]).unwrap();
    println!("boots in {:?}", guest.wait_workload(&lab, LIMIT).unwrap());
    lab.host(HOSTS[0]).wait_agent(VM, LIMIT).unwrap();
    write_proofs(&lab, HOSTS[0]);
    product.run(&lab, HOSTS[0], &["enable", VM, "--peer", HOSTS[1], "--frequency", "5s", "--yes"]).unwrap();
    product.wait_show(&lab, HOSTS[0], VM, LIMIT, |shown| is_normal(shown, 2)).unwrap();
    (lab, product, guest)
}

/// A test failover boots with copies of the variables and of the TPM's state, and takes them with it.
fn a_copy_has_its_own(lab: &Lab, product: &Product) {
    let (second, copy) = (HOSTS[1], format!("{VM} - Test"));
    let kept = || {
        let places = [
            "/var/lib/libvirt/qemu/nvram",
            "/var/lib/libvirt/swtpm",
            "/var/lib/virt-replica/replicas/*/tests",
        ];
        // Empty directories of libvirt's own may stay.
        lab.host(second).sh(&format!("find {} -mindepth 1 2>/dev/null || true", places.join(" "))).unwrap()
    };
    let before = kept();
    let said = product.run(lab, second, &["test-failover", VM, "--keep", "--yes"]).unwrap();
    println!("{said}");
    assert!(said.contains("the VM has no display"), "{said}");
    assert_proofs(lab, second, &copy);
    assert_ne!(kept(), before);
    product.run(lab, second, &["stop-test-failover", VM, "--yes"]).unwrap();
    assert_eq!(kept(), before);
}

/// A variable that was made after a point is not there when the VM starts from that point.
fn an_older_point_starts_with_its_own(lab: &Lab, product: &Product) {
    const LATER: &str = "/sys/firmware/efi/efivars/VrLater-11111111-2222-3333-4444-555555555555";
    let ([first, second], copy) = (HOSTS, format!("{VM} - Test"));
    let create =
        |tag: &str| product.run(lab, first, &["point", "create", VM, "--tag", tag, "--yes"]).unwrap();
    create("before");
    lab.host(first).guest_sh(VM, &format!(r"printf '\x07\x00\x00\x00later' > {LATER}")).unwrap();
    create("after");
    let listed = product.json(lab, second, &["point", "list", VM]).unwrap();
    for (tag, expected) in [("before", "none"), ("after", "there")] {
        let point = listed["points"].as_array().unwrap().iter().find(|point| point["tag"] == tag).unwrap();
        let id = point["id"].as_str().unwrap();
        product.run(lab, second, &["test-failover", VM, "--point", id, "--keep", "--yes"]).unwrap();
        assert_proofs(lab, second, &copy);
        let look = format!("test -e {LATER} && echo there || echo none");
        assert_eq!(lab.host(second).guest_sh(&copy, &look).unwrap().trim(), expected, "{tag}");
        product.run(lab, second, &["stop-test-failover", VM, "--yes"]).unwrap();
        product.run(lab, first, &["point", "remove", VM, id, "--yes"]).unwrap();
    }
}

/// A failover that is taken back: what the guest wrote to its variables meanwhile is not in the recovery point, and comes to nobody.
fn a_failover_leaves_the_point_as_it_was(lab: &Lab, product: &Product, guest: &Guest) {
    const AWAY: &str = "/sys/firmware/efi/efivars/VrAway-11111111-2222-3333-4444-555555555555";
    let [first, second] = HOSTS;
    let directory =
        product.json(lab, second, &["show", VM]).unwrap()["directory"].as_str().unwrap().to_owned();
    let kept = || {
        ["nvram.fd", "tpm.permall"]
            .map(|file| std::fs::read(lab.host(second).path(format!("{directory}/{file}")).unwrap()).unwrap())
    };
    // Cycles are missed behind the cut, and that is not what is tried here.
    product.run(lab, first, &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
    lab.cut_link().unwrap();
    lab.host(first).virsh(["shutdown", VM]).unwrap();
    lab.host(first).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    let before = kept();
    product.run(lab, second, &["failover", VM, "--yes"]).unwrap();
    lab.host(second).wait_agent(VM, LIMIT).unwrap();
    assert_proofs(lab, second, VM);
    let write = format!(r"printf '\x07\x00\x00\x00away!' > {AWAY}; tail -c 5 {AWAY}");
    assert_eq!(lab.host(second).guest_sh(VM, &write).unwrap(), "away!");
    let [own, _] = files(lab, second);
    assert!(own.ends_with("active-nvram.fd"), "{}", own.display());
    assert!(std::fs::read(&own).unwrap() != before[0], "the guest's variables are its own file");
    let cancel = ["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "60s", "--yes"];
    product.run(lab, second, &cancel).unwrap();
    assert!(kept() == before, "the recovery point's variables and TPM state");
    assert!(!own.exists(), "{} is gone", own.display());

    lab.heal_link().unwrap();
    let epoch = product.json(lab, second, &["show", VM]).unwrap()["epoch"].clone();
    product.wait_show(lab, first, VM, LIMIT, |shown| shown["epoch"] == epoch).unwrap();
    lab.host(first).virsh(["start", VM]).unwrap();
    guest.wait_workload(lab, LIMIT).unwrap();
    lab.host(first).wait_agent(VM, LIMIT).unwrap();
    assert_proofs(lab, first, VM);
    let there = lab.host(first).guest_sh(VM, &format!("test -e {AWAY} && echo there || echo none")).unwrap();
    assert_eq!(there.trim(), "none");
    product.wait_show(lab, first, VM, LIMIT, |shown| is_normal(shown, 1)).unwrap();
}

#[test]
fn variables_tpm_state_and_definition_go_with_the_vm() {
    let (lab, product, guest) = protected();
    let [first, second] = HOSTS;
    let home = (files(&lab, first), lab.host(first).virsh(["domblklist", VM]).unwrap());

    a_copy_has_its_own(&lab, &product);
    an_older_point_starts_with_its_own(&lab, &product);
    a_failover_leaves_the_point_as_it_was(&lab, &product, &guest);

    // An edit while it runs: the next recovery point has it.
    edit(&lab, HOSTS, &["setvcpus", VM, "2", "--maximum", "--config"], "<vcpu");

    // Handed over without a start: what the guest left is there byte for byte.
    product.run(&lab, first, &["planned-failover", VM, "--to", second, "--no-start", "--yes"]).unwrap();
    for (here, there) in home.0.iter().zip(files(&lab, second)) {
        let (here, there) = (std::fs::read(here).unwrap(), std::fs::read(there).unwrap());
        assert!(!here.is_empty() && here == there, "{} and {} bytes", here.len(), there.len());
    }
    assert!(lab.host(second).guest_state(VM).unwrap().starts_with("shut off"));

    // An edit while it is off and no block changes: the next recovery point has it too, without a byte of disk.
    let before = product.wait_show(&lab, second, VM, LIMIT, |shown| is_normal(shown, 1)).unwrap();
    edit(&lab, [second, first], &["setmaxmem", VM, "280M", "--config"], "<memory unit");
    let after = super::next_head(&product, &lab, second, VM, &before);
    assert_eq!(Carried::of(&after).bytes, Carried::of(&before).bytes, "{after:#}");

    lab.host(second).virsh(["start", VM]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    lab.host(second).wait_agent(VM, LIMIT).unwrap();
    assert_proofs(&lab, second, VM);

    let done = product.hand_over(&lab, &guest, second, 1, &[]).unwrap();
    assert_eq!((done.lost_writes, done.doubled_writes, done.digests_equal), (0, 0, Some(true)), "{done:?}");
    assert_proofs(&lab, first, VM);
    assert_eq!((files(&lab, first), lab.host(first).virsh(["domblklist", VM]).unwrap()), home);

    // With the replica goes what libvirt kept of its TPM; the VM's own stays.
    let [_, gone] = files(&lab, second);
    assert!(gone.exists());
    product.run(&lab, first, &["remove", VM, "--delete-replica", "--yes"]).unwrap();
    assert!(!gone.parent().unwrap().parent().unwrap().exists(), "{}", gone.display());
    assert!(files(&lab, first).iter().all(|file| file.exists()));
    lab.down().unwrap();
}
