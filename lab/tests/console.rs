//! The console in real Chromium, at the real daemons of two hosts: the whole story by clicks, then every other verb. What is clicked
//! stands in `lab/browser/story.mjs` and `verbs.mjs`; here are the hosts, and what a browser cannot do to them.
//!
//! Property: whoever knows Hyper-V Manager hands a VM over and brings it home by clicks alone, nothing acknowledged is lost, whatever is
//! refused is said and changes nothing, and no page breaks a rule of accessibility or asks another host for anything.

use std::time::Duration;

use lab::{GuestOptions, HOSTS, Judge, Lab, LabOptions, Product, Sides, let_people_in, play};

const LIMIT: Duration = Duration::from_secs(150);
/// Long enough to kill a daemon while the guest shuts down.
const LINGER_SECONDS: u64 = 6;
const VM: &str = "testVM01";

/// What a browser cannot do.
fn answer(lab: &Lab, product: &mut Product, words: &[&str]) -> String {
    match words {
        ["kill", host] => product.kill(host).unwrap(),
        ["lose", host] => {
            lab.cut_link().unwrap();
            lab.host(host).virsh(["destroy", VM]).unwrap();
        }
        ["start", host] => product.start(lab.host(host)).unwrap(),
        ["run", host, words @ ..] => drop(product.run(lab, host, words).unwrap()),
        ["state", host] => return format!("ok {}", lab.host(host).guest_state(VM).unwrap()),
        unknown => return format!("no such request: {unknown:?}"),
    }
    "ok".to_owned()
}

#[test]
fn the_whole_story_and_every_verb_by_clicks() {
    let mut lab = Lab::up(LabOptions::named("console")).unwrap();
    let mut product = Product::up(&mut lab).unwrap();
    let_people_in(&lab).unwrap();
    let options = GuestOptions { name: VM.into(), linger_seconds: LINGER_SECONDS, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &options).unwrap();
    let other = GuestOptions { name: "intranet".into(), number: 51, ..GuestOptions::default() };
    lab.define_guest(HOSTS[0], &other).unwrap();
    lab.host(HOSTS[0]).virsh(["start", VM]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    lab.host(HOSTS[0]).wait_agent(VM, LIMIT).unwrap();

    let judge = Judge::start(&lab, &guest, 1).unwrap();
    let sides = Sides::watch(&lab, VM).unwrap();
    play(&lab, "story.mjs", |words| answer(&lab, &mut product, words)).unwrap();
    assert_eq!(sides.seen_on_both(), 0, "the VM ran on both hosts at once");
    drop(sides);
    judge.wait_more(1, LIMIT).unwrap();
    let verdict = judge.finish(&lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    // The first host is lost in it, and what it had last with it: nobody counts what the guest wrote.
    play(&lab, "verbs.mjs", |words| answer(&lab, &mut product, words)).unwrap();
    lab.down().unwrap();
}
