//! A program that speaks to the console as a browser does: curl, which trusts the console's certificate and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{HOSTS, Lab};
use serde_json::Value;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The host itself, or the other one.
    Host(&'static str),
    /// A machine beside both.
    Outside,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of a problem that says what, why and the cure.
    pub fn problem(&self) -> (u16, String) {
        let problem = self.json();
        let said = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("title") && said("detail") && said("cure"), "{problem}");
        (self.status, problem["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// A browser, at the console of the first host.
#[derive(Clone)]
pub struct Browser<'a> {
    lab: &'a Lab,
    from: From,
    trusted: PathBuf,
    cookie: String,
    pub csrf: String,
}

impl<'a> Browser<'a> {
    /// One that has never been here. `trusted` is a file with the console's certificate.
    pub fn new(lab: &'a Lab, from: From, trusted: &Path) -> Browser<'a> {
        Browser { lab, from, trusted: trusted.to_owned(), cookie: String::new(), csrf: String::new() }
    }

    /// The same session with another token against forgery.
    pub fn with_token(&self, token: &str) -> Browser<'a> {
        Browser { csrf: token.to_owned(), ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body)
    }

    pub fn sign_in(&mut self, form: &Value) -> Answer {
        let answer = self.post("/session", &form.to_string());
        if answer.status == 200 {
            let cookie =
                answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
            self.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
            self.csrf = answer.json()["csrf"].as_str().expect("a token").to_owned();
        }
        answer
    }

    /// The secret of the cookie.
    pub fn secret(&self) -> &str {
        self.cookie.split_once('=').expect("a cookie").1
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let call = || self.curl(method, path, body);
        match self.from {
            From::Host(name) => self.lab.host(name).within(call).expect("in the network of a host"),
            From::Outside => self.lab.outside(call).expect("in the network beside"),
        }
    }

    fn curl(&self, method: &str, path: &str, body: &str) -> Answer {
        let address = self.lab.host(HOSTS[0]).address();
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "60", "--http1.1"]);
        command
            .args(["--resolve", &format!("{}:8444:{address}", HOSTS[0])])
            .arg("--cacert")
            .arg(&self.trusted);
        command.args([
            "--request",
            method,
            "--header",
            "Content-Type: application/json",
            "--header",
            "Expect:",
        ]);
        for (name, value) in [("Cookie", &self.cookie), ("X-CSRF-Token", &self.csrf)] {
            if !value.is_empty() {
                command.args(["--header", &format!("{name}: {value}")]);
            }
        }
        if !body.is_empty() {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!("https://{}:8444{path}", HOSTS[0]));
        let begun = Instant::now();
        let mut curl = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl");
        // A body that is refused before its end breaks the pipe.
        let _ = std::io::Write::write_all(&mut curl.stdin.take().expect("a pipe"), body.as_bytes());
        let output = curl.wait_with_output().expect("curl ends");
        let took = begun.elapsed();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {errors} {said}"));
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.expect("a status"),
            head: head.replace('\r', ""),
            body: body.to_owned(),
            took,
        }
    }
}
