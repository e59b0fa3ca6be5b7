//! The storage of the replica is full, or somebody changed what lies there: nothing starts from it, and the cure is said.

use lab::{HOSTS, Protected};

use super::VM;

/// On a storage that is nearly full nothing begins: what a copy writes must not take the room of replication.
pub(super) fn no_room(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    // An older point, and a newer one above it.
    product.run(lab, HOSTS[0], &["point", "create", VM, "--tag", "older", "--yes"]).unwrap();
    super::replication_goes_on(world);
    product.run(lab, HOSTS[0], &["pause", VM, "--yes"]).unwrap();
    let host = lab.host(HOSTS[1]);
    host.sh(
        "cd /var/lib/virt-replica/replicas && mkdir -p /run/full && mount -t tmpfs -o mode=755,size=200m tmpfs /run/full \
         && cp -a --sparse=always . /run/full && mount --move /run/full /var/lib/virt-replica/replicas",
    )
    .unwrap();
    let (code, said) = product.attempt(lab, HOSTS[1], &["test-failover", VM, "--yes"]).unwrap();
    println!("{said}");
    tampered(world);
    host.sh("umount /var/lib/virt-replica/replicas").unwrap();
    product.run(lab, HOSTS[0], &["resume", VM, "--yes"]).unwrap();
    product.run(lab, HOSTS[0], &["point", "remove", VM, &older(world), "--yes"]).unwrap();
    assert_eq!(code, Some(3), "{said}");
    for words in ["✗ Enough disk space", "MiB free", "Fix: ", "df -h"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

fn older(world: &Protected) -> String {
    let listed = world.product.json(&world.lab, HOSTS[1], &["point", "list", VM]).unwrap();
    let older = listed["points"].as_array().unwrap().iter().find(|point| point["tag"] == "older").cloned();
    older.unwrap()["id"].as_str().unwrap().to_owned()
}

/// What somebody does to the files, in the VM's directory, where F is the newest layer and G the one below.
const DEEDS: [(&str, &str); 11] = [
    ("mv $F /run/layer", "No such file"),
    ("mv $F /run/layer; ln -s /run/layer $F", "not a regular file"),
    ("truncate -s 100 $F", "qcow2"),
    ("truncate -s -65536 $F", "its end is missing"),
    ("truncate -s $(($(stat -c %s $F) / 2)) $F", "its end is missing"),
    ("truncate -s -65536 $F; truncate -s +65536 $F", "a part of it is missing"),
    ("qemu-img rebase -u -F raw -b /etc/passwd $F", "stands on \"/etc/passwd\" where"),
    ("mv $F /run/layer; mv $G $F; mv /run/layer $G", "stands on"),
    // The layer of another replica, with the same name, size and place.
    (
        "dd if=/dev/zero of=$F bs=1 count=16 seek=$(($(head -c 4096 $F | grep -abo VROW | cut -d: -f1) + 8)) conv=notrunc",
        "of replica 00000000",
    ),
    ("truncate -s 300 manifest.json", "is not a manifest"),
    ("find . -name primary.xml -exec truncate -s 40 {} +", "the definition that came with"),
];

/// What somebody did to the copy of the storage is seen before anything starts from it.
fn tampered(world: &Protected) {
    let host = world.lab.host(HOSTS[1]);
    let layers = "cd /var/lib/virt-replica/replicas/*.*/ && F=$(ls vda/[1-9]*.qcow2 | sort -V | tail -n 1) \
                  && G=$(ls vda/[1-9]*.qcow2 | sort -V | tail -n 2 | head -n 1) && test $F != $G";
    let older = older(world);
    host.sh("cp -a --sparse=always /var/lib/virt-replica/replicas/*.*/ /run/kept").unwrap();
    for (deed, found) in DEEDS {
        println!("{deed}");
        host.sh(&format!("set -e; {layers}; {deed}")).unwrap();
        let verbs =
            [["test-failover", VM, "--yes"], ["failover", VM, "--dry-run"], ["failover", VM, "--yes"]];
        let answers = verbs.map(|verb| world.attempt(HOSTS[1], &verb));
        // What is wrong above a point does not matter to it: with --force, for the VM runs there.
        let below = world.attempt(HOSTS[1], &["failover", VM, "--point", &older, "--force", "--dry-run"]);
        host.sh("cd /var/lib/virt-replica/replicas && D=$(echo *.*) && rm -rf $D && cp -a --sparse=always /run/kept $D")
            .unwrap();
        for (code, said) in answers {
            println!("{said}");
            assert!(matches!(code, Some(1 | 3)), "{said}");
            for words in [found, "Fix: "] {
                assert!(said.contains(words), "{words:?} is not in:\n{said}");
            }
        }
        let is_of_newest_layer = deed.contains("$F") && !deed.contains("$G");
        if is_of_newest_layer {
            assert_eq!(below.0, Some(0), "{}", below.1);
        }
    }
    host.sh("rm -rf /run/kept /run/layer").unwrap();
}
