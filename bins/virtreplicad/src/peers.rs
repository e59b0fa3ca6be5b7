//! Whom this host trusts, as it is asked for and shown.

use std::time::Duration;

use api::dto::{self, Answer, Done};
use api::{Code, Problem};
use transport::Invite;

use crate::problems::{failed, problem};
use crate::service::Daemon;

impl Daemon {
    pub(crate) async fn all_peers(&self) -> Result<Vec<dto::Peer>, Problem> {
        let peers = self.engine.store().peers().map_err(failed)?;
        Ok(peers.iter().map(|peer| self.shown_peer(peer)).collect())
    }

    pub(crate) async fn test_peer(&self, peer: String) -> Result<Vec<dto::Check>, Problem> {
        let peer = self.peer(&peer)?;
        Ok(self.engine.test_peer(peer.host).await.iter().map(Into::into).collect())
    }

    pub(crate) async fn invite(
        &self,
        request: dto::InviteRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::Invitation>, Problem> {
        if dry_run {
            let line =
                format!("A token will be made that lets one host pair within {} s.", request.valid_seconds);
            return Ok(Answer::Planned(dto::Plan::of([line])));
        }
        let lifetime = Duration::from_secs(request.valid_seconds);
        let now = engine::clock::now();
        let made = Invite::create(
            self.trust.as_ref(),
            &self.identity,
            &self.advertise,
            self.own.port,
            lifetime,
            now,
        );
        let invite = made.map_err(failed)?;
        Ok(Answer::Done(dto::Invitation {
            token: invite.token,
            expires_at_ms: invite.expires.millis(),
            host: self.own.name.clone(),
        }))
    }

    pub(crate) async fn join(
        &self,
        request: dto::JoinRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::Peer>, Problem> {
        if dry_run {
            let line = "Both hosts will pin each other's certificate; the token is used up.";
            return Ok(Answer::Planned(dto::Plan::of([line])));
        }
        let now = engine::clock::now();
        let (token, at) = (&request.token, request.address.as_deref());
        let joined = transport::join(token, at, &self.own, &self.identity, self.trust.as_ref(), now).await;
        let record = joined.map_err(|error| Problem::new(Code::Refused, "Not paired", error.to_string()))?;
        let peer = self.peer(&record.host.to_string())?;
        Ok(Answer::Done(self.shown_peer(&peer)))
    }

    pub(crate) async fn distrust(&self, peer: String, dry_run: bool) -> Result<Answer<Done>, Problem> {
        let peer = self.peer(&peer)?;
        if dry_run {
            let mut lines = vec![format!("{} will not be trusted any more.", peer.name)];
            lines.extend(self.engine.plan_distrust(peer.host).map_err(problem)?);
            return Ok(Answer::Planned(dto::Plan::of(lines)));
        }
        self.engine.store().remove_peer(peer.host).map_err(|error| {
            Problem::new(Code::Refused, "The peer is in use", error.to_string())
                .with_cure("virt-replica list")
        })?;
        Ok(Answer::Done(Done::saying(format!(
            "this host does not trust {} any more; remove this host there, too",
            peer.name
        ))))
    }

    pub(crate) async fn rotate(&self, dry_run: bool) -> Result<Answer<Done>, Problem> {
        if dry_run {
            let line = "A new certificate is made, told to every peer, and then used.";
            return Ok(Answer::Planned(dto::Plan::of([line])));
        }
        self.engine.rotate_certificate(engine::clock::now(), false).await.map_err(problem)?;
        Ok(Answer::Done(Done::saying("every peer knows the new certificate, and it is used now")))
    }
}
