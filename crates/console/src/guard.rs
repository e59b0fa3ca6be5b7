//! Before the API is asked: who is it, may that person still, and did they mean it.

use std::sync::Arc;
use std::time::Duration;

use api::{Caller, Code, Person, Problem};
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use crate::From;
use crate::audit::Deed;
use crate::cookie;
use crate::door::Door;
use crate::forged;
use crate::looks::Word;
use crate::sessions::{Session, Vouched};
use crate::token::Token;

/// A person's groups are looked at again after this: who is taken out of a group loses its role.
const ROLE_TRUSTED: Duration = Duration::from_secs(5 * 60);
/// While the directory of accounts does not answer, a role is believed for so long: its outage must not lock out who repairs it.
const ROLE_TRUSTED_UNSEEN: Duration = Duration::from_secs(30 * 60);
/// While a role is believed, a question about it is waited for so long from its beginning: accounts that are well answer at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// When it is not believed any more, so long: longer than one question may take.
const PATIENCE_UNSEEN: Duration = Duration::from_secs(25);
/// A stream of events is cut after this; the page opens the next one, and is looked at anew.
const STREAM_MAX: Duration = Duration::from_secs(5 * 60);

/// Who is signed in with this request, with the role of now.
pub(crate) async fn who(door: &Door, headers: &HeaderMap) -> Result<(Token, Session), Problem> {
    let token = cookie::token(headers).ok_or_else(signed_out)?;
    let session = door.sessions.find(&token.hash(), door.now()).ok_or_else(|| {
        door.end_old_sessions();
        signed_out()
    })?;
    let session = current(door, session).await?;
    Ok((token, session))
}

/// The request is somebody's, who may still be here and meant it; the API learns who.
pub(crate) async fn check(
    State(door): State<Arc<Door>>,
    Extension(From(from)): Extension<From>,
    mut request: Request,
    next: Next,
) -> Response {
    let (token, session) = match who(&door, request.headers()).await {
        Ok(found) => found,
        Err(problem) => return problem.into_response(),
    };
    if forged::changes(request.method()) {
        let meant = forged::comes_from_here(request.headers())
            .and_then(|()| forged::carries_token(request.headers(), &token));
        if let Err(problem) = meant {
            let why = format!("{} of {}: {}", request.method(), request.uri().path(), problem.detail);
            door.turn_away(&session.user, from, Deed::Forged(&why));
            return problem.into_response();
        }
    }
    let caller = Caller { who: Person::Account(session.user), from: Some(from), role: session.role };
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    ends_with_session(door, session.hash, response)
}

pub(crate) fn signed_out() -> Problem {
    Problem::new(Code::NotSignedIn, "Signed out", "nobody is signed in here, or the session has ended")
        .with_cure("sign in")
}

/// Looks at the person's groups again when that was long ago.
async fn current(door: &Door, session: Session) -> Result<Session, Problem> {
    let age = door.now().since(session.role_seen);
    if session.vouched == Vouched::Link || age < ROLE_TRUSTED {
        return Ok(session);
    }
    let put_out = |why: &str| {
        if door.sessions.end(&session.hash).is_some() {
            door.record(&session.user, session.from, Deed::PutOut(why));
        }
        signed_out()
    };
    let believed = age < ROLE_TRUSTED_UNSEEN;
    let patience = if believed { PATIENCE } else { PATIENCE_UNSEEN };
    match door.looks.word((&door.accounts, &door.roles), &session.user, door.now(), patience).await {
        Word::Role(role) => door.sessions.role_is(&session.hash, role, door.now()).ok_or_else(signed_out),
        Word::Out(why) => Err(put_out(&why)),
        Word::Unknown if believed => Ok(session),
        Word::Unknown => Err(put_out("its groups could not be looked at")),
    }
}

/// A stream of events ends with the session that asked for it, and after a while in any case.
fn ends_with_session(door: Arc<Door>, session: crate::TokenHash, response: Response) -> Response {
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let end = async move {
        let _ = tokio::time::timeout(STREAM_MAX, door.sessions.wait_ended(session)).await;
    };
    let (parts, body) = response.into_parts();
    let until = body.into_data_stream().take_until(Box::pin(end));
    Response::from_parts(parts, Body::from_stream(until))
}
