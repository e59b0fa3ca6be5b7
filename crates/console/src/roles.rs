//! Which groups of the system have which role. What is *not* here: what a role may do (`api`), and who is in a group
//! (`accounts`).

use api::Role;
use serde::Deserialize;

/// Groups by role. Who is in several has the greatest role; who is in none does not come in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// These may do everything.
    pub administrator: Vec<String>,
    /// These may change the replication of VMs.
    pub operator: Vec<String>,
    /// These may look.
    pub viewer: Vec<String>,
}

impl Default for Roles {
    fn default() -> Self {
        let group = |name: &str| vec![name.to_owned()];
        Roles {
            administrator: group("virt-replica-admin"),
            operator: group("virt-replica-operator"),
            viewer: group("virt-replica-viewer"),
        }
    }
}

impl Roles {
    /// The role of whoever is in these groups.
    pub(crate) fn of(&self, groups: &[String]) -> Option<Role> {
        let has = |names: &[String]| groups.iter().any(|group| names.contains(group));
        let by_role = [
            (Role::Administrator, &self.administrator),
            (Role::Operator, &self.operator),
            (Role::Viewer, &self.viewer),
        ];
        by_role.into_iter().find(|(_, names)| has(names)).map(|(role, _)| role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[&str]) -> Option<Role> {
        Roles::default().of(&groups.iter().map(|&group| group.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_greatest_role_holds_and_no_group_is_no_role() {
        assert_eq!(of(&["users", "virt-replica-viewer", "virt-replica-admin"]), Some(Role::Administrator));
        assert_eq!(of(&["virt-replica-viewer", "virt-replica-operator"]), Some(Role::Operator));
        assert_eq!(of(&["virt-replica-viewer"]), Some(Role::Viewer));
        assert_eq!(of(&["users", "sudo", "root"]), None);
        assert_eq!(of(&[]), None);
    }
}
