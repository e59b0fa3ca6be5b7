//! The JSON form of a manifest. Version 1 is the first; a newer one is refused by name.

use std::collections::BTreeMap;

use domain::{Consistency, DiskTarget, Epoch, Lineage, PointId, RecoveryPoint, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Manifest, ManifestDisk, ManifestPoint};
use crate::backing::{Backing, BackingFormat};
use crate::belongings::POINTS;
use crate::name::FileName;

const VERSION: u32 = 1;
const ABOUT: &str = "A replica of a virtual machine, kept by virt-replica. Each disk is a base and layers over it, \
                     plain qcow2 files; each recovery point names the file of each disk from which the machine \
                     starts at that moment.";

#[derive(Serialize, Deserialize)]
struct ManifestForm {
    about: String,
    version: u32,
    how_to_start_this_vm_without_virt_replica: Vec<String>,
    vm_name: String,
    vm_uuid: String,
    relationship: String,
    disks: Vec<DiskForm>,
    points: Vec<PointForm>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    starts_with_the_host_of_the_vm: bool,
}

#[derive(Serialize, Deserialize)]
struct DiskForm {
    target: String,
    virtual_size_bytes: u64,
    base: String,
    base_format: BackingFormat,
    layers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    merged_layers_to_delete: Vec<String>,
    /// Of a version before it: not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    file_bytes_at_least: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed_from_the_vm: bool,
}

#[derive(Serialize, Deserialize)]
struct PointForm {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    ordinal: u64,
    epoch: u64,
    /// For people; the number beside it is what is read.
    instant: String,
    instant_ms: u64,
    consistency: ConsistencyForm,
    lineage: String,
    delta_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    files: BTreeMap<String, String>,
    /// A folder of the replica's; of a version before it: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition_and_firmware: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum ConsistencyForm {
    Crash,
    FileSystem,
    Application,
    PoweredOff,
}

/// Only the version, which is read before anything else is believed.
#[derive(Deserialize)]
struct VersionForm {
    version: u32,
}

pub(super) fn encode(manifest: &Manifest, how_to_start: Vec<String>) -> Vec<u8> {
    let form = ManifestForm {
        about: ABOUT.to_owned(),
        version: VERSION,
        how_to_start_this_vm_without_virt_replica: how_to_start,
        vm_name: manifest.vm_name.clone(),
        vm_uuid: manifest.vm.to_string(),
        relationship: manifest.relationship.to_string(),
        disks: manifest.disks.iter().map(disk_form).collect(),
        points: manifest.points.iter().map(point_form).collect(),
        starts_with_the_host_of_the_vm: manifest.autostart,
    };
    let mut bytes = serde_json::to_vec_pretty(&form).expect("strings, numbers and lists are always JSON");
    bytes.push(b'\n');
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, String> {
    let VersionForm { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this program knows {VERSION}"));
    }
    let form: ManifestForm = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Manifest {
        vm_name: form.vm_name,
        vm: form.vm_uuid.parse().map_err(|_| "vm_uuid is no UUID".to_owned())?,
        relationship: form.relationship.parse().map_err(|_| "relationship is no UUID".to_owned())?,
        disks: form.disks.into_iter().map(disk).collect::<Result<_, _>>()?,
        points: form.points.into_iter().map(point).collect::<Result<_, _>>()?,
        autostart: form.starts_with_the_host_of_the_vm,
    })
}

fn disk_form(disk: &ManifestDisk) -> DiskForm {
    let names = |files: &[FileName]| files.iter().map(ToString::to_string).collect();
    DiskForm {
        target: disk.target.to_string(),
        virtual_size_bytes: disk.virtual_size,
        base: disk.base.file().to_owned(),
        base_format: disk.base.format(),
        layers: names(&disk.layers),
        merged_layers_to_delete: names(&disk.folded),
        file_bytes_at_least: disk.file_bytes_min.clone(),
        removed_from_the_vm: disk.retired,
    }
}

fn disk(form: DiskForm) -> Result<ManifestDisk, String> {
    let names = |files: Vec<String>| -> Result<Vec<FileName>, String> {
        files.iter().map(|file| FileName::new(file).map_err(|error| error.to_string())).collect()
    };
    Ok(ManifestDisk {
        target: DiskTarget::new(&form.target).map_err(|error| error.to_string())?,
        virtual_size: form.virtual_size_bytes,
        base: Backing::new(&form.base, form.base_format).map_err(|error| error.to_string())?,
        layers: names(form.layers)?,
        folded: names(form.merged_layers_to_delete)?,
        file_bytes_min: form.file_bytes_at_least,
        retired: form.removed_from_the_vm,
    })
}

fn point_form(entry: &ManifestPoint) -> PointForm {
    let point = &entry.point;
    let millis = point.instant.millis();
    let instant = i64::try_from(millis).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    PointForm {
        id: point.id.to_string(),
        parent: point.parent.map(|parent| parent.to_string()),
        ordinal: point.ordinal,
        epoch: point.epoch.number(),
        instant: instant.map_or_else(|| "beyond the calendar".to_owned(), |instant| instant.to_string()),
        instant_ms: millis,
        consistency: match point.consistency {
            Consistency::Crash => ConsistencyForm::Crash,
            Consistency::FileSystem => ConsistencyForm::FileSystem,
            Consistency::Application => ConsistencyForm::Application,
            Consistency::PoweredOff => ConsistencyForm::PoweredOff,
        },
        lineage: point.lineage.to_hex(),
        delta_bytes: point.delta_bytes,
        tag: point.tag.clone(),
        files: entry.files.iter().map(|(target, file)| (target.to_string(), file.clone())).collect(),
        definition_and_firmware: entry.belongings.map(|kept| format!("{POINTS}/{kept}")),
    }
}

fn point(form: PointForm) -> Result<ManifestPoint, String> {
    let id = |text: &str| text.parse::<PointId>().map_err(|_| format!("{text:?} is no point id"));
    let files = form.files.into_iter().map(|(target, file)| {
        let target = DiskTarget::new(&target).map_err(|error| error.to_string())?;
        // The format does not matter for the check of the name.
        Backing::new(&file, BackingFormat::Qcow2).map_err(|error| error.to_string())?;
        Ok::<_, String>((target, file))
    });
    let kept = form.definition_and_firmware.as_deref();
    let folder = |text: &str| text.strip_prefix(POINTS).and_then(|it| it.strip_prefix('/')).map(id);
    let kept = kept.map(|text| folder(text).unwrap_or_else(|| id(text))).transpose()?;
    Ok(ManifestPoint {
        point: RecoveryPoint {
            id: id(&form.id)?,
            parent: form.parent.as_deref().map(id).transpose()?,
            ordinal: form.ordinal,
            epoch: Epoch::new(form.epoch).ok_or("epoch 0 does not exist")?,
            instant: Timestamp(form.instant_ms),
            consistency: match form.consistency {
                ConsistencyForm::Crash => Consistency::Crash,
                ConsistencyForm::FileSystem => Consistency::FileSystem,
                ConsistencyForm::Application => Consistency::Application,
                ConsistencyForm::PoweredOff => Consistency::PoweredOff,
            },
            lineage: Lineage::from_hex(&form.lineage).ok_or("a lineage is not 64 hexadecimal digits")?,
            delta_bytes: form.delta_bytes,
            tag: form.tag,
        },
        files: files.collect::<Result<_, _>>()?,
        belongings: kept,
    })
}
