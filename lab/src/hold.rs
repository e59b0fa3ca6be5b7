//! Holds a daemon of the product at a named place, so that a fault can come exactly there.
//!
//! The daemon is started with a directory for holds; see the product's own description of it. NOT a way to change what the
//! daemon does: it waits there, and everything else of it runs on.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::host::Host;

/// Where a daemon in the lab looks for holds.
pub(crate) const HOLDS: &str = "/run/virt-replica-holds";
/// Pause between two looks whether the place was reached.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A place at which a host's daemon will wait. Dropping it lets the daemon go on.
#[derive(Debug)]
pub struct Hold {
    place: String,
    armed: PathBuf,
    held: PathBuf,
}

impl Hold {
    /// The next time that the daemon of `host` comes to `place` it waits.
    pub fn arm(host: &Host, place: &str) -> Result<Hold> {
        let directory = host.path(HOLDS)?;
        std::fs::create_dir_all(&directory)?;
        let armed = directory.join(place);
        std::fs::write(&armed, "").with_context(|| format!("{}", armed.display()))?;
        Ok(Hold { place: place.to_owned(), armed, held: directory.join(format!("{place}.held")) })
    }

    /// Whether the daemon waits there now.
    pub fn is_held(&self) -> bool {
        self.held.exists()
    }

    /// Waits until the daemon has come there.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.is_held() {
            ensure!(begun.elapsed() < limit, "the daemon did not come to {:?} within {limit:?}", self.place);
            sleep(LOOK_PAUSE);
        }
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for file in [&self.armed, &self.held] {
            drop(std::fs::remove_file(file));
        }
    }
}
