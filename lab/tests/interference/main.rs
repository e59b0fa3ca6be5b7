//! What an administrator does behind the product's back is noticed and answered: carried over, or shown with its cure. And
//! whatever it was, the replica's newest point is afterwards the primary's disk, byte by byte.
//!
//! One lab for the acts on a VM that runs, and on the same one when it is off; one for a host that comes back.

mod acts;
mod comeback;
mod scene;

use std::time::Instant;

use acts::{WHILE_IT_IS_OFF, WHILE_IT_RUNS};
use lab::{HOSTS, is_normal};
use scene::{LIMIT, Scene, VM, text};

/// The copy cannot be started, hidden or renamed.
fn on_the_replica(scene: &Scene) {
    let replica = scene.host(1);
    let started = replica.exec_raw(["virsh", "start", VM]).unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("belongs to hvhost01"), "{said}");
    let acts: [(&[&str], &str); 2] = [
        (&["undefine", VM], "the replica was undefined"),
        (&["domrename", VM, "other"], "the replica was renamed"),
    ];
    for (act, words) in acts {
        let since = scene.newest_event(1);
        replica.virsh(act).unwrap();
        scene.wait_event(1, since, |event| text(event).contains(words));
        assert_eq!(replica.virsh(["list", "--all", "--name"]).unwrap(), VM);
    }
}

/// A name follows the VM to the other host.
fn the_name(scene: &Scene) {
    let begun = Instant::now();
    for (from, to) in [(VM, "it's another"), ("it's another", VM)] {
        let since = scene.newest_event(1);
        scene.host(0).virsh(["domrename", from, to]).unwrap();
        scene.wait_event(1, since, |event| text(event).contains("was called"));
        for index in [0, 1] {
            assert_eq!(scene.host(index).virsh(["list", "--all", "--name"]).unwrap(), to);
            let listed = scene.product.json(&scene.lab, HOSTS[index], &["list"]).unwrap();
            assert_eq!(listed[0]["vm"], to, "{listed}");
        }
    }
    scene.wait_show(0, |shown| is_normal(shown, 2));
    scene.check_equal("the VM is renamed");
    println!("the VM is renamed: {:.1?}", begun.elapsed());
}

/// Why a VM is off is known also after libvirt forgot it, unless it ran when nobody looked.
fn why_it_is_off(scene: &mut Scene) {
    let plan = ["planned-failover", VM, "--dry-run"];
    let boot_and_shut_down = |scene: &Scene| {
        scene.virsh("start testVM01");
        scene.guest.wait_workload(&scene.lab, LIMIT).unwrap();
        scene.virsh("shutdown testVM01 --mode acpi");
        scene.host(0).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    };
    scene.refused(0, &plan, "not shut down");
    boot_and_shut_down(scene);
    scene.wait_cycles(2);
    scene.lab.host_mut(HOSTS[0]).restart_libvirtd().unwrap();
    assert_eq!(scene.host(0).guest_state(VM).unwrap(), "shut off (unknown)");
    scene.wait_show(0, |shown| is_normal(shown, 2));
    let (code, said) = scene.product.attempt(&scene.lab, HOSTS[0], &plan).unwrap();
    assert_eq!(code, Some(0), "{said}");

    scene.product.kill(HOSTS[0]).unwrap();
    scene.virsh("start testVM01");
    scene.virsh("destroy testVM01");
    scene.lab.host_mut(HOSTS[0]).restart_libvirtd().unwrap();
    let Scene { lab, product, .. } = scene;
    product.start(lab.host(HOSTS[0])).unwrap();
    scene.wait_show(0, |shown| is_normal(shown, 2));
    scene.refused(0, &plan, "libvirt does not know how it ended");
}

#[test]
fn whatever_is_done_to_the_primary_is_answered_and_the_replica_stays_its_copy() {
    let mut scene = Scene::up("interfere");
    scene.perform(WHILE_IT_RUNS);
    scene.perform(WHILE_IT_IS_OFF);
    on_the_replica(&scene);
    the_name(&scene);
    why_it_is_off(&mut scene);
}
