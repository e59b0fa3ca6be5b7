//! Reads of a piece of a disk, with a little memory of what was read, until the time is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ext4_view::Ext4Read;

use crate::{Disk, Partition};

/// What is read at once, and kept.
const BLOCK_BYTES: u64 = 64 * 1024;
/// Blocks that are kept of one file system.
const BLOCKS_MAX: usize = 256;

type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The time that is left. A file system that leads in circles is left by it, for every round reads.
pub(crate) struct Budget {
    end: Instant,
}

impl Budget {
    pub(crate) fn new(time: Duration) -> Arc<Budget> {
        Arc::new(Budget { end: Instant::now() + time })
    }

    pub(crate) fn is_spent(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// One partition of a disk.
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    partition: Partition,
    budget: Arc<Budget>,
    blocks: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Reader {
    pub(crate) fn new(disk: &Arc<dyn Disk>, partition: &Partition, budget: &Arc<Budget>) -> Reader {
        Reader {
            disk: Arc::clone(disk),
            partition: partition.clone(),
            budget: Arc::clone(budget),
            blocks: Mutex::default(),
        }
    }

    /// Copies from one block; gives how many bytes that were.
    fn copy(&self, start: u64, dst: &mut [u8]) -> Result<usize, Failure> {
        let begin = start / BLOCK_BYTES * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.partition.bytes - begin);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if !blocks.contains_key(&begin) {
            if self.budget.is_spent() {
                return Err("the time for it was over".into());
            }
            let mut block = vec![0; usize::try_from(length)?];
            self.disk.read_at(self.partition.offset + begin, &mut block)?;
            if blocks.len() == BLOCKS_MAX {
                blocks.clear();
            }
            blocks.insert(begin, block);
        }
        let block = blocks.get(&begin).map_or(&[][..], |block| &block[(start - begin) as usize..]);
        let count = block.len().min(dst.len());
        dst[..count].copy_from_slice(&block[..count]);
        Ok(count)
    }
}

impl Ext4Read for Reader {
    fn read(&mut self, start_byte: u64, dst: &mut [u8]) -> Result<(), Failure> {
        let end = start_byte.checked_add(dst.len() as u64).filter(|end| *end <= self.partition.bytes);
        if end.is_none() {
            return Err("it points outside of its partition".into());
        }
        let mut done = 0;
        while done < dst.len() {
            done += self.copy(start_byte + done as u64, &mut dst[done..])?;
        }
        Ok(())
    }
}
