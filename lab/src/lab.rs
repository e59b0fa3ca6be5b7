//! The life of a lab: up, found again, down.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::cache_folder;
use crate::block;
use crate::host::Host;
use crate::image::Image;
use crate::namespace::{Entrance, Namespace};
use crate::network;
use crate::options::LabOptions;

/// Names of the hosts, with the last part of their addresses.
const HOSTS: [(&str, u8); 2] = [("hvhost01", 11), ("hvhost02", 12)];
/// The machine in the middle, where clients sit.
const LAN: &str = "lan";

/// Two hosts, the wire between, and the outside. Goes down when dropped, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    lan: Namespace,
    hosts: Vec<Host>,
    kept: bool,
}

impl Lab {
    /// Brings a lab up; what a killed one of that name left behind goes first.
    pub fn up(options: LabOptions) -> Result<Self> {
        sweep(&options)?;
        let image = Image::get(&cache_folder()?)?;
        make(&options.folder())?;
        let lan = Namespace::start(&options.name, LAN)?;
        network::make_lan(&lan)?;
        let hosts = HOSTS.map(|(name, number)| Host::new(&options, name, number)).into();
        let mut lab = Self { options, lan, hosts, kept: false };
        let Self { hosts, lan, .. } = &mut lab;
        // The hosts boot side by side, as machines do; the first libvirtd of each asks QEMU for its abilities.
        thread::scope(|scope| {
            let boots: Vec<_> =
                hosts.iter_mut().map(|host| scope.spawn(|| host.power_on(lan, &image))).collect();
            boots.into_iter().try_for_each(|boot| boot.join().expect("booting does not panic"))
        })?;
        Ok(lab)
    }

    /// The lab of that name if all of it runs. It is kept when the value is dropped.
    pub fn attach(options: LabOptions) -> Result<Option<Self>> {
        let Some(lan) = Namespace::find(&options.name, LAN) else { return Ok(None) };
        let hosts: Vec<Host> =
            HOSTS.iter().filter_map(|(name, number)| Host::find(&options, name, *number)).collect();
        if hosts.len() < HOSTS.len() {
            bail!("lab {} is there only in part: run `cargo xtask lab down`, then `up`", options.name);
        }
        Ok(Some(Self { options, lan, hosts, kept: true }))
    }

    /// Name of the lab.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Folder of the lab's files on the machine; it goes when the lab goes down.
    pub fn folder(&self) -> std::path::PathBuf {
        self.options.folder()
    }

    /// A host by its name.
    ///
    /// # Panics
    /// If there is no host of that name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).expect("the lab's hosts are hvhost01 and hvhost02")
    }

    /// A host by its name, to restart or power cut it.
    ///
    /// # Panics
    /// If there is no host of that name.
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts
            .iter_mut()
            .find(|host| host.name() == name)
            .expect("the lab's hosts are hvhost01 and hvhost02")
    }

    /// Both hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Powers a host on after [`Host::power_cut`]; guests and daemons are not started.
    pub fn power_on(&mut self, name: &str) -> Result<()> {
        let image = Image::get(&cache_folder()?)?;
        let Self { hosts, lan, .. } = self;
        let host = hosts.iter_mut().find(|host| host.name() == name);
        host.with_context(|| format!("no host {name}"))?.power_on(lan, &image)
    }

    /// Stops all traffic between the two hosts; clients outside still reach both, and the guests.
    pub fn cut_link(&self) -> Result<()> {
        let [first, second] = self.hosts.as_slice() else { bail!("a lab has two hosts") };
        network::cut(first, second)?;
        network::cut(second, first)
    }

    /// A host hears nothing of the other, which hears all of it.
    pub fn deafen(&self, host: usize) -> Result<()> {
        network::deafen(&self.hosts[host], &self.hosts[1 - host])
    }

    /// Lets the two hosts talk again; repeating it is no error.
    pub fn heal_link(&self) -> Result<()> {
        self.hosts.iter().try_for_each(network::heal)
    }

    /// Calls a function in the network outside the hosts, on a thread of its own; sockets that it gives back stay there.
    pub fn outside<T: Send>(&self, call: impl FnOnce() -> T + Send) -> Result<T> {
        self.lan.within(call)
    }

    /// Lets programs of the real machine reach the hosts at their addresses, for as long as the lab runs.
    pub fn open_to_machine(&self) -> Result<()> {
        network::join_real_machine(&self.lan)
    }

    /// The way into the network outside, for threads that live longer than one call.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        self.lan.entrance()
    }

    /// Lets the lab outlive this process; `Lab::attach` finds it again.
    pub fn keep(&mut self) -> Result<()> {
        self.lan.keep()?;
        self.hosts.iter_mut().try_for_each(Host::keep)?;
        self.kept = true;
        Ok(())
    }

    /// Ends everything and removes the files, kept or not.
    pub fn down(mut self) -> Result<()> {
        self.kept = true; // done here, with its error; not once more on drop
        sweep(&self.options)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for host in &mut self.hosts {
            drop(host.power_cut());
        }
        if let Err(error) = sweep(&self.options) {
            eprintln!("lab {}: {error:#}", self.options.name);
        }
    }
}

/// Removes whatever is left of a lab of this name, in whatever state it is.
pub fn sweep(options: &LabOptions) -> Result<()> {
    let name = &options.name;
    let plain =
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    ensure!(plain, "a lab's name is made of letters, digits and dashes, unlike {name:?}");
    for machine in HOSTS.map(|(name, _)| name).into_iter().chain([LAN]) {
        while let Some(namespace) = Namespace::find(name, machine) {
            namespace.kill()?;
        }
    }
    block::release(&options.folder())?;
    remove(&options.folder())?;
    // The folder of all labs goes with the last of them; while it holds others, this fails as it should.
    drop(fs::remove_dir(&options.root));
    Ok(())
}

/// Makes the folder of a lab. Between its parent and itself another lab may be the last to leave, and take the parent along.
fn make(folder: &Path) -> Result<()> {
    loop {
        match fs::create_dir_all(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            outcome => return outcome.with_context(|| format!("cannot make {}", folder.display())),
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.with_context(|| format!("cannot remove {}", folder.display())),
    }
}

/// Names of all labs of which anything runs.
pub fn running() -> Vec<String> {
    let mut names: Vec<String> =
        Namespace::all().iter().filter_map(|machine| Some(machine.split_once('/')?.0.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}
