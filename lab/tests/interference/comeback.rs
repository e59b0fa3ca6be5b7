//! A host that went down in the past and comes back with what it believed then, and what is done to the VM at its new place.

use std::time::{Duration, Instant};

use lab::{HOSTS, Host, is_normal};
use serde_json::Value;

use crate::scene::{Scene, VM, reasons, text};

/// What libvirt's hook answers, called as libvirt calls it: (whether it may start, its line, how long it took).
fn ask_hook(host: &Host, operation: &str) -> (bool, String, Duration) {
    let script = format!(
        "virsh dumpxml {VM} | /etc/libvirt/hooks/qemu.d/virt-replica {VM} {operation} begin - 2>&1 >/dev/null"
    );
    let begun = Instant::now();
    let output = host.exec_raw(["sh", "-c", &script]).unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
}

fn check_hook(host: &Host, may_start: bool, words: &str) {
    let (may, said, took) = ask_hook(host, "prepare");
    assert!(may == may_start && said.contains(words), "{may} {said}");
    // Its own limit is 2 s; the rest is for virsh on a machine that is busy.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(ask_hook(host, "reconnect").1, "", "a running VM is never in question");
}

/// An overlay over the file that a handover leaves behind is shown, refuses the handover, and goes by the printed command.
fn an_overlay_on_the_new_primary(scene: &Scene) {
    let overlaid = |shown: &Value| {
        let told =
            reasons(shown).into_iter().find(|reason| text(reason).contains("cannot be handed over"))?;
        told["cure"].as_str().map(str::to_owned)
    };
    scene
        .host(1)
        .virsh(["snapshot-create-as", VM, "one", "--disk-only", "--atomic", "--no-metadata"])
        .unwrap();
    let shown = scene.wait_show(1, |shown| overlaid(shown).is_some());
    scene.refused(1, &["planned-failover", VM, "--yes"], "cannot be handed over");
    let cure = overlaid(&shown).expect("a cure");
    scene.patiently(1, cure.strip_prefix("virsh ").expect("a command"));
    scene.wait_show(1, |shown| is_normal(shown, 2));
}

#[test]
fn a_host_that_comes_back_with_an_old_belief_asks_the_other_before_it_starts_the_vm() {
    let mut scene = Scene::up("comeback");
    scene.product.kill(HOSTS[0]).unwrap();
    scene
        .host(0)
        .sh("mkdir /var/lib/libvirt/old; cp -p /var/lib/virt-replica/state.db* /var/lib/libvirt/old")
        .unwrap();
    let restart = |scene: &mut Scene| {
        let Scene { lab, product, .. } = scene;
        product.start(lab.host(HOSTS[0])).unwrap();
    };
    restart(&mut scene);
    scene.wait_show(0, |shown| is_normal(shown, 2));
    scene.product.run(&scene.lab, HOSTS[0], &["planned-failover", VM, "--yes"]).unwrap();
    scene.wait_show(1, |shown| is_normal(shown, 2));
    an_overlay_on_the_new_primary(&scene);

    // The host goes down, and comes back with the state of before the handover: it believes itself primary.
    scene.lab.host_mut(HOSTS[0]).power_cut().unwrap();
    scene.lab.power_on(HOSTS[0]).unwrap();
    scene
        .host(0)
        .sh("rm /var/lib/virt-replica/state.db*; cp -p /var/lib/libvirt/old/* /var/lib/virt-replica")
        .unwrap();
    check_hook(scene.host(0), true, "is not known");

    scene.lab.cut_link().unwrap();
    restart(&mut scene);
    check_hook(scene.host(0), true, "hvhost02 was not heard since");
    let critical = |words: &'static str| {
        move |shown: &Value| {
            shown["health"] == "critical" && reasons(shown).iter().any(|reason| text(reason).contains(words))
        }
    };
    scene.wait_show(0, critical("hvhost02 was not heard since"));
    let config = scene.host(0).path("/etc/virt-replica/virtreplicad.toml").unwrap();
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{before}start_when_peer_silent = false\n")).unwrap();
    scene.product.kill(HOSTS[0]).unwrap();
    restart(&mut scene);
    check_hook(scene.host(0), false, "start_when_peer_silent = true");

    scene.lab.heal_link().unwrap();
    let started = scene.host(0).exec_raw(["virsh", "start", VM]).unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("belongs to hvhost02"), "{said}");
    scene.wait_show(0, critical("belongs to hvhost02"));
    // Once known it is known without anybody awake.
    scene.product.kill(HOSTS[0]).unwrap();
    check_hook(scene.host(0), false, "belongs to hvhost02");
}
