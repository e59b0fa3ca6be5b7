//! A file that belongs to the VM beside its disks, in the header of a delta: compressed, as hexadecimal digits, with the
//! digest that was made where it was read.

use domain::Attachment;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Codec};
use crate::frame::WireError;

/// An attachment on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentForm {
    /// `nvram` or `tpm`.
    pub kind: String,
    /// Bytes of the file.
    pub length: u64,
    /// BLAKE3 of the file, hexadecimal.
    pub digest: String,
    /// One Zstandard frame, hexadecimal.
    pub zstd: String,
}

impl AttachmentForm {
    /// Packs a file.
    pub fn pack(kind: Attachment, content: &[u8]) -> Result<AttachmentForm, WireError> {
        let length = content.len() as u64;
        if length > kind.bytes_max() {
            return Err(refuse(kind.name(), "is larger than any such file can be"));
        }
        let packed = codec::pack(content).map_err(|_| refuse(kind.name(), "cannot be compressed"))?;
        Ok(AttachmentForm {
            kind: kind.name().to_owned(),
            length,
            digest: blake3::hash(content).to_hex().to_string(),
            zstd: to_hex(&packed),
        })
    }

    /// Unpacks it: never more than its kind allows, and only if it has its digest.
    pub fn unpack(&self) -> Result<(Attachment, Vec<u8>), WireError> {
        let kind = Attachment::from_name(&self.kind)
            .ok_or_else(|| refuse(&self.kind, "is of a kind that this daemon does not know"))?;
        let length = usize::try_from(self.length).ok().filter(|_| self.length <= kind.bytes_max());
        let length = length.ok_or_else(|| refuse(kind.name(), "is larger than any such file can be"))?;
        let packed = from_hex(&self.zstd).ok_or_else(|| refuse(kind.name(), "has no hexadecimal digits"))?;
        let content = codec::decode(Codec::Zstd, &packed.into(), length)?;
        if blake3::hash(&content).to_hex().as_str() != self.digest {
            return Err(refuse(kind.name(), "does not have its digest"));
        }
        Ok((kind, content.into()))
    }
}

/// Digest of everything that a delta carries beside the disks: equal digests, equal content.
#[must_use]
pub fn envelope_digest(domain_xml: &str, attachments: &[AttachmentForm]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(blake3::hash(domain_xml.as_bytes()).as_bytes());
    for attachment in attachments {
        hasher.update(attachment.kind.as_bytes()).update(attachment.digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn refuse(name: &str, why: &str) -> WireError {
    let name: String = name.chars().take(40).collect();
    WireError::Header { why: format!("attachment {name:?} {why}") }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_out_as_it_went_in() {
        for content in [vec![], vec![255; 540_672], (0..=255).cycle().take(9999).collect::<Vec<u8>>()] {
            for kind in Attachment::ALL {
                let form = AttachmentForm::pack(kind, &content).unwrap();
                assert!(form.zstd.len() < content.len() + 64);
                assert_eq!(form.unpack(), Ok((kind, content.clone())));
            }
        }
    }

    #[test]
    fn what_is_damaged_too_large_or_unknown_is_refused() {
        let good = AttachmentForm::pack(Attachment::Tpm, b"state").unwrap();
        let bad = |change: fn(&mut AttachmentForm)| {
            let mut form = good.clone();
            change(&mut form);
            form.unpack().unwrap_err().to_string()
        };
        assert!(bad(|form| form.digest.replace_range(..1, "x")).contains("digest"));
        assert!(bad(|form| form.kind = "../../etc/passwd".into()).contains("kind"));
        assert!(bad(|form| form.length = (1 << 20) + 1).contains("larger"));
        assert!(bad(|form| form.zstd.push('0')).contains("hexadecimal"));
        bad(|form| form.length = 4);
        bad(|form| form.zstd.truncate(8));
        assert!(AttachmentForm::pack(Attachment::Tpm, &vec![0; (1 << 20) + 1]).is_err());
        let largest = vec![7; 1 << 20];
        let form = AttachmentForm::pack(Attachment::Tpm, &largest).unwrap();
        assert_eq!(form.unpack(), Ok((Attachment::Tpm, largest)));
        let long = bad(|form| form.kind = "x".repeat(10_000));
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn a_change_of_anything_changes_the_digest_of_the_envelope() {
        let one = |content: &[u8]| vec![AttachmentForm::pack(Attachment::Nvram, content).unwrap()];
        let all = [
            envelope_digest("<a/>", &[]),
            envelope_digest("<b/>", &[]),
            envelope_digest("<a/>", &one(b"1")),
            envelope_digest("<a/>", &one(b"2")),
        ];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[..index].contains(digest));
        }
    }
}
