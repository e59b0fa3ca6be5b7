//! A daemon of a few lines: canned answers on a real socket, and a record of what was asked to be done.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Answers in turn, by "METHOD path"; the last one of a path repeats.
type Script = HashMap<String, Vec<(u16, Value)>>;

#[derive(Default)]
struct Inner {
    script: Script,
    asked: Vec<String>,
}

/// The daemon, its folder and its runtime.
pub struct Daemon {
    folder: tempfile::TempDir,
    runtime: Runtime,
    inner: Arc<Mutex<Inner>>,
    serving: Option<JoinHandle<()>>,
}

impl Daemon {
    /// A folder with no daemon in it yet.
    pub fn absent() -> Daemon {
        Daemon {
            folder: tempfile::tempdir().expect("a temporary folder"),
            runtime: Runtime::new().expect("a runtime"),
            inner: Arc::default(),
            serving: None,
        }
    }

    /// A daemon that answers by the script.
    pub fn answering(script: impl IntoIterator<Item = (&'static str, Vec<(u16, Value)>)>) -> Daemon {
        let mut daemon = Daemon::absent();
        let script = script.into_iter().map(|(path, answers)| (path.to_owned(), answers)).collect();
        daemon.inner.lock().expect("not poisoned").script = script;
        daemon.start();
        daemon
    }

    /// Begins to listen; the record and the script go on.
    pub fn start(&mut self) {
        let _ = std::fs::remove_file(self.socket()); // left behind by the one before
        let _guard = self.runtime.enter();
        let listener = UnixListener::bind(self.socket()).expect("a socket in a fresh folder");
        let app = axum::Router::new().fallback(answer).with_state(self.inner.clone());
        self.serving = Some(self.runtime.spawn(async move {
            let _ = axum::serve(listener, app).await; // ends with the test
        }));
    }

    /// Stops as a killed daemon does: its socket file stays.
    pub fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = self.runtime.block_on(serving); // it was aborted
        }
    }

    /// What was asked, as "METHOD path?query".
    pub fn asked(&self) -> Vec<String> {
        self.inner.lock().expect("not poisoned").asked.clone()
    }

    /// Runs the command to its end. No terminal, no environment of the tester's.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// The command, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-replica"));
        command.args(arguments).env_clear().env("TZ", "UTC").env("VIRT_REPLICA_SOCKET", self.socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, method: Method, uri: Uri) -> Response {
    let mut inner = inner.lock().expect("not poisoned");
    let target = uri.path_and_query().map_or("", |it| it.as_str()).trim_start_matches("/api/v1/");
    let asked = format!("{method} {target}");
    inner.asked.push(asked.clone());
    let Some(answers) = inner.script.get_mut(&asked) else {
        return (
            StatusCode::NOT_FOUND,
            Json(serde_json::json!({"code": "not-found", "title": "No such thing"})),
        )
            .into_response();
    };
    let (status, body) = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
    (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response()
}
