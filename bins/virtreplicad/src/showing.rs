//! What a paired peer is shown of this host, and what this host's people are shown of a peer.
//!
//! A peer sees what it is part of: the relationships with it, their VMs, operations and events, and of the host what it needs to be
//! recognised and judged. What it answers is read with distrust: of known form, no more than asked for. Its silence is a problem,
//! never an empty list.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::dto::{self, LIMIT_MAX, Page, Paged};
use api::{Code, Problem};
use domain::{HostId, Role};
use engine::{Refusal, Views};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedMutexGuard;
use wire::message::{View, ViewOf};

use crate::lists::limit;
use crate::problems::problem;
use crate::service::Daemon;

/// A peer is shown one thing at a time: whoever asks without end waits for itself, and for nobody else.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<HostId, Turn>>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Turns {
    /// When it is the peer's turn, until what is given is dropped.
    async fn of(&self, peer: HostId) -> OwnedMutexGuard<()> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default().clone();
        turn.lock_owned().await
    }
}

impl Views for Daemon {
    fn view(&self, peer: HostId, asked: View) -> BoxFuture<'_, engine::Result<String>> {
        Box::pin(async move {
            let _turn = self.showing.of(peer).await;
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
            ViewOf::Operations => {
                let query = dto::OperationQuery { vm, after: page.after, limit: page.limit };
                json(&self.list_operations(&query, Some(peer))?)
            }
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

    pub(crate) async fn look_at_operations(
        &self,
        peer: String,
        query: dto::OperationQuery,
    ) -> Result<Paged<Vec<dto::OperationView>>, Problem> {
        let limit = limit(&query.page(), dto::OperationQuery::LIMIT_DEFAULT)?;
        let dto::OperationQuery { vm, after, .. } = query;
        self.look_at_list(&peer, View { of: ViewOf::Operations, after, limit, vm, since: None }).await
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
        let (limit, after) = (asked.limit, asked.after.clone());
        let shown: Paged<Vec<T>> = self.ask_to_show(peer, asked).await?;
        let Some(why) = unbelievable(limit, after, &shown) else { return Ok(shown) };
        let why = format!("{peer} answered with {why}");
        Err(Problem::new(Code::PeerSilent, "The peer's answer is not believed", why).with_cure(
            "install the same version on both hosts; if it is that already, look who runs the other one",
        ))
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

/// What is wrong with a page of a peer, which could else make whoever reads to the end read for ever; none: nothing.
fn unbelievable<T>(limit: u32, after: Option<String>, page: &Paged<Vec<T>>) -> Option<String> {
    let count = page.shown.len();
    match (count.cmp(&(limit as usize)), &page.next) {
        (Ordering::Greater, _) => Some(format!("{count} entries where {limit} were asked for")),
        (Ordering::Less, Some(_)) => {
            Some("a page that is not full, and says that another follows".to_owned())
        }
        (Ordering::Equal, next @ Some(_)) if *next == after => {
            Some("a page that says that it follows itself".to_owned())
        }
        _ => None,
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
