//! The life of a VM while it is replicated: what an administrator does to it arrives on the other host by itself, and comes
//! home again.
//!
//! One lab: acts on the running VM, over to the other host, acts there, and home. After each crossing the disks are compared byte
//! by byte, and both hosts show the same disks.

use std::time::{Duration, Instant};

use lab::{HOSTS, IMAGE_FOLDER, LIMIT, Protected, disks_are_equal, is_normal, protected};
use serde_json::Value;

const VM: &str = "testVM01";
const MIB: u64 = 1 << 20;

/// Something that is done on the host where the VM runs, and what the events there say about it.
struct Act {
    name: &'static str,
    act: fn(&World),
    said: &'static str,
}

struct World {
    protected: Protected,
    /// Where the VM runs.
    at: usize,
    crossings: u64,
}

const AT_HOME: &[Act] = &[
    Act {
        name: "the disk grows",
        act: |world| {
            let size = world.size("vda") + 16 * MIB;
            world.virsh(&format!("blockresize {VM} vda {size}B"));
        },
        said: "disk vda grew",
    },
    Act {
        name: "memory and a network card",
        act: |world| {
            world.virsh(&format!("setmaxmem {VM} 300M --config"));
            world.virsh(&format!("attach-interface {VM} bridge br0 --model virtio --config"));
        },
        said: "the definition was edited",
    },
    Act {
        name: "the host starts it when it boots",
        act: |world| world.virsh(&format!("autostart {VM}")),
        said: "",
    },
    Act {
        name: "a point is tagged",
        act: |world| world.say(&["point", "create", VM, "--tag", "before", "--yes"]),
        said: "",
    },
    Act { name: "a disk is plugged in", act: |world| world.plug("vdb", 24), said: "disk vdb was added" },
];

const AWAY: &[Act] = &[
    Act {
        name: "another disk is plugged in, and waits for a person",
        act: |world| {
            world.say(&["set", VM, "--new-disks", "warn", "--yes"]);
            world.plug("vdc", 16);
            world.wait_reason("warning", "disk vdc of VM \"testVM01\" is not replicated", "--add-disk vdc");
            world.say(&["set", VM, "--add-disk", "vdc", "--new-disks", "replicate", "--yes"]);
        },
        said: "",
    },
    Act {
        name: "the disk from home grows",
        act: |world| world.virsh(&format!("blockresize {VM} vdb 32M")),
        said: "disk vdb grew",
    },
];

const HOME_AGAIN: &[Act] = &[
    Act {
        name: "a disk gets another name",
        act: |world| {
            let rename = "virsh dumpxml --inactive testVM01 >/run/as-it-was.xml && \
                          sed \"s/dev='vdc'/dev='vdd'/\" /run/as-it-was.xml >/run/renamed.xml && virsh define /run/renamed.xml";
            world.host().sh(rename).unwrap();
            world.wait_reason("critical", "disk vdc of VM \"testVM01\" is called vdd now", "virsh edit");
            world.virsh("define /run/as-it-was.xml");
        },
        said: "",
    },
    Act {
        name: "a disk is unplugged",
        act: |world| world.virsh(&format!("detach-disk {VM} vdb --persistent")),
        said: "disk vdb was removed",
    },
    Act { name: "it is written on", act: |world| world.write("vdc", 9), said: "" },
];

impl World {
    fn host(&self) -> &lab::Host {
        self.protected.lab.host(HOSTS[self.at])
    }

    fn virsh(&self, words: &str) {
        self.host().virsh(words.split(' ')).unwrap_or_else(|error| panic!("virsh {words}: {error:#}"));
    }

    fn say(&self, words: &[&str]) {
        self.protected.product.run(&self.protected.lab, HOSTS[self.at], words).unwrap();
    }

    /// Health gives this reason, and its cure.
    fn wait_reason(&self, severity: &str, what: &str, cure: &str) {
        let Protected { lab, product, .. } = &self.protected;
        let holds = |reason: &Value| {
            let says = |field: &str, words: &str| reason[field].as_str().is_some_and(|it| it.contains(words));
            reason["severity"] == severity && says("text", what) && says("cure", cure)
        };
        let told = |shown: &Value| shown["reasons"].as_array().is_some_and(|all| all.iter().any(holds));
        product.wait_show(lab, HOSTS[self.at], VM, LIMIT, told).unwrap();
    }

    /// A point from before a disk was added does not have it, and a copy that is started from it neither.
    fn older_point_starts_without(&self, disks: &[&str]) {
        let replica = self.protected.lab.host(HOSTS[1 - self.at]);
        let listed = self.json(1 - self.at, &["point", "list", VM]);
        let points = listed["points"].as_array().expect("points");
        let tagged = points.iter().find(|point| point["tag"] == "before").expect("the tagged point");
        assert_eq!(tagged["disks"].as_array().map(Vec::len), Some(disks.len()), "{listed:#}");
        let point = tagged["id"].as_str().expect("an id");
        let words = ["test-failover", VM, "--point", point, "--keep", "--yes"];
        self.protected.product.run(&self.protected.lab, HOSTS[1 - self.at], &words).unwrap();
        let said = replica.virsh(["domblklist", "testVM01 - Test"]).unwrap();
        assert_eq!(targets(&said), disks);
        let stop = ["stop-test-failover", VM, "--yes"];
        self.protected.product.run(&self.protected.lab, HOSTS[1 - self.at], &stop).unwrap();
    }

    fn json(&self, at: usize, words: &[&str]) -> Value {
        self.protected.product.json(&self.protected.lab, HOSTS[at], words).unwrap()
    }

    fn size(&self, target: &str) -> u64 {
        let said = self.host().virsh(["domblkinfo", VM, target]).unwrap();
        said.lines().find_map(|line| line.strip_prefix("Capacity:")?.trim().parse().ok()).expect("a size")
    }

    /// A new disk, which the guest writes to.
    fn plug(&self, target: &str, mib: u64) {
        let file = format!("{IMAGE_FOLDER}/added-{target}.qcow2");
        self.host().sh(&format!("qemu-img create -q -f qcow2 {file} {mib}M")).unwrap();
        self.virsh(&format!("attach-disk {VM} {file} {target} --subdriver qcow2 --persistent"));
        self.write(target, 5);
    }

    fn write(&self, target: &str, mib: u64) {
        let device = format!("/dev/{target}");
        let write = format!(
            "n=0; until [ -b {device} ] || [ $n -gt 100 ]; do n=$((n+1)); sleep 0.2; done; \
             dd if=/dev/urandom of={device} bs=1M count={mib} conv=fsync 2>&1"
        );
        self.host().wait_agent(VM, LIMIT).unwrap();
        self.host().guest_sh(VM, &write).unwrap();
    }

    fn cycles(&self) -> u64 {
        self.json(self.at, &["show", VM])["statistics"]["cycles_acknowledged"].as_u64().unwrap_or(0)
    }

    fn wait_normal(&self, cycles: u64) -> Value {
        let Protected { lab, product, .. } = &self.protected;
        product.wait_show(lab, HOSTS[self.at], VM, LIMIT, |shown| is_normal(shown, cycles)).unwrap()
    }

    fn perform(&self, acts: &[Act]) {
        for Act { name, act, said } in acts {
            let begun = Instant::now();
            let events = |since: u64| self.json(self.at, &["events", "--since", &since.to_string()]);
            let newest = events(0).as_array().and_then(|all| all.last()?["sequence"].as_u64()).unwrap_or(0);
            act(self);
            let told = || events(newest).to_string().contains(said);
            while !said.is_empty() && !told() {
                assert!(begun.elapsed() < LIMIT, "{name}: {:#}", events(newest));
                std::thread::sleep(Duration::from_millis(300));
            }
            let shown = self.wait_normal(self.cycles() + 2);
            assert_eq!(shown["reasons"].as_array().map(Vec::len), Some(0), "{name}: {shown:#}");
            println!("{name}: {:.1?}", begun.elapsed());
        }
    }

    fn disks(&self, at: usize) -> Vec<String> {
        targets(&self.protected.lab.host(HOSTS[at]).virsh(["domblklist", VM]).unwrap())
    }

    fn autostarts(&self, at: usize) -> bool {
        let host = self.protected.lab.host(HOSTS[at]);
        let said = host.sh(&format!("virsh dominfo {VM} | grep Autostart")).unwrap();
        said.contains("enable")
    }

    /// Hands the VM over, compares, and looks at both hosts.
    fn cross(&mut self, disks: &[&str]) {
        let to = 1 - self.at;
        self.crossings += 1;
        let Protected { lab, product, guest } = &self.protected;
        let done = product.hand_over(lab, guest, HOSTS[self.at], self.crossings * 1_000_000, &[]).unwrap();
        assert_eq!(
            (done.lost_writes, done.doubled_writes, done.digests_equal),
            (0, 0, Some(true)),
            "{done:?}"
        );
        assert_eq!(done.reverse_bytes, Some(0), "nothing is copied to turn round");
        self.at = to;
        self.wait_normal(2);
        self.compare(disks);
        assert!(
            self.autostarts(to) && !self.autostarts(1 - to),
            "only the host where the VM lives starts it"
        );
    }

    /// The guest stops for a moment; the newest point is then what its disks hold.
    fn compare(&self, disks: &[&str]) {
        for at in [0, 1] {
            assert_eq!(self.disks(at), disks, "on {}", HOSTS[at]);
        }
        let Protected { lab, product, guest } = &self.protected;
        self.virsh(&format!("suspend {VM}"));
        self.wait_normal(self.cycles() + 2);
        product.run(lab, HOSTS[self.at], &["pause", VM, "--yes"]).unwrap();
        disks_are_equal(lab, HOSTS[self.at], VM).unwrap();
        product.run(lab, HOSTS[self.at], &["resume", VM, "--yes"]).unwrap();
        self.virsh(&format!("resume {VM}"));
        guest.wait_workload(lab, LIMIT).unwrap();
    }
}

/// The disks that `virsh domblklist` lists.
fn targets(listed: &str) -> Vec<String> {
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let mut targets: Vec<_> = listed.lines().map(first).filter(|it| it.starts_with("vd")).collect();
    targets.sort();
    targets
}

#[test]
fn whatever_becomes_of_a_vm_reaches_its_replica_and_comes_home() {
    let mut world = World { protected: protected("life").unwrap(), at: 0, crossings: 0 };
    world.perform(AT_HOME);
    world.compare(&["vda", "vdb"]);
    world.older_point_starts_without(&["vda"]);
    world.cross(&["vda", "vdb"]);
    let definition = world.host().virsh(["dumpxml", "--inactive", VM]).unwrap();
    assert_eq!(definition.matches("<interface").count(), 2, "{definition}");
    assert!(definition.contains(">307200</memory>"), "{definition}");
    world.perform(AWAY);
    world.cross(&["vda", "vdb", "vdc"]);
    assert_eq!(world.size("vdb"), 32 * MIB);
    world.perform(HOME_AGAIN);
    world.compare(&["vda", "vdc"]);
    // The removed disk's files go with the last point that has it; the user's own file stays.
    let directory = world.json(1, &["show", VM])["directory"].as_str().expect("a directory").to_owned();
    let gone = format!("until [ ! -e '{directory}/vdb' ]; do sleep 0.2; done");
    world.protected.lab.host(HOSTS[1]).exec(["timeout", "60", "sh", "-c", &gone]).unwrap();
    world.host().sh(&format!("test -e {IMAGE_FOLDER}/added-vdb.qcow2")).unwrap();
    world.cross(&["vda", "vdc"]);
    world.cross(&["vda", "vdc"]);
    world.protected.lab.down().unwrap();
}
