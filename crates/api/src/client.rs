//! The typed client: one method per verb, one connection per request over a unix socket. Retries nothing by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::dto::{
    Answer, AuditRecord, CancelFailoverRequest, CancelRequest, Check, ConsoleLink, ConsoleLinkRequest,
    ConsoleRole, ConsoleSession, CreatePointRequest, DivergedView, Done, EnableRequest, EndSessionsRequest,
    Event, EventQuery, FailoverRequest, HostChange, HostView, ImportRequest, Importing, Invitation,
    InviteRequest, JoinRequest, LIMIT_MAX, OperationView, Peer, PlannedFailoverRequest, PointList, PointMade,
    RelationshipDetail, RelationshipSummary, RemoveRequest, ReverseRequest, SettingsChange, StartWord,
    TestFailoverRequest, TestFailoverView,
};
use crate::problem::{Code, Problem};

/// Largest answer, bytes: thousands of events or operations fit.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait for one answer: checks ask the peer and the hypervisor, each with its own shorter deadline.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, Problem>;

/// Speaks to the daemon at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon at `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into() }
    }

    /// Where the daemon is expected.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `host show`
    pub async fn host(&self) -> Result<HostView> {
        self.read("host").await
    }

    /// `host check`
    pub async fn host_check(&self) -> Result<Vec<Check>> {
        self.read("host/check").await
    }

    /// `host set`
    pub async fn host_set(&self, change: &HostChange, dry_run: bool) -> Result<Answer<HostView>> {
        self.write("host", change, dry_run).await
    }

    /// `peer list`
    pub async fn peers(&self) -> Result<Vec<Peer>> {
        self.read("peers").await
    }

    /// `peer test`
    pub async fn peer_test(&self, peer: &str) -> Result<Vec<Check>> {
        self.read(&format!("peers/{}/test", escape(peer))).await
    }

    /// `peer invite`
    pub async fn peer_invite(&self, request: &InviteRequest, dry_run: bool) -> Result<Answer<Invitation>> {
        self.write("peers/invite", request, dry_run).await
    }

    /// `peer join`
    pub async fn peer_join(&self, request: &JoinRequest, dry_run: bool) -> Result<Answer<Peer>> {
        self.write("peers/join", request, dry_run).await
    }

    /// `peer rotate`
    pub async fn peer_rotate(&self, dry_run: bool) -> Result<Answer<Done>> {
        self.write("peers/rotate", &(), dry_run).await
    }

    /// `peer remove`
    pub async fn peer_remove(&self, peer: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&format!("peers/{}/remove", escape(peer)), &(), dry_run).await
    }

    /// `list`
    pub async fn relationships(&self) -> Result<Vec<RelationshipSummary>> {
        self.list("relationships", None).await
    }

    /// `show`
    pub async fn relationship(&self, vm: &str) -> Result<RelationshipDetail> {
        self.read(&of_vm(vm, "")).await
    }

    /// What the start hook asks.
    pub async fn may_start(&self, vm: &str) -> Result<StartWord> {
        self.read(&of_vm(vm, "/may-start")).await
    }

    /// `enable`
    pub async fn enable(
        &self,
        request: &EnableRequest,
        dry_run: bool,
    ) -> Result<Answer<RelationshipSummary>> {
        self.write("relationships", request, dry_run).await
    }

    /// `set`
    pub async fn change(
        &self,
        vm: &str,
        change: &SettingsChange,
        dry_run: bool,
    ) -> Result<Answer<RelationshipDetail>> {
        self.write(&of_vm(vm, ""), change, dry_run).await
    }

    /// `pause`
    pub async fn pause(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, "/pause"), &(), dry_run).await
    }

    /// `resume`
    pub async fn resume(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, "/resume"), &(), dry_run).await
    }

    /// `remove`
    pub async fn remove(&self, vm: &str, request: &RemoveRequest, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, "/remove"), request, dry_run).await
    }

    /// `planned-failover`: answers as soon as the operation is journaled; poll [`Client::operation`].
    pub async fn planned_failover(
        &self,
        vm: &str,
        request: &PlannedFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<OperationView>> {
        self.write(&of_vm(vm, "/planned-failover"), request, dry_run).await
    }

    /// `reverse`
    pub async fn reverse(
        &self,
        vm: &str,
        request: &ReverseRequest,
        dry_run: bool,
    ) -> Result<Answer<RelationshipSummary>> {
        self.write(&of_vm(vm, "/reverse"), request, dry_run).await
    }

    /// `operation list`: the newest, as many as one page has.
    pub async fn operations(&self) -> Result<Vec<OperationView>> {
        Ok(self.page("operations", None, None).await?.0)
    }

    /// `operation show`
    pub async fn operation(&self, id: &str) -> Result<OperationView> {
        self.read(&format!("operations/{}", escape(id))).await
    }

    /// `operation resume`
    pub async fn operation_resume(&self, id: &str, dry_run: bool) -> Result<Answer<OperationView>> {
        self.write(&format!("operations/{}/resume", escape(id)), &(), dry_run).await
    }

    /// `operation cancel`
    pub async fn operation_cancel(
        &self,
        id: &str,
        request: &CancelRequest,
        dry_run: bool,
    ) -> Result<Answer<OperationView>> {
        self.write(&format!("operations/{}/cancel", escape(id)), request, dry_run).await
    }

    /// `test-failover list`
    pub async fn test_failovers(&self) -> Result<Vec<TestFailoverView>> {
        self.list("test-failovers", None).await
    }

    /// `test-failover show`
    pub async fn test_failover(&self, id: &str) -> Result<TestFailoverView> {
        self.read(&format!("test-failovers/{}", escape(id))).await
    }

    /// `test-failover`
    pub async fn begin_test_failover(
        &self,
        vm: &str,
        request: &TestFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<TestFailoverView>> {
        self.write(&of_vm(vm, "/test-failover"), request, dry_run).await
    }

    /// `stop-test-failover`
    pub async fn stop_test_failover(
        &self,
        named: &str,
        dry_run: bool,
    ) -> Result<Answer<Vec<TestFailoverView>>> {
        self.write(&format!("test-failovers/{}/stop", escape(named)), &(), dry_run).await
    }

    /// `failover`
    pub async fn failover(
        &self,
        vm: &str,
        request: &FailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<OperationView>> {
        self.write(&of_vm(vm, "/failover"), request, dry_run).await
    }

    /// `cancel-failover`
    pub async fn cancel_failover(
        &self,
        vm: &str,
        request: &CancelFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<OperationView>> {
        self.write(&of_vm(vm, "/cancel-failover"), request, dry_run).await
    }

    /// `complete-failover`
    pub async fn complete_failover(&self, vm: &str, dry_run: bool) -> Result<Answer<OperationView>> {
        self.write(&of_vm(vm, "/complete-failover"), &(), dry_run).await
    }

    /// `diverged list`
    pub async fn diverged(&self, vm: &str) -> Result<Vec<DivergedView>> {
        self.read(&of_vm(vm, "/diverged")).await
    }

    /// `diverged remove`
    pub async fn remove_diverged(&self, vm: &str, id: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, &format!("/diverged/{}/remove", escape(id))), &(), dry_run).await
    }

    /// `point list`
    pub async fn points(&self, vm: &str) -> Result<PointList> {
        let path = of_vm(vm, "/points");
        let (mut list, mut next): (PointList, _) = self.page(&path, None, None).await?;
        while let Some(after) = next {
            let page: (PointList, _) = self.page(&path, Some(&after), None).await?;
            list.points.extend(page.0.points);
            next = page.1;
        }
        Ok(list)
    }

    /// `point create`: answers when the replica server has it.
    pub async fn create_point(
        &self,
        vm: &str,
        request: &CreatePointRequest,
        dry_run: bool,
    ) -> Result<Answer<PointMade>> {
        self.write(&of_vm(vm, "/points"), request, dry_run).await
    }

    /// `point remove`
    pub async fn remove_point(&self, vm: &str, point: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, &format!("/points/{}/remove", escape(point))), &(), dry_run).await
    }

    /// `resynchronize`
    pub async fn resynchronize(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, "/resynchronize"), &(), dry_run).await
    }

    /// `wrap-raw-disks`
    pub async fn wrap_raw_disks(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&any_vm(vm, "/wrap-raw-disks"), &(), dry_run).await
    }

    /// `unwrap-raw-disks`
    pub async fn unwrap_raw_disks(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&any_vm(vm, "/unwrap-raw-disks"), &(), dry_run).await
    }

    /// `import`
    pub async fn import(&self, request: &ImportRequest, dry_run: bool) -> Result<Answer<Importing>> {
        self.write("import", request, dry_run).await
    }

    /// `verify`
    pub async fn verify(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>> {
        self.write(&of_vm(vm, "/verify"), &(), dry_run).await
    }

    /// `console sessions`, the newest first.
    pub async fn console_sessions(&self) -> Result<Vec<ConsoleSession>> {
        self.read("console/sessions").await
    }

    /// `console roles`, the smallest first.
    pub async fn console_roles(&self) -> Result<Vec<ConsoleRole>> {
        self.read("console/roles").await
    }

    /// `console end-sessions`
    pub async fn console_end_sessions(
        &self,
        request: &EndSessionsRequest,
        dry_run: bool,
    ) -> Result<Answer<Done>> {
        self.write("console/sessions/end", request, dry_run).await
    }

    /// `console link`
    pub async fn console_link(
        &self,
        request: &ConsoleLinkRequest,
        dry_run: bool,
    ) -> Result<Answer<ConsoleLink>> {
        self.write("console/link", request, dry_run).await
    }

    /// `host audit`, the newest first.
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>> {
        self.list("audit", Some(limit)).await
    }

    /// `events`, the oldest first: the newest so many.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<Event>> {
        let pairs = [
            query.vm.as_ref().map(|vm| format!("vm={}", escape(vm))),
            query.since.map(|since| format!("since={since}")),
        ];
        let pairs: Vec<String> = pairs.into_iter().flatten().collect();
        let mut pages: Vec<Vec<Event>> = Vec::new();
        let (mut left, mut after) = (query.limit.unwrap_or(EventQuery::LIMIT_DEFAULT), query.after.clone());
        while left > 0 {
            let page: (Vec<Event>, _) = self
                .page(&format!("events?{}", pairs.join("&")), after.as_deref(), Some(left.min(LIMIT_MAX)))
                .await?;
            left = left.saturating_sub(u32::try_from(page.0.len()).unwrap_or(u32::MAX));
            pages.push(page.0);
            after = page.1;
            if after.is_none() {
                break;
            }
        }
        // Pages lead back in time.
        Ok(pages.into_iter().rev().flatten().collect())
    }

    /// A list, page by page, up to so many entries; none: all of it.
    async fn list<T: DeserializeOwned>(&self, path: &str, wanted: Option<u32>) -> Result<Vec<T>> {
        let (mut all, mut next): (Vec<T>, _) =
            self.page(path, None, wanted.map(|wanted| wanted.min(LIMIT_MAX))).await?;
        while let Some(after) = next {
            let left =
                wanted.map(|wanted| wanted.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX)));
            if left == Some(0) {
                break;
            }
            let page: (Vec<T>, _) =
                self.page(path, Some(&after), left.map(|left| left.min(LIMIT_MAX))).await?;
            all.extend(page.0);
            next = page.1;
        }
        Ok(all)
    }

    /// One page, and where the list goes on.
    async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<(T, Option<String>)> {
        let pairs = [
            after.map(|after| format!("after={}", escape(after))),
            limit.map(|limit| format!("limit={limit}")),
        ];
        let path = pairs.into_iter().flatten().fold(path.to_owned(), |path, pair| {
            let sign = if path.ends_with('?') {
                ""
            } else if path.contains('?') {
                "&"
            } else {
                "?"
            };
            format!("{path}{sign}{pair}")
        });
        let (bytes, next) = self.send(Method::GET, &path, Bytes::new()).await?;
        Ok((understood(&bytes)?, next))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        understood(&self.send(Method::GET, path, Bytes::new()).await?.0)
    }

    async fn write<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B, dry: bool) -> Result<T> {
        let mut body = serde_json::to_vec(body)
            .map_err(|error| Problem::new(Code::Invalid, "Request cannot be written", error.to_string()))?;
        if body == b"null" {
            body.clear(); // what has no fields has no body
        }
        let path = if dry { format!("{path}?dry_run=true") } else { path.to_owned() };
        understood(&self.send(Method::POST, &path, body.into()).await?.0)
    }

    /// The answer's body, and where its list goes on.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(Bytes, Option<String>)> {
        let exchange = self.exchange(method, path, body);
        let (status, bytes, next) = tokio::time::timeout(ANSWER_WAIT_MAX, exchange)
            .await
            .map_err(|_| self.unreachable(format!("no answer in {} s", ANSWER_WAIT_MAX.as_secs())))??;
        if status.is_success() {
            Ok((bytes, next))
        } else {
            let problem = serde_json::from_slice::<Problem>(&bytes);
            Err(problem.unwrap_or_else(|_| not_understood(&format!("HTTP status {status}"))))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(hyper::StatusCode, Bytes, Option<String>)> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.cannot_connect(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Problem::new(Code::Invalid, "Request cannot be written", error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (status, next) = (response.status(), next_of(response.headers()));
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((status, bytes, next))
        };
        // The connection must be driven while the answer is awaited, and is dropped with it.
        let drive = async {
            let _ = connection.await; // a broken connection shows as the error of the answer
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer.map_err(|why| self.unreachable(why)),
            () = drive => unreachable!("`drive` never ends"),
        }
    }

    fn cannot_connect(&self, error: &std::io::Error) -> Problem {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Problem::new(
                Code::Forbidden,
                "Not allowed to speak to the daemon",
                format!("{}: {error}", self.socket.display()),
            )
            .with_cure("run the command as root, for example with sudo"),
            _ => self.unreachable(error.to_string()),
        }
    }

    fn unreachable(&self, why: String) -> Problem {
        Problem::new(
            Code::Unreachable,
            "The daemon does not answer",
            format!("virtreplicad at {}: {why}", self.socket.display()),
        )
        .with_cure("systemctl start virtreplicad; systemctl status virtreplicad")
    }
}

fn understood<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| not_understood(&error.to_string()))
}

/// The cursor of the following page, out of `Link: </api/v1/…?after=CURSOR>; rel="next"`.
fn next_of(headers: &header::HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (_, query) = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("after=")).map(unescape)
}

fn not_understood(why: &str) -> Problem {
    Problem::new(Code::Failed, "The daemon's answer was not understood", why)
        .with_cure("install the same version of virt-replica and virtreplicad: virt-replica --version")
}

fn any_vm(vm: &str, rest: &str) -> String {
    format!("vms/{}{rest}", escape(vm))
}

fn of_vm(vm: &str, rest: &str) -> String {
    format!("relationships/{}{rest}", escape(vm))
}

/// Percent-encodes everything but RFC 3986's unreserved characters: a VM may be called anything. A name of dots alone is
/// encoded too, so that nothing on the way takes it for a relative path.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write;
    let only_dots = text.bytes().all(|byte| byte == b'.');
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || byte == b'.' && !only_dots;
        if plain {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}"); // writing to a String cannot fail
        }
        escaped
    })
}

/// Takes [`escape`] back.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = |rest: &mut std::str::Bytes<'_>| Some([rest.next()?, rest.next()?]);
        let decoded = (byte == b'%')
            .then(|| digits(&mut rest))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_way_through_a_link() {
        for cursor in ["testVM01/0190", "a b/c?d#e%'\"", "ü", "100%"] {
            assert_eq!(unescape(&escape(cursor)), cursor);
        }
    }

    #[test]
    fn every_name_is_one_segment_of_a_path() {
        assert_eq!(escape("testVM01"), "testVM01");
        assert_eq!(escape("a b/c?d#e%'\""), "a%20b%2Fc%3Fd%23e%25%27%22");
        assert_eq!(escape("ü"), "%C3%BC");
        assert_eq!(escape(".."), "%2E%2E");
    }
}
