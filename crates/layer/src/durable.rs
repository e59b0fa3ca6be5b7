//! Makes a moment of a growing layer durable while more is written behind it.
//!
//! The data up to that moment is synced, then the sidecar that tells of it is replaced, on a thread: the writer does not wait
//! for the disk. Whoever asks for the outcome waits, and so does dropping: no sidecar appears after its writer is gone. An
//! error of the sync is told to the writer, for the kernel reports it once.

use std::fs::File;
use std::thread::JoinHandle;

use crate::error::LayerError;
use crate::folder::Folder;
use crate::sync;

/// The newest moment that is being made durable.
#[derive(Debug, Default)]
pub(crate) struct Durable(Option<JoinHandle<Result<(), LayerError>>>);

impl Durable {
    /// Whether a moment is still on its way to the disk.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Begins with a moment: everything in `file` now, told by `content` in the file `sidecar` of the folder. The one before
    /// has been settled.
    pub(crate) fn begin(
        &mut self,
        file: File,
        folder: Folder,
        sidecar: String,
        content: Vec<u8>,
    ) -> Result<(), LayerError> {
        let path = folder.path().join(&sidecar);
        let work = move || {
            sync::data(&file).map_err(LayerError::io("sync", &path))?;
            folder.replace(&sidecar, &content)
        };
        let spawned = std::thread::Builder::new().name("durable".to_owned()).spawn(work);
        self.0 = Some(spawned.map_err(LayerError::io("start a thread for", std::path::Path::new("a sync")))?);
        Ok(())
    }

    /// Waits for the moment before, if there is one, and tells how it went.
    pub(crate) fn settle(&mut self) -> Result<(), LayerError> {
        // Proof: the thread only makes calls that return their errors.
        self.0.take().map_or(Ok(()), |thread| thread.join().expect("it does not panic"))
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            drop(thread.join());
        }
    }
}
