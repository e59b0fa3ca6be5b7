//! Speaks with the workload inside a guest (`guest/workload.rs` has the protocol).
//!
//! NOT a judge: it asks one thing and gives the answer or the failure.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::LIMIT;

/// A guest in the same network answers in a millisecond, or is not there.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);
/// Longest wait for one answer; a frozen or stopped guest is given up then.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A connection to the workload.
pub struct Client {
    lines: BufReader<TcpStream>,
}

/// What a data folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// Numbers of all whole records, in the order in which they were stored.
    pub numbers: Vec<u64>,
    /// Offsets of records whose checksum is wrong, bytes.
    pub bad: Vec<u64>,
}

/// Which life of the guest answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    /// Changes with each boot.
    pub boot: String,
    /// Time since that boot.
    pub uptime: Duration,
    /// Number of data folders, which is that of the disks.
    pub folders: usize,
}

impl Client {
    /// Connects, within [`Lab::outside`](crate::Lab::outside).
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Stores a number; when this returns, it is durable on every disk of the guest.
    pub fn append(&mut self, number: u64) -> Result<()> {
        let answer = self.ask(&format!("append {number}"), ANSWER_LIMIT)?;
        ensure!(answer == format!("ok {number}"), "the workload answered {answer:?}");
        Ok(())
    }

    /// All records of a data folder: 0 on the first disk, 1 on the second.
    pub fn dump(&mut self, folder: usize) -> Result<Dump> {
        let mut dump = Dump::default();
        let mut line = self.ask(&format!("dump {folder}"), LIMIT)?;
        loop {
            match line.split_once(' ') {
                None => dump.numbers.push(line.parse().context("number in a dump")?),
                Some(("bad", offset)) => dump.bad.push(offset.parse().context("offset in a dump")?),
                Some(("end", count)) => {
                    ensure!(count == dump.numbers.len().to_string(), "the dump lacks records");
                    return Ok(dump);
                }
                Some(_) => bail!("the workload answered {line:?}"),
            }
            line = self.line()?;
        }
    }

    /// Writes incompressible data into a file of the first disk, durable when this returns.
    pub fn fill(&mut self, name: &str, mib: u64) -> Result<()> {
        self.ask(&format!("fill {name} {mib}"), LIMIT).map(drop)
    }

    /// Checksum and size of a file of the first disk, as one word to compare.
    pub fn sum(&mut self, name: &str) -> Result<String> {
        self.ask(&format!("sum {name}"), LIMIT)
    }

    /// Lets the guest agent stand still, or go on.
    pub fn hang_agent(&mut self, hangs: bool) -> Result<()> {
        self.ask(if hangs { "agent hang" } else { "agent go" }, ANSWER_LIMIT).map(drop)
    }

    /// Which life of the guest answers.
    pub fn who(&mut self) -> Result<Who> {
        let answer = self.ask("who", ANSWER_LIMIT)?;
        let words: Vec<&str> = answer.split(' ').collect();
        let ["boot", boot, "uptime", seconds, "folders", folders] = words.as_slice() else {
            bail!("the workload answered {answer:?}");
        };
        let uptime = Duration::try_from_secs_f64(seconds.parse()?)?;
        Ok(Who { boot: (*boot).to_owned(), uptime, folders: folders.parse()? })
    }

    fn ask(&mut self, request: &str, limit: Duration) -> Result<String> {
        let stream = self.lines.get_mut();
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let answer = self.line()?;
        match answer.strip_prefix("error ") {
            Some(error) => bail!("the workload cannot {request}: {error}"),
            None => Ok(answer),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let count = self.lines.read_line(&mut line)?;
        ensure!(count > 0, "the workload closed the connection");
        Ok(line.trim_end().to_owned())
    }
}
