//! Damage: what transmission, disks and liars do to bytes.

/// Numbers that sizes, counts and offsets go wrong at.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x1000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// Most changes to one input.
const CHANGES_MAX: usize = 6;
/// Longest input that is made: what is longer is refused before it is read.
const BYTES_MAX: usize = 4 << 20;

pub(crate) struct Mutator {
    chance: fastrand::Rng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator { chance: fastrand::Rng::with_seed(seed) }
    }

    /// One of the inputs, changed in some places.
    pub(crate) fn damaged(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes, inputs);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.push(self.chance.u8(..));
            return;
        }
        let at = self.place(bytes.len());
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.chance.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let end = at + self.below(bytes.len() - at) + 1;
                let piece = bytes[at..end.min(at + 64)].to_vec();
                let into = self.place(bytes.len());
                bytes.splice(into..into, piece);
            }
            4 => {
                let end = (at + 1 + self.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => self.number(bytes, at),
            6 => self.digits(bytes),
            7 => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len().max(1));
                let piece: Vec<u8> = other.iter().skip(from).take(1 + self.below(256)).copied().collect();
                bytes.splice(at..at, piece);
            }
            _ => bytes.resize(bytes.len() + self.below(64), self.chance.u8(..)),
        }
    }

    /// A binary number, either way round.
    fn number(&mut self, bytes: &mut [u8], at: usize) {
        let edge = EDGES[self.below(EDGES.len())];
        let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
        let number = match self.below(2) {
            0 => edge.to_le_bytes()[..width].to_vec(),
            _ => edge.to_be_bytes()[8 - width..].to_vec(),
        };
        bytes[at..at + width].copy_from_slice(&number);
    }

    /// A number in text.
    fn digits(&mut self, bytes: &mut Vec<u8>) {
        let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
        let Some(first) = digits.get(self.below(digits.len())).copied() else { return };
        let length = bytes[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let edge = EDGES[self.below(EDGES.len())].to_string();
        bytes.splice(first..first + length, edge.into_bytes());
    }

    /// Headers are where the meaning is: half of the time near the beginning.
    fn place(&mut self, length: usize) -> usize {
        let near = length.min(256);
        if self.chance.bool() { self.below(near) } else { self.below(length) }
    }

    /// A number below `end`; 0 when there is none.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.chance.usize(..end) }
    }
}
