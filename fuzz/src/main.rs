//! `cargo xtask fuzz`: one line of result for each decoder, and the input that did harm in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fuzz::Target;

/// Feeds damaged bytes to every decoder of outside bytes.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz")]
struct Options {
    /// How long, for each decoder
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only this decoder
    #[arg(long)]
    target: Option<String>,
    /// Where chance begins: the same seed damages in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try nothing: write what each decoder begins with into a folder of its name, in this one
    #[arg(long, value_name = "FOLDER")]
    inputs_to: Option<PathBuf>,
    /// Try nothing: keep what lies in a folder of each decoder's name, in this one, as the corpus
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let wanted = |one: &Target| options.target.as_ref().is_none_or(|name| name == one.name);
    let (chosen, others): (Vec<Target>, Vec<Target>) = fuzz::targets().into_iter().partition(wanted);
    let names: Vec<_> = others.iter().map(|one| one.name).collect();
    ensure!(!chosen.is_empty(), "no such target; there are {}", names.join(", "));
    if let Some(folder) = &options.inputs_to {
        return chosen.iter().try_for_each(|one| fuzz::write_inputs(one, folder)).context("the inputs");
    }
    if let Some(folder) = &options.keep {
        for target in &chosen {
            println!("{}: {} inputs are kept", target.name, fuzz::keep(target, folder).context(target.name)?);
        }
        return Ok(());
    }
    // A panic is told in the line of result.
    std::panic::set_hook(Box::new(|_| {}));
    let harmed = chosen.iter().map(|one| is_harmed(one, &options)).collect::<Result<Vec<_>>>()?;
    let count = harmed.iter().filter(|harmed| **harmed).count();
    ensure!(count == 0, "{count} of {} decoders are harmed", chosen.len());
    Ok(())
}

fn is_harmed(target: &Target, options: &Options) -> Result<bool> {
    let (name, seed) = (target.name, options.seed);
    let outcome = fuzz::run(target, seed, Duration::from_secs(options.seconds));
    let Some(found) = outcome.found else {
        println!("fuzz {name}: {} executions from seed {seed}, no harm", outcome.executions);
        return Ok(false);
    };
    let folder = Path::new("target/fuzz");
    std::fs::create_dir_all(folder).context("target/fuzz")?;
    let path = folder.join(format!("{name}-{seed}"));
    std::fs::write(&path, &found.input).context("the input")?;
    let (what, tried) = (found.what, outcome.executions);
    println!(
        "fuzz {name}: HARM after {tried} executions from seed {seed}: {what}; input: {}",
        path.display()
    );
    Ok(true)
}
