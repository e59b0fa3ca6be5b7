//! A request's body is taken whole before anything looks at it: bounded in size and in time.

use std::time::Duration;

use api::{BODY_BYTES_MAX, Code, Problem};
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

/// Longest time until it is here.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn take_whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large().into_response(),
        Ok(Err(error)) => return broken(&error.to_string()).into_response(),
        Err(_) => return broken(&format!("not whole within {} s", BODY_DEADLINE.as_secs())).into_response(),
    };
    next.run(Request::from_parts(parts, Body::from(body))).await
}

fn too_large() -> Problem {
    let why = format!("the request has more than {BODY_BYTES_MAX} bytes; nothing was changed");
    Problem::new(Code::TooLarge, "Request too large", why)
        .with_cure("send less: no request of the console is that long")
}

fn broken(why: &str) -> Problem {
    Problem::new(Code::Invalid, "Request not read", format!("{why}; nothing was changed"))
        .with_cure("send it again")
}
