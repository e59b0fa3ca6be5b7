//! What this host shows of itself to a paired peer, and asks a peer to show. The words are the API's own JSON, made and read by the
//! daemon; here it is carried, with a deadline and a bound. What is *not* here: which parts a peer may see (the daemon's views).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::HostId;
use futures_util::future::BoxFuture;
use wire::message::{Answer, Request, View};

use crate::{Code, Engine, Refusal, Result};

/// Who looks at a screen does not wait longer; lists come from the peer's database, VMs from its libvirt.
const DEADLINE: Duration = Duration::from_secs(8);
/// Most entries of a list that a peer is given at a time.
pub const SHOWN_MAX: u32 = 1000;

/// What the daemon shows of this host.
pub trait Views: Send + Sync {
    /// The part of it that `peer` may see, as JSON.
    fn view(&self, peer: HostId, asked: View) -> BoxFuture<'_, Result<String>>;
}

impl Engine {
    /// From now on peers are shown what `views` says. Once: a second one is not asked.
    pub fn show_peers(&self, views: Arc<dyn Views>) {
        let _ = self.0.views.set(views);
    }

    /// Answers a peer.
    pub(crate) async fn shown(&self, peer: HostId, asked: View) -> Result<Answer> {
        let Some(views) = self.0.views.get() else {
            return Err(Refusal::new(Code::Unavailable, "the daemon has just begun", "try again"));
        };
        let asked = View { limit: asked.limit.clamp(1, SHOWN_MAX), ..asked };
        Ok(Answer::Relayed { json: views.view(peer, asked).await? })
    }

    /// What a peer shows of itself, as JSON that it wrote: to be read with distrust. Silence is refused as such.
    pub async fn ask_to_show(&self, peer: HostId, asked: View) -> Result<String> {
        let message = serde_json::to_vec(&Request::View(asked)).map_err(Refusal::failed)?;
        match self.ask_within(peer, Bytes::from(message), DEADLINE).await? {
            Answer::Relayed { json } => Ok(json),
            _ => Err(Refusal::failed("the other host answered something else; compare versions")),
        }
    }
}
