//! The groups of an account, as the system's name services tell them.

use std::ffi::CString;

use nix::unistd::{Group, User, getgrouplist};

use crate::{Account, Verdict};

/// The account with the names of its groups. A group without a name gives nobody a role, so it is left out.
pub(crate) fn of(name: &str) -> std::io::Result<Verdict> {
    let Some(user) = User::from_name(name)? else {
        return Ok(Verdict::Refused("no such account".to_owned()));
    };
    let numbers = getgrouplist(&CString::new(user.name.as_str())?, user.gid)?;
    let mut groups = Vec::new();
    for number in numbers {
        groups.extend(Group::from_gid(number)?.map(|group| group.name));
    }
    Ok(Verdict::Good(Account { name: user.name, groups }))
}
