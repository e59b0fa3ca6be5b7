//! Stacks of images: walk them, check them, merge one file into the one below, list and remove bitmaps.
//!
//! Data is moved by QEMU's own `qemu-img`; what is decided here is which file, into which, and that both are what
//! they should be. Which recovery points may go is decided elsewhere.

use std::path::{Path, PathBuf};

use crate::backing::{Backing, BackingFormat};
use crate::error::LayerError;
use crate::inspect::{Gate, LayerInfo, inspect, open_image};
use crate::qemu_img::{self, LONG, SHORT};
use crate::sync;
use crate::wrapper::sync_data;

/// Longest chain that is walked: QEMU opens every file of it, and far shorter ones are slow already.
pub const CHAIN_FILES_MAX: usize = 256;

/// One file of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where it is.
    pub path: PathBuf,
    /// What its header says; `None` for a raw file at the bottom.
    pub info: Option<LayerInfo>,
}

/// A persistent dirty bitmap in a qcow2 file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Bytes that one bit stands for.
    pub granularity_bytes: u64,
    /// Whether QEMU records writes in it at the next open.
    pub auto: bool,
    /// Whether it was not closed properly: it can only be removed.
    pub in_use: bool,
}

/// What `qemu-img check` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckReport {
    /// Errors that damage data.
    pub corruptions: u64,
    /// Clusters that nobody uses: wasted space, no damage.
    pub leaks: u64,
}

/// Merges a layer into the file that it stands on, durably. Repeating it, also after it was cut short, is harmless:
/// meanwhile and afterwards the disk seen *through* the layer is the same.
///
/// `base` must be what the layer's header names. The layer keeps its data; whoever stands on it can go on with it.
pub fn commit_into_base(layer: &Path, base: &Path) -> Result<(), LayerError> {
    commit(layer, base, &|| false)
}

/// The same, given up as soon as `gives_way` says so.
pub(crate) fn commit(layer: &Path, base: &Path, gives_way: &dyn Fn() -> bool) -> Result<(), LayerError> {
    let info = inspect(layer, Gate::Foreign)?;
    expect_backing(layer, &info, base)?;
    if info.backing_format == Some(BackingFormat::Qcow2) {
        inspect(base, Gate::Foreign)?;
    }
    // -d: the layer is not emptied afterwards, it is deleted when nothing refers to it.
    qemu_img::run_unless("commit", &["-q", "-d", "-f", "qcow2"], &[layer], LONG, gives_way)?;
    // QEMU has flushed; this also covers a run that ended by itself after its parent had died.
    sync::all(&open_image(base, false)?).map_err(LayerError::io("sync", base))?;
    sync_data(base)
}

/// Follows a chain down from its newest file through the gate; the first is `head`, the last stands on nothing.
pub fn chain_check(head: &Path) -> Result<Vec<Link>, LayerError> {
    if !head.is_absolute() {
        return Err(LayerError::NotAbsolute(head.to_owned()));
    }
    let mut links = Vec::new();
    let mut path = head.to_owned();
    while links.len() < CHAIN_FILES_MAX {
        let info = inspect(&path, Gate::Foreign)?;
        let Some(name) = info.backing.clone() else {
            links.push(Link { path, info: Some(info) });
            return Ok(links);
        };
        // A missing format means that QEMU would guess it from bytes that the guest wrote.
        let format = info.backing_format.ok_or_else(|| LayerError::Gate {
            path: path.clone(),
            refusal: crate::inspect::GateRefusal::BackingFormat,
        })?;
        let below = Backing::new(&name, format)?.resolve(folder_of(&path));
        links.push(Link { path, info: Some(info) });
        if format == BackingFormat::Raw {
            open_image(&below, false)?;
            links.push(Link { path: below, info: None });
            return Ok(links);
        }
        path = below;
    }
    Err(LayerError::ChainLength { path: head.to_owned(), max: CHAIN_FILES_MAX })
}

/// Lets QEMU check the tables of one image; reads metadata only.
pub fn check_image(path: &Path) -> Result<CheckReport, LayerError> {
    inspect(path, Gate::Foreign)?;
    let options = ["-f", "qcow2", "--output=json"];
    let ended = qemu_img::run_to_code("check", &options, &[path], LONG)?;
    // 0 clean, 2 corruptions, 3 leaks only: in all three the answer counts.
    let answer: serde_json::Value = match ended.code {
        Some(0 | 2 | 3) => {
            serde_json::from_slice(&ended.stdout).map_err(|_| LayerError::Answer { verb: "check" })?
        }
        _ => return Err(ended.failure("check")),
    };
    let number = |key: &str| answer.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    Ok(CheckReport { corruptions: number("corruptions") + number("check-errors"), leaks: number("leaks") })
}

/// The pieces of the guest's disk that an image says something of itself, zeroes included, as (offset, length) in bytes; what
/// it takes from files below is left out.
pub fn own_extents(path: &Path) -> Result<Vec<(u64, u64)>, LayerError> {
    inspect(path, Gate::Foreign)?;
    let stdout = qemu_img::run("map", &["-f", "qcow2", "--output=json"], &[path], LONG)?;
    let unknown = || LayerError::Answer { verb: "map" };
    let answer: serde_json::Value = serde_json::from_slice(&stdout).map_err(|_| unknown())?;
    let mut extents: Vec<(u64, u64)> = Vec::new();
    for piece in answer.as_array().ok_or_else(unknown)? {
        let number = |key: &str| piece.get(key).and_then(serde_json::Value::as_u64).ok_or_else(unknown);
        // Where no file of the chain says anything, QEMU names the topmost, and that nothing is present there.
        if number("depth")? > 0 || piece.get("present").and_then(serde_json::Value::as_bool) != Some(true) {
            continue;
        }
        let (start, length) = (number("start")?, number("length")?);
        match extents.last_mut() {
            Some((offset, have)) if *offset + *have == start => *have += length,
            _ => extents.push((start, length)),
        }
    }
    Ok(extents)
}

/// The persistent bitmaps of an image that nobody has open for writing.
pub fn list_bitmaps(path: &Path) -> Result<Vec<Bitmap>, LayerError> {
    inspect(path, Gate::Foreign)?;
    let stdout = qemu_img::run("info", &["-f", "qcow2", "--output=json"], &[path], SHORT)?;
    let unknown = || LayerError::Answer { verb: "info" };
    let answer: serde_json::Value = serde_json::from_slice(&stdout).map_err(|_| unknown())?;
    let Some(bitmaps) = answer.pointer("/format-specific/data/bitmaps") else { return Ok(Vec::new()) };
    bitmaps.as_array().ok_or_else(unknown)?.iter().map(|one| bitmap(one).ok_or_else(unknown)).collect()
}

/// Removes a bitmap, also an inconsistent one; a missing one is fine.
pub fn remove_bitmap(path: &Path, name: &str) -> Result<(), LayerError> {
    if !list_bitmaps(path)?.iter().any(|bitmap| bitmap.name == name) {
        return Ok(());
    }
    qemu_img::run("bitmap", &["--remove", "-f", "qcow2"], &[path, Path::new(name)], SHORT)?;
    Ok(())
}

fn bitmap(value: &serde_json::Value) -> Option<Bitmap> {
    let flags = value.get("flags")?.as_array()?;
    let has = |flag: &str| flags.iter().any(|found| found.as_str() == Some(flag));
    Some(Bitmap {
        name: value.get("name")?.as_str()?.to_owned(),
        granularity_bytes: value.get("granularity")?.as_u64()?,
        auto: has("auto"),
        in_use: has("in-use"),
    })
}

/// Makes sure that a layer names `base` and nothing else as the file below.
fn expect_backing(layer: &Path, info: &LayerInfo, base: &Path) -> Result<(), LayerError> {
    let named = info.backing.as_deref().map(|name| folder_of(layer).join(name));
    if named.as_deref() == Some(base) && info.backing_format.is_some() {
        return Ok(());
    }
    Err(LayerError::ChainDiffers {
        path: layer.to_owned(),
        found: info.backing.clone(),
        expected: base.display().to_string(),
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
