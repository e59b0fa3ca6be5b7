//! The VMs of this host as they are shown, protected or not.

use std::collections::HashMap;

use api::Problem;
use api::dto::{self, Page, Paged};
use domain::{DiskTarget, HostId, TestId, VmId};
use hypervisor::{ImageSize, NicKind, VmFacts, VmState};
use store::{Record, TestState};

use crate::lists::by_name;
use crate::problems::{failed, problem};
use crate::service::Daemon;

/// Whose VMs they are, looked up once for a whole list.
struct Owners {
    protected: HashMap<VmId, Record>,
    tests: HashMap<VmId, TestId>,
}

impl Daemon {
    /// All VMs, or those that are replicated with one peer.
    pub(crate) async fn list_vms(
        &self,
        page: &Page,
        of: Option<HostId>,
    ) -> Result<Paged<Vec<dto::VmView>>, Problem> {
        let owners = self.owners()?;
        let mut vms = self.engine.hypervisor(|it| it.vms()).await.map_err(problem)?;
        vms.retain(|vm| {
            let peer = owners.protected.get(&vm.id).map(|record| record.relationship.peer);
            of.is_none_or(|of| peer == Some(of))
        });
        vms.sort_by_key(|vm| (vm.name.clone(), vm.id.to_string()));
        let page = by_name(vms, page, |vm| (vm.name.clone(), vm.id.to_string()))?;
        Ok(page.map(|vms| vms.iter().map(|vm| view(vm, &owners, &HashMap::new())).collect()))
    }

    pub(crate) async fn one_vm(&self, named: String) -> Result<dto::VmView, Problem> {
        let (wanted, owners) = (named.clone(), self.owners()?);
        let found = self.engine.hypervisor(move |it| {
            let vm = it.vms()?.into_iter().find(|vm| vm.name == wanted || vm.id.to_string() == wanted);
            let sizes = vm
                .iter()
                .flat_map(|vm| &vm.disks)
                .filter_map(|disk| Some((disk.target.clone(), it.image_size(&disk.source).ok()?)));
            let sizes: HashMap<DiskTarget, ImageSize> = sizes.collect();
            Ok(vm.map(|vm| (vm, sizes)))
        });
        let (vm, sizes) = found
            .await
            .map_err(problem)?
            .ok_or_else(|| Problem::not_found("VM", &named, "virsh list --all"))?;
        Ok(view(&vm, &owners, &sizes))
    }

    fn owners(&self) -> Result<Owners, Problem> {
        let records = self.engine.store().relationships().map_err(failed)?;
        let tests = self.engine.tests().map_err(problem)?;
        Ok(Owners {
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
                dto::VmDisk {
                    target: disk.target.to_string(),
                    format: disk.format.clone(),
                    size_bytes: size.map(|size| size.virtual_bytes),
                    allocated_bytes: size.map(|size| size.allocated_bytes),
                }
            })
            .collect(),
        networks: networks.map(|nic| nic.source.clone()).collect(),
        obstacles: vm.obstacles.iter().map(engine::obstacle_words).collect(),
    }
}
