//! Two hosts with a protected VM, and what a case asks of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use lab::LIMIT;
use lab::{Guest, GuestOptions, HOSTS, Host, Lab, LabOptions, Product, is_normal};
use serde_json::Value;

pub const VM: &str = "testVM01";

pub struct Scene {
    pub lab: Lab,
    pub product: Product,
    pub guest: Guest,
}

/// Something that is done, what must be said about it, and the way back.
pub struct Act {
    pub name: &'static str,
    pub act: fn(&Scene),
    pub said: Said,
    pub cure: fn(&Scene),
}

pub enum Said {
    /// An event that contains these words; health stays or becomes Normal by itself.
    Event(&'static str),
    /// An event of this number.
    Number(u64),
    /// Health of this severity, with a reason that contains these words and a cure; the event too.
    Health(&'static str, &'static str),
    /// Health is Critical since cycles fail, with these words; no cure of its own.
    Failing(&'static str),
    /// Nothing: it concerns nobody.
    Nothing,
}

pub fn nothing(_: &Scene) {}

impl Scene {
    /// Two paired hosts with a protected, running VM on the first.
    pub fn up(name: &str) -> Scene {
        let mut lab = Lab::up(LabOptions::named(name)).unwrap();
        let product = Product::up(&mut lab).unwrap();
        let options = GuestOptions { name: VM.into(), ..GuestOptions::default() };
        let guest = lab.define_guest(HOSTS[0], &options).unwrap();
        lab.host(HOSTS[0]).virsh(["start", VM]).unwrap();
        guest.wait_workload(&lab, LIMIT).unwrap();
        // libvirt may lose an agent that connects while a backup job is open.
        lab.host(HOSTS[0]).wait_agent(VM, LIMIT).unwrap();
        let enable = ["enable", VM, "--peer", HOSTS[1], "--frequency", "5s", "--yes"];
        product.run(&lab, HOSTS[0], &enable).unwrap();
        // How fast the machine is, is not the question here.
        product.run(&lab, HOSTS[0], &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
        let scene = Scene { lab, product, guest };
        scene.wait_show(0, |shown| is_normal(shown, 2));
        scene
    }

    pub fn host(&self, index: usize) -> &Host {
        self.lab.host(HOSTS[index])
    }

    pub fn virsh(&self, words: &str) {
        self.host(0).virsh(words.split(' ')).unwrap_or_else(|error| panic!("virsh {words}: {error:#}"));
    }

    /// Repeats a command that cannot be done while a cycle of ours is under way.
    pub fn patiently(&self, index: usize, words: &str) {
        let begun = Instant::now();
        while let Err(error) = self.host(index).virsh(words.split(' ')) {
            assert!(begun.elapsed() < LIMIT, "virsh {words}: {error:#}");
        }
    }

    pub fn show(&self, index: usize) -> Value {
        self.product.json(&self.lab, HOSTS[index], &["show", VM]).unwrap()
    }

    pub fn wait_show(&self, index: usize, good: impl Fn(&Value) -> bool) -> Value {
        self.product.wait_show(&self.lab, HOSTS[index], VM, LIMIT, good).unwrap()
    }

    pub fn events(&self, index: usize, since: u64) -> Vec<Value> {
        let since = since.to_string();
        let events = self.product.json(&self.lab, HOSTS[index], &["events", "--since", &since]).unwrap();
        events.as_array().expect("a list").clone()
    }

    pub fn newest_event(&self, index: usize) -> u64 {
        self.events(index, 0).last().and_then(|event| event["sequence"].as_u64()).unwrap_or(0)
    }

    pub fn wait_event(&self, index: usize, since: u64, wanted: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        while !self.events(index, since).iter().any(&wanted) {
            assert!(begun.elapsed() < LIMIT, "not among {:#?}", self.events(index, since));
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits for cycles; the first may have begun before.
    pub fn wait_cycles(&self, count: u64) {
        let acknowledged = |shown: &Value| shown.pointer("/statistics/cycles_acknowledged").unwrap().as_u64();
        let before = acknowledged(&self.show(0)).unwrap_or(0);
        self.wait_show(0, |shown| acknowledged(shown).unwrap_or(0) >= before + count);
    }

    /// The point that was made of the disk as it is now is the disk.
    pub fn check_equal(&self, act: &str) {
        let running = self.host(0).guest_state(VM).unwrap().starts_with("running");
        if running {
            // QEMU flushes what it holds when the guest stops; a cycle that began before may still be under way.
            self.virsh("suspend testVM01");
            let stopped_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            // The instant of a point is written down shortly after it.
            let after = |shown: &Value| shown["head"]["at_ms"].as_u64() > Some(stopped_ms + 1_500);
            self.wait_show(0, after);
        } else {
            // Those of a VM that is off take an instant: the one in which the act was noticed, if not a later one.
            self.wait_cycles(1);
        }
        self.product.run(&self.lab, HOSTS[0], &["pause", VM, "--yes"]).unwrap();
        let compare = format!(
            "qemu-img compare -U -f qcow2 -F qcow2 $(virsh -q domblklist testVM01 | awk '{{ print $2 }}') '{}'",
            self.newest_layer()
        );
        let said = self.host(0).sh(&compare).unwrap_or_else(|error| panic!("{act}: {error:#}"));
        assert_eq!(said.trim(), "Images are identical.", "{act}");
        self.product.run(&self.lab, HOSTS[0], &["resume", VM, "--yes"]).unwrap();
        if running {
            self.virsh("resume testVM01");
        }
    }

    /// The newest sealed file of the replica's disk, when no merge is under way, as the first host finds it.
    pub fn newest_layer(&self) -> String {
        let directory = self.show(1)["directory"].as_str().expect("a directory").to_owned();
        let script = format!(
            "cd '{directory}/vda'; while [ $(ls | wc -l) -gt 2 ]; do sleep 0.2; done; ls | sort -n | tail -n 1"
        );
        let name = self.host(1).sh(&script).unwrap();
        let disks = LabOptions::named(self.lab.name()).folder().join(HOSTS[1]).join("disk");
        format!("{}{directory}/vda/{}", disks.display(), name.trim())
    }

    /// Waits until the first host's health has a reason that an act is answered with.
    fn wait_told(&self, act: &str, told: impl Fn(&Value) -> bool) -> Value {
        let any = |shown: &Value| reasons(shown).iter().any(&told);
        let shown = self.product.wait_show(&self.lab, HOSTS[0], VM, LIMIT, any);
        shown.unwrap_or_else(|error| panic!("{act}: {error:#}"))
    }

    pub fn perform(&self, acts: &[Act]) {
        for Act { name, act, said, cure } in acts {
            let begun = Instant::now();
            let since = self.newest_event(0);
            act(self);
            match said {
                Said::Event(words) => self.wait_event(0, since, |event| text(event).contains(words)),
                Said::Number(number) => self.wait_event(0, since, |event| event["number"] == *number),
                Said::Health(severity, words) => {
                    let told = |reason: &Value| {
                        text(reason).contains(words)
                            && reason["severity"] == *severity
                            && reason["cure"].as_str().is_some_and(|cure| cure.contains("virsh"))
                    };
                    let shown = self.wait_told(name, told);
                    assert_ne!(shown["health"], "normal");
                    self.wait_event(0, since, |event| text(event).contains(words));
                }
                Said::Failing(words) => {
                    let told =
                        |reason: &Value| text(reason).contains(words) && reason["severity"] == "critical";
                    self.wait_told(name, told);
                }
                Said::Nothing => {}
            }
            cure(self);
            let shown = self.wait_show(0, |shown| is_normal(shown, 2));
            assert_eq!(reasons(&shown).len(), 0, "{name}: {shown:#}");
            self.check_equal(name);
            println!("{name}: {:.1?}", begun.elapsed());
        }
    }

    pub fn fill(&self, name: &str, mib: u64) {
        self.guest.ask(&self.lab, |client| client.fill(name, mib)).unwrap();
    }

    pub fn own_checkpoint(&self) -> String {
        let names = self.host(0).virsh(["checkpoint-list", VM, "--name"]).unwrap();
        names.lines().rfind(|name| name.starts_with("vr-")).expect("a checkpoint of ours").trim().to_owned()
    }

    pub fn refused(&self, index: usize, words: &[&str], because: &str) {
        let (code, said) = self.product.attempt(&self.lab, HOSTS[index], words).unwrap();
        assert!(code == Some(3) && said.contains(because), "{words:?}: {code:?} {said}");
    }
}

pub fn text(value: &Value) -> &str {
    value["text"].as_str().unwrap_or_default()
}

pub fn reasons(shown: &Value) -> Vec<Value> {
    shown["reasons"].as_array().cloned().unwrap_or_default()
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in [0, 1] {
                let log = self.host(index).log("virtreplicad").unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                println!("{}:\n{}", HOSTS[index], lines[lines.len().saturating_sub(40)..].join("\n"));
                println!("{}", self.host(index).log("libvirtd").unwrap_or_default());
            }
        }
    }
}
