//! `qemu-img`, as much of it as `layer` calls, over [`crate::image`]: its answers have the same form, and its writes the same effect.

use std::path::Path;

use anyhow::{Context, Result, bail};
use layer::ToolEnded;
use serde_json::{Value, json};

use crate::bitmaps::Bitmaps;
use crate::image::{self, CLUSTER};

pub(crate) fn qemu_img(bitmaps: &Bitmaps, verb: &str, options: &[&str], operands: &[&Path]) -> ToolEnded {
    match answer(bitmaps, verb, options, operands) {
        Ok(said) => {
            let stdout = if said.is_null() { Vec::new() } else { said.to_string().into_bytes() };
            ToolEnded { code: Some(0), stdout, stderr: Vec::new() }
        }
        Err(error) => {
            ToolEnded { code: Some(1), stdout: Vec::new(), stderr: format!("{error:#}").into_bytes() }
        }
    }
}

fn answer(bitmaps: &Bitmaps, verb: &str, options: &[&str], operands: &[&Path]) -> Result<Value> {
    let path = operands.first().context("an image")?;
    match verb {
        "commit" => image::commit(path)?,
        "check" => {
            image::own(path)?;
            return Ok(json!({}));
        }
        "map" => {
            let pieces = image::own(path)?.into_iter().enumerate().map(|(cluster, own)| {
                let depth = u8::from(own.is_none());
                json!({"start": cluster * CLUSTER, "length": CLUSTER, "depth": depth, "present": own.is_some()})
            });
            return Ok(pieces.collect());
        }
        "info" => {
            let one = |bitmap: crate::bitmaps::Bitmap| {
                let flags = if bitmap.records { vec!["auto"] } else { Vec::new() };
                json!({"name": bitmap.name, "granularity": CLUSTER, "flags": flags})
            };
            let all: Vec<Value> = bitmaps.of(path).into_iter().map(one).collect();
            return Ok(json!({"format-specific": {"data": {"bitmaps": all}}}));
        }
        "bitmap" if options.contains(&"--remove") => {
            let name = operands.get(1).and_then(|name| name.to_str()).context("a bitmap")?;
            if !bitmaps.remove(path, name) {
                bail!("Bitmap '{name}' not found");
            }
        }
        "rebase" => {
            let place = options.iter().position(|option| *option == "-b").context("-b")?;
            image::rebase(path, options.get(place + 1).context("a name")?)?;
        }
        _ => bail!("{verb} is not simulated"),
    }
    Ok(Value::Null)
}
