//! A row says all about a route: method, path, role, what it takes and answers, and who carries it out. From the same rows come
//! the router and the document, so that neither can say what the other does not.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::answer::{json, tagged, with_next};
use super::request::{self, DryRun, Named, Seen};
use super::schema::Schema;
use crate::caller::{Caller, Role};
use crate::dto::{Answer, AuditResult, Page, Paged};
use crate::openapi::{Document, JSON, Operation};
use crate::problem::{Code, Problem};
use crate::service::{Asked, Reply, Service};

pub(crate) type Shared = Arc<dyn Service>;

/// Changes of one route that are under way at once, whether or not somebody still waits for them; further ones wait.
const UNDER_WAY_MAX: usize = 64;

/// What a read is given.
pub(crate) struct Read<P, Q> {
    pub(crate) path: P,
    pub(crate) query: Q,
}

/// What a change is given.
pub(crate) struct Change<P, B> {
    pub(crate) who: Caller,
    pub(crate) path: P,
    pub(crate) body: B,
    pub(crate) dry_run: bool,
}

/// What every row says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) path: &'static str,
    /// Its name in the document and in the audit.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// One sentence.
    pub(crate) about: &'static str,
}

/// The rows so far.
pub(crate) struct Table {
    pub(crate) router: Router<Shared>,
    pub(crate) document: Document,
}

/// What needs a role above the row's own: when, and why, in words that follow "and".
pub(crate) type More<B> = (fn(&B) -> bool, &'static str);

// Rows have types of their own; what serves them has not, so that it is compiled once and not for each of them.
type Answering = Arc<dyn Fn(Shared, Parts) -> BoxFuture<'static, Result<Response, Problem>> + Send + Sync>;
type Changing =
    Arc<dyn for<'a> Fn(&'a dyn Service, Raw) -> BoxFuture<'a, Result<Vec<u8>, Problem>> + Send + Sync>;

/// A change before its body has been read.
struct Raw {
    who: Caller,
    path: Vec<String>,
    body: Bytes,
    seen: Seen,
    dry_run: bool,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { router: Router::new(), document: Document::new() }
    }

    /// A GET that shows one thing.
    pub(crate) fn read<P, Q, A, F>(self, row: Row, call: F) -> Table
    where
        P: Named,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Read<P, Q>) -> Reply<'a, A> + Copy + Send + Sync + 'static,
    {
        self.read_tagged(row, call, |_| None)
    }

    /// The same of something that has a revision, which its tag begins with.
    pub(crate) fn read_tagged<P, Q, A, F>(
        mut self,
        row: Row,
        call: F,
        revision: fn(&A) -> Option<&str>,
    ) -> Table
    where
        P: Named,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Read<P, Q>) -> Reply<'a, A> + Copy + Send + Sync + 'static,
    {
        self.document.add("get", &row, Operation::read::<Q, A>());
        self.get(
            row,
            Arc::new(move |service, mut parts| {
                Box::pin(async move {
                    let path = P::named(request::names(&mut parts).await?)?;
                    let read = Read { path, query: request::query(&parts)? };
                    let shown = call(service.as_ref(), read).await?;
                    Ok(tagged(&parts, JSON, json(&shown)?, revision(&shown)))
                })
            }),
        )
    }

    /// A GET that shows a list, page by page.
    pub(crate) fn list<P, Q, A, F>(mut self, row: Row, call: F) -> Table
    where
        P: Named,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Read<P, Q>) -> Reply<'a, Paged<A>> + Copy + Send + Sync + 'static,
    {
        self.document.add("get", &row, Operation::read::<Q, A>().in_pages());
        self.get(
            row,
            Arc::new(move |service, mut parts| {
                Box::pin(async move {
                    let path = P::named(request::names(&mut parts).await?)?;
                    let read = Read { path, query: request::query(&parts)? };
                    let page = call(service.as_ref(), read).await?;
                    Ok(with_next(
                        &parts,
                        page.next.as_deref(),
                        tagged(&parts, JSON, json(&page.shown)?, None),
                    ))
                })
            }),
        )
    }

    /// The same list as a table for a spreadsheet: for whoever accepts that, or asks for it by the end of the path.
    /// A table is whole, unless a limit is given: nobody puts pages of one together.
    pub(crate) fn list_and_csv<P, A, F>(
        mut self,
        row: Row,
        as_csv: Row,
        call: F,
        csv: fn(&[A]) -> String,
    ) -> Table
    where
        P: Named + Clone + Sync,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Read<P, Page>) -> Reply<'a, Paged<Vec<A>>>
            + Copy
            + Send
            + Sync
            + 'static,
    {
        self.document.add("get", &row, Operation::read::<Page, Vec<A>>().in_pages().or_csv());
        self.document.add("get", &as_csv, Operation::read::<Page, Vec<A>>().in_pages().only_csv());
        let answering = |always: bool| -> Answering {
            Arc::new(move |service, mut parts| {
                Box::pin(async move {
                    let path = P::named(request::names(&mut parts).await?)?;
                    let query: Page = request::query(&parts)?;
                    let table = always || accepts_csv(&parts);
                    let whole = table && query.limit.is_none();
                    let mut page = call(service.as_ref(), Read { path: path.clone(), query }).await?;
                    while let Some(after) = page.next.take_if(|_| whole) {
                        let query = Page { after: Some(after), limit: None };
                        let more = call(service.as_ref(), Read { path: path.clone(), query }).await?;
                        page.shown.extend(more.shown);
                        page.next = more.next;
                    }
                    let shown = match table {
                        true => {
                            tagged(&parts, "text/csv; charset=utf-8", csv(&page.shown).into_bytes(), None)
                        }
                        false => tagged(&parts, JSON, json(&page.shown)?, None),
                    };
                    Ok(with_next(&parts, page.next.as_deref(), shown))
                })
            })
        };
        self.get(row, answering(false)).get(as_csv, answering(true))
    }

    /// A GET with an answer of its own kind.
    pub(crate) fn get(mut self, row: Row, answering: Answering) -> Table {
        let handler = move |State(service): State<Shared>, request: Request| async move {
            let (parts, _) = request.into_parts();
            let allowed =
                request::caller(&parts).and_then(|caller| request::allow(&caller, row.role, row.name));
            match allowed {
                Ok(()) => answering(service, parts).await.unwrap_or_else(IntoResponse::into_response),
                Err(problem) => problem.into_response(),
            }
        };
        self.router = self.router.route(row.path, get(handler));
        self
    }

    /// A POST that changes something, or tells with `?dry_run=true` what it would do.
    pub(crate) fn change<P, B, A, F>(self, row: Row, call: F) -> Table
    where
        P: Named,
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Change<P, B>) -> Reply<'a, Answer<A>> + Copy + Send + Sync + 'static,
    {
        self.change_with_more(row, (|_| false, ""), call)
    }

    /// The same; some of what can be asked needs an administrator.
    pub(crate) fn change_with_more<P, B, A, F>(mut self, row: Row, more: More<B>, call: F) -> Table
    where
        P: Named,
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: for<'a> Fn(&'a dyn Service, Change<P, B>) -> Reply<'a, Answer<A>> + Copy + Send + Sync + 'static,
    {
        self.document.add("post", &row, Operation::change::<B, A>(more.1, of_relationship(&row)));
        let schema = Arc::new(Schema::of::<B>());
        let of_form = schema.clone();
        let changing: Changing = Arc::new(move |service, raw| {
            let schema = of_form.clone();
            Box::pin(async move {
                let Raw { who, path, body, seen, dry_run } = raw;
                let (path, body): (P, B) = (P::named(path)?, request::form(&body, &schema)?);
                if more.0(&body) {
                    request::allow(&who, Role::Administrator, more.1)?;
                }
                request::still_as_seen(&seen, service).await?;
                json(&call(service, Change { who, path, body, dry_run }).await?)
            })
        });
        self.router = self.router.route(
            row.path,
            post(changed_by(
                row,
                Arc::new(Form { changing, schema, places: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }),
            )),
        );
        self
    }
}

/// Its `If-Match` has a meaning.
fn of_relationship(row: &Row) -> bool {
    row.path.starts_with("/relationships/{vm}")
}

fn accepts_csv(parts: &Parts) -> bool {
    let accepted = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accepted.is_some_and(|accept| accept.starts_with("text/csv"))
}

/// What one route does with what it is sent.
struct Form {
    changing: Changing,
    schema: Arc<Schema>,
    places: Arc<Semaphore>,
}

fn changed_by(
    row: Row,
    form: Arc<Form>,
) -> impl Fn(State<Shared>, Request) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static {
    move |State(service), request| {
        let form = form.clone();
        Box::pin(async move {
            match change(service, row, &form, request).await {
                Ok(body) => (StatusCode::OK, [(header::CONTENT_TYPE, JSON)], body).into_response(),
                Err(problem) => problem.into_response(),
            }
        })
    }
}

/// Carries a change out, to its end also when its caller hangs up: two hosts are never left half agreed by a closed page. A plan
/// changes nothing, leaves no trace, and ends with whoever asked.
async fn change(service: Shared, row: Row, form: &Form, request: Request) -> Result<Vec<u8>, Problem> {
    let (mut parts, body) = request.into_parts();
    let who = request::caller(&parts)?;
    let DryRun { dry_run } = request::query(&parts)?;
    let path = request::names(&mut parts).await?;
    let body = request::body(&parts, body).await;
    let target =
        if path.is_empty() { body.as_ref().ok().and_then(|body| vm_of(body)) } else { Some(path.join(" ")) };
    let with = body.as_ref().map(|body| form.schema.recorded(body)).unwrap_or_default();
    let asked = Asked { who: who.clone(), verb: row.name, target, with };
    let seen = Seen {
        tags: parts.headers.get(header::IF_MATCH).cloned(),
        vm: path.first().filter(|_| of_relationship(&row)).cloned(),
    };
    let (of_change, changing) = (service.clone(), form.changing.clone());
    let answer = async move {
        request::allow(&who, row.role, row.name)?;
        changing(of_change.as_ref(), Raw { who, path, body: body?, seen, dry_run }).await
    };
    if dry_run {
        return answer.await;
    }
    let place =
        form.places.clone().acquire_owned().await.map_err(|_| not_carried_out(&"the daemon stops"))?;
    let carried_out = tokio::spawn(async move {
        let _place = place;
        recorded(service.as_ref(), asked, answer).await
    });
    carried_out.await.unwrap_or_else(|error| Err(not_carried_out(&error)))
}

/// That it was asked for is on disk before anything is done, and what came of it before anybody is told.
async fn recorded(
    service: &dyn Service,
    asked: Asked,
    answer: impl Future<Output = Result<Vec<u8>, Problem>>,
) -> Result<Vec<u8>, Problem> {
    let record = service.audit_asked(asked).await?;
    let answer = answer.await;
    let (result, detail) = match &answer {
        Ok(_) => (AuditResult::Accepted, String::new()),
        Err(problem) => (result_of(problem.code), problem.to_string()),
    };
    service.audit_ended(record, result, detail).await?;
    answer
}

fn not_carried_out(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Failed, "The change broke off", format!("how far it came is not known: {error}"))
        .with_cure("look what there is now, and why: journalctl -u virtreplicad")
}

fn result_of(code: Code) -> AuditResult {
    match code {
        Code::Failed | Code::Unreachable | Code::PeerSilent => AuditResult::Failed,
        _ => AuditResult::Refused,
    }
}

/// Of which VM a request is whose path names none.
fn vm_of(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct OfVm {
        vm: String,
    }
    serde_json::from_slice::<OfVm>(body).ok().map(|it| it.vm)
}
