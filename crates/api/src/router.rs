//! HTTP under `/api/v1`: reads are GET, changes are POST with `?dry_run=true` for a plan only. Knows paths and forms,
//! decides nothing.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::caller::Caller;
use crate::dto::{
    CancelFailoverRequest, CancelRequest, CreatePointRequest, EnableRequest, EventQuery, FailoverRequest,
    HostChange, ImportRequest, InviteRequest, JoinRequest, PlannedFailoverRequest, RemoveRequest,
    ReverseRequest, SettingsChange, TestFailoverRequest,
};
use crate::problem::{Code, Problem};
use crate::service::Service;

/// Largest request body, bytes: the longest one lists disks and networks of a VM.
const BODY_BYTES_MAX: usize = 64 * 1024;

type Shared = State<Arc<dyn Service>>;

/// The whole API over `service`.
pub fn router(service: Arc<dyn Service>) -> Router {
    let v1 = Router::new()
        .route("/host", get(host).post(host_set))
        .route("/host/check", get(host_check))
        .route("/peers", get(peers))
        .route("/peers/invite", post(peer_invite))
        .route("/peers/join", post(peer_join))
        .route("/peers/rotate", post(peer_rotate))
        .route("/peers/{peer}/test", get(peer_test))
        .route("/peers/{peer}/remove", post(peer_remove))
        .route("/relationships", get(relationships).post(enable))
        .route("/relationships/{vm}", get(relationship).post(change))
        .route("/relationships/{vm}/may-start", get(may_start))
        .route("/relationships/{vm}/pause", post(pause))
        .route("/relationships/{vm}/resume", post(resume))
        .route("/relationships/{vm}/remove", post(remove))
        .route("/relationships/{vm}/planned-failover", post(planned_failover))
        .route("/relationships/{vm}/reverse", post(reverse))
        .route("/operations", get(operations))
        .route("/operations/{id}", get(operation))
        .route("/operations/{id}/resume", post(operation_resume))
        .route("/operations/{id}/cancel", post(operation_cancel))
        .route("/relationships/{vm}/test-failover", post(begin_test_failover))
        .route("/test-failovers", get(test_failovers))
        .route("/test-failovers/{id}", get(test_failover))
        .route("/test-failovers/{id}/stop", post(stop_test_failover))
        .route("/relationships/{vm}/failover", post(failover))
        .route("/relationships/{vm}/cancel-failover", post(cancel_failover))
        .route("/relationships/{vm}/complete-failover", post(complete_failover))
        .route("/relationships/{vm}/diverged", get(diverged))
        .route("/relationships/{vm}/diverged/{id}/remove", post(remove_diverged))
        .route("/relationships/{vm}/points", get(points).post(create_point))
        .route("/relationships/{vm}/points/{point}/remove", post(remove_point))
        .route("/relationships/{vm}/resynchronize", post(resynchronize))
        .route("/relationships/{vm}/verify", post(verify))
        .route("/vms/{vm}/wrap-raw-disks", post(wrap_raw_disks))
        .route("/vms/{vm}/unwrap-raw-disks", post(unwrap_raw_disks))
        .route("/import", post(import))
        .route("/events", get(events))
        .fallback(no_such_path)
        .with_state(service)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new().nest("/api/v1", v1).fallback(no_such_path)
}

/// Serves the API on `listener` until the future is dropped; the kernel's word on who asks reaches the service.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) -> std::io::Result<()> {
    axum::serve(listener, router(service).into_make_service_with_connect_info::<Caller>()).await
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Caller::of_socket(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

/// The caller, as the listener knows it: of each request after a sign-in, or of the whole connection.
struct Who(Caller);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let signed_in = parts.extensions.get::<Caller>();
        let known = signed_in.or_else(|| parts.extensions.get::<ConnectInfo<Caller>>().map(|info| &info.0));
        known.cloned().map(Who).ok_or_else(|| {
            Problem::new(Code::NotSignedIn, "Not signed in", "nobody said who asks")
                .with_cure("sign in: POST /session")
        })
    }
}

#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    dry_run: bool,
}

type Dry = Query<Change>;
type Answered = Result<Response, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

fn json<T: Serialize>(value: T) -> Answered {
    Ok(Json(value).into_response())
}

/// Reads a body ourselves, so that a wrong one is a [`Problem`] like any other.
fn form<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(Code::Invalid, "Request not understood", error.to_string())
            .with_cure("use a virt-replica command of the daemon's version: virt-replica --version")
    })
}

async fn no_such_path() -> Problem {
    Problem::new(Code::NotFound, "No such path", "this daemon does not know the request")
        .with_cure("install the same version of virt-replica and virtreplicad: virt-replica --version")
}

// ── reads ──

async fn host(State(service): Shared) -> Answered {
    json(service.host().await?)
}

async fn host_check(State(service): Shared) -> Answered {
    json(service.host_check().await?)
}

async fn peers(State(service): Shared) -> Answered {
    json(service.peers().await?)
}

async fn peer_test(State(service): Shared, Path(peer): Path<String>) -> Answered {
    json(service.peer_test(peer).await?)
}

async fn relationships(State(service): Shared) -> Answered {
    json(service.relationships().await?)
}

async fn relationship(State(service): Shared, Path(vm): Path<String>) -> Answered {
    json(service.relationship(vm).await?)
}

async fn may_start(State(service): Shared, Path(vm): Path<String>) -> Answered {
    json(service.may_start(vm).await?)
}

async fn operations(State(service): Shared) -> Answered {
    json(service.operations().await?)
}

async fn operation(State(service): Shared, Path(id): Path<String>) -> Answered {
    json(service.operation(id).await?)
}

async fn events(State(service): Shared, Query(query): Query<EventQuery>) -> Answered {
    json(service.events(query).await?)
}

// ── changes ──

async fn host_set(State(service): Shared, Who(who): Who, Query(dry): Dry, body: Bytes) -> Answered {
    let change: HostChange = form(&body)?;
    json(service.host_set(who, change, dry.dry_run).await?)
}

async fn peer_invite(State(service): Shared, Who(who): Who, Query(dry): Dry, body: Bytes) -> Answered {
    let request: InviteRequest = form(&body)?;
    json(service.peer_invite(who, request, dry.dry_run).await?)
}

async fn peer_join(State(service): Shared, Who(who): Who, Query(dry): Dry, body: Bytes) -> Answered {
    let request: JoinRequest = form(&body)?;
    json(service.peer_join(who, request, dry.dry_run).await?)
}

async fn peer_rotate(State(service): Shared, Who(who): Who, Query(dry): Dry) -> Answered {
    json(service.peer_rotate(who, dry.dry_run).await?)
}

async fn peer_remove(
    State(service): Shared,
    Who(who): Who,
    Path(peer): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.peer_remove(who, peer, dry.dry_run).await?)
}

async fn enable(State(service): Shared, Who(who): Who, Query(dry): Dry, body: Bytes) -> Answered {
    let request: EnableRequest = form(&body)?;
    json(service.enable(who, request, dry.dry_run).await?)
}

async fn change(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let change: SettingsChange = form(&body)?;
    json(service.change(who, vm, change, dry.dry_run).await?)
}

async fn pause(State(service): Shared, Who(who): Who, Path(vm): Path<String>, Query(dry): Dry) -> Answered {
    json(service.pause(who, vm, dry.dry_run).await?)
}

async fn resume(State(service): Shared, Who(who): Who, Path(vm): Path<String>, Query(dry): Dry) -> Answered {
    json(service.resume(who, vm, dry.dry_run).await?)
}

async fn remove(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: RemoveRequest = form(&body)?;
    json(service.remove(who, vm, request, dry.dry_run).await?)
}

async fn planned_failover(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: PlannedFailoverRequest = form(&body)?;
    json(service.planned_failover(who, vm, request, dry.dry_run).await?)
}

async fn reverse(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: ReverseRequest = form(&body)?;
    json(service.reverse(who, vm, request, dry.dry_run).await?)
}

async fn operation_resume(
    State(service): Shared,
    Who(who): Who,
    Path(id): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.operation_resume(who, id, dry.dry_run).await?)
}

async fn operation_cancel(
    State(service): Shared,
    Who(who): Who,
    Path(id): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: CancelRequest = form(&body)?;
    json(service.operation_cancel(who, id, request, dry.dry_run).await?)
}

async fn test_failovers(State(service): Shared) -> Answered {
    json(service.test_failovers().await?)
}

async fn test_failover(State(service): Shared, Path(id): Path<String>) -> Answered {
    json(service.test_failover(id).await?)
}

async fn begin_test_failover(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: TestFailoverRequest = form(&body)?;
    json(service.begin_test_failover(who, vm, request, dry.dry_run).await?)
}

async fn stop_test_failover(
    State(service): Shared,
    Who(who): Who,
    Path(named): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.stop_test_failover(who, named, dry.dry_run).await?)
}

async fn failover(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: FailoverRequest = form(&body)?;
    json(service.failover(who, vm, request, dry.dry_run).await?)
}

async fn cancel_failover(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: CancelFailoverRequest = form(&body)?;
    json(service.cancel_failover(who, vm, request, dry.dry_run).await?)
}

async fn complete_failover(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.complete_failover(who, vm, dry.dry_run).await?)
}

async fn diverged(State(service): Shared, Path(vm): Path<String>) -> Answered {
    json(service.diverged(vm).await?)
}

async fn remove_diverged(
    State(service): Shared,
    Who(who): Who,
    Path((vm, id)): Path<(String, String)>,
    Query(dry): Dry,
) -> Answered {
    json(service.remove_diverged(who, vm, id, dry.dry_run).await?)
}

async fn points(State(service): Shared, Path(vm): Path<String>) -> Answered {
    json(service.points(vm).await?)
}

async fn create_point(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
    body: Bytes,
) -> Answered {
    let request: CreatePointRequest = form(&body)?;
    json(service.create_point(who, vm, request, dry.dry_run).await?)
}

async fn remove_point(
    State(service): Shared,
    Who(who): Who,
    Path((vm, point)): Path<(String, String)>,
    Query(dry): Dry,
) -> Answered {
    json(service.remove_point(who, vm, point, dry.dry_run).await?)
}

async fn wrap_raw_disks(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.wrap_raw_disks(who, vm, dry.dry_run).await?)
}

async fn unwrap_raw_disks(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.unwrap_raw_disks(who, vm, dry.dry_run).await?)
}

async fn resynchronize(
    State(service): Shared,
    Who(who): Who,
    Path(vm): Path<String>,
    Query(dry): Dry,
) -> Answered {
    json(service.resynchronize(who, vm, dry.dry_run).await?)
}

async fn verify(State(service): Shared, Who(who): Who, Path(vm): Path<String>, Query(dry): Dry) -> Answered {
    json(service.verify(who, vm, dry.dry_run).await?)
}

async fn import(State(service): Shared, Who(who): Who, Query(dry): Dry, body: Bytes) -> Answered {
    let request: ImportRequest = form(&body)?;
    json(service.import(who, request, dry.dry_run).await?)
}
