//! Wrappers: a qcow2 file around a raw disk. The data stays in the raw disk, byte for byte; the wrapper has what a raw disk
//! cannot hold, which is dirty bitmaps (QEMU calls it an external data file, `data_file_raw`).
//!
//! An image with a data file makes whoever opens it read and write another file of the host, so the gate refuses it. What passes
//! is on the list here: this file, with that data file. The list is of the whole process, as the host's disks are; who
//! keeps it through a restart fills it in again. NOT decided here: which disks are wrapped, and when.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use domain::{DiskTarget, VmId};
use rustix::fs::{Mode, OFlags};

use crate::error::LayerError;
use crate::inspect::{Gate, inspect};
use crate::qemu_img::{self, LONG};
use crate::storage::Storage;

/// Where wrappers are in the storage: a block device has no place beside it.
const FOLDER: &str = "wrappers";
/// Sizes of disks are multiples of this many bytes.
const SECTOR: u64 = 512;

static KNOWN: RwLock<BTreeMap<PathBuf, PathBuf>> = RwLock::new(BTreeMap::new());

/// A wrapper and what it is around.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrapper {
    /// The qcow2 file.
    pub file: PathBuf,
    /// The raw file or block device.
    pub data: PathBuf,
}

impl Wrapper {
    /// Of a disk of a VM: where it is, or would be.
    #[must_use]
    pub fn of(storage: &Storage, vm: VmId, target: &DiskTarget, data: PathBuf) -> Wrapper {
        let folder = storage.root().join(FOLDER).join(vm.to_string());
        Wrapper { file: folder.join(format!("{target}.qcow2")), data }
    }

    /// From now on it passes the gate, with this data file and no other.
    pub fn trust(&self) {
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(self.file.clone(), self.data.clone());
    }

    /// Makes it, durably, and trusts it. What stood there is replaced: a half-made one cannot be repaired. The raw disk is not
    /// opened for writing.
    pub fn create(&self, storage: &Storage) -> Result<(), LayerError> {
        let size = self.data_size()?;
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(LayerError::VirtualSize { bytes: size });
        }
        let names = (self.file.parent().and_then(Path::file_name), self.file.file_name());
        let (Some(vm), Some(name)) = (names.0.and_then(|it| it.to_str()), names.1.and_then(|it| it.to_str()))
        else {
            return Err(LayerError::NotAbsolute(self.file.clone()));
        };
        let folder = storage.folder.enter(FOLDER)?.enter(vm)?;
        let (fresh, nothing) = (format!("{name}.new"), format!("{name}.nothing"));
        let path = |name: &str| folder.path().join(name);
        for left in [fresh.as_str(), nothing.as_str()] {
            folder.remove(left)?;
        }
        // QEMU truncates the data file that an image is made with: this one is empty, and the real one is named afterwards.
        let options = |data: &Path| format!("data_file={}", data.to_string_lossy().replace(',', ",,"));
        let begun = format!("{},data_file_raw=on", options(&path(&nothing)));
        qemu_img::run(
            "create",
            &["-q", "-f", "qcow2", "-o", &begun],
            &[&path(&fresh), Path::new(&size.to_string())],
            LONG,
        )?;
        qemu_img::run("amend", &["-q", "-f", "qcow2", "-o", &options(&self.data)], &[&path(&fresh)], LONG)?;
        folder.remove(&nothing)?;
        let file = File::open(path(&fresh)).map_err(LayerError::io("open", &path(&fresh)))?;
        file.sync_all().map_err(LayerError::io("sync", &path(&fresh)))?;
        folder.remove(name)?;
        folder.publish(&fresh, name)?;
        self.trust();
        let found = inspect(&self.file, Gate::Foreign)?.virtual_size;
        if found == size { Ok(()) } else { Err(LayerError::VirtualSize { bytes: found }) }
    }

    /// Deletes the wrapper, and with it what its bitmaps know; the data stays. Gone already: done.
    pub fn delete(&self) -> Result<(), LayerError> {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).remove(&self.file);
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LayerError::io("delete", &self.file)(error))
            }
            _ => {
                // The last one of its VM takes the folder with it.
                let _ = self.file.parent().map(std::fs::remove_dir);
                Ok(())
            }
        }
    }

    /// Size of the raw disk, bytes.
    pub fn data_size(&self) -> Result<u64, LayerError> {
        let mut data = open_data(&self.data)?;
        data.seek(SeekFrom::End(0)).map_err(LayerError::io("measure", &self.data))
    }

    /// Whether the raw file was written past its wrapper while nobody had that open; of a block device nobody knows. QEMU
    /// writes the bitmaps into the wrapper after the last data.
    pub fn is_bypassed(&self) -> Result<bool, LayerError> {
        let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
        if !open_data(&self.data)?.metadata().map_err(LayerError::io("look at", &self.data))?.is_file() {
            return Ok(false);
        }
        let wrapper = modified(&self.file).map_err(LayerError::io("look at", &self.file))?;
        Ok(modified(&self.data).map_err(LayerError::io("look at", &self.data))? > wrapper)
    }
}

/// The trusted wrapper that a file is.
#[must_use]
pub fn wrapper(file: &Path) -> Option<Wrapper> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.get(file).map(|data| Wrapper { file: file.to_owned(), data: data.clone() })
}

/// What was merged into an image is durable, wherever its data is.
pub(crate) fn sync_data(image: &Path) -> Result<(), LayerError> {
    let Some(Wrapper { file, data }) = wrapper(image) else { return Ok(()) };
    open_data(&data)?.sync_all().map_err(LayerError::io("sync", &data))?;
    // The merge wrote through the wrapper, and need not have written into it.
    let touched = File::open(&file).and_then(|opened| opened.set_modified(SystemTime::now()));
    touched.map_err(LayerError::io("touch", &file))
}

/// A symlink is followed: `/dev/VG/LV` is one. Never a pipe, which would block.
fn open_data(path: &Path) -> Result<File, LayerError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(LayerError::io("open", path))?);
    let kind = file.metadata().map_err(LayerError::io("look at", path))?.file_type();
    match kind.is_file() || kind.is_block_device() {
        true => Ok(file),
        false => Err(LayerError::io("open", path)(std::io::Error::other(
            "it is neither a file nor a block device",
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::inspect::GateRefusal;

    fn run(words: &[&str]) {
        let done = Command::new(words[0]).args(&words[1..]).output().expect("it starts");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn the_raw_disk_is_as_it_was_and_no_other_data_file_passes() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("a disk, of 1 MiB.raw");
        let content: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 4096) as u8).collect();
        std::fs::write(&data, &content).expect("written");
        let root = folder.path().join("storage");
        std::fs::create_dir(&root).expect("made");
        let storage = Storage::initialise(&root).expect("storage");
        let (vm, vda) = (VmId(uuid::Uuid::from_u128(7)), domain::fixture::vda());
        let wrapper = Wrapper::of(&storage, vm, &vda, data.clone());
        for _ in 0..2 {
            wrapper.create(&storage).expect("made, and made anew");
        }
        let file = wrapper.file.to_str().expect("text");
        assert_eq!(std::fs::read(&data).expect("read"), content);
        run(&["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", file, data.to_str().expect("text")]);
        assert!(!wrapper.is_bypassed().expect("told"));

        // What is written through the wrapper is in the raw disk, and not past it.
        run(&["qemu-img", "bitmap", "--add", "-f", "qcow2", file, "vr-1"]);
        run(&["qemu-io", "-f", "qcow2", "-c", "write -P 255 64k 64k", file]);
        assert_eq!(std::fs::read(&data).expect("read")[65536..131_072], [255; 65536]);
        assert!(!wrapper.is_bypassed().expect("told"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&data, &content).expect("written past it");
        assert!(wrapper.is_bypassed().expect("told"));

        // An image that names the same data, or a wrapper that names another, is refused.
        let other = folder.path().join("other.qcow2");
        std::fs::copy(&wrapper.file, &other).expect("copied");
        let refused = |path: &Path| match inspect(path, Gate::Foreign) {
            Err(LayerError::Gate { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&other), GateRefusal::DataFile);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, &content).expect("written");
        run(&["qemu-img", "amend", "-f", "qcow2", "-o", &format!("data_file={}", secret.display()), file]);
        assert_eq!(refused(&wrapper.file), GateRefusal::DataFile);

        wrapper.delete().expect("gone");
        wrapper.delete().expect("gone already");
        assert!(!wrapper.file.exists() && data.exists());
        std::fs::write(&data, [0; 1000]).expect("written");
        assert!(matches!(wrapper.create(&storage), Err(LayerError::VirtualSize { bytes: 1000 })));
    }

    #[test]
    fn a_merge_into_a_wrapper_reaches_the_raw_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, top) = (folder.path().join("data.raw"), folder.path().join("top.qcow2"));
        std::fs::write(&data, vec![1; 1 << 20]).expect("written");
        let storage = Storage::initialise(folder.path()).expect("storage");
        let vm = VmId(uuid::Uuid::from_u128(8));
        let wrapper = Wrapper::of(&storage, vm, &domain::fixture::vda(), data.clone());
        wrapper.create(&storage).expect("made");
        let (file, layer) = (wrapper.file.to_str().expect("text"), top.to_str().expect("text"));
        run(&["qemu-img", "create", "-q", "-f", "qcow2", "-b", file, "-F", "qcow2", layer]);
        run(&["qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", layer]);
        crate::commit_into_base(&top, &wrapper.file).expect("merged");
        let now = std::fs::read(&data).expect("read");
        assert!(now[..65536].iter().all(|byte| *byte == 9) && now[65536..].iter().all(|byte| *byte == 1));
        assert!(!wrapper.is_bypassed().expect("told"));
    }
}
