//! What a paired peer is shown of this host, and what this host's people are shown of a peer.
//!
//! A peer sees what it is part of: the relationships with it, their VMs, operations and events, and of the host what it needs to be
//! recognised and judged. What it answers is read with distrust: of known form, no more than asked for. Its silence is a problem,
//! never an empty list.

use api::dto::{self, LIMIT_MAX, Page, Paged};
use api::{Code, Problem};
use domain::{HostId, Role};
use engine::{Refusal, Views};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::message::{View, ViewOf};

use crate::lists::limit;
use crate::problems::problem;
use crate::service::Daemon;

impl Views for Daemon {
    fn view(&self, peer: HostId, asked: View) -> BoxFuture<'_, engine::Result<String>> {
        Box::pin(async move {
            // One at a time: a peer that asks without end waits for itself.
            let _alone = self.showing.lock().await;
            self.shown_to(peer, asked).await.map_err(refusal)
        })
    }
}

impl Daemon {
    async fn shown_to(&self, peer: HostId, asked: View) -> Result<String, Problem> {
        let View { of: _, after, limit, vm, since } = asked.clone();
        let page = Page { after, limit: Some(limit.min(LIMIT_MAX)) };
        match asked.of {
            ViewOf::Host => json(&Paged::whole(self.host_for(peer).await?)),
            ViewOf::Vms => json(&self.list_vms(&page, Some(peer)).await?),
            ViewOf::Relationships => json(&self.list_relationships(&page, Some(peer))?),
            ViewOf::Operations => json(&self.list_operations(&page, Some(peer))?),
            ViewOf::Events => {
                let query = dto::EventQuery { vm, since, after: page.after, limit: page.limit };
                json(&self.list_events(&query, Some(peer))?)
            }
        }
    }

    /// This host without what is between it and others.
    async fn host_for(&self, peer: HostId) -> Result<dto::HostView, Problem> {
        let records = self.records(Some(peer))?;
        let count = |role| records.iter().filter(|record| record.relationship.role() == role).count() as u64;
        let (primaries, replicas) = (count(Role::Primary), count(Role::Replica));
        Ok(dto::HostView { primaries, replicas, ..self.show_host().await? })
    }

    pub(crate) async fn look_at_host(&self, peer: String) -> Result<dto::HostView, Problem> {
        let asked = View { of: ViewOf::Host, after: None, limit: 1, vm: None, since: None };
        let page: Paged<dto::HostView> = self.ask_to_show(&peer, asked).await?;
        Ok(page.shown)
    }

    pub(crate) async fn look_at_events(
        &self,
        peer: String,
        query: dto::EventQuery,
    ) -> Result<Paged<Vec<dto::Event>>, Problem> {
        let limit = limit(&query.page(), dto::EventQuery::LIMIT_DEFAULT)?;
        let dto::EventQuery { vm, since, after, .. } = query;
        self.look_at_list(&peer, View { of: ViewOf::Events, after, limit, vm, since }).await
    }

    pub(crate) async fn look_at<T: DeserializeOwned>(
        &self,
        peer: String,
        of: ViewOf,
        page: Page,
    ) -> Result<Paged<Vec<T>>, Problem> {
        let limit = limit(&page, LIMIT_MAX)?;
        self.look_at_list(&peer, View { of, after: page.after, limit, vm: None, since: None }).await
    }

    async fn look_at_list<T: DeserializeOwned>(
        &self,
        peer: &str,
        asked: View,
    ) -> Result<Paged<Vec<T>>, Problem> {
        let limit = asked.limit;
        let shown: Paged<Vec<T>> = self.ask_to_show(peer, asked).await?;
        if shown.shown.len() > limit as usize {
            let why =
                format!("{peer} answered with {} entries where {limit} were asked for", shown.shown.len());
            return Err(Problem::new(Code::PeerSilent, "The peer's answer is not believed", why));
        }
        Ok(shown)
    }

    async fn ask_to_show<T: DeserializeOwned>(&self, named: &str, asked: View) -> Result<Paged<T>, Problem> {
        let peer = self.peer(named)?;
        let json = self.engine.ask_to_show(peer.host, asked).await.map_err(|refusal| match refusal.code {
            engine::Code::Unavailable => Problem {
                code: Code::PeerSilent,
                title: "The peer is silent".into(),
                detail: format!("what {} would show is unknown: {}", peer.name, refusal.detail),
                ..problem(refusal)
            },
            _ => problem(refusal),
        })?;
        serde_json::from_str(&json).map_err(|error| {
            let why = format!("what {} shows is not understood: {error}", peer.name);
            Problem::new(Code::PeerSilent, "The peer's answer is not understood", why)
                .with_cure("install the same version on both hosts")
        })
    }
}

fn json(shown: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(shown).map_err(crate::problems::failed)
}

/// A problem as a peer is told it.
fn refusal(problem: Problem) -> Refusal {
    let code = match problem.code {
        Code::Failed => engine::Code::Failed,
        _ => engine::Code::Refused,
    };
    Refusal::new(code, problem.detail, problem.cure.unwrap_or_default())
}

#[cfg(test)]
mod tests;
