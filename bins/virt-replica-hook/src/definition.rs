//! The UUID in the definition that libvirt writes: the first `<uuid>`, which it puts right after the name.
//!
//! *Not* a reader of XML: what libvirt formats has no comments, and a `<` inside of a name is escaped.

use std::io::Read;

use domain::VmId;

/// Most bytes of a definition that are read; the UUID stands within the first few hundred.
const DEFINITION_BYTES_MAX: u64 = 1 << 20;

/// The VM's UUID; none when there is none or it is no UUID.
pub(crate) fn uuid(definition: impl Read) -> Option<VmId> {
    let mut bytes = Vec::new();
    // What came before an error may hold the UUID.
    let _ = definition.take(DEFINITION_BYTES_MAX).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.split_once("<uuid>")?;
    let (uuid, _) = rest.split_once("</uuid>")?;
    uuid.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::uuid;

    #[test]
    fn the_first_uuid_is_the_vms() {
        let own = "01234567-89ab-cdef-0123-456789abcdef";
        let text = format!(
            "<domain type='kvm'>\n  <name>a &lt;uuid&gt;</name>\n  <uuid>{own}</uuid>\n  <metadata><uuid>x</uuid></metadata>"
        );
        assert_eq!(uuid(text.as_bytes()).map(|vm| vm.to_string()).as_deref(), Some(own));
    }

    #[test]
    fn nonsense_has_no_uuid() {
        let endless = std::io::repeat(b'<');
        assert_eq!(uuid(endless), None);
        for text in ["", "<domain/>", "<uuid>", "<uuid>1</uuid>", "</uuid><uuid>"] {
            assert_eq!(uuid(text.as_bytes()), None, "{text}");
        }
        assert_eq!(uuid(&b"\xff<uuid>\xff</uuid>"[..]), None);
    }
}
