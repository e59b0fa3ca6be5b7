//! Places where a test holds this daemon, to end it or to cut its link exactly there.
//!
//! A crash test needs the instant between an intent and its effect, or between an effect and its record; no timer hits that.
//! A daemon that was started with a directory for holds stops at a place when a file of that place's name lies there: the
//! file is renamed to `<place>.held`, and the work goes on when that is removed. Everything else of the daemon runs on.
//! Without the directory, which is how it is installed, a place costs one comparison. NOT a debugger: nothing is changed here.

use std::time::Duration;

use choreography::Step;

use crate::Engine;

/// Pause between two looks whether a hold was lifted.
const LOOK: Duration = Duration::from_millis(20);

/// On which side of an effect a step is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The intent is durable, nothing else happened.
    Before,
    /// The effect happened, its record may be missing.
    After,
}

impl Engine {
    /// Stops here while a test holds `place`.
    pub(crate) async fn reach(&self, place: &str) {
        let Some(directory) = &self.config().holds else { return };
        let held = directory.join(format!("{place}.held"));
        if std::fs::rename(directory.join(place), &held).is_ok() {
            tracing::warn!(place, "held by a test");
            while held.exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Stops here while a test holds that side of a step.
    pub(crate) async fn reach_step(&self, step: Step, moment: Moment) {
        let moment = match moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        self.reach(&format!("{}.{moment}", step.name())).await;
    }
}
