//! What a layer stands on, and the change of it: one atomic write of one sector.
//!
//! Not a copy of data: the caller has made sure that the new backing file holds what the old chain held.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::LayerError;
use crate::inspect::{open_image, read_head};
use crate::name::FileName;
use crate::qcow2::{Header, NAME_BYTES_MAX, NAME_SLOTS, SECTOR_BYTES, point_at_backing};
use crate::qemu_img::{self, SHORT};
use crate::sync;

/// The format of a backing file. Always written down: QEMU must never guess it from the guest's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackingFormat {
    /// A qcow2 image.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

impl BackingFormat {
    /// QEMU's word for it.
    #[must_use]
    pub fn qemu_name(self) -> &'static str {
        match self {
            BackingFormat::Qcow2 => "qcow2",
            BackingFormat::Raw => "raw",
        }
    }

    pub(crate) fn from_qemu_name(name: &[u8]) -> Option<BackingFormat> {
        match name {
            b"qcow2" => Some(BackingFormat::Qcow2),
            b"raw" => Some(BackingFormat::Raw),
            _ => None,
        }
    }
}

/// The file below a layer, as the layer's header names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backing {
    file: String,
    format: BackingFormat,
}

impl Backing {
    /// A file beside the layer (plain name) or an absolute path; nothing that QEMU takes for a protocol.
    pub fn new(file: &str, format: BackingFormat) -> Result<Backing, LayerError> {
        let absolute = file.starts_with('/') && !file.contains('\0');
        if file.len() <= NAME_BYTES_MAX && (absolute || FileName::new(file).is_ok()) {
            Ok(Backing { file: file.to_owned(), format })
        } else {
            Err(LayerError::NotABacking(file.chars().take(64).collect()))
        }
    }

    /// A qcow2 file of ours beside the layer.
    #[must_use]
    pub fn beside(name: &FileName) -> Backing {
        Backing { file: name.as_str().to_owned(), format: BackingFormat::Qcow2 }
    }

    /// The name as the header has it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Its format.
    #[must_use]
    pub fn format(&self) -> BackingFormat {
        self.format
    }

    /// Where the file is when the layer is in `folder`.
    #[must_use]
    pub fn resolve(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }
}

/// Makes a layer stand on another file, durably. Repeating it is harmless.
///
/// A layer of ours: the new name goes to the free slot and is synced, then one sector of the header names it, so a
/// power cut leaves the old name or the new one. A header that QEMU has rewritten goes through `qemu-img rebase -u`.
pub fn set_backing(layer: &Path, backing: &Backing) -> Result<(), LayerError> {
    let file = open_image(layer, true)?;
    let mut head = read_head(&file, layer)?;
    let header = Header::parse(&head)
        .map_err(|error| LayerError::Gate { path: layer.to_owned(), refusal: error.into() })?;
    let free_slot = match NAME_SLOTS.iter().position(|slot| *slot == header.backing_name_offset) {
        Some(used) if header.backing_format_first => NAME_SLOTS[1 - used],
        _ => {
            drop(file);
            return rebase_by_qemu_img(layer, backing);
        }
    };
    file.write_all_at(backing.file().as_bytes(), free_slot).map_err(LayerError::io("write", layer))?;
    sync::all(&file).map_err(LayerError::io("sync", layer))?;
    point_at_backing(&mut head, free_slot, backing);
    file.write_all_at(&head[..SECTOR_BYTES], 0).map_err(LayerError::io("write the header of", layer))?;
    sync::all(&file).map_err(LayerError::io("sync", layer))
}

fn rebase_by_qemu_img(layer: &Path, backing: &Backing) -> Result<(), LayerError> {
    let format = backing.format().qemu_name();
    let options = ["-u", "-f", "qcow2", "-F", format, "-b", backing.file()];
    qemu_img::run("rebase", &options, &[layer], SHORT)?;
    sync::all(&open_image(layer, false)?).map_err(LayerError::io("sync", layer))
}
