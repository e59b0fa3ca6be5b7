//! A daemon is killed in the middle: of a comparison, of a verification, of taking an existing copy, of importing a carried one. Each goes on after the
//! restart.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold};

use super::{FIRST, LIMIT, SECOND, VM, World};

impl World {
    /// Kills a host's daemon once a daemon has come to the place, and starts it again.
    pub(super) fn kill_at(&mut self, hold: Hold, host: &str) {
        hold.wait(LIMIT).unwrap();
        self.product.kill(host).unwrap();
        drop(hold);
        self.product.start(self.lab.host(host)).unwrap();
    }

    /// Cycles go on meanwhile, which have such things for a moment.
    fn nothing_is_left(&self) {
        for (host, look, expected) in LEFT {
            let (begun, found) = (Instant::now(), || self.lab.host(host).sh(look).unwrap());
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            while words(&found()) != words(expected) {
                assert!(begun.elapsed() < LIMIT, "on {host}: {}", found());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// What a comparison leaves between two cycles: the checkpoint of the newest point, and nothing else.
const LEFT: [(&str, &str, &str); 2] = [
    (
        FIRST,
        "virsh -q checkpoint-list testVM01 --name | grep -c ^vr-; virsh -q domjobinfo testVM01; \
         find /var/lib/virt-replica/scratch -type f",
        "1\nJob type:         None\n",
    ),
    (SECOND, "pgrep -x qemu-nbd || true; find /var/lib/virt-replica/replicas -name '*.partial*'", ""),
];

/// Either host's, after the first range was compared: the replica offers its points all the time.
pub(super) fn in_a_comparison(world: &mut World) {
    for host in HOSTS {
        world.fill("killed", 2);
        let hold = Hold::arm(world.lab.host(FIRST), "compare.range").unwrap();
        world.say(&["resynchronize", VM, "--no-wait", "--yes"]);
        world.kill_at(hold, host);
        let manifest = world.manifest().1;
        assert!(!manifest["points"].as_array().unwrap().is_empty(), "{host}: {manifest:#}");
        world.event(1401, "differed and travelled");
        world.normal();
    }
}

/// Either host's, in the middle of a verification: there is no verdict of what was not seen to its end, nothing is left over, and it
/// comes to the right end by itself.
pub(super) fn in_a_verification(world: &mut World) {
    for host in HOSTS {
        world.fill("unverified", 2);
        let verified = world.show(FIRST)["verified_at_ms"].as_u64();
        let hold = Hold::arm(world.lab.host(FIRST), "compare.range").unwrap();
        world.say(&["verify", VM, "--no-wait", "--yes"]);
        hold.wait(LIMIT).unwrap();
        assert_eq!(world.show(FIRST)["verified_at_ms"].as_u64(), verified, "nothing is proven yet");
        world.kill_at(hold, host);
        world.wait(|shown| shown["verified_at_ms"].as_u64() > verified);
        world.normal();
        world.nothing_is_left();
    }
    let events = world.product.run(&world.lab, FIRST, &["events", "--vm", VM]).unwrap();
    for wrong in ["differs from the VM's disks", "could not be verified"] {
        assert!(!events.contains(wrong), "{wrong:?} in {events}");
    }
}

/// The replica's, when a copy is written and not yet sealed; then the primary's, while what was taken is compared.
pub(super) fn in_a_seed(world: &mut World, [written, compared]: [Hold; 2]) {
    world.kill_at(written, SECOND);
    world.kill_at(compared, FIRST);
}

/// The replica's, when a delta from a file has begun and when it is sealed: the import goes on after the restart, and whoever waits
/// for it hears how it ends.
pub(super) fn in_an_import(world: &mut World, directory: &str) {
    let holds =
        ["delta.begun", "delta.sealed"].map(|place| Hold::arm(world.lab.host(SECOND), place).unwrap());
    let mut import = world.product.command(&world.lab, SECOND, &["import", directory, "--yes"]).unwrap();
    let waits = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for hold in holds {
        world.kill_at(hold, SECOND);
        assert!(world.manifest().1["points"].as_array().unwrap().is_empty());
    }
    let ended = waits.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{SECOND}# virt-replica import {directory}\n{said}");
    assert!(ended.status.success() && said.contains("was imported"), "{ended:?}");
}
