//! A first copy that was interrupted goes on where it stopped, whoever was interrupted: the link, the replica's daemon, the
//! primary's. Judged by the bytes that left the primary: little more than one copy, and by equal disks at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{GuestOptions, HOSTS, LIMIT, Lab, LabOptions, Product, disks_are_equal, is_normal};
use serde_json::Value;

/// Incompressible data on the disk, and the pace of the copy: slow enough to be interrupted in its second half.
const DATA_MIB: u64 = 128;
const RATE: &str = "16MiB/s";
const MIB: u64 = 1 << 20;

#[test]
fn a_first_copy_goes_on_after_link_replica_or_primary_were_gone() {
    let mut lab = Lab::up(LabOptions::named("resume")).unwrap();
    let mut product = Product::up(&mut lab).unwrap();
    let disk =
        GuestOptions { name: "testVM01".into(), data_mib: DATA_MIB as usize, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &disk).unwrap();
    lab.host(HOSTS[0]).virsh(["start", &guest.name]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    for fault in ["link", "replica", "primary"] {
        let words =
            ["enable", &guest.name, "--peer", HOSTS[1], "--frequency", "5s", "--rate-limit", RATE, "--yes"];
        let before = lab.host(HOSTS[0]).sent_bytes().unwrap();
        product.run(&lab, HOSTS[0], &words).unwrap();
        let far = wait_copied(&lab, &product, &guest.name, DATA_MIB * MIB * 6 / 10).unwrap();
        match fault {
            "link" => {
                lab.cut_link().unwrap();
                nothing_starts_from_half_a_copy(&lab, &product, &guest.name);
                product.wait_show(&lab, HOSTS[0], &guest.name, LIMIT, failed).unwrap();
                lab.heal_link().unwrap();
            }
            host => {
                let host = if host == "replica" { HOSTS[1] } else { HOSTS[0] };
                product.kill(host).unwrap();
                product.start(lab.host(host)).unwrap();
            }
        }
        product.wait_show(&lab, HOSTS[0], &guest.name, LIMIT, |shown| is_normal(shown, 1)).unwrap();
        let sent = lab.host(HOSTS[0]).sent_bytes().unwrap() - before;
        println!("{fault}: interrupted after {far} bytes, {sent} bytes sent in all");
        let one_copy = (DATA_MIB + 16) * MIB;
        assert!(sent < one_copy + one_copy * 45 / 100, "{fault}: {sent} bytes for {DATA_MIB} MiB");
        if fault != "primary" {
            product.run(&lab, HOSTS[0], &["remove", &guest.name, "--delete-replica", "--yes"]).unwrap();
        }
    }
    the_disks_are_equal(&lab, &product, &guest.name).unwrap();
    one_byte_would_be_found(&lab, &product, &guest.name);
    lab.down().unwrap();
}

/// What all cases here compare by finds what is not equal.
fn one_byte_would_be_found(lab: &Lab, product: &Product, vm: &str) {
    product.run(lab, HOSTS[0], &["pause", vm, "--yes"]).unwrap();
    let write = "qemu-io -f qcow2 -c 'write -q -P 0x5a 5M 1' $(virsh -q domblklist";
    lab.host(HOSTS[0]).sh(&format!("{write} {vm} | awk '{{ print $2; exit }}')")).unwrap();
    let told = disks_are_equal(lab, HOSTS[0], vm).expect_err("they differ");
    assert!(format!("{told:#}").contains("differ"), "{told:#}");
}

fn nothing_starts_from_half_a_copy(lab: &Lab, product: &Product, vm: &str) {
    for words in [["failover", vm, "--yes"], ["test-failover", vm, "--yes"]] {
        let (code, said) = product.attempt(lab, HOSTS[1], &words).unwrap();
        println!("{}# virt-replica {}\n{said}", HOSTS[1], words.join(" "));
        assert!(
            code == Some(3) && said.contains("there is no complete recovery point yet"),
            "{code:?} {said}"
        );
    }
}

fn failed(shown: &Value) -> bool {
    shown["health"] != "normal" && shown["reasons"].as_array().is_some_and(|reasons| !reasons.is_empty())
}

fn wait_copied(lab: &Lab, product: &Product, vm: &str, bytes: u64) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let shown = product.json(lab, HOSTS[0], &["show", vm])?;
        let done = shown.pointer("/initial_copy/bytes_done");
        if let Some(done) = done.and_then(Value::as_u64).filter(|done| *done >= bytes) {
            return Ok(done);
        }
        ensure!(begun.elapsed() < LIMIT, "not copied within {LIMIT:?}: {shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn the_disks_are_equal(lab: &Lab, product: &Product, vm: &str) -> Result<()> {
    lab.host(HOSTS[0]).virsh(["shutdown", vm])?;
    lab.host(HOSTS[0]).wait_guest_state(vm, "shut off", LIMIT)?;
    let off = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let after = |shown: &Value| {
        shown["last_synchronized_at_ms"].as_u64().is_some_and(|at| u128::from(at) > off + 500)
    };
    product.wait_show(lab, HOSTS[0], vm, LIMIT, after)?;
    disks_are_equal(lab, HOSTS[0], vm)
}
