//! The console in real Chromium, at the real daemons of two hosts: the whole story by clicks, and in another case every other verb.
//! What is clicked stands in `lab/browser/story.mjs` and `verbs.mjs`; here are the hosts, and what a browser cannot do to them.
//!
//! Property: whoever knows Hyper-V Manager hands a VM over and brings it home by clicks alone, nothing acknowledged is lost, whatever is
//! refused is said and changes nothing, what cannot be seen is said to be unknown, and no page breaks a rule of accessibility or asks
//! another host for anything.

use lab::{
    GuestOptions, HOSTS, IMAGE_FOLDER, Judge, LIMIT, Lab, LabOptions, Product, Protected, Sides,
    let_people_in, play, protected,
};

/// Long enough to kill a daemon while the guest shuts down.
const LINGER_SECONDS: u64 = 6;
const VM: &str = "testVM01";

/// What a browser cannot do.
fn answer(lab: &mut Lab, product: &mut Product, words: &[&str]) -> String {
    match words {
        ["kill", host] => product.kill(host).unwrap(),
        ["lose", host] => {
            lab.cut_link().unwrap();
            lab.host(host).virsh(["destroy", VM]).unwrap();
        }
        ["start", host] => product.start(lab.host(host)).unwrap(),
        ["stop-libvirt", host] => lab.host_mut(host).stop_libvirtd().unwrap(),
        ["start-libvirt", host] => lab.host_mut(host).start_libvirtd().unwrap(),
        ["plug", host, disk] => {
            let file = format!("{IMAGE_FOLDER}/{disk}.qcow2");
            let make = format!("qemu-img create -q -f qcow2 {file} 16M");
            let attach = format!("virsh attach-disk {VM} {file} {disk} --subdriver qcow2 --persistent");
            lab.host(host).sh(&format!("{make} && {attach}")).unwrap();
        }
        ["virsh", host, words @ ..] => drop(lab.host(host).virsh(words).unwrap()),
        ["run", host, words @ ..] => drop(product.run(lab, host, words).unwrap()),
        ["state", host] => return format!("ok {}", lab.host(host).guest_state(VM).unwrap()),
        unknown => return format!("no such request: {unknown:?}"),
    }
    "ok".to_owned()
}

#[test]
fn the_whole_story_by_clicks() {
    let mut lab = Lab::up(LabOptions::named("console")).unwrap();
    let mut product = Product::up(&mut lab).unwrap();
    let_people_in(&lab).unwrap();
    let options = GuestOptions { name: VM.into(), linger_seconds: LINGER_SECONDS, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &options).unwrap();
    let other = GuestOptions { name: "intranet".into(), number: 51, ..GuestOptions::default() };
    lab.define_guest(HOSTS[0], &other).unwrap();
    lab.host(HOSTS[0]).virsh(["start", VM]).unwrap();

    let mut judge = None;
    let sides = Sides::watch(&lab, VM).unwrap();
    let told = play(&mut lab, "story.mjs", |lab, words| {
        if words == ["boot"] {
            guest.wait_workload(lab, LIMIT).unwrap();
            lab.host(HOSTS[0]).wait_agent(VM, LIMIT).unwrap();
            judge = Some(Judge::start(lab, &guest, 1).unwrap());
            return "ok".to_owned();
        }
        answer(lab, &mut product, words)
    });
    told.unwrap();
    assert_eq!(sides.seen_on_both(), 0, "the VM ran on both hosts at once");
    drop(sides);
    let judge = judge.expect("the story waited for the guest");
    judge.wait_more(1, LIMIT).unwrap();
    let verdict = judge.finish(&lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    lab.down().unwrap();
}

/// The first host is lost in it, and what it had last with it: nobody counts what the guest wrote.
#[test]
fn every_other_verb_by_clicks() {
    let Protected { mut lab, mut product, guest: _ } = protected("verbs").unwrap();
    let_people_in(&lab).unwrap();
    play(&mut lab, "verbs.mjs", |lab, words| answer(lab, &mut product, words)).unwrap();
    lab.down().unwrap();
}
