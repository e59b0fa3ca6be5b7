//! Which boot of this host it is: after a crash nothing that was agreed with a peer before is taken for granted.

use std::sync::LazyLock;

/// A number that Linux makes anew at each boot; empty where there is none, which is then the same for ever.
#[must_use]
pub fn boot_id() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    });
    &BOOT
}
