//! Reads the data of a qcow2 disk through `qemu-nbd` as fast as it comes and prints the speed:
//! `cargo run --release -p nbd --example pull -- DISK [READS AT ONCE]`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use nbd::{ALLOCATION, Chunk, Deadlines, OfflineDisk, OfflineExport, READ_BYTES};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().ok_or("usage: pull DISK [READS AT ONCE]")?);
    let at_once = arguments.next().map_or(Ok(16), |number| number.parse())?;
    let directory = tempfile::tempdir()?;
    let disk = OfflineDisk { file: &file, bitmaps: &[] };
    let export = OfflineExport::start(disk, &directory.path().join("socket")).await?;
    let client = export.connect(&[ALLOCATION], Deadlines::default()).await?;

    let begin = Instant::now();
    let allocated = client.allocated().await?;
    println!("mapped {} of {} bytes in {:.1?}", allocated.total(), client.size(), begin.elapsed());

    let begin = Instant::now();
    let mut reads = stream::iter(allocated.iter().flat_map(|extent| extent.pieces(READ_BYTES)))
        .map(|piece| client.read(piece))
        .buffered(at_once);
    let (mut data, mut holes) = (0, 0);
    while let Some(chunks) = reads.next().await {
        for chunk in chunks? {
            match chunk {
                Chunk::Data { bytes, .. } => data += bytes.len() as u64,
                Chunk::Hole(extent) => holes += extent.length(),
            }
        }
    }
    drop(reads);
    let seconds = begin.elapsed().as_secs_f64();
    println!("read {data} bytes of data and {holes} of holes: {:.0} MB/s", data as f64 / 1e6 / seconds);
    client.disconnect().await;
    export.stop().await;
    Ok(())
}
