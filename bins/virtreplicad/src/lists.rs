//! Lists, page by page. A cursor says behind which place in the list's order a page begins; it stays good when entries come and go, and
//! one that no page ever named is refused.

use api::dto::{self, LIMIT_MAX, Page, Paged};
use api::{Code, Problem};
use domain::{HostId, OperationId, Role};
use engine::StartWord;
use store::{EventSeverity, EventsOf, Record};

use crate::problems::{failed, invalid, problem};
use crate::service::Daemon;
use crate::{operations, points, views};

/// How many entries a page shall have.
pub(crate) fn limit(page: &Page, default: u32) -> Result<u32, Problem> {
    page.limit_or(default).ok_or_else(|| invalid(format!("limit is 1 to {LIMIT_MAX}")))
}

/// A cursor that is a number; none: before everything there is.
fn before(page: &Page) -> Result<u64, Problem> {
    page.after.as_ref().map_or(Ok(u64::MAX), |after| after.parse().map_err(|_| no_cursor()))
}

pub(crate) fn no_cursor() -> Problem {
    invalid("after is what the header Link of the page before says")
}

/// The page of a list by name, of whose entries `named` tells name and id. It goes on behind the cursor also when the entry itself
/// has gone meanwhile.
pub(crate) fn by_name<T>(
    all: Vec<T>,
    page: &Page,
    named: impl Fn(&T) -> (String, String),
) -> Result<Paged<Vec<T>>, Problem> {
    let behind = match page.after.as_deref().map(|after| after.split_once(' ').ok_or_else(no_cursor)) {
        Some(cursor) => cursor.map(|(id, name)| Some((name.to_owned(), id.to_owned())))?,
        None => None,
    };
    let rest = all.into_iter().filter(|entry| behind.as_ref().is_none_or(|behind| named(entry) > *behind));
    let cursor = |entry: &T| {
        let (name, id) = named(entry);
        format!("{id} {name}")
    };
    Ok(Paged::of(rest, limit(page, LIMIT_MAX)?, cursor))
}

/// Newest first, and one more than was asked for: whether the list goes on, and behind which entry.
fn cut<T>(mut found: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Paged<Vec<T>> {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(cursor);
    Paged { shown: found, next }
}

impl Daemon {
    /// A relationship, which a peer must have part in if it is the one who asks.
    fn find_with(&self, vm: &str, of: Option<HostId>) -> Result<Record, Problem> {
        let theirs = |found: &Record| of.is_none_or(|peer| found.relationship.peer == peer);
        let found = self.find(vm).ok().filter(theirs);
        found.ok_or_else(|| Problem::not_found("protected VM", vm, "virt-replica list"))
    }

    /// All relationships, or those with one peer.
    pub(crate) fn records(&self, of: Option<HostId>) -> Result<Vec<Record>, Problem> {
        let mut records = self.engine.store().relationships().map_err(failed)?;
        records.retain(|record| of.is_none_or(|peer| record.relationship.peer == peer));
        Ok(records)
    }

    pub(crate) fn list_relationships(
        &self,
        page: &Page,
        of: Option<HostId>,
    ) -> Result<Paged<Vec<dto::RelationshipSummary>>, Problem> {
        let named =
            |record: &Record| (record.relationship.vm_name.clone(), record.relationship.id.to_string());
        let Paged { shown, next } = by_name(self.records(of)?, page, named)?;
        let shown = shown.iter().map(|record| views::summary(&self.engine, record).map_err(problem));
        Ok(Paged { shown: shown.collect::<Result<_, _>>()?, next })
    }

    /// Operations of everything, of one VM, or of the VMs that are replicated with one peer.
    pub(crate) fn list_operations(
        &self,
        query: &dto::OperationQuery,
        of: Option<HostId>,
    ) -> Result<Paged<Vec<dto::OperationView>>, Problem> {
        let page = query.page();
        let limit = limit(&page, dto::OperationQuery::LIMIT_DEFAULT)?;
        let before: Option<OperationId> =
            page.after.as_ref().map(|after| after.parse().map_err(|_| no_cursor())).transpose()?;
        if let Some(before) = before {
            self.engine.store().operation(before).map_err(failed)?.ok_or_else(no_cursor)?;
        }
        let ids = match (&query.vm, of) {
            (None, None) => None,
            // As of events: of a VM that nobody knows there are none.
            (Some(vm), of) => match self.find_with(vm, of) {
                Err(unknown) if unknown.code == Code::NotFound => Some(Vec::new()),
                found => Some(vec![found?.relationship.id]),
            },
            (None, Some(_)) => Some(self.records(of)?.iter().map(|it| it.relationship.id).collect()),
        };
        let found = self.engine.store().operations(before, ids.as_deref(), limit + 1).map_err(failed)?;
        let page = cut(found, limit, |(operation, _)| operation.id.to_string());
        Ok(page.map(|found| {
            found.iter().map(|(it, entries)| operations::view(&self.engine, it, entries)).collect()
        }))
    }

    /// Events of everything, of the VMs of a name, or of the relationships with one peer.
    pub(crate) fn list_events(
        &self,
        query: &dto::EventQuery,
        of: Option<HostId>,
    ) -> Result<Paged<Vec<dto::Event>>, Problem> {
        let limit = limit(&query.page(), dto::EventQuery::LIMIT_DEFAULT)?;
        let (name, ids);
        let of = match (&query.vm, of) {
            (None, None) => EventsOf::All,
            // A VM that is not replicated any more still has its history.
            (Some(vm), None) => {
                name = self.find(vm).map_or_else(|_| vm.clone(), |it| it.relationship.vm_name);
                EventsOf::Vm(&name)
            }
            (vm, Some(_)) => {
                let mut theirs = self.records(of)?;
                if let Some(vm) = vm {
                    let meant = self.find(vm).ok().map(|it| it.relationship.id);
                    theirs.retain(|it| Some(it.relationship.id) == meant);
                }
                ids = theirs.iter().map(|it| it.relationship.id).collect::<Vec<_>>();
                EventsOf::Relationships(&ids)
            }
        };
        let between = (query.since.unwrap_or(0), before(&query.page())?);
        let mut found = self.engine.store().events(of, between, limit + 1).map_err(failed)?;
        found.reverse();
        let page = cut(found, limit, |event| event.sequence.to_string());
        Ok(page.map(|found| found.into_iter().rev().map(event).collect()))
    }

    pub(crate) fn list_cycles(&self, vm: &str, page: &Page) -> Result<Paged<Vec<dto::CycleView>>, Problem> {
        let (record, limit) = (self.find(vm)?, limit(page, LIMIT_MAX)?);
        let found =
            self.engine.store().cycles(record.relationship.id, before(page)?, limit + 1).map_err(failed)?;
        let page = cut(found, limit, |(number, _)| number.to_string());
        Ok(page.map(|found| found.iter().map(|(_, cycle)| cycle.into()).collect()))
    }

    pub(crate) async fn detail(&self, vm: String) -> Result<dto::RelationshipDetail, Problem> {
        let record = self.find(&vm)?;
        let pending_bytes = self.engine.pending_bytes(&record).await;
        let sizes = self.engine.disk_sizes(&record).await;
        let chain = match record.relationship.role() {
            Role::Replica => self.engine.points(&record).await.ok().map(|facts| points::chain(&facts)),
            Role::Primary => None,
        };
        let detail = views::detail(&self.engine, &record, &sizes).map_err(problem)?;
        Ok(dto::RelationshipDetail { pending_bytes, chain, ..detail })
    }

    pub(crate) fn revision_of(&self, vm: &str) -> Result<String, Problem> {
        let record = self.find(vm)?;
        let open = self.engine.store().open_operation(record.relationship.id).map_err(failed)?;
        Ok(views::revision(&record, open.map(|(operation, _)| operation.id)))
    }

    pub(crate) async fn start_word(&self, vm: String) -> Result<dto::StartWord, Problem> {
        Ok(match self.engine.about_to_start(&self.find(&vm)?).await.map_err(problem)? {
            StartWord::Allowed => dto::StartWord::Allowed,
            StartWord::Refused(reason) => dto::StartWord::Refused { reason },
            StartWord::PeerSilent(reason) => dto::StartWord::PeerSilent { reason },
        })
    }
}

impl Daemon {
    pub(crate) fn list_audit(&self, page: &Page) -> Result<Paged<Vec<dto::AuditRecord>>, Problem> {
        let limit = limit(page, LIMIT_MAX)?;
        let found = self.engine.store().audited(before(page)?, limit + 1).map_err(failed)?;
        Ok(cut(found, limit, |record| record.sequence.to_string())
            .map(|found| found.into_iter().map(crate::audit::shown).collect()))
    }
}

fn event(event: store::Event) -> dto::Event {
    dto::Event {
        sequence: event.sequence,
        number: event.number,
        at_ms: event.at.millis(),
        severity: match event.severity {
            EventSeverity::Info => dto::Severity::Info,
            EventSeverity::Warning => dto::Severity::Warning,
            EventSeverity::Critical => dto::Severity::Critical,
        },
        vm: event.vm_name,
        text: event.text,
    }
}
