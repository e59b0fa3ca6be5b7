//! Test failover: copies run beside the replica while replication goes on, meet nobody, and leave nothing, however they end.

#[path = "drill/storage.rs"]
mod storage;

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{GuestOptions, HOSTS, Hold, Judge, LIMIT, Lab, LabOptions, Product, Protected, is_normal};
use serde_json::Value;

const VM: &str = "testVM01";
/// What a test failover makes on its host: VMs, networks, files of libvirt and of ours. Layers that cycles add are left out,
/// and the runtime folders of libvirt: of any VM that lost its power one stays until a VM of that name starts again.
const TRACES: &str = "virsh -q -c qemu:///system list --all --name | sort; ls /sys/class/net | grep -v vnet; ip netns list; \
     find /var/lib/libvirt/qemu /var/lib/libvirt/swtpm -mindepth 1 -maxdepth 2 ! -path '*/domain-*' 2>/dev/null | sort; \
     find /var/lib/virt-replica/replicas -path '*/tests*'; nft list ruleset; pgrep -f '^sleep 4711' || true";

fn photograph(lab: &Lab) -> Vec<String> {
    HOSTS.map(|host| lab.host(host).sh(TRACES).unwrap()).into()
}

/// Two hosts, the VM protected, and a writer outside.
fn scene() -> (Protected, Judge) {
    let mut lab = Lab::up(LabOptions::named("drill")).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let options = GuestOptions { name: VM.into(), screen: true, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &options).unwrap();
    lab.host(HOSTS[0]).virsh(["start", VM]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    let words = ["enable", VM, "--peer", HOSTS[1], "--frequency", "5s", "--yes"];
    product.run(&lab, HOSTS[0], &words).unwrap();
    product.run(&lab, HOSTS[0], &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
    let judge = Judge::start(&lab, &guest, 1).unwrap();
    product.wait_show(&lab, HOSTS[0], VM, LIMIT, |shown| is_normal(shown, 2)).unwrap();
    (Protected { lab, product, guest }, judge)
}

fn cycles(world: &Protected) -> u64 {
    let shown = world.product.json(&world.lab, HOSTS[0], &["show", VM]).unwrap();
    shown.pointer("/statistics/cycles_acknowledged").and_then(Value::as_u64).unwrap()
}

/// Cycles go on and both hosts say Normal.
fn replication_goes_on(world: &Protected) {
    let before = cycles(world);
    let (product, lab) = (&world.product, &world.lab);
    product.wait_show(lab, HOSTS[0], VM, LIMIT, |shown| is_normal(shown, before + 2)).unwrap();
    product.wait_show(lab, HOSTS[1], VM, LIMIT, |shown| shown["health"] == "normal").unwrap();
}

fn tests(world: &Protected) -> Vec<Value> {
    let listed = world.product.json(&world.lab, HOSTS[1], &["test-failover", "list"]).unwrap();
    listed.as_array().unwrap().clone()
}

/// The newest test failover once it is in this state.
fn newest_is(world: &Protected, state: &str) -> Value {
    let begun = Instant::now();
    loop {
        let newest = tests(world).into_iter().next();
        if let Some(newest) = newest.filter(|newest| newest["state"] == state) {
            return newest;
        }
        assert!(begun.elapsed() < LIMIT, "no test failover is {state}: {:#?}", tests(world));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn begin(world: &Protected, options: &[&str]) -> (Option<i32>, Value) {
    let words = [&["test-failover", VM, "--yes", "--json"], options].concat();
    let (code, said) = world.product.attempt(&world.lab, HOSTS[1], &words).unwrap();
    (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}")))
}

#[test]
fn copies_are_tried_beside_the_replica_meet_nobody_and_leave_nothing() {
    let (mut world, judge) = scene();
    let before = photograph(&world.lab);
    let step = |name: &str, begun: Instant| println!("── {name}: {:.1?}", begun.elapsed());

    let begun = Instant::now();
    two_at_once(&world);
    step("two at once", begun);
    let begun = Instant::now();
    refusals(&world);
    step("refusals", begun);
    assert_eq!(photograph(&world.lab).len(), before.len());
    let stopped = world.product.json(&world.lab, HOSTS[1], &["stop-test-failover", VM, "--yes"]).unwrap();
    assert_eq!(stopped.as_array().unwrap().len(), 2, "{stopped:#}");
    assert_eq!(photograph(&world.lab), before);

    let begun = Instant::now();
    in_a_named_network(&world);
    assert_eq!(photograph(&world.lab), before);
    step("in a named network", begun);
    let begun = Instant::now();
    interrupted(&mut world, &before);
    step("interrupted", begun);
    let begun = Instant::now();
    the_host_loses_its_power(&mut world, &before);
    step("the host loses its power", begun);
    let begun = Instant::now();
    storage::no_room(&world);
    step("no room", begun);
    let begun = Instant::now();
    drill(&world);
    step("drill", begun);
    assert_eq!(photograph(&world.lab), before);

    replication_goes_on(&world);
    let verdict = judge.finish(&world.lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    world.lab.down().unwrap();
}

/// Two copies of different points, each with its own identity, in a network in which there is nobody.
fn two_at_once(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    // The probe sees one network with one neighbour: not that of the VM, which answers at the same address all the while.
    let probe = "test $(ls /sys/class/net | wc -l) = 2 && bash -c 'exec 3<>/dev/tcp/$VM_ADDRESS/7070' && echo met $VM_NAME";
    let (code, first) = begin(world, &["--keep", "--probe-port", "7070", "--probe", probe]);
    println!("{first:#}");
    assert_eq!((code, &first["passed"], &first["state"]), (Some(0), &true.into(), &"standing".into()));
    assert_eq!(first["name"], "testVM01 - Test");
    assert!(first["boot_ms"].as_u64().unwrap() > 0 && first["isolated"] == true);
    assert!(first.to_string().contains("met testVM01 - Test"), "{first:#}");
    picture_and_report(lab, &first);
    replication_goes_on(world);

    let (code, second) = begin(world, &["--keep", "--point", "latest"]);
    assert_eq!((code, &second["passed"]), (Some(0), &true.into()), "{second:#}");
    assert_eq!(second["name"], "testVM01 - Test 2");
    assert_ne!(first["point"], second["point"]);
    assert_eq!(tests(world).iter().filter(|test| test["state"] == "standing").count(), 2);
    replication_goes_on(world);

    let host = lab.host(HOSTS[1]);
    let records = |copy: &Value| {
        let name = copy["name"].as_str().unwrap();
        host.guest_sh(name, "wc -c < /data/records").unwrap().trim().parse::<u64>().unwrap()
    };
    let (old, new) = (records(&first), records(&second));
    assert!(0 < old && old < new, "each copy holds the records of its own point: {old}, {new}");
    identities(world, &[&first, &second]);
    // Itself it meets; that the VM is met from outside all the while is the judge's to know.
    for (who, met) in
        [("10.77.0.50", "met"), ("10.77.0.1", "nobody"), ("10.77.0.11", "nobody"), ("10.77.0.12", "nobody")]
    {
        let knock = format!("if ping -c 1 -W 2 {who} >/dev/null; then echo met; else echo nobody; fi");
        let found = host.guest_sh("testVM01 - Test", &knock).unwrap();
        assert_eq!(found.trim(), met, "{who}");
    }
    let page = product.run(lab, HOSTS[1], &["test-failover", "show", first["id"].as_str().unwrap()]).unwrap();
    println!("{page}{}", product.run(lab, HOSTS[1], &["test-failover", "list"]).unwrap());
}

fn picture_and_report(lab: &Lab, test: &Value) {
    let file = |name: &str| {
        let path = test[name].as_str().unwrap_or_else(|| panic!("no {name} in {test:#}"));
        std::fs::read(lab.host(HOSTS[1]).path(path).unwrap()).unwrap()
    };
    let picture = file("picture");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 200, "{} bytes", picture.len());
    let report = String::from_utf8(file("report")).unwrap();
    for words in ["Result: passed", "Boot time: ", "![the screen]"] {
        assert!(report.contains(words), "{words} in {report}");
    }
}

fn identities(world: &Protected, copies: &[&Value]) {
    let mut seen = Vec::new();
    let names = copies.iter().map(|copy| copy["name"].as_str().unwrap());
    for name in names.chain([VM]) {
        let host = world.lab.host(HOSTS[1]);
        seen.push(host.virsh(["domuuid", name]).unwrap());
        let definition = host.virsh(["dumpxml", name]).unwrap();
        let mac = definition.split("<mac address='").nth(1).unwrap().split('\'').next().unwrap();
        seen.push(mac.to_owned());
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "UUIDs and MAC addresses of two copies and the replica");
}

/// While copies stand, nothing changes the files that they read; what cannot work is refused with its cure.
fn refusals(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    let cases: [(usize, &[&str], i32, &[&str]); 6] = [
        (
            0,
            &["planned-failover", VM],
            5,
            &["test failover", "on hvhost02: virt-replica stop-test-failover testVM01"],
        ),
        (1, &["remove", VM], 5, &["test failover", "virt-replica stop-test-failover testVM01"]),
        (0, &["remove", VM], 5, &["test failover", "virt-replica stop-test-failover testVM01"]),
        (0, &["test-failover", VM], 3, &["no replica", "on hvhost02", "virt-replica test-failover testVM01"]),
        (1, &["test-failover", VM, "--network", "nowhere"], 3, &["nowhere", "br0", "leave --network out"]),
        (
            1,
            &["test-failover", VM, "--point", "00000000-0000-0000-0000-000000000001"],
            4,
            &["choose one that is there"],
        ),
    ];
    for (host, words, code, expected) in cases {
        let words = [words, &["--yes"]].concat();
        let (ended, said) = product.attempt(lab, HOSTS[host], &words).unwrap();
        println!("$ {words:?} on {}\n{said}", HOSTS[host]);
        assert_eq!(ended, Some(code), "{said}");
        expected.iter().for_each(|words| assert!(said.contains(words), "{words:?} is not in:\n{said}"));
    }
    assert_eq!(tests(world).len(), 2, "nothing was begun");
}

/// A bridge of the host with the name that is asked for. Whoever speaks to the VM's address from here meets what is plugged into it.
const NAMED_NETWORK: &str = "ip link add lab-named type bridge && ip link set lab-named up \
     && ip address add 10.77.0.200/32 dev lab-named && ip route add 10.77.0.50/32 dev lab-named";

/// Copies in a network of the host: one is plugged into it, boots and is met there; the probe of the other fails: it says so, and
/// goes by itself.
fn in_a_named_network(world: &Protected) {
    let host = world.lab.host(HOSTS[1]);
    host.sh(NAMED_NETWORK).unwrap();
    // On a busy machine guests take their time; what comes after that is the probe's.
    let limit = format!("{}s", 2 * met_there(world).as_secs() + 15);
    let options =
        ["--network", "lab-named", "--probe", "echo no answer; sleep 4711", "--boot-timeout", &limit];
    let (code, failed) = begin(world, &options);
    host.sh("ip link delete lab-named").unwrap();
    assert_eq!((code, &failed["passed"], &failed["state"]), (Some(1), &false.into(), &"ended".into()));
    assert!(failed["isolated"] == false && failed.to_string().contains("no answer"), "{failed:#}");
    let events = world.product.json(&world.lab, HOSTS[1], &["events"]).unwrap();
    for number in [2201, 2202, 2203, 2204] {
        assert!(events.as_array().unwrap().iter().any(|event| event["number"] == number), "event {number}");
    }
}

/// Gives how long it took to boot.
fn met_there(world: &Protected) -> Duration {
    let host = world.lab.host(HOSTS[1]);
    let probe = "echo in $VM_NETWORK at $VM_ADDRESS";
    let options = ["--network", "lab-named", "--probe-port", "7070", "--probe", probe, "--keep"];
    let (code, met) = begin(world, &options);
    assert_eq!((code, &met["passed"], &met["state"]), (Some(0), &true.into(), &"standing".into()), "{met:#}");
    assert!(met["boot_ms"].as_u64().unwrap() > 0 && met["isolated"] == false, "{met:#}");
    assert!(met.to_string().contains("in lab-named at 10.77.0.50"), "{met:#}");
    // Its only card is in that network, and whoever answered the probe is this card.
    let cards = host.virsh(["domiflist", "testVM01 - Test"]).unwrap();
    let card: Vec<&str> = cards.split_whitespace().collect();
    assert_eq!((card.len(), card[1..3].to_vec()), (5, vec!["bridge", "lab-named"]), "{cards}");
    let neighbours = host.sh("ip neighbour show dev lab-named").unwrap();
    assert!(neighbours.contains("10.77.0.50 ") && neighbours.contains(card[4]), "{card:?} in {neighbours}");
    let stopped = world.product.json(&world.lab, HOSTS[1], &["stop-test-failover", VM, "--yes"]).unwrap();
    assert_eq!(stopped.as_array().unwrap().len(), 1, "{stopped:#}");
    Duration::from_millis(met["boot_ms"].as_u64().unwrap())
}

/// The power of the replica's host fails with one copy standing and another being made: their processes, bridges and namespaces are
/// gone with it, and what is left of them on disk (definitions, overlays, variables) is gone soon after the daemon is back.
fn the_host_loses_its_power(world: &mut Protected, before: &[String]) {
    let (code, standing) = begin(world, &["--keep"]);
    assert_eq!((code, &standing["state"]), (Some(0), &"standing".into()), "{standing:#}");
    let hold = Hold::arm(world.lab.host(HOSTS[1]), "test.started").unwrap();
    begin_unwatched(world);
    hold.wait(LIMIT).unwrap();
    let copies = world.lab.host(HOSTS[1]).virsh(["list", "--name"]).unwrap();
    assert_eq!(copies.lines().filter(|name| name.contains(" - Test")).count(), 2, "{copies}");
    world.product.kill(HOSTS[1]).unwrap();
    world.lab.host_mut(HOSTS[1]).power_cut().unwrap();
    drop(hold);
    world.lab.power_on(HOSTS[1]).unwrap();
    let left = world.lab.host(HOSTS[1]).virsh(["list", "--all", "--name"]).unwrap();
    assert_eq!(left.lines().filter(|name| name.contains(" - Test")).count(), 2, "to be removed: {left}");
    world.product.start(world.lab.host(HOSTS[1])).unwrap();
    let begun = Instant::now();
    while tests(world).iter().any(|test| test["state"] != "ended") {
        assert!(begun.elapsed() < LIMIT, "they stay: {:#?}", tests(world));
        std::thread::sleep(Duration::from_millis(100));
    }
    for test in &tests(world)[..2] {
        let why = test["failure"].as_str().unwrap_or_default();
        assert!(why.contains("restarted") || why.contains("being made"), "{test:#}");
    }
    assert_eq!(photograph(&world.lab), before);
    replication_goes_on(world);
}

/// `kill -9` at every place: a copy that was not complete is gone after the restart, one that was stands as it stood.
fn interrupted(world: &mut Protected, before: &[String]) {
    for place in ["test.journaled", "test.files", "test.network", "test.defined", "test.started"] {
        let begun = Instant::now();
        let hold = Hold::arm(world.lab.host(HOSTS[1]), place).unwrap();
        begin_unwatched(world);
        kill_at(world, hold);
        let ended = newest_is(world, "ended");
        assert_eq!((&ended["passed"], photograph(&world.lab)), (&false.into(), before.to_vec()), "{place}");
        println!("{place}: {:.1?}", begun.elapsed());
    }
    let places = [
        "test.standing",
        "test.probing",
        "test.checked",
        "test.removing",
        "test.discarded",
        "test.disconnected",
        "test.removed",
    ];
    let mut hold = Some(Hold::arm(world.lab.host(HOSTS[1]), places[0]).unwrap());
    begin_unwatched(world);
    for (index, place) in places.iter().enumerate() {
        let begun = Instant::now();
        let held = hold.take().unwrap();
        held.wait(LIMIT).unwrap();
        // The next place may come at once after the restart.
        hold = places.get(index + 1).map(|next| Hold::arm(world.lab.host(HOSTS[1]), next).unwrap());
        kill_at(world, held);
        if *place == "test.checked" {
            let standing = newest_is(world, "standing");
            assert_eq!(standing["passed"], true, "{standing:#}");
            assert!(standing["boot_ms"].is_null(), "the daemon that began to measure is gone: {standing:#}");
            let state = world.lab.host(HOSTS[1]).virsh(["domstate", "testVM01 - Test"]).unwrap();
            assert_eq!(state, "running");
            let id = standing["id"].as_str().unwrap().to_owned();
            unwatched(world, &["stop-test-failover", &id, "--yes"]);
        }
        println!("{place}: {:.1?}", begun.elapsed());
    }
    let ended = newest_is(world, "ended");
    assert_eq!((&ended["passed"], photograph(&world.lab)), (&true.into(), before.to_vec()));
}

fn begin_unwatched(world: &Protected) {
    unwatched(world, &["test-failover", VM, "--keep", "--probe-port", "7070", "--yes"]);
}

/// Nobody watches how the command ends: the daemon that it follows is killed.
fn unwatched(world: &Protected, words: &[&str]) {
    let mut command = world.product.command(&world.lab, HOSTS[1], words).unwrap();
    let mut started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::spawn(move || started.wait());
}

fn kill_at(world: &mut Protected, hold: Hold) {
    hold.wait(LIMIT).unwrap();
    world.product.kill(HOSTS[1]).unwrap();
    drop(hold);
    world.product.start(world.lab.host(HOSTS[1])).unwrap();
}

/// A drill comes by itself, and health says when it is overdue: the last good test is older than the schedule by now.
fn drill(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    let known = tests(world).len();
    let hold = Hold::arm(lab.host(HOSTS[1]), "test.journaled").unwrap();
    product.run(lab, HOSTS[0], &["set", VM, "--drill-every", "30s", "--yes"]).unwrap();
    hold.wait(LIMIT).unwrap();
    let overdue =
        |shown: &Value| shown["health"] == "warning" && shown["reasons"].to_string().contains("overdue");
    product.wait_show(lab, HOSTS[1], VM, LIMIT, overdue).unwrap();
    drop(hold);
    let drilled = newest_is(world, "ended");
    assert!(tests(world).len() > known && drilled["passed"] == true, "{drilled:#}");
    assert!(drilled["requested_by"].as_str().unwrap().contains("schedule"), "{drilled:#}");
    product.run(lab, HOSTS[0], &["set", VM, "--drill-every", "never", "--yes"]).unwrap();
    let ends = |shown: &Value| shown["drill_every_seconds"].is_null() && shown["health"] == "normal";
    product.wait_show(lab, HOSTS[1], VM, LIMIT, ends).unwrap();
    // Where one takes longer than the time between two, the next has begun meanwhile.
    newest_is(world, "ended");
}
