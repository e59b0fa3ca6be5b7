//! Copying what a disk file that nobody writes to holds into a file of ours: an existing copy that becomes a base, or what an old
//! primary wrote that is set aside. Not here: the copies of a running VM (`cycle`).

use std::path::Path;

use extent::ExtentSet;
use layer::{FileName, LayerSpec, LayerWriter, Owner};
use nbd::{ALLOCATION, Deadlines, OfflineDisk, OfflineExport};

use crate::frames::{self, CLUSTER};
use crate::{Engine, Refusal, Result, blocking};

/// Read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Copies the data of a file, or what of it lies in these extents, into a new file that stands on nothing; gives how many bytes that
/// were. What an interrupted run has left of the new file goes first. The file says that it is `owner`'s.
pub(crate) async fn copy(
    engine: &Engine,
    file: &Path,
    only: Option<&ExtentSet>,
    (folder, name): (&Path, &FileName),
    owner: Owner,
    socket: &str,
) -> Result<u64> {
    let socket = engine.config().sockets.join(socket);
    let export = OfflineExport::start(OfflineDisk { file, bitmaps: &[] }, &socket).await?;
    let client = export.connect(&[ALLOCATION], Deadlines::default()).await?;
    let size = client.size();
    let allocated = client.allocated().await?;
    let data = only.map_or_else(|| allocated.clone(), |only| allocated.intersection(only));
    let data = data.aligned_out(CLUSTER, size);
    layer::discard(folder, name).map_err(Refusal::failed)?;
    let spec = LayerSpec { virtual_size: size, backing: None, owner: Some(owner) };
    let mut writer = LayerWriter::create(folder, name, spec).map_err(Refusal::failed)?;
    for piece in data.iter().flat_map(|extent| extent.pieces(PIECE_BYTES)) {
        let bytes = frames::joined(piece, client.read(piece).await?);
        writer = blocking(move || {
            writer.write(piece.offset(), &bytes).map_err(Refusal::failed)?;
            Ok(writer)
        })
        .await?;
    }
    engine.reach("copy.written").await;
    client.disconnect().await;
    export.stop().await;
    blocking(move || writer.seal().map(drop).map_err(Refusal::failed)).await?;
    Ok(data.total())
}
