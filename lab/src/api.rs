//! The REST API of a daemon in the lab, asked as a program asks that somebody wrote by its document: over the control socket, by
//! hand. NOT the product's own client, which knows more than the document says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::host::Host;

/// Longer than any answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The API of one host.
pub struct Api {
    socket: PathBuf,
}

/// What it answered.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Everything before the body, as it came.
    pub head: String,
    /// The body, as text.
    pub body: String,
}

impl Answered {
    /// A header by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| *known == name)
            .map(|it| it.1)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("JSON in {self:?}"))
    }
}

impl Api {
    /// That of a host whose daemon runs.
    pub fn of(host: &Host) -> Result<Api> {
        Ok(Api { socket: host.path("/run/virt-replica/control.sock")? })
    }

    /// Asks `GET /path` or `POST /path`, below `/api/v1`.
    pub fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Result<Answered> {
        let mut stream = self.open(request, headers, body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).context("an answer in UTF-8")?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("a head in {text:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("a status in {head:?}"))?;
        Ok(Answered { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// Asks and leaves the answer to be read as it comes.
    pub fn open(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Result<UnixStream> {
        let mut stream =
            UnixStream::connect(&self.socket).with_context(|| format!("{}", self.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let (method, path) = request.split_once(' ').context("a method and a path")?;
        // Version 1.0: the end of the connection is the end of the answer.
        let mut text =
            format!("{method} /api/v1{path} HTTP/1.0\r\nHost: lab\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
        Ok(stream)
    }

    /// Serves the socket at a port of this machine's loopback, for programs that know nothing of sockets. Ends with the process.
    pub fn bridge(&self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let socket = self.socket.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let socket = socket.clone();
                std::thread::spawn(move || carry(client, &socket));
            }
        });
        Ok(address)
    }
}

/// Both ways, until either side has said all.
fn carry(client: TcpStream, socket: &Path) -> std::io::Result<()> {
    let daemon = UnixStream::connect(socket)?;
    let (mut from_client, mut to_daemon) = (client.try_clone()?, daemon.try_clone()?);
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    let (mut from_daemon, mut to_client) = (daemon, client);
    let _ = std::io::copy(&mut from_daemon, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = there.join();
    Ok(())
}
