//! Recovery points: they thin out as the rule says, each starts as the VM was then, and no interruption harms one.

use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use domain::{Consistency, Epoch, Lineage, PointId, RecoveryPoint, Retention, Timestamp};
use lab::{GuestOptions, HOSTS, Hold, LIMIT, Lab, LabOptions, Product, Protected, is_normal};
use serde_json::Value;

const VM: &str = "testVM01";
const DEAF: &str = "deafVM02";
const GRID: &str = "3x10s,2x30s";

/// Two hosts, the VM protected with a grid of points, and one that has no agent.
fn scene() -> Protected {
    let mut lab = Lab::up(LabOptions::named("points")).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let guest =
        lab.define_guest(HOSTS[0], &GuestOptions { name: VM.into(), ..GuestOptions::default() }).unwrap();
    let deaf = GuestOptions { name: DEAF.into(), number: 51, deaf: true, ..GuestOptions::default() };
    let deaf = lab.define_guest(HOSTS[0], &deaf).unwrap();
    for guest in [&guest, &deaf] {
        lab.host(HOSTS[0]).virsh(["start", &guest.name]).unwrap();
        guest.wait_workload(&lab, LIMIT).unwrap();
    }
    let enable = ["enable", VM, "--peer", HOSTS[1], "--frequency", "5s", "--recovery-points", GRID, "--yes"];
    product.run(&lab, HOSTS[0], &enable).unwrap();
    product
        .run(&lab, HOSTS[0], &["enable", DEAF, "--peer", HOSTS[1], "--frequency", "30s", "--yes"])
        .unwrap();
    product.run(&lab, HOSTS[0], &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
    product.wait_show(&lab, HOSTS[0], VM, LIMIT, |shown| is_normal(shown, 1)).unwrap();
    Protected { lab, product, guest }
}

fn points(world: &Protected, host: &str) -> Vec<Value> {
    let listed = world.product.json(&world.lab, host, &["point", "list", VM]).unwrap();
    listed["points"].as_array().unwrap().clone()
}

/// The point with this tag, as the replica server lists it.
fn tagged(world: &Protected, tag: &str) -> Value {
    let found = points(world, HOSTS[1]).into_iter().find(|point| point["tag"] == tag);
    found.unwrap_or_else(|| panic!("no point {tag:?} in {:#?}", points(world, HOSTS[1])))
}

fn id(point: &Value) -> String {
    point["id"].as_str().unwrap().to_owned()
}

/// A point made now; what the command said of it.
fn create(world: &Protected, vm: &str, options: &[&str]) -> Value {
    let words = [&["point", "create", vm, "--yes"], options].concat();
    world.product.json(&world.lab, HOSTS[0], &words).unwrap()
}

fn append(world: &Protected, number: u64) {
    world.guest.ask(&world.lab, |client| client.append(number)).unwrap();
}

fn has_event(world: &Protected, host: &str, number: u64) -> bool {
    let events = world.product.json(&world.lab, host, &["events"]).unwrap();
    events.as_array().unwrap().iter().any(|event| event["number"] == number)
}

#[test]
fn points_thin_out_start_as_the_vm_was_and_survive_every_interruption() {
    let mut world = scene();
    let step = |name: &str, begun: Instant| println!("── {name}: {:.1?}", begun.elapsed());
    let begun = Instant::now();
    thinned_out(&world);
    step("thinned out", begun);
    let begun = Instant::now();
    on_demand(&world);
    step("on demand", begun);
    let begun = Instant::now();
    refusals(&world);
    step("refusals", begun);
    let begun = Instant::now();
    an_old_point_starts_as_it_was(&world);
    step("an old point starts", begun);
    let begun = Instant::now();
    thawed_when_the_daemon_dies(&mut world);
    step("thawed when the daemon dies", begun);
    let begun = Instant::now();
    killed_while_merging(&mut world);
    step("killed while merging", begun);
    let begun = Instant::now();
    there_and_home(&world);
    step("there and home", begun);
    world.lab.down().unwrap();
}

/// The points of the replica are at any time those that the pure rule keeps of all that there were.
fn thinned_out(world: &Protected) {
    let retention: Retention = GRID.parse().unwrap();
    let mut all: BTreeMap<u64, RecoveryPoint> = BTreeMap::new();
    let (begun, mut agreed, mut dropped) = (Instant::now(), 0, 0);
    // So long that the wider part of the grid thins out as well: points of more than 30 s, on a machine of any speed.
    while begun.elapsed() < Duration::from_secs(45) || agreed == 0 || dropped <= 3 {
        let listed = points(world, HOSTS[1]);
        all.extend(listed.iter().map(|point| (point["ordinal"].as_u64().unwrap(), domain_point(point))));
        let history: Vec<RecoveryPoint> = all.values().cloned().collect();
        let kept = retention.keep(&history, &HashSet::new());
        let ids: Vec<PointId> = listed.iter().map(|point| id(point).parse().unwrap()).collect();
        // Between the arrival of a point and the next look of its owner there may be one too many.
        agreed = if ids.iter().copied().eq(history.iter().map(|it| it.id).filter(|it| kept.contains(it))) {
            agreed + 1
        } else {
            0
        };
        dropped = all.len() - listed.len();
        assert!(kept.iter().all(|point| ids.contains(point)), "{kept:?} is kept, listed is {listed:#?}");
        assert!(
            begun.elapsed() < LIMIT,
            "too many, or none was dropped: {dropped} of {}, {listed:#?}",
            all.len()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let shown = world.product.json(&world.lab, HOSTS[1], &["show", VM]).unwrap();
    let chain = &shown["chain"];
    assert!(chain["layers"].as_u64().unwrap() <= chain["points"].as_u64().unwrap() + 1, "{chain}");
    assert!(chain["bytes"].as_u64().unwrap() > 1 << 20, "{chain}");
    assert_eq!(shown["recovery_points"], GRID, "the settings have travelled");
    println!("{}", world.product.run(&world.lab, HOSTS[1], &["point", "list", VM]).unwrap());
    println!("{}", world.product.run(&world.lab, HOSTS[1], &["show", VM]).unwrap());
    every_file_is_sound(world);
}

fn domain_point(point: &Value) -> RecoveryPoint {
    RecoveryPoint {
        id: id(point).parse().unwrap(),
        parent: None,
        ordinal: point["ordinal"].as_u64().unwrap(),
        epoch: Epoch::FIRST,
        instant: Timestamp(point["at_ms"].as_u64().unwrap()),
        consistency: match point["consistency"].as_str().unwrap() {
            "file-system-consistent" => Consistency::FileSystem,
            _ => Consistency::Crash,
        },
        lineage: Lineage::ORIGIN,
        delta_bytes: 0,
        tag: point["tag"].as_str().map(str::to_owned),
    }
}

/// `qemu-img` finds nothing wrong with any file of the replica. A merge that was killed may leave unused clusters (3), and one that
/// goes on meanwhile takes files away or makes them stand on others: what fails then is looked at once more.
fn every_file_is_sound(world: &Protected) {
    let check = "sound() { qemu-img check -q -U $1 || [ $? = 3 ] || [ ! -e $1 ]; }; \
                 for file in /var/lib/virt-replica/replicas/testVM01.*/vda/*.qcow2; do \
                 sound $file || sound $file || echo $file; done";
    assert_eq!(world.lab.host(HOSTS[1]).sh(check).unwrap(), "");
}

/// Points that somebody asks for stay; those for which the guest was frozen say so, and it is thawed; by the schedule too.
fn on_demand(world: &Protected) {
    append(world, 1);
    let one = create(world, VM, &["--tag", "one"]);
    println!("{one:#}");
    append(world, 2);
    let two = create(world, VM, &["--tag", "two", "--application-consistent"]);
    append(world, 3);
    hook_runs(world, "freeze\nthaw\n");
    let made = |made: &Value, name: &str| made["point"][name].as_str().unwrap().to_owned();
    assert_eq!((made(&one, "tag"), made(&one, "consistency")), ("one".into(), "crash-consistent".into()));
    assert_eq!(
        (made(&two, "tag"), made(&two, "consistency")),
        ("two".into(), "file-system-consistent".into())
    );
    for tag in ["one", "two"] {
        assert_eq!(tagged(world, tag)["disks"], serde_json::json!(["vda"]));
    }
    assert!(
        points(world, HOSTS[0]).iter().any(|point| point["tag"] == "two"),
        "the primary asks its replica server"
    );
    assert!(has_event(world, HOSTS[0], 1301));

    a_hook_that_refuses(world);

    world
        .product
        .run(&world.lab, HOSTS[0], &["set", VM, "--application-consistent-every", "10s", "--yes"])
        .unwrap();
    let begun = Instant::now();
    let newest_frozen = || {
        let frozen =
            |point: &&Value| point["consistency"] == "file-system-consistent" && point["tag"].is_null();
        points(world, HOSTS[1]).iter().filter(frozen).map(|point| point["ordinal"].as_u64().unwrap()).max()
    };
    while newest_frozen().is_none() {
        assert!(begun.elapsed() < LIMIT, "{:#?}", points(world, HOSTS[1]));
        std::thread::sleep(Duration::from_millis(500));
    }
    append(world, 4);
    world
        .product
        .run(&world.lab, HOSTS[0], &["set", VM, "--application-consistent-every", "never", "--yes"])
        .unwrap();

    // One whose agent hangs is not waited for, and is not frozen when the agent goes on.
    world.guest.ask(&world.lab, |client| client.hang_agent(true)).unwrap();
    let hung = create(world, VM, &["--application-consistent"]);
    assert_eq!(made(&hung, "consistency"), "crash-consistent", "{hung:#}");
    assert!(hung["failure"].as_str().unwrap().contains("does not answer"), "{hung:#}");
    world.guest.ask(&world.lab, |client| client.hang_agent(false)).unwrap();
    world.lab.host(HOSTS[0]).wait_agent(VM, LIMIT).unwrap();
    world.guest.ask(&world.lab, |client| client.fill("after-the-agent-hung", 1)).unwrap();

    // Without an agent the point is made all the same, and says what it is.
    world.product.wait_show(&world.lab, HOSTS[0], DEAF, LIMIT, |shown| is_normal(shown, 1)).unwrap();
    let deaf = create(world, DEAF, &["--application-consistent"]);
    assert_eq!(made(&deaf, "consistency"), "crash-consistent", "{deaf:#}");
    assert!(deaf["failure"].as_str().unwrap().contains("no guest agent"), "{deaf:#}");
    assert!(has_event(world, HOSTS[0], 1303));
    world.product.run(&world.lab, HOSTS[0], &["remove", DEAF, "--delete-replica", "--yes"]).unwrap();
    world.lab.host(HOSTS[0]).virsh(["destroy", DEAF]).unwrap();
}

/// The hook in the guest was called this often and in this order, and its application goes on.
fn hook_runs(world: &Protected, expected: &str) {
    let said = world.lab.host(HOSTS[0]).guest_sh(VM, "cat /run/hook.log").unwrap();
    assert_eq!(said, expected);
    assert!(!is_at_rest(world, HOSTS[0], VM), "the application was told that it may go on");
}

/// Whether the disk of the VM, or of a copy, is one that the application in the guest had brought to rest.
fn is_at_rest(world: &Protected, host: &str, vm: &str) -> bool {
    let look = "if [ -e /data/at-rest ]; then echo at rest; else echo at work; fi";
    world.lab.host(host).guest_sh(vm, look).unwrap().trim() == "at rest"
}

/// An application that cannot be brought to rest: the point is made all the same, and says that it is not what was wished for.
fn a_hook_that_refuses(world: &Protected) {
    let host = world.lab.host(HOSTS[0]);
    host.guest_sh(VM, "rm /run/hook.log; touch /run/hook-refuses").unwrap();
    let refused = create(world, VM, &["--application-consistent"]);
    assert_eq!(refused["point"]["consistency"], "crash-consistent", "{refused:#}");
    assert!(refused["failure"].as_str().unwrap().contains("hook"), "{refused:#}");
    append(world, 31);
    hook_runs(world, "freeze\nthaw\n");
    host.guest_sh(VM, "rm /run/hook-refuses").unwrap();
}

fn refusals(world: &Protected) {
    let newest = id(points(world, HOSTS[1]).last().unwrap());
    let cases: [(usize, &[&str], i32, &[&str]); 8] = [
        (
            0,
            &["set", VM, "--recovery-points", "117", "--yes"],
            3,
            &["4 tagged", "virt-replica point remove testVM01"],
        ),
        (1, &["point", "create", VM, "--yes"], 3, &["on hvhost01: virt-replica point create testVM01"]),
        (1, &["point", "remove", VM, &newest, "--yes"], 3, &["newest recovery point"]),
        (0, &["point", "remove", VM, "4711", "--yes"], 4, &["virt-replica point list testVM01"]),
        (0, &["set", VM, "--recovery-points", "200", "--yes"], 2, &["118", "fewer or wider"]),
        (0, &["set", VM, "--recovery-points", "often", "--yes"], 2, &["24x1h,7x1d"]),
        (0, &["set", VM, "--application-consistent-every", "1s", "--yes"], 2, &["at least 10 s"]),
        (0, &["point", "create", VM, "--tag", "", "--yes"], 2, &["1 to 64 characters"]),
    ];
    for (host, words, code, expected) in cases {
        let (ended, said) = world.product.attempt(&world.lab, HOSTS[host], words).unwrap();
        println!("$ {words:?} on {}\n{said}", HOSTS[host]);
        assert_eq!(ended, Some(code), "{said}");
        expected.iter().for_each(|words| assert!(said.contains(words), "{words:?} is not in:\n{said}"));
    }
}

/// The records that a copy of the VM holds.
fn records(world: &Protected, copy: &str) -> Vec<u64> {
    let text = world.lab.host(HOSTS[1]).guest_sh(copy, "cut -d ' ' -f 1 /data/records").unwrap();
    text.lines().map(|line| line.trim().parse().unwrap()).collect()
}

/// A test failover stands on an old point while cycles go on: its files do not change, those above are merged.
fn an_old_point_starts_as_it_was(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    let one = tagged(world, "one");
    let words = ["test-failover", VM, "--point", &id(&one), "--keep", "--yes"];
    let copy = product.json(lab, HOSTS[1], &words).unwrap();
    assert_eq!(copy["passed"], true, "{copy:#}");
    assert_eq!(records(world, "testVM01 - Test"), [1]);

    let pinned = tagged(world, "one");
    assert_eq!(pinned["pinned_by"], serde_json::json!([copy["id"]]), "{pinned:#}");
    let digest = "cd /var/lib/virt-replica/replicas/testVM01.*/vda && ls | sort -n | md5sum";
    let (code, said) = product.attempt(lab, HOSTS[1], &["point", "remove", VM, &id(&one), "--yes"]).unwrap();
    assert!(code == Some(3) && said.contains("virt-replica stop-test-failover testVM01"), "{code:?} {said}");
    let before = lab.host(HOSTS[1]).sh(digest).unwrap();
    let newest = points(world, HOSTS[1]).last().unwrap()["ordinal"].as_u64().unwrap();
    // Enough cycles that points above the pinned one are dropped.
    let begun = Instant::now();
    while points(world, HOSTS[1]).last().unwrap()["ordinal"].as_u64().unwrap() < newest + 4 {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_ne!(lab.host(HOSTS[1]).sh(digest).unwrap(), before);
    let listed = points(world, HOSTS[1]);
    let chain = product.json(lab, HOSTS[1], &["point", "list", VM]).unwrap()["chain"].clone();
    assert!(chain["layers"].as_u64().unwrap() <= listed.len() as u64 + 2, "{chain} {listed:#?}");
    assert_eq!(records(world, "testVM01 - Test"), [1]);

    let words = ["test-failover", VM, "--point", &id(&tagged(world, "two")), "--keep", "--yes"];
    assert_eq!(product.json(lab, HOSTS[1], &words).unwrap()["passed"], true);
    assert_eq!(records(world, "testVM01 - Test 2"), [1, 2]);
    // The hook ran before the instant of the point that was asked for so, and its other half after it.
    let rests = ["testVM01 - Test", "testVM01 - Test 2"].map(|copy| is_at_rest(world, HOSTS[1], copy));
    assert_eq!(rests, [false, true]);
    product.run(lab, HOSTS[1], &["stop-test-failover", VM, "--yes"]).unwrap();

    let number = one["ordinal"].to_string();
    product.run(lab, HOSTS[0], &["point", "remove", VM, &number, "--yes"]).unwrap();
    assert!(points(world, HOSTS[1]).iter().all(|point| point["tag"] != "one"));
    tagged(world, "two");
}

/// The daemon dies between freeze and thaw: the guest does not stay frozen, with or without the daemon.
fn thawed_when_the_daemon_dies(world: &mut Protected) {
    let hold = Hold::arm(world.lab.host(HOSTS[0]), "freeze.frozen").unwrap();
    let words = ["point", "create", VM, "--tag", "frozen", "--application-consistent", "--yes"];
    let mut command = world.product.command(&world.lab, HOSTS[0], &words).unwrap();
    let mut asked = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    hold.wait(LIMIT).unwrap();
    let frozen = world.guest.ask(&world.lab, |client| client.append(5));
    assert!(frozen.is_err(), "the guest is frozen");
    world.product.kill(HOSTS[0]).unwrap();
    let begun = Instant::now();
    // One that is not answered may be stored nonetheless: each has a number of its own, or it would be a doubled write.
    for number in 100.. {
        if world.guest.ask(&world.lab, |client| client.append(number)).is_ok() {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "the guest stays frozen");
    }
    println!("thawed {:.1?} after the daemon's death", begun.elapsed());
    drop(hold);
    assert!(!asked.wait().unwrap().success(), "nobody answered");
    world.product.start(world.lab.host(HOSTS[0])).unwrap();
    goes_on(world, HOSTS[0]);
}

/// Cycles go on and both hosts say Normal.
fn goes_on(world: &Protected, primary: &str) {
    let cycles =
        |shown: &Value| shown.pointer("/statistics/cycles_acknowledged").and_then(Value::as_u64).unwrap();
    let before = cycles(&world.product.json(&world.lab, primary, &["show", VM]).unwrap());
    world.product.wait_show(&world.lab, primary, VM, LIMIT, |shown| is_normal(shown, before + 2)).unwrap();
    for host in HOSTS {
        world.product.wait_show(&world.lab, host, VM, LIMIT, |shown| shown["health"] == "normal").unwrap();
    }
}

/// `kill -9` of the replica's daemon before a merge and behind it: every point reads as before, and the work goes on.
fn killed_while_merging(world: &mut Protected) {
    for place in ["chain.merging", "chain.merged"] {
        let hold = Hold::arm(world.lab.host(HOSTS[1]), place).unwrap();
        hold.wait(LIMIT).unwrap();
        world.product.kill(HOSTS[1]).unwrap();
        drop(hold);
        world.product.start(world.lab.host(HOSTS[1])).unwrap();
        goes_on(world, HOSTS[0]);
        every_file_is_sound(world);
    }
    let words = ["test-failover", VM, "--point", &id(&tagged(world, "two")), "--keep", "--yes"];
    assert_eq!(world.product.json(&world.lab, HOSTS[1], &words).unwrap()["passed"], true);
    assert_eq!(records(world, "testVM01 - Test"), [1, 2]);
    world.product.run(&world.lab, HOSTS[1], &["stop-test-failover", VM, "--yes"]).unwrap();
}

/// A handover keeps the points of the host that takes over, and the way home does not wait for those of the home.
fn there_and_home(world: &Protected) {
    let (lab, product) = (&world.lab, &world.product);
    let disks = lab.host(HOSTS[0]).virsh(["domblklist", VM]).unwrap();
    let there = product.hand_over(lab, &world.guest, HOSTS[0], 1_000_000, &[]).unwrap();
    assert_eq!(
        (there.lost_writes, there.doubled_writes, there.digests_equal),
        (0, 0, Some(true)),
        "{there:?}"
    );
    goes_on(world, HOSTS[1]);
    create_there(world);
    // Points gather at the home.
    let begun = Instant::now();
    while points(world, HOSTS[0]).len() < 4 {
        assert!(begun.elapsed() < LIMIT, "{:#?}", points(world, HOSTS[0]));
        std::thread::sleep(Duration::from_millis(500));
    }
    let plan = product.run(lab, HOSTS[1], &["planned-failover", VM, "--dry-run"]).unwrap();
    assert!(plan.contains("older recovery points there are merged into its own disk"), "{plan}");
    let home = product.hand_over(lab, &world.guest, HOSTS[1], 2_000_000, &[]).unwrap();
    assert_eq!((home.lost_writes, home.doubled_writes, home.digests_equal), (0, 0, Some(true)), "{home:?}");
    println!(
        "off to resumed: there {:?} s, home {:?} s",
        there.seconds_off_to_resumed, home.seconds_off_to_resumed
    );
    assert_eq!(lab.host(HOSTS[0]).virsh(["domblklist", VM]).unwrap(), disks);
    goes_on(world, HOSTS[0]);
    // The old points of the replica server outlived both, and read as they did.
    let words = ["test-failover", VM, "--point", &id(&tagged(world, "two")), "--keep", "--yes"];
    assert_eq!(product.json(lab, HOSTS[1], &words).unwrap()["passed"], true);
    assert_eq!(records(world, "testVM01 - Test"), [1, 2]);
    product.run(lab, HOSTS[1], &["stop-test-failover", VM, "--yes"]).unwrap();
    every_file_is_sound(world);
}

/// A point made where the VM runs now, kept at its home.
fn create_there(world: &Protected) {
    let words = ["point", "create", VM, "--tag", "away", "--yes"];
    world.product.json(&world.lab, HOSTS[1], &words).unwrap();
    assert!(points(world, HOSTS[0]).iter().any(|point| point["tag"] == "away"));
}
