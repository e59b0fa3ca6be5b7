//! `/session`: who I am, sign in, sign out.

use std::sync::Arc;

use api::{Code, Problem, Role};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::audit::Deed;
use crate::door::Door;
use crate::guard::{signed_out, who};
use crate::sessions::Session;
use crate::sign_in::{NotIn, by_link, by_password, seconds};
use crate::token::Token;
use crate::{From, cookie, forged};

/// What a page learns about its session.
#[derive(Serialize)]
struct SessionView {
    user: String,
    role: Role,
    /// To be sent in the header `X-CSRF-Token` of every request that changes something.
    csrf: String,
    /// This host's name.
    host: String,
    signed_in_ms: u64,
    /// When it ends if nothing else is asked.
    expires_ms: u64,
    /// When it ends in any case.
    ends_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// What somebody shows at the door.
pub enum Credentials {
    /// An account of this host.
    Password {
        /// Its name.
        user: String,
        /// As it was typed.
        password: String,
    },
    /// The token of a one-time link.
    Link(String),
}

impl Credentials {
    /// Reads the body of a sign-in, which anybody may send.
    pub fn read(body: &[u8]) -> Result<Credentials, Problem> {
        let request: SignIn =
            serde_json::from_slice(body).map_err(|error| not_understood(&error.to_string()))?;
        match request {
            SignIn { user: Some(user), password: Some(password), token: None } => {
                Ok(Credentials::Password { user, password })
            }
            SignIn { user: None, password: None, token: Some(token) } => Ok(Credentials::Link(token)),
            _ => Err(not_understood("it has neither `user` and `password` nor `token` alone")),
        }
    }
}

fn view(door: &Door, token: &Token, session: Session) -> SessionView {
    SessionView {
        csrf: token.csrf(),
        host: door.host_name.clone(),
        signed_in_ms: session.begun.millis(),
        expires_ms: session.ends().millis(),
        ends_ms: session.begun.plus(crate::LIFE_MAX).millis(),
        role: session.role,
        user: session.user,
    }
}

/// Who I am.
pub(crate) async fn get(State(door): State<Arc<Door>>, headers: HeaderMap) -> Result<Response, Problem> {
    let (token, session) = who(&door, &headers).await?;
    Ok(Json(view(&door, &token, session)).into_response())
}

/// Sign in. A session that the browser had ends.
pub(crate) async fn post(
    State(door): State<Arc<Door>>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    forged::comes_from_here(&headers).inspect_err(|problem| {
        door.turn_away("unknown", from, Deed::Forged(&problem.detail));
    })?;
    is_json(&headers)?;
    let signed_in = match Credentials::read(&body)? {
        Credentials::Password { user, password } => by_password(door.clone(), user, password, from).await,
        Credentials::Link(token) => by_link(&door, &token, from).await,
    };
    let token = match signed_in {
        Ok(token) => token,
        Err(not_in) => return Ok(refused(&not_in)),
    };
    if let Some(old) = cookie::token(&headers).and_then(|old| door.sessions.end(&old.hash())) {
        door.record(&old.user, from, Deed::SignedOut);
    }
    let session = door.sessions.find(&token.hash(), door.now()).ok_or_else(signed_out)?;
    let mut response = Json(view(&door, &token, session)).into_response();
    response.headers_mut().extend(cookie::set(&token).map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// Sign out.
pub(crate) async fn delete(
    State(door): State<Arc<Door>>,
    Extension(From(from)): Extension<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = cookie::token(&headers).ok_or_else(signed_out)?;
    forged::comes_from_here(&headers).and_then(|()| forged::carries_token(&headers, &token)).inspect_err(
        |problem| {
            let session = door.sessions.find(&token.hash(), door.now());
            let who = session.map_or_else(|| "unknown".to_owned(), |session| session.user);
            door.turn_away(&who, from, Deed::Forged(&problem.detail));
        },
    )?;
    let session = door.sessions.end(&token.hash()).ok_or_else(signed_out)?;
    door.record(&session.user, from, Deed::SignedOut);
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().extend(cookie::clear().map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

fn refused(not_in: &NotIn) -> Response {
    let mut response = not_in.problem().into_response();
    if let NotIn::Wait(wait) = not_in {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(*wait)));
    }
    response
}

/// A form of another site cannot send this type without asking first.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(not_understood("its Content-Type is not application/json"))
    }
}

fn not_understood(why: &str) -> Problem {
    Problem::new(Code::Invalid, "Request not understood", why)
        .with_cure("load the page again; the form is {\"user\", \"password\"} or {\"token\"}")
}
