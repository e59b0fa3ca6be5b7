//! `cargo xtask console`: how long a person waits for the list of a thousand VMs. A measurement, not a test: nothing fails by the clock.

use anyhow::Result;
use lab::{HOSTS, Lab, LabOptions, Product, let_people_in, play};

use crate::install;
use crate::program::run;

const VMS: usize = 1000;
/// A VM that libvirt has and nobody starts.
const DEFINITION: &str = "<domain type='qemu'><name>NAME</name><memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>";

pub(crate) fn measure() -> Result<()> {
    install::packages()?;
    install::browser()?;
    // The release build: what people wait for.
    let programs = ["-p", "virtreplicad", "-p", "virt-replica", "-p", "virt-replica-hook"];
    run(&[["cargo", "build", "--release", "--quiet"].as_slice(), &programs].concat())?;
    let release = crate::program::repository().join("target/release");
    let mut lab = Lab::up(LabOptions::named("paint"))?;
    let _product = Product::up_with(&mut lab, lab::binaries_in(&release)?)?;
    let_people_in(&lab)?;
    let host = lab.host(HOSTS[0]);
    let mut script = String::new();
    for number in 0..VMS {
        let definition = DEFINITION.replace("NAME", &format!("vm-{number:04}"));
        script += &format!(
            "cat > /run/vm.xml <<'END'\n{definition}\nEND\nvirsh -q -c qemu:///system define /run/vm.xml\n"
        );
    }
    std::fs::write(host.path("/run/define.sh")?, script)?;
    host.exec(["sh", "-e", "/run/define.sh"])?;
    play(&lab, "paint.mjs", |asked| format!("no such request: {asked:?}"))?;
    lab.down()
}
