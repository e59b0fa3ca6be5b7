//! The main job with the real parts: nothing acknowledged is lost, nothing is written twice, and the VM comes home.

use lab::{HOSTS, LIMIT, Lab, Product, Protected, is_normal, protected};

const VM: &str = "testVM01";

#[test]
fn a_planned_failover_and_the_failback_lose_nothing_and_end_on_the_first_disk_file() {
    let Protected { lab, product, guest } = protected("story").unwrap();
    let disks = lab.host(HOSTS[0]).virsh(["domblklist", VM]).unwrap();
    for (round, from) in HOSTS.into_iter().enumerate() {
        let done = product.hand_over(&lab, &guest, from, (round as u64 + 1) * 1_000_000, &[]).unwrap();
        assert_eq!(
            (done.lost_writes, done.doubled_writes, done.digests_equal),
            (0, 0, Some(true)),
            "{done:?}"
        );
        assert_eq!(done.reverse_bytes, Some(0));
        // The replica cannot start, by construction and by the guard.
        let (code, said) = (lab.host(from).exec_raw(["virsh", "start", VM]).unwrap(), "virsh start");
        assert!(!code.status.success(), "{said} on the replica was not refused");
        product.wait_show(&lab, HOSTS[1 - round], VM, LIMIT, |shown| is_normal(shown, 2)).unwrap();
    }
    assert_eq!(lab.host(HOSTS[0]).virsh(["domblklist", VM]).unwrap(), disks);
    lab.down().unwrap();
}

#[test]
fn without_reverse_the_vm_is_visibly_unprotected_until_reversed_by_hand() {
    let Protected { lab, mut product, guest } = protected("debt").unwrap();
    let done = product.hand_over(&lab, &guest, HOSTS[0], 1_000_000, &["--no-reverse"]).unwrap();
    assert_eq!((done.lost_writes, done.doubled_writes), (0, 0), "{done:?}");
    for host in HOSTS {
        let shown = product.json(&lab, host, &["show", VM]).unwrap();
        assert_eq!(shown["health"], "warning", "{shown}");
        assert!(shown["unprotected_since_ms"].is_u64(), "{shown}");
    }
    let (code, said) =
        product.attempt(&lab, HOSTS[1], &["reverse", VM, "--frequency", "30s", "--yes"]).unwrap();
    assert!(code != Some(0) && said.contains("frequency is 5 s"), "{said}");
    product.run(&lab, HOSTS[1], &["reverse", VM, "--yes"]).unwrap();
    product.wait_show(&lab, HOSTS[1], VM, LIMIT, |shown| is_normal(shown, 2)).unwrap();
    goes_on_after_either_daemon_was_killed(&lab, &mut product);
    lab.down().unwrap();
}

/// Between two cycles; the places within one are a case of their own.
fn goes_on_after_either_daemon_was_killed(lab: &Lab, product: &mut Product) {
    for host in HOSTS {
        product.kill(host).unwrap();
        product.start(lab.host(host)).unwrap();
        let before = product.json(lab, HOSTS[1], &["show", VM]).unwrap()["last_synchronized_at_ms"].as_u64();
        let newer = |shown: &serde_json::Value| shown["last_synchronized_at_ms"].as_u64() > before;
        product.wait_show(lab, HOSTS[1], VM, LIMIT, newer).unwrap();
    }
}
