//! The storage of the replica is full, or somebody changed what lies there: nothing starts from it, and the cure is said.

use lab::{HOSTS, Protected};

use super::VM;

/// On a storage that is nearly full nothing begins: what a copy writes must not take the room of replication.
pub(super) fn no_room(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
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
    assert_eq!(code, Some(3), "{said}");
    for words in ["✗ Enough disk space", "MiB free", "Fix: ", "df -h"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

/// What somebody did to the copy of the storage is seen before anything starts from it.
fn tampered(world: &Protected) {
    let host = world.lab.host(HOSTS[1]);
    let newest = "$(ls -d /var/lib/virt-replica/replicas/*/vda/[1-9]*.qcow2 | sort -V | tail -n 1)";
    for (deed, undo, found) in [
        (format!("mv {newest} /run/layer"), "mv /run/layer FILE", "No such file"),
        (
            format!("F={newest}; mv $F /run/layer; ln -s /run/layer $F"),
            "mv -f /run/layer FILE",
            "not a regular file",
        ),
        (format!("F={newest}; cp -a $F /run/layer; truncate -s 100 $F"), "mv -f /run/layer FILE", "qcow2"),
        (
            format!("F={newest}; cp -a $F /run/layer; qemu-img rebase -u -F raw -b /etc/passwd $F"),
            "mv -f /run/layer FILE",
            "stands on \"/etc/passwd\" where",
        ),
    ] {
        let file = host.sh(&format!("echo {newest}")).unwrap();
        host.sh(&deed).unwrap();
        println!("{deed}");
        let verbs =
            [["test-failover", VM, "--yes"], ["failover", VM, "--dry-run"], ["failover", VM, "--yes"]];
        let answers = verbs.map(|verb| world.attempt(HOSTS[1], &verb));
        host.sh(&undo.replace("FILE", file.trim())).unwrap();
        for (code, said) in answers {
            assert_eq!(code, Some(3), "{said}");
            for words in ["not to be trusted", found, "Fix: "] {
                assert!(said.contains(words), "{words:?} is not in:\n{said}");
            }
        }
    }
}
