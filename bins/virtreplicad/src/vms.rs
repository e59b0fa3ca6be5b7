//! The VMs of this host as they are shown, protected or not.

use std::collections::HashMap;

use api::Problem;
use api::dto::{self, Page, Paged};
use domain::{DiskTarget, HostId, TestId, VmId};
use hypervisor::{DiskFacts, ImageSize, NicKind, Obstacle, VmFacts, VmState};
use store::{Record, TestState, WrappedDisk};

use crate::lists::by_name;
use crate::problems::{failed, problem};
use crate::service::Daemon;

/// Whose VMs they are, looked up once for a whole list.
struct Owners {
    protected: HashMap<VmId, Record>,
    tests: HashMap<VmId, TestId>,
    /// Raw disks behind wrappers; few hosts have any.
    wrapped: Vec<WrappedDisk>,
}

impl Daemon {
    /// All VMs, or those that are replicated with one peer.
    pub(crate) async fn list_vms(
        &self,
        page: &Page,
        of: Option<HostId>,
    ) -> Result<Paged<Vec<dto::VmView>>, Problem> {
        let mut owners = self.owners()?;
        if of.is_some() {
            owners.wrapped.clear(); // paths of this host are nothing for a peer
        }
        let mut names = self.engine.hypervisor(|it| it.names()).await.map_err(problem)?;
        names.retain(|(id, _)| {
            let peer = owners.protected.get(id).map(|record| record.relationship.peer);
            of.is_none_or(|of| peer == Some(of))
        });
        let named = |(id, name): &(VmId, String)| (name.clone(), id.to_string());
        names.sort_by_key(named);
        // Only those of the page are looked at.
        let Paged { shown, next } = by_name(names, page, named)?;
        let ids: Vec<VmId> = shown.into_iter().map(|(id, _)| id).collect();
        let mut vms = self.engine.hypervisor(move |it| it.vms_among(&ids)).await.map_err(problem)?;
        vms.sort_by_key(|vm| (vm.name.clone(), vm.id.to_string()));
        Ok(Paged { shown: vms.iter().map(|vm| view(vm, &owners, &HashMap::new())).collect(), next })
    }

    pub(crate) async fn one_vm(&self, named: String) -> Result<dto::VmView, Problem> {
        let owners = self.owners()?;
        let vm = self.engine.vm_named(&named).await.map_err(problem)?;
        let vm = vm.ok_or_else(|| Problem::not_found("VM", &named, "virsh list --all"))?;
        let disks = vm.disks.clone();
        let sizes = self.engine.hypervisor(move |it| {
            let size = |disk: &DiskFacts| {
                let size = it.image_size(&disk.source, &disk.format).ok()?;
                Some((disk.target.clone(), size))
            };
            Ok(disks.iter().filter_map(size).collect::<HashMap<DiskTarget, ImageSize>>())
        });
        Ok(view(&vm, &owners, &sizes.await.map_err(problem)?))
    }

    fn owners(&self) -> Result<Owners, Problem> {
        let records = self.engine.store().relationships().map_err(failed)?;
        let tests = self.engine.tests().map_err(problem)?;
        Ok(Owners {
            wrapped: self.engine.store().wrappers().map_err(failed)?,
            protected: records.into_iter().map(|record| (record.relationship.vm, record)).collect(),
            tests: tests
                .iter()
                .filter(|test| test.state != TestState::Ended)
                .map(|test| (test.vm, test.id))
                .collect(),
        })
    }
}

fn view(vm: &VmFacts, owners: &Owners, sizes: &HashMap<DiskTarget, ImageSize>) -> dto::VmView {
    let record = owners.protected.get(&vm.id);
    let networks = vm.nics.iter().filter(|nic| nic.kind != NicKind::Other);
    dto::VmView {
        id: vm.id.to_string(),
        name: vm.name.clone(),
        state: match vm.state {
            VmState::Running => dto::VmState::Running,
            VmState::Paused => dto::VmState::Paused,
            VmState::ShutOff(_) => dto::VmState::Off,
        },
        memory_bytes: vm.memory_bytes,
        processors: vm.vcpus,
        relationship: record.map(|record| record.relationship.id.to_string()),
        mode: record.map(|record| record.relationship.role().into()),
        test_failover: owners.tests.get(&vm.id).map(ToString::to_string),
        disks: vm
            .disks
            .iter()
            .map(|disk| {
                let size = sizes.get(&disk.target);
                let wrapped = owners.wrapped.iter().find(|it| it.vm == vm.id && it.file == disk.source);
                let mut obstacles = vm.obstacles.iter().filter_map(Obstacle::disk);
                let obstacle = obstacles.find(|(target, _)| *target == disk.target.as_str());
                dto::VmDisk {
                    target: disk.target.to_string(),
                    format: disk.format.clone(),
                    size_bytes: size.map(|size| size.virtual_bytes),
                    allocated_bytes: size.map(|size| size.allocated_bytes),
                    obstacle: obstacle.map(|(_, kind)| kind.to_owned()),
                    wraps: wrapped.map(|wrapped| wrapped.data.display().to_string()),
                }
            })
            .collect(),
        networks: networks.map(|nic| nic.source.clone()).collect(),
        obstacles: vm
            .obstacles
            .iter()
            .filter(|obstacle| obstacle.disk().is_none())
            .map(engine::obstacle_words)
            .collect(),
    }
}
