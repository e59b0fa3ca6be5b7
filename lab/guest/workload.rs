//! The program inside the lab's guest: stores numbered records durably and answers over TCP.
//!
//! It is NOT part of the product; it is the witness. Built as one static file by `lab::image`.
//!
//! One request per line, one connection per thread:
//! ```text
//! append N          store N in every data folder, fdatasync each    -> ok N   (only when durable everywhere)
//! dump I            all records of data folder I (0, 1)             -> N ... / bad OFFSET ... / end COUNT
//! fill NAME MIB     write MIB MiB of random bytes into NAME         -> ok MIB
//! sum NAME          checksum of the file NAME of folder 0           -> sum HEX BYTES
//! agent hang        the guest agent stands still; `agent go` lets it go on -> ok
//! who               which boot this is                              -> boot ID uptime SECONDS folders COUNT
//! ```
//! A request that fails is answered `error TEXT`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// TCP port of the workload.
const PORT: u16 = 7070;
/// Length of one record: number in 20 digits, space, checksum in 16 hexadecimal digits, newline.
const RECORD_BYTES: usize = 38;
/// A request is short; a longer line is refused instead of collected.
const REQUEST_BYTES_MAX: u64 = 256;

/// Record files of all data folders, in the order in which a record is written to them.
struct Journal {
    folders: Vec<PathBuf>,
    files: Mutex<Vec<File>>,
}

fn main() {
    let folders: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let files = folders.iter().map(|folder| open_records(folder).expect("data folder is writable")).collect();
    let journal = Arc::new(Journal { folders, files: Mutex::new(files) });
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("the port is free in a guest of our own");
    for client in listener.incoming().flatten() {
        let journal = journal.clone();
        std::thread::spawn(move || serve(&client, &journal));
    }
}

/// Opens the records for appending; a torn last record (the guest lost power in mid-write) is cut off.
fn open_records(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(folder.join("records"))?;
    let length = file.metadata()?.len();
    let torn = length % RECORD_BYTES as u64;
    if torn > 0 {
        file.set_len(length - torn)?;
    }
    Ok(file)
}

fn serve(client: &TcpStream, journal: &Journal) {
    let _ = client.set_nodelay(true);
    let mut requests = BufReader::new(client);
    loop {
        let mut line = String::new();
        match requests.by_ref().take(REQUEST_BYTES_MAX).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut answer = BufWriter::new(client);
        let outcome = match handle(line.trim(), journal, &mut answer) {
            Ok(()) => answer.flush(),
            Err(error) => writeln!(answer, "error {error}").and_then(|()| answer.flush()),
        };
        if outcome.is_err() {
            return;
        }
    }
}

fn handle(request: &str, journal: &Journal, answer: &mut impl Write) -> io::Result<()> {
    let words: Vec<&str> = request.split(' ').collect();
    match words.as_slice() {
        ["append", number] => {
            let number = parse(number)?;
            append(journal, number)?;
            writeln!(answer, "ok {number}")
        }
        ["dump", index] => dump(&folder(journal, parse(index)?)?.join("records"), answer),
        ["fill", name, mib] => {
            let mib = parse(mib)?;
            fill(&folder(journal, 0)?.join(safe(name)?), mib)?;
            writeln!(answer, "ok {mib}")
        }
        ["sum", name] => {
            let bytes = fs::read(folder(journal, 0)?.join(safe(name)?))?;
            writeln!(answer, "sum {:016x} {}", checksum(&bytes), bytes.len())
        }
        ["agent", "hang"] => signal_agent("-STOP").and_then(|()| writeln!(answer, "ok")),
        ["agent", "go"] => signal_agent("-CONT").and_then(|()| writeln!(answer, "ok")),
        ["who"] => {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            let uptime = fs::read_to_string("/proc/uptime")?;
            let uptime = uptime.split(' ').next().unwrap_or_default();
            writeln!(answer, "boot {} uptime {uptime} folders {}", boot.trim(), journal.folders.len())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such request")),
    }
}

fn signal_agent(signal: &str) -> io::Result<()> {
    let process = fs::read_to_string("/run/qemu-ga.pid")?;
    let sent = Command::new("kill").args([signal, process.trim()]).status()?;
    if sent.success() { Ok(()) } else { Err(io::Error::other("the agent is not there")) }
}

fn parse(word: &str) -> io::Result<u64> {
    word.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn safe(name: &str) -> io::Result<&str> {
    let plain =
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    plain.then_some(name).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "name is not plain"))
}

fn folder(journal: &Journal, index: u64) -> io::Result<&PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no such data folder");
    usize::try_from(index).ok().and_then(|index| journal.folders.get(index)).ok_or_else(missing)
}

/// Durable in every folder, one after the other, before it returns.
fn append(journal: &Journal, number: u64) -> io::Result<()> {
    let record = encode(number);
    let mut files = journal.files.lock().map_err(|_| io::Error::other("an earlier write panicked"))?;
    for file in files.iter_mut() {
        file.write_all(record.as_bytes())?;
        file.sync_data()?;
    }
    Ok(())
}

fn dump(records: &Path, answer: &mut impl Write) -> io::Result<()> {
    let bytes = fs::read(records)?;
    let mut count = 0_u64;
    for (index, record) in bytes.chunks(RECORD_BYTES).enumerate() {
        match decode(record) {
            Some(number) => {
                writeln!(answer, "{number}")?;
                count += 1;
            }
            None => writeln!(answer, "bad {}", index * RECORD_BYTES)?,
        }
    }
    writeln!(answer, "end {count}")
}

/// Writes incompressible bytes, so that they cost what real data costs.
fn fill(path: &Path, mib: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut state = (clock.as_nanos() as u64) | 1;
    let mut block = vec![0_u8; 1 << 20];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn encode(number: u64) -> String {
    let digits = format!("{number:020}");
    format!("{digits} {:016x}\n", checksum(digits.as_bytes()))
}

fn decode(record: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(record).ok()?;
    let number: u64 = text.get(..20)?.parse().ok()?;
    (encode(number) == text).then_some(number)
}

/// FNV-1a, 64 bit: enough to see a torn or misplaced record.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{RECORD_BYTES, decode, encode};

    #[test]
    fn a_record_comes_back_and_a_damaged_one_does_not() {
        let record = encode(42);
        assert_eq!(record.len(), RECORD_BYTES);
        assert_eq!(decode(record.as_bytes()), Some(42));
        let damaged = record.replace("42 ", "43 ");
        assert_eq!(decode(damaged.as_bytes()), None);
        assert_eq!(decode(&record.as_bytes()[..30]), None);
    }
}
