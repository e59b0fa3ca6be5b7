//! What the API shows of both hosts, asked of one: lists and their pages, the audit, the stream of changes, and the other host
//! through the link between the daemons, also when that is silent.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use lab::{Api, GuestOptions, HOSTS, LIMIT, Protected, protected};
use serde_json::Value;

fn list(api: &Api, path: &str) -> Vec<Value> {
    let answered = api.ask(&format!("GET {path}"), &[], "").unwrap();
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.json().unwrap().as_array().unwrap_or_else(|| panic!("a list: {answered:?}")).clone()
}

fn names(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(|it| it["name"].as_str().or(it["vm"].as_str())).collect()
}

#[test]
fn both_hosts_are_shown_what_is_not_shared_is_not_and_silence_is_unknown() {
    let mut world = protected("peers").unwrap();
    let private = GuestOptions { name: "private".into(), ..GuestOptions::default() };
    world.lab.define_guest(HOSTS[1], &private).unwrap();
    let [first, second] = HOSTS.map(|host| Api::of(world.lab.host(host)).unwrap());

    // All VMs of a host are its own business.
    let own = list(&second, "/vms");
    assert_eq!(names(&own), ["private", "testVM01"]);
    assert_eq!((own[0]["relationship"].is_null(), own[1]["mode"].as_str()), (true, Some("replica")));
    assert_eq!(names(&list(&first, "/peers/hvhost02/vms")), ["testVM01"]);
    let vm = first.ask("GET /vms/testVM01", &[], "").unwrap().json().unwrap();
    assert!(vm["disks"][0]["size_bytes"].as_u64() > Some(0), "{vm}");

    // The other side is what the other host says of itself.
    let theirs = list(&first, "/peers/hvhost02/relationships");
    assert_eq!((names(&theirs), theirs[0]["mode"].as_str()), (vec!["testVM01"], Some("replica")));
    assert_eq!(first.ask("GET /peers/hvhost02/host", &[], "").unwrap().json().unwrap()["name"], HOSTS[1]);
    assert!(list(&first, "/peers/hvhost02/events").iter().all(|event| event["vm"] == "testVM01"));
    assert!(list(&first, "/peers/hvhost02/operations").is_empty());

    pages_and_tables(&first);
    a_listener_hears_of_a_change_that_is_made_and_recorded(&first);

    a_guard_that_libvirt_does_not_ask_is_found_out(&mut world);

    world.product.kill(HOSTS[1]).unwrap();
    let begun = Instant::now();
    let silent = first.ask("GET /peers/hvhost02/relationships", &[], "").unwrap();
    assert_eq!(
        (silent.status, silent.json().unwrap()["code"].as_str()),
        (504, Some("peer-silent")),
        "{silent:?}"
    );
    assert!(silent.body.contains("unknown") && begun.elapsed() < Duration::from_secs(12), "{silent:?}");
    world.lab.down().unwrap();
}

/// The guard is installed when libvirt runs already, which looks for hooks when it starts.
fn a_guard_that_libvirt_does_not_ask_is_found_out(world: &mut Protected) {
    world.product.kill(HOSTS[0]).unwrap();
    world.lab.host(HOSTS[0]).sh("rm /etc/libvirt/hooks/qemu.d/virt-replica").unwrap();
    world.lab.host_mut(HOSTS[0]).restart_libvirtd().unwrap();
    world.product.start(world.lab.host(HOSTS[0])).unwrap();
    let (code, said) = world.attempt(HOSTS[0], &["host", "check"]);
    assert!(code == Some(3) && said.contains("does not ask") && said.contains("restart libvirtd"), "{said}");
    let begun = Instant::now();
    let shown = world.wait(HOSTS[0], |shown| shown["reasons"].to_string().contains("does not ask"));
    assert_eq!(shown["health"], "warning", "{shown:#}");
    let left = world.lab.host(HOSTS[0]).virsh(["list", "--all", "--name"]).unwrap();
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["testVM01"], "the VM that is nothing is gone");
    world.lab.host_mut(HOSTS[0]).restart_libvirtd().unwrap();
    while world.attempt(HOSTS[0], &["host", "check"]).0 != Some(0) {
        assert!(begun.elapsed() < LIMIT, "libvirt asks again");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn pages_and_tables(api: &Api) {
    let all = list(api, "/relationships/testVM01/cycles");
    assert!(all.len() >= 2, "{all:?}");
    let page = api.ask("GET /relationships/testVM01/cycles?limit=1", &[], "").unwrap();
    assert!(page.header("link").is_some_and(|link| link.contains("after=")), "{page:?}");
    let table = api.ask("GET /relationships/testVM01/cycles.csv", &[], "").unwrap();
    let rows: Vec<&str> = table.body.lines().collect();
    assert!(rows[0].starts_with("begun,") && rows.len() > all.len(), "{rows:?}");
    // Whoever has the list is not sent it again.
    let page = api.ask("GET /audit", &[], "").unwrap();
    let tag = page.header("etag").unwrap();
    assert_eq!(api.ask("GET /audit", &[("If-None-Match", tag)], "").unwrap().status, 304);
}

fn a_listener_hears_of_a_change_that_is_made_and_recorded(api: &Api) {
    let seen = api.ask("GET /relationships/testVM01", &[], "").unwrap();
    let tag = seen.header("etag").unwrap();
    let (ready, listening) = std::sync::mpsc::channel();
    let stream = api.open("GET /changes", &[("Accept", "text/event-stream")], "").unwrap();
    let listener = std::thread::spawn(move || {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == ": listening"));
        ready.send(()).unwrap();
        // A pause is told as an event of the host.
        lines.any(|line| line == "data: {\"what\":\"events\"}")
    });
    listening.recv_timeout(LIMIT).unwrap();
    let paused = api.ask("POST /relationships/testVM01/pause", &[("If-Match", tag)], "").unwrap();
    assert_eq!(paused.status, 200, "{paused:?}");
    assert!(listener.join().unwrap());
    // Cycles go by without that, a pause does not.
    let stale = api.ask("POST /relationships/testVM01/resume", &[("If-Match", tag)], "").unwrap();
    assert_eq!((stale.status, stale.json().unwrap()["code"].as_str()), (412, Some("stale")), "{stale:?}");
    let records = list(api, "/audit?limit=2");
    let words = |record: &Value| {
        ["who", "verb", "target", "result"].map(|field| record[field].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(words(&records[0]), ["root", "resume", "testVM01", "refused"]);
    assert_eq!(words(&records[1]), ["root", "pause", "testVM01", "accepted"]);
}
