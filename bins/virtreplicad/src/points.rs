//! Recovery points as the command line asks for them, and as it shows them.

use api::Problem;
use api::dto::{self, Answer, Done, LIMIT_MAX, Page, Paged};
use domain::PointId;
use domain::retention::{TAG_CHARS_MAX, TAG_DEFAULT};
use engine::{ChainFacts, PointFacts};

use crate::lists::{limit, no_cursor};
use crate::problems::{invalid, problem};
use crate::service::Daemon;

impl Daemon {
    pub(crate) async fn all_points(&self, vm: &str, page: &Page) -> Result<Paged<dto::PointList>, Problem> {
        let (record, limit) = (self.find(vm)?, limit(page, LIMIT_MAX)?);
        let facts = self.engine.points(&record).await.map_err(problem)?;
        let chain = chain(&facts);
        let behind: Option<u64> =
            page.after.as_ref().map(|after| after.parse().map_err(|_| no_cursor())).transpose()?;
        let left =
            facts.points.into_iter().filter(|point| behind.is_none_or(|behind| point.ordinal > behind));
        let points = Paged::of(left, limit, |point| point.ordinal.to_string());
        Ok(points.map(|points| dto::PointList { chain, points: points.into_iter().map(view).collect() }))
    }

    pub(crate) async fn make_point(
        &self,
        vm: &str,
        request: dto::CreatePointRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::PointMade>, Problem> {
        let record = self.find_idle(vm)?;
        let tag = request.tag.unwrap_or_else(|| TAG_DEFAULT.to_owned());
        if tag.is_empty() || tag.chars().count() > TAG_CHARS_MAX || tag.chars().any(char::is_control) {
            return Err(invalid(format!("a tag is one line of 1 to {TAG_CHARS_MAX} characters")));
        }
        if dry_run {
            self.engine.wish_obstacle(&record).await.map_err(problem)?;
            let frozen = "The guest's file systems are frozen by its agent for the instant of the point, seconds at most.";
            let first = format!(
                "A cycle runs now; its recovery point is called {tag:?} and stays until it is removed."
            );
            let lines = [first].into_iter().chain(request.application_consistent.then(|| frozen.to_owned()));
            return Ok(Answer::Planned(dto::Plan::of(lines)));
        }
        let made = self.engine.create_point(&record, tag, request.application_consistent).await;
        let made = made.map_err(problem)?;
        Ok(Answer::Done(dto::PointMade { point: view(made.point), failure: made.failure }))
    }

    pub(crate) async fn drop_point(
        &self,
        vm: &str,
        named: &str,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        let record = self.find_idle(vm)?;
        let point = self.point_named(&record, named).await?;
        self.engine.remove_point(&record, point, dry_run).await.map_err(problem)?;
        if dry_run {
            return Ok(Answer::Planned(dto::Plan::of([format!(
                "Nobody can start from recovery point {point} any more; what it shares with the next is kept."
            )])));
        }
        Ok(Answer::Done(Done::saying(format!("recovery point {point} was removed"))))
    }

    /// What a planned failover does to recovery points: where the VM comes home, they are merged into its own disk.
    pub(crate) async fn merged_at_home(&self, record: &store::Record) -> Option<String> {
        let facts = self.engine.points(record).await.ok()?;
        let older = facts.points.len().saturating_sub(1);
        (facts.at_home && older > 0).then(|| {
            format!(
                "The VM comes home: the {older} older recovery points there are merged into its own disk before the guest is \
                 shut down, and are gone then. Those of the other host stay."
            )
        })
    }

    /// The point that a failover is to take: none for the newest.
    pub(crate) async fn point_wanted(
        &self,
        record: &store::Record,
        named: Option<&str>,
    ) -> Result<Option<PointId>, Problem> {
        match named {
            None | Some("latest") => Ok(None),
            Some(named) => self.point_named(record, named).await.map(Some),
        }
    }

    /// A point by its id, or by its number in the list.
    async fn point_named(&self, record: &store::Record, named: &str) -> Result<PointId, Problem> {
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        let facts = self.engine.points(record).await.map_err(problem)?;
        let found = named.parse().ok().and_then(|number: u64| {
            facts.points.iter().find(|point| point.ordinal == number)?.id.parse().ok()
        });
        found.ok_or_else(|| {
            let vm = domain::vm_argument(&record.relationship.vm_name);
            Problem::not_found("recovery point", named, &format!("virt-replica point list {vm}"))
        })
    }
}

/// The files of the points.
pub(crate) fn chain(facts: &ChainFacts) -> dto::ChainView {
    dto::ChainView { points: facts.points.len() as u64, layers: facts.layers as u64, bytes: facts.bytes }
}

fn view(facts: PointFacts) -> dto::PointView {
    let reached = facts.reached();
    dto::PointView {
        id: facts.id,
        ordinal: facts.ordinal,
        at_ms: facts.instant_ms,
        consistency: reached.map_or(facts.consistency, |reached| dto::consistency(reached).to_owned()),
        disks: facts.disks,
        bytes: facts.bytes,
        tag: facts.tag,
        pinned_by: facts.pinned_by,
    }
}
