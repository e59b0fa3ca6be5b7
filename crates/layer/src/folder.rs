//! A directory held open: files are made, opened and renamed beneath it, never through a symlink.
//!
//! Not a general file layer: only what layers and manifests need, each call durable or saying that it is not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags};

use crate::error::LayerError;
use crate::sync;

/// Mode of files: the owner writes, QEMU's group reads. A guest's disk is nobody else's to read.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// Mode of directories: others may pass through (QEMU runs unprivileged), and not list.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o751);

/// Replaces a file at once and durably: a reader, or a power cut, sees the old bytes or the new ones. A symlink in its place is
/// replaced, not followed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), LayerError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(folder), Some(name)) = (path.parent(), name) else {
        return Err(LayerError::NotAbsolute(path.to_owned()));
    };
    Folder::open(folder)?.replace(name, bytes)
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    group: u32,
}

impl Folder {
    /// Opens an existing directory; its last component must not be a symlink.
    pub(crate) fn open(path: &Path) -> Result<Folder, LayerError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())
            .map_err(LayerError::io("open the directory", path))?;
        Self::held(descriptor, path.to_owned())
    }

    fn held(descriptor: OwnedFd, path: PathBuf) -> Result<Folder, LayerError> {
        let group = rustix::fs::fstat(&descriptor).map_err(LayerError::io("look at", &path))?.st_gid;
        Ok(Folder { descriptor, path, group })
    }

    /// Opens the directory `name` beneath, making it if it is missing, durable before return.
    pub(crate) fn enter(&self, name: &str) -> Result<Folder, LayerError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.descriptor, name, FOLDER_MODE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(LayerError::io("make", &path)(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())
            .map_err(LayerError::io("open the directory", &path))?;
        rustix::fs::fchmod(&descriptor, FOLDER_MODE).map_err(LayerError::io("set the mode of", &path))?;
        give_group(&descriptor, self.group);
        self.sync()?;
        Self::held(descriptor, path)
    }

    /// Where this directory is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new file; an existing one is an error, a symlink too.
    pub(crate) fn create(&self, name: &str) -> Result<File, LayerError> {
        let path = self.path.join(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR;
        let descriptor =
            rustix::fs::openat(&self.descriptor, name, flags, FILE_MODE).map_err(|error| match error {
                rustix::io::Errno::EXIST => LayerError::Exists(path.clone()),
                other => LayerError::io("make", &path)(other),
            })?;
        rustix::fs::fchmod(&descriptor, FILE_MODE).map_err(LayerError::io("set the mode of", &path))?;
        give_group(&descriptor, self.group);
        Ok(File::from(descriptor))
    }

    /// Opens an existing regular file for reading and writing; `None` when there is none.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<File>, LayerError> {
        let path = self.path.join(name);
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => {
                let file = File::from(descriptor);
                let metadata = file.metadata().map_err(LayerError::io("look at", &path))?;
                if !metadata.file_type().is_file() {
                    let kind = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                    return Err(LayerError::io("open", &path)(kind));
                }
                Ok(Some(file))
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(LayerError::io("open", &path)(error)),
        }
    }

    /// Reads a whole file of at most `bytes_max`; `None` when there is none.
    pub(crate) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, LayerError> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let path = self.path.join(name);
        let size = file.metadata().map_err(LayerError::io("look at", &path))?.size();
        if size > bytes_max {
            let kind =
                io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes, more than {bytes_max}"));
            return Err(LayerError::io("read", &path)(kind));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes).map_err(LayerError::io("read", &path))?;
        Ok(Some(bytes))
    }

    /// Replaces a file at once and durably: a reader, or a power cut, sees the old bytes or the new ones.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), LayerError> {
        let path = self.path.join(name);
        let temporary = format!("{name}.tmp");
        self.remove(&temporary)?;
        let mut file = self.create(&temporary)?;
        file.write_all(bytes).map_err(LayerError::io("write", &path))?;
        sync::all(&file).map_err(LayerError::io("sync", &path))?;
        rustix::fs::renameat(&self.descriptor, &*temporary, &self.descriptor, name)
            .map_err(LayerError::io("rename", &path))?;
        self.sync()
    }

    /// Gives a file its final name, durably, never over another file.
    pub(crate) fn publish(&self, from: &str, to: &str) -> Result<(), LayerError> {
        let path = self.path.join(to);
        let here = &self.descriptor;
        let renamed = match rustix::fs::renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
            // Some file systems do not know the flag; then a look before the rename must do.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !self.exists(to)? => {
                rustix::fs::renameat(here, from, here, to)
            }
            other => other,
        };
        renamed.map_err(|error| match error {
            rustix::io::Errno::EXIST => LayerError::Exists(path.clone()),
            other => LayerError::io("rename", &path)(other),
        })?;
        self.sync()
    }

    /// Whether anything has this name.
    pub(crate) fn exists(&self, name: &str) -> Result<bool, LayerError> {
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(LayerError::io("look at", &self.path.join(name))(error)),
        }
    }

    /// Removes a file; a missing one is fine. Not durable until [`Folder::sync`].
    pub(crate) fn remove(&self, name: &str) -> Result<(), LayerError> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(LayerError::io("remove", &self.path.join(name))(error)),
        }
    }

    /// Makes names durable: what was made, renamed or removed before this call.
    pub(crate) fn sync(&self) -> Result<(), LayerError> {
        sync::names(&self.descriptor).map_err(LayerError::io("sync the directory", &self.path))
    }
}

/// Hands a file to the group of its parent directory, which is QEMU's on a host that was set up for it.
///
/// Failure is fine: without the right to do so (tests, an odd file system) libvirt's dynamic ownership still does it.
fn give_group(descriptor: &OwnedFd, group: u32) {
    let _ = rustix::fs::fchown(descriptor, None, Some(Gid::from_raw(group)));
}
