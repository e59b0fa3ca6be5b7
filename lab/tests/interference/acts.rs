//! The acts on a primary, while its VM runs and while it is off, in the order in which they are performed.

use std::time::Instant;

use lab::{HOSTS, Hold, IMAGE_FOLDER};

use crate::scene::{Act, LIMIT, Said, VM, nothing, reasons};

pub const WHILE_IT_RUNS: &[Act] = &[
    Act {
        name: "the disk grows",
        act: |scene| {
            scene.virsh("blockresize testVM01 vda 300MiB");
            scene.fill("grown", 2);
        },
        said: Said::Event("disk vda grew from 268435456 to 314572800 bytes"),
        cure: nothing,
    },
    Act {
        name: "the disk shrinks, and grows back with zeroes that are in no bitmap",
        act: |scene| {
            let write = r#"qemu-monitor-command testVM01 --hmp 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -q -P 7 290M 4M"'"#;
            let said = scene.host(0).sh(&format!("virsh {write}")).unwrap();
            // qemu-io tells a failure in words only.
            assert!(said.trim().is_empty(), "{said}");
            scene.wait_cycles(2);
            scene.patiently(0, "blockresize testVM01 vda 280MiB");
        },
        said: Said::Failing("disk vda shrank from 314572800 to 293601280 bytes"),
        cure: |scene| scene.patiently(0, "blockresize testVM01 vda 300MiB"),
    },
    Act {
        name: "a disk is plugged in",
        act: |scene| {
            let file = format!("{IMAGE_FOLDER}/added.qcow2");
            scene.host(0).sh(&format!("qemu-img create -q -f qcow2 {file} 16M")).unwrap();
            scene.virsh(&format!("attach-disk testVM01 {file} vdb --subdriver qcow2 --persistent"));
        },
        said: Said::Event("disk vdb was added"),
        cure: |scene| {
            scene.fill("beside", 2);
            scene.wait_cycles(1);
            scene.virsh("detach-disk testVM01 vdb --persistent");
        },
    },
    Act {
        name: "an external snapshot is taken",
        act: |scene| {
            scene.fill("before-snapshot", 2);
            scene.virsh("snapshot-create-as testVM01 one --disk-only --atomic --no-metadata");
            scene.fill("after-snapshot", 2);
        },
        said: Said::Event("disk vda is written to"),
        cure: nothing,
    },
    Act {
        name: "the snapshot is merged",
        act: |scene| {
            scene.fill("before-commit", 2);
            scene.patiently(0, "blockcommit testVM01 vda --active --pivot --wait");
            scene.fill("after-commit", 2);
        },
        said: Said::Event("disk vda is written to"),
        cure: nothing,
    },
    Act {
        name: "another program takes a backup",
        act: |scene| {
            let job = "<domainbackup mode='pull'><server transport='unix' socket='/run/libvirt/qemu/theirs.sock'/>\
                       </domainbackup>";
            std::fs::write(scene.host(0).path("/run/backup.xml").unwrap(), job).unwrap();
            scene.patiently(0, "backup-begin testVM01 /run/backup.xml");
        },
        said: Said::Failing("another job"),
        cure: |scene| scene.virsh("domjobabort testVM01"),
    },
    Act {
        name: "another program makes a checkpoint",
        act: |scene| {
            scene.virsh("checkpoint-create-as testVM01 theirs");
            scene.fill("beside-theirs", 2);
        },
        said: Said::Nothing,
        cure: |scene| {
            scene.wait_cycles(1);
            // It is theirs: still there, and theirs to delete.
            scene.virsh("checkpoint-delete testVM01 theirs");
        },
    },
    Act {
        name: "our checkpoint is deleted",
        act: |scene| {
            scene.fill("before-delete", 2);
            let begun = Instant::now();
            // A cycle of ours may replace it just now.
            while scene.host(0).virsh(["checkpoint-delete", VM, &scene.own_checkpoint()]).is_err() {
                assert!(begun.elapsed() < LIMIT, "the checkpoint cannot be deleted");
            }
        },
        said: Said::Event("resynchronization: "),
        cure: nothing,
    },
    Act {
        name: "the VM is undefined while it runs",
        act: |scene| scene.virsh("undefine testVM01 --checkpoints-metadata"),
        said: Said::Health("critical", "was undefined while it runs"),
        cure: |scene| {
            let shown = scene.show(0);
            let cure = reasons(&shown).iter().find_map(|it| it["cure"].as_str().map(str::to_owned));
            scene.host(0).sh(&format!("cd /run; {}", cure.expect("a cure"))).unwrap();
        },
    },
    Act {
        name: "a snapshot is taken, and the VM is shut down before the next cycle",
        act: |scene| {
            scene.product.run(&scene.lab, HOSTS[0], &["pause", VM, "--yes"]).unwrap();
            scene.fill("below", 2);
            scene.virsh("snapshot-create-as testVM01 two --disk-only --atomic --no-metadata");
            scene.fill("above", 2);
            scene.virsh("shutdown testVM01 --mode acpi");
            scene.host(0).wait_guest_state(VM, "shut off", LIMIT).unwrap();
            scene.product.run(&scene.lab, HOSTS[0], &["resume", VM, "--yes"]).unwrap();
        },
        said: Said::Event("is spread over several files"),
        cure: nothing,
    },
    Act {
        name: "it is merged when the VM runs again",
        act: |scene| {
            scene.virsh("start testVM01");
            scene.guest.wait_workload(&scene.lab, LIMIT).unwrap();
            scene.patiently(0, "blockcommit testVM01 vda --active --pivot --wait");
            scene.fill("after-both", 2);
        },
        said: Said::Event("disk vda is written to"),
        cure: nothing,
    },
    Act {
        name: "the VM is destroyed in the middle of a cycle",
        act: |scene| {
            scene.fill("much", 48);
            let reading = Hold::arm(scene.host(0), "cycle.reading").unwrap();
            reading.wait(LIMIT).unwrap();
            scene.virsh("destroy testVM01");
        },
        said: Said::Number(1101),
        cure: nothing,
    },
];

pub const WHILE_IT_IS_OFF: &[Act] = &[
    Act {
        name: "the disk is written to while the VM is off",
        act: |scene| {
            let file = format!("{IMAGE_FOLDER}/{VM}-vda.qcow2");
            scene.host(0).sh(&format!("qemu-io -f qcow2 -c 'write -P 0x5a 260M 1M' {file}")).unwrap();
        },
        said: Said::Event("a disk was written to while the VM was off"),
        cure: nothing,
    },
    Act {
        name: "our bitmap is removed",
        act: |scene| {
            let file = format!("{IMAGE_FOLDER}/{VM}-vda.qcow2");
            let checkpoint = scene.own_checkpoint();
            let script = format!(
                "qemu-img bitmap --remove {file} {checkpoint}; qemu-io -f qcow2 -c 'write -P 0x6b 270M 1M' {file}"
            );
            scene.host(0).sh(&script).unwrap();
        },
        said: Said::Event("resynchronization: "),
        cure: nothing,
    },
    Act {
        name: "an older copy of the disk is put back",
        act: |scene| {
            let file = format!("{IMAGE_FOLDER}/{VM}-vda.qcow2");
            scene
                .host(0)
                .sh(&format!("cp -p {file} /run/older; qemu-io -f qcow2 -c 'write -P 7 280M 1M' {file}"))
                .unwrap();
            scene.wait_cycles(2);
            // In place: the same inode.
            scene.host(0).sh(&format!("cat /run/older >{file}; rm /run/older")).unwrap();
        },
        said: Said::Event("resynchronization: "),
        cure: nothing,
    },
    Act {
        name: "the memory is changed",
        act: |scene| scene.virsh("setmaxmem testVM01 200M --config"),
        said: Said::Event("the definition was edited"),
        cure: |scene| {
            let directory = scene.show(1)["directory"].as_str().expect("a directory").to_owned();
            let carried = format!("until grep 204800 '{directory}/domain.xml'; do sleep 0.2; done");
            scene.host(1).exec(["timeout", "30", "sh", "-c", &carried]).unwrap();
        },
    },
    Act {
        name: "the disk is removed",
        act: |scene| {
            scene.host(0).sh("virsh dumpxml --inactive testVM01 >/run/whole.xml").unwrap();
            scene.virsh("detach-disk testVM01 vda --config");
        },
        said: Said::Health("critical", "disk vda of VM \"testVM01\" is gone"),
        cure: |scene| scene.virsh("define /run/whole.xml"),
    },
    Act {
        name: "the VM is undefined",
        act: |scene| scene.virsh("undefine testVM01 --checkpoints-metadata"),
        said: Said::Health("critical", "is not defined on this host any more"),
        cure: |scene| {
            let directory = scene.show(1)["directory"].as_str().expect("a directory").to_owned();
            let kept = scene.host(1).path(format!("{directory}/primary.xml")).unwrap();
            std::fs::copy(kept, scene.host(0).path("/run/kept.xml").unwrap()).unwrap();
            scene.virsh("define /run/kept.xml");
        },
    },
];
