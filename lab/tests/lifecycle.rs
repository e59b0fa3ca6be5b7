//! The lab itself: it comes up, works like two hosts with a guest, and leaves nothing.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{GuestOptions, Judge, LIMIT, Lab, LabOptions, Namespace};

/// What a lab could leave behind on the real machine.
#[derive(Debug, PartialEq)]
struct Traces {
    mounts: String,
    links: String,
    machines: Vec<String>,
    programs: Vec<String>,
    folders: Vec<bool>,
}

fn traces(options: &LabOptions) -> Traces {
    let said = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Programs of other labs, which may run beside, live and die with the namespaces of those.
    let outside = std::fs::read_link("/proc/self/ns/pid").unwrap();
    // The cases of this program are processes of their own, which begin and end side by side.
    let itself = std::fs::read_to_string("/proc/self/comm").unwrap();
    let ours = |line: &&str| {
        let mut words = line.split_whitespace();
        let pid = words.next().unwrap_or_default();
        let program = words.collect::<String>();
        let known =
            program.contains(&options.name) || program.contains("libvirt") || program.contains("qemu-system");
        known
            && program != itself.trim()
            && std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace == outside)
    };
    let folders =
        ["/run/libvirt", "/etc/virt-replica", "/var/lib/virt-replica"].map(|path| Path::new(path).exists());
    Traces {
        mounts: std::fs::read_to_string("/proc/mounts").unwrap(),
        links: said(&["ip", "-o", "link", "show", "type", "veth"]) + &said(&["ip", "netns", "list"]),
        machines: Namespace::all().into_iter().filter(|name| name.starts_with(&options.name)).collect(),
        programs: said(&["ps", "-eo", "pid,comm"]).lines().filter(ours).map(str::to_owned).collect(),
        folders: folders.into_iter().chain([options.folder().exists()]).collect(),
    }
}

#[test]
fn lab_up_and_down_leaves_nothing() {
    let options = LabOptions::named("lifecycle");
    lab::sweep(&options).unwrap();
    let before = traces(&options);

    let start = Instant::now();
    let lab = Lab::up(options.clone()).unwrap();
    println!("up in {:?}", start.elapsed());
    for host in lab.hosts() {
        assert_eq!(host.exec(["hostname"]).unwrap().trim(), host.name());
        assert_eq!(host.virsh(["list", "--all", "--name"]).unwrap(), "");
    }
    assert_ne!(traces(&options), before, "the traces must see a lab that is there");
    lab.down().unwrap();
    assert_eq!(traces(&options), before);
}

#[test]
fn a_lab_whose_owner_forgot_it_vanishes_and_a_kept_one_is_found_again() {
    let options = LabOptions::named("kept");
    let before = traces(&options);
    drop(Lab::up(options.clone()).unwrap());
    assert_eq!(traces(&options), before);

    let mut lab = Lab::up(options.clone()).unwrap();
    lab.keep().unwrap();
    drop(lab);
    let mut lab = Lab::attach(options.clone()).unwrap().expect("it was kept");
    lab.host_mut("hvhost02").restart_libvirtd().unwrap();
    lab.host_mut("hvhost01").power_cut().unwrap();
    lab.power_on("hvhost01").unwrap();
    lab.host("hvhost01").virsh(["version"]).unwrap();
    lab.down().unwrap();
    assert_eq!(traces(&options), before);
    assert!(Lab::attach(options).unwrap().is_none());
}

#[test]
fn the_link_can_be_cut_while_the_outside_still_reaches_both() {
    let lab = Lab::up(LabOptions::named("link")).unwrap();
    let (first, second) = (lab.host("hvhost01"), lab.host("hvhost02"));
    // Nothing listens there: a refusal is an answer, silence is none.
    let answers = |host: &lab::Host| {
        let address = format!("{}:9", host.address()).parse().unwrap();
        move || {
            let outcome = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
            outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        }
    };
    assert!(first.within(answers(second)).unwrap());
    lab.cut_link().unwrap();
    lab.cut_link().unwrap();
    assert!(!first.within(answers(second)).unwrap());
    assert!(!second.within(answers(first)).unwrap());
    assert!(lab.outside(answers(first)).unwrap() && lab.outside(answers(second)).unwrap());
    lab.heal_link().unwrap();
    assert!(first.within(answers(second)).unwrap());
    let hears = |to: &lab::Host, from: &lab::Host| {
        let there = format!("{}:0", to.address());
        let socket = to.within(|| UdpSocket::bind(there).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let place = socket.local_addr().unwrap();
        from.within(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"a word", place).unwrap()).unwrap();
        socket.recv(&mut [0; 8]).is_ok()
    };
    lab.deafen(0).unwrap();
    assert!(!hears(first, second) && hears(second, first));
    lab.heal_link().unwrap();
    assert!(hears(first, second) && hears(second, first));
    lab.down().unwrap();
}

#[test]
fn a_guest_boots_answers_is_backed_up_and_shuts_down_with_every_write_kept() {
    let lab = Lab::up(LabOptions::named("guest")).unwrap();
    let host = lab.host("hvhost01");
    let options = GuestOptions { second_disk_mib: Some(64), data_mib: 8, ..GuestOptions::default() };
    let guest = lab.define_guest("hvhost01", &options).unwrap();
    let name = guest.name.as_str();

    let start = Instant::now();
    host.virsh(["start", name]).unwrap();
    let outcome = guest.wait_workload(&lab, LIMIT);
    let console =
        || std::fs::read_to_string(host.path(format!("/var/log/libvirt/qemu/{name}-console.log")).unwrap());
    assert!(outcome.is_ok(), "{outcome:?}\n{}", console().unwrap());
    println!("workload after {:?}", start.elapsed());
    host.wait_agent(name, LIMIT).unwrap();
    println!("agent after {:?}", start.elapsed());
    assert_eq!(guest.ask(&lab, |client| client.who()).unwrap().folders, 2);

    let judge = Judge::start(&lab, &guest, 1).unwrap();
    judge.wait_more(20, LIMIT).unwrap();
    let frozen = host.virsh(["qemu-agent-command", name, r#"{"execute":"guest-fsfreeze-freeze"}"#]).unwrap();
    assert_eq!(frozen, r#"{"return":2}"#, "both disks freeze");
    host.virsh(["qemu-agent-command", name, r#"{"execute":"guest-fsfreeze-thaw"}"#]).unwrap();

    let checkpoint = "<domaincheckpoint><name>one</name></domaincheckpoint>";
    let backup = "<domainbackup mode='pull'><server transport='unix' socket='/run/libvirt/qemu/one.nbd'/></domainbackup>";
    std::fs::write(host.path("/run/checkpoint.xml").unwrap(), checkpoint).unwrap();
    std::fs::write(host.path("/run/backup.xml").unwrap(), backup).unwrap();
    host.virsh(["backup-begin", name, "/run/backup.xml", "/run/checkpoint.xml"]).unwrap();
    let exports = host.exec(["qemu-nbd", "--list", "-k", "/run/libvirt/qemu/one.nbd"]).unwrap();
    assert!(exports.contains("vda") && exports.contains("vdb"), "{exports}");
    host.virsh(["domjobabort", name]).unwrap();
    assert_eq!(host.virsh(["checkpoint-list", name, "--name"]).unwrap(), "one");

    judge.wait_more(20, LIMIT).unwrap();
    println!("longest gap {:?}", judge.downtime());
    let start = Instant::now();
    host.virsh(["shutdown", name, "--mode", "acpi"]).unwrap();
    host.wait_guest_state(name, "shut off", LIMIT).unwrap();
    println!("shut down in {:?}", start.elapsed());
    assert_eq!(host.guest_state(name).unwrap(), "shut off (shutdown)");

    let down_for = Instant::now();
    host.virsh(["start", name]).unwrap();
    judge.wait_more(5, LIMIT).unwrap();
    assert!(judge.downtime_between(down_for, Instant::now()) > Duration::from_millis(500));
    let verdict = judge.finish(&lab).unwrap();
    println!("{verdict:?}");
    assert!(verdict.clean() && verdict.acknowledged >= 45, "{verdict:?}");

    host.wait_agent(name, LIMIT).unwrap(); // it comes later than the workload
    host.virsh(["shutdown", name, "--mode", "agent"]).unwrap();
    host.wait_guest_state(name, "shut off", LIMIT).unwrap();
    assert_eq!(host.guest_state(name).unwrap(), "shut off (shutdown)");
    lab.down().unwrap();
}
