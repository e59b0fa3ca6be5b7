//! A daemon is killed in the middle: of a comparison, of taking an existing copy, of importing a carried one. Each goes on after the
//! restart.

use std::process::Stdio;

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
}

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
