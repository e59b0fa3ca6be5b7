//! What a screen shows. QEMU since 7.1 makes a PNG of it; one that is older, or was built without, a portable pixmap.

use domain::VmId;
use hypervisor::{HypervisorError, Result};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::stream::Stream;

use crate::error::{is, of_vm};

/// Largest picture that is read, bytes: beyond an 8K screen.
const BYTES_MAX: usize = 128 << 20;
/// What libvirt calls a picture that needs nothing more.
const PNG: &str = "image/png";
/// Read at once, bytes; libvirt's messages carry not much more.
const PIECE_BYTES: usize = 256 << 10;

/// A portable pixmap.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pixmap {
    width: u32,
    height: u32,
    /// Three bytes for each dot, line by line: red, green, blue.
    dots: Vec<u8>,
}

/// The picture as PNG; none when the VM has no screen.
pub(crate) fn picture(connect: &Connect, domain: &Domain, id: VmId) -> Result<Option<Vec<u8>>> {
    let failed = |error: Error| of_vm("screenshot", id, &error);
    let stream = Stream::new(connect, 0).map_err(failed)?;
    let kind = match domain.screenshot(&stream, 0, 0) {
        // "No screens to take screenshot from", and a VM that is off.
        Err(error) if is(&error, ErrorNumber::OperationInvalid) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = usize::try_from(stream.recv(&mut piece).map_err(failed)?).unwrap_or(0);
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..count]);
        if bytes.len() > BYTES_MAX {
            drop(stream.abort());
            return Err(not_understood("it is too large"));
        }
    }
    stream.finish().map_err(failed)?;
    if kind == PNG {
        return Ok(Some(bytes));
    }
    let pixmap = read_pixmap(&bytes).ok_or_else(|| not_understood(&format!("it is {kind}")))?;
    to_png(&pixmap).map(Some).map_err(|error| not_understood(&error.to_string()))
}

fn not_understood(why: &str) -> HypervisorError {
    HypervisorError::Failed { verb: "screenshot", detail: format!("the picture is not understood: {why}") }
}

/// `P6`, width, height and 255 as words, one space, then the dots.
fn read_pixmap(bytes: &[u8]) -> Option<Pixmap> {
    let mut rest = bytes.strip_prefix(b"P6")?;
    let mut number = || {
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let length = rest[start..].iter().position(u8::is_ascii_whitespace)?;
        let word = std::str::from_utf8(&rest[start..start + length]).ok()?;
        rest = &rest[start + length..];
        word.parse::<u32>().ok()
    };
    let (width, height, brightest) = (number()?, number()?, number()?);
    let dots = &rest.get(1..)?;
    let expected = usize::try_from(width).ok()?.checked_mul(usize::try_from(height).ok()?)?.checked_mul(3)?;
    let whole = brightest == 255 && expected > 0 && dots.len() == expected;
    whole.then(|| Pixmap { width, height, dots: dots.to_vec() })
}

fn to_png(pixmap: &Pixmap) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixmap.width, pixmap.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixmap.dots)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_is_read_whole_or_not_at_all() {
        let good = b"P6\n2 1\n255\n\x0a\x20abcd";
        assert_eq!(
            read_pixmap(good),
            Some(Pixmap { width: 2, height: 1, dots: b"\x0a\x20abcd".to_vec() }),
            "dots that look like spaces are dots"
        );
        for length in 0..good.len() {
            assert_eq!(read_pixmap(&good[..length]), None, "cut after {length} bytes");
        }
        for bad in [
            &b"P5\n2 1\n255\nabcdef"[..],
            b"P6\n2 1\n65535\nabcdef",
            b"P6\n0 0\n255\n",
            b"P6 4294967295 4294967295 255 x",
        ] {
            assert_eq!(read_pixmap(bad), None);
        }
    }

    #[test]
    fn a_png_holds_the_dots_of_the_pixmap() {
        let pixmap = Pixmap { width: 2, height: 3, dots: (0..18).collect() };
        let bytes = to_png(&pixmap).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut dots = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut dots).unwrap();
        assert_eq!((info.width, info.height, dots), (2, 3, pixmap.dots));
    }
}
