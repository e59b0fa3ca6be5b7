//! The console's sign-in with the real PAM, over the network of the lab. The accounts exist in the file tree of one host and nowhere
//! else.

mod browser;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use browser::{Browser, From};
use lab::{HOSTS, LIMIT, Lab, LabOptions, Product};
use serde_json::{Value, json};

const HOST: &str = HOSTS[0];
const PASSWORD: &str = "right horse battery";

/// One person for each way to be let in or not.
const PEOPLE: &str = r#"
groupadd virt-replica-admin
groupadd virt-replica-operator
groupadd virt-replica-viewer
add() { useradd --no-create-home --shell /usr/sbin/nologin "$@"; }
add --groups virt-replica-admin alice
add --groups virt-replica-operator otto
add --groups virt-replica-viewer vera
add norma                                        # in no group with a role
add --groups virt-replica-admin expired
add --groups virt-replica-admin stale            # must choose another password
add --groups virt-replica-admin locked
add --groups virt-replica-admin empty            # has no password at all
for name in alice otto vera norma expired stale locked; do echo "$name:$PASSWORD"; done | chpasswd
chage --expiredate 1 expired
chage --lastday 0 stale
usermod --lock locked
passwd --quiet --delete empty
"#;

struct World {
    lab: Lab,
    product: Product,
    trusted: tempfile::NamedTempFile,
}

impl World {
    fn up() -> World {
        let mut lab = Lab::up(LabOptions::named("sign-in")).unwrap();
        let product = Product::up(&mut lab).unwrap();
        let host = lab.host(HOST);
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/pam.d/virt-replica");
        std::fs::copy(policy, host.path("/etc/pam.d/virt-replica").unwrap()).unwrap();
        host.sh(&format!("PASSWORD='{PASSWORD}'\n{PEOPLE}")).unwrap();
        wait_served(&lab);
        // The certificate without its key, as a person would hand it out.
        let pem = std::fs::read_to_string(host.path("/var/lib/virt-replica/identity/console.pem").unwrap())
            .unwrap();
        let trusted = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&trusted, &pem[pem.find("-----BEGIN CERTIFICATE").unwrap()..]).unwrap();
        World { lab, product, trusted }
    }

    fn browser(&self, from: From) -> Browser<'_> {
        Browser::new(&self.lab, from, self.trusted.path())
    }

    fn of(&self, name: &str, from: From) -> Browser<'_> {
        let mut browser = self.browser(from);
        let answer = browser.sign_in(&form(name, PASSWORD));
        assert_eq!(answer.status, 200, "{answer:?}");
        browser
    }

    /// What a change of the host would show in.
    fn host_view(&self) -> Value {
        let mut view = self.product.json(&self.lab, HOST, &["host", "show"]).unwrap();
        view["storage_free_bytes"].take(); // moves by itself
        view
    }

    fn log(&self) -> String {
        self.lab.host(HOST).log("virtreplicad").unwrap()
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.lab.host(HOST).path(inside).unwrap()
    }
}

/// The console begins to listen a moment after the daemon.
fn wait_served(lab: &Lab) {
    let begun = Instant::now();
    while lab.host(HOST).sh("ss -ltn | grep -q :8444").is_err() {
        assert!(begun.elapsed() < LIMIT, "the console listens");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn form(user: &str, password: &str) -> Value {
    json!({"user": user, "password": password})
}

/// The accounts of the machine that the lab runs on.
fn accounts_outside() -> Vec<String> {
    let files = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];
    files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect()
}

#[test]
fn people_come_in_by_their_accounts_and_the_others_hear_nothing() {
    let outside = accounts_outside();
    let mut world = World::up();
    whoever_has_a_role_comes_in_with_it(&world);
    whoever_has_none_hears_the_same_after_the_same_time(&world);
    what_is_refused_changes_nothing(&world);
    roots_link_lets_in_once_and_root_sees_and_ends_it(&world);
    a_module_that_hangs_is_given_up_and_holds_up_nothing(&world);
    a_killed_daemon_signs_nobody_out(&mut world);
    world.lab.down().unwrap();
    assert_eq!(accounts_outside(), outside);
}

fn whoever_has_a_role_comes_in_with_it(world: &World) {
    for (name, role, from) in [
        ("alice", "administrator", From::Outside),
        ("otto", "operator", From::Host(HOSTS[1])),
        ("vera", "viewer", From::Host(HOST)),
    ] {
        let browser = world.of(name, from);
        let session = browser.get("/session").json();
        assert_eq!((&session["user"], &session["role"]), (&name.into(), &role.into()));
        assert_eq!(browser.get("/api/v1/host").json()["name"], HOST);
        assert!(!world.log().contains(browser.secret()), "no secret in the log");
        assert_eq!(browser.send("DELETE", "/session", "").status, 204);
        assert_eq!(browser.get("/api/v1/host").problem(), (401, "signed-out".to_owned()));
    }
}

fn whoever_has_none_hears_the_same_after_the_same_time(world: &World) {
    let (here, there) = (From::Host(HOST), From::Host(HOSTS[1]));
    let tries = [
        ("alice", "wrong", here, "wrong password"),
        ("nobody-has-this-name", PASSWORD, here, "Refused"),
        ("root", PASSWORD, here, "Refused"),
        ("norma", PASSWORD, here, "in no group with a role"),
        // Which module of PAM refuses these first, and what it calls that, is the site's.
        ("expired", PASSWORD, there, "Refused"),
        ("stale", PASSWORD, there, "Refused"),
        ("locked", PASSWORD, there, "wrong password"),
        ("empty", " ", there, "wrong password"),
    ];
    let mut heard = Vec::new();
    for (name, password, from, why) in tries {
        let before = world.log().len();
        let answer = world.browser(from).sign_in(&form(name, password));
        assert_eq!(answer.problem(), (401, "signed-out".to_owned()), "{name}");
        let logged = world.log()[before..].to_owned();
        assert!(logged.contains(name) && logged.contains(why), "{name}: {logged}");
        println!("{name} was refused after {:.2?}", answer.took);
        heard.push((answer.took, answer.body));
    }
    assert!(heard.iter().all(|(_, body)| *body == heard[0].1), "{heard:?}");
    let times: Vec<Duration> = heard.iter().map(|(took, _)| *took).collect();
    let spread = times.iter().max().unwrap().abs_diff(*times.iter().min().unwrap());
    // PAM's own delay differs by seconds; what is left is the machine's.
    assert!(spread < Duration::from_millis(500), "{times:?}");
    assert!(!world.log().contains(PASSWORD), "no password in the log");
    // One more guess from there, and the next must wait; another address need not.
    assert_eq!(world.browser(there).sign_in(&form("vera", "guess")).status, 401);
    let slowed = world.browser(there).sign_in(&form("vera", PASSWORD));
    assert_eq!(slowed.problem(), (429, "too-many".to_owned()));
    assert!(slowed.head.contains("retry-after: "), "{slowed:?}");
    world.of("vera", From::Outside);
}

fn what_is_refused_changes_nothing(world: &World) {
    let before = world.host_view();
    let change = r#"{"rate_limit": {"bytes-per-second": 1048576}}"#;
    let refused = |browser: &Browser<'_>, body: &str, status: u16, code: &str| {
        assert_eq!(browser.post("/api/v1/host", body).problem(), (status, code.to_owned()));
        assert_eq!(world.host_view(), before);
    };
    let alice = world.of("alice", From::Outside);
    refused(&alice.with_token(""), change, 403, "forbidden");
    refused(&alice.with_token("wrong"), change, 403, "forbidden");
    refused(&world.browser(From::Outside), change, 401, "signed-out");
    refused(&alice, &format!("{{\"x\": \"{}\"}}", "y".repeat(64 * 1024)), 413, "too-large");
    refused(&world.of("vera", From::Outside), change, 403, "forbidden");
    refused(&alice, r#"{"rate_limt": null}"#, 400, "invalid");
    let answer = alice.post("/api/v1/host?dry_run=true", "{}");
    assert_eq!(answer.status, 200, "the same person may: {answer:?}");
}

fn roots_link_lets_in_once_and_root_sees_and_ends_it(world: &World) {
    let root = |words: &[&str]| world.product.json(&world.lab, HOST, words).unwrap();
    let link = root(&["console", "link", "--role", "operator", "--user", "visitor", "--yes"]);
    let url = link["url"].as_str().unwrap();
    let begin = format!("https://{}:8444/#link=", world.lab.host(HOST).address());
    let token = url.strip_prefix(&begin).unwrap_or_else(|| panic!("{url}"));
    let mut visitor = world.browser(From::Outside);
    let session = visitor.sign_in(&json!({"token": token}));
    assert_eq!((&session.json()["user"], &session.json()["role"]), (&"visitor".into(), &"operator".into()));
    let again = world.browser(From::Host(HOSTS[1])).sign_in(&json!({"token": token}));
    assert!(again.status == 401 || again.status == 429, "{again:?}");
    assert!(!world.log().contains(token), "no link in the log");

    let alice = world.of("alice", From::Outside);
    let made = alice.post("/api/v1/console/link", r#"{"role": "administrator"}"#);
    assert_eq!(made.problem(), (403, "forbidden".to_owned()), "links are root's");
    let sessions = root(&["console", "sessions"]);
    let listed = sessions.as_array().unwrap().iter().find(|it| it["user"] == "visitor").expect("the visitor");
    assert_eq!((&listed["by_link"], &listed["from"]), (&true.into(), &"10.77.0.1".into()));
    world.product.run(&world.lab, HOST, &["console", "end-sessions", "--user", "visitor", "--yes"]).unwrap();
    assert_eq!(visitor.get("/api/v1/host").problem(), (401, "signed-out".to_owned()));
    assert_eq!(alice.get("/session").status, 200, "others stay");

    let audit = alice.get("/api/v1/audit?limit=100").json();
    let kept = |who: &str, verb: &str, result: &str| {
        let fits = |it: &Value| it["who"] == who && it["verb"] == verb && it["result"] == result;
        assert!(audit.as_array().unwrap().iter().any(fits), "{who} {verb} {result}: {audit:#}");
    };
    kept("alice", "sign-in", "accepted");
    kept("norma", "sign-in", "refused");
    kept("alice", "sign-out", "accepted");
    kept("root", "console-link", "accepted");
    kept("alice", "console-link", "refused");
    kept("visitor", "sign-in-by-link", "accepted");
    kept("visitor", "session-ended", "accepted");
    kept("vera", "host-set", "refused");
}

fn a_module_that_hangs_is_given_up_and_holds_up_nothing(world: &World) {
    let policy = world.path("/etc/pam.d/virt-replica");
    let good = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("auth required pam_exec.so quiet /bin/sleep 300\n{good}")).unwrap();
    let alice = std::thread::scope(|scope| {
        let hanging = scope.spawn(|| world.browser(From::Outside).sign_in(&form("alice", PASSWORD)));
        std::thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        world.host_view();
        assert!(begun.elapsed() < Duration::from_secs(5), "the daemon answers meanwhile");
        hanging.join().unwrap()
    });
    assert_eq!(alice.problem(), (500, "failed".to_owned()));
    assert!((19..40).contains(&alice.took.as_secs()), "{:?}", alice.took);
    let left = world.lab.host(HOST).sh("pgrep -f -- '--ask-about-[a]ccount' || true").unwrap();
    assert_eq!(left.trim(), "", "nothing is left that asks");
    std::fs::write(&policy, good).unwrap();
    world.of("alice", From::Outside);
}

fn a_killed_daemon_signs_nobody_out(world: &mut World) {
    let (lab, trusted) = (&world.lab, world.trusted.path());
    let mut browser = Browser::new(lab, From::Outside, trusted);
    assert_eq!(browser.sign_in(&form("alice", PASSWORD)).status, 200);
    let database = std::fs::read(lab.host(HOST).path("/var/lib/virt-replica/state.db").unwrap()).unwrap();
    let secret = browser.secret().as_bytes();
    assert!(!database.windows(secret.len()).any(|bytes| bytes == secret), "no secret in the database");
    world.product.kill(HOST).unwrap();
    world.product.start(lab.host(HOST)).unwrap();
    wait_served(lab);
    let session = browser.get("/session").json();
    assert_eq!((&session["user"], &session["csrf"]), (&"alice".into(), &browser.csrf.as_str().into()));
    assert_eq!(browser.post("/api/v1/host?dry_run=true", "{}").status, 200);
}
