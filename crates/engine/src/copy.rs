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

/// Copies the data of a file, or all that lies in these extents, into a new file that stands on nothing; gives how many bytes that
/// were. Of the extents zeroes are kept as well, so that the new file, laid over what the old one began from, gives the old one back.
/// What an interrupted run has left of the new file goes first. The file says that it is `owner`'s.
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
    let allocated = client.allocated().await?.aligned_out(CLUSTER, size);
    let only = only.map(|only| only.clipped(size).aligned_out(CLUSTER, size));
    let data = only.as_ref().map_or_else(|| allocated.clone(), |only| allocated.intersection(only));
    let zero = only.map(|only| only.difference(&data)).unwrap_or_default();
    layer::discard(folder, name).map_err(Refusal::failed)?;
    let spec = LayerSpec { virtual_size: size, backing: None, owner: Some(owner) };
    let mut writer = LayerWriter::create(folder, name, spec).map_err(Refusal::failed)?;
    let read = data.iter().flat_map(|extent| extent.pieces(PIECE_BYTES)).map(|piece| (piece, true));
    let mut pieces: Vec<_> = read.chain(zero.iter().map(|extent| (extent, false))).collect();
    pieces.sort_unstable_by_key(|(piece, _)| piece.offset());
    for (piece, is_read) in pieces {
        let bytes = if is_read { Some(frames::joined(piece, client.read(piece).await?)) } else { None };
        writer = blocking(move || {
            match bytes {
                Some(bytes) => writer.write(piece.offset(), &bytes),
                None => writer.zero_over_anything(piece.offset(), piece.length()),
            }
            .map_err(Refusal::failed)?;
            Ok(writer)
        })
        .await?;
    }
    engine.reach("copy.written").await;
    client.disconnect().await;
    export.stop().await;
    blocking(move || writer.seal().map(drop).map_err(Refusal::failed)).await?;
    Ok(data.total() + zero.total())
}
