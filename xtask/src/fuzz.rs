//! `cargo xtask fuzz`: damaged bytes for every decoder, from a seed; with `--led` by libFuzzer, which keeps what reaches further.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::install;
use crate::program::{command, output, run as run_program};

/// Counters at every edge and comparison, as libFuzzer reads them; nothing of it needs another compiler than the stable one.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1";
/// Everything that is built or found by the led runs.
const LED: &str = "target/led";
/// Most seconds for one input, and most memory of the process, MiB: the runner itself measures what one input takes.
const SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2048;

#[derive(Args)]
pub(crate) struct Options {
    /// How long, for each decoder
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only this decoder
    #[arg(long)]
    target: Option<String>,
    /// Where chance begins: the same seed damages in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Led by coverage: builds everything anew, with counters; what reaches further is kept in target/led/corpus
    #[arg(long)]
    led: bool,
    /// After that, the few inputs that reach all that was reached replace fuzz/corpus
    #[arg(long, requires = "led")]
    keep: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.led { led(options) } else { plain(options, &[]) }
}

fn plain(options: &Options, more: &[&str]) -> Result<()> {
    let (seconds, seed) = (options.seconds.to_string(), options.seed.to_string());
    let mut words = vec!["cargo", "run", "--quiet", "-p", "fuzz", "--bin", "fuzz", "--"];
    words.extend(["--seconds", &seconds, "--seed", &seed]);
    words.extend(options.target.iter().flat_map(|target| ["--target", target]));
    words.extend(more);
    run_program(&words)
}

fn led(options: &Options) -> Result<()> {
    install::packages_and_cxx()?;
    let corpus = format!("{LED}/corpus");
    plain(options, &["--inputs-to", &corpus])?;
    let program = build()?;
    let mut names: Vec<String> = match &options.target {
        Some(target) => vec![target.clone()],
        None => {
            let folders =
                std::fs::read_dir(crate::program::repository().join(&corpus)).context("the corpus")?;
            folders.flatten().filter_map(|it| it.file_name().into_string().ok()).collect()
        }
    };
    names.sort();
    let mut harmed = 0;
    for name in &names {
        harmed += usize::from(!one(&program, name, options)?);
    }
    ensure!(harmed == 0, "{harmed} of {} decoders are harmed", names.len());
    if options.keep {
        names.iter().try_for_each(|name| reduce(&program, name))?;
        plain(options, &["--keep", &format!("{LED}/kept")])?;
    }
    Ok(())
}

/// Chooses inputs that together reach all that a decoder's inputs do.
fn reduce(program: &str, name: &str) -> Result<()> {
    let (corpus, kept) = (format!("{LED}/corpus/{name}"), format!("{LED}/kept/{name}"));
    let folder = crate::program::repository().join(&kept);
    // Of an earlier run.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder).context("a folder")?;
    let mut reducing = command(&[program, "-set_cover_merge=1", &kept, &corpus]);
    let done = reducing.env("VIRT_REPLICA_FUZZ_TARGET", name).output().context("the fuzzer")?;
    ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// With a target of its own, so that what runs at build time has no counters.
fn build() -> Result<String> {
    let version = output(&["rustc", "-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let flags = COUNTERS.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = ["cargo", "build", "-p", "fuzz", "--bin", "led", "--features", "led", "--target", host];
    let mut building = command(&words);
    building.args(["--target-dir", LED]).env("RUSTFLAGS", flags).env("CARGO_INCREMENTAL", "0");
    ensure!(building.status().context("cargo")?.success(), "the fuzzer cannot be built");
    Ok(format!("{LED}/{host}/debug/led"))
}

/// One decoder; whether nothing did harm.
fn one(program: &str, name: &str, options: &Options) -> Result<bool> {
    let (corpus, harm) = (format!("{LED}/corpus/{name}"), format!("{LED}/harm/{name}-"));
    std::fs::create_dir_all(crate::program::repository().join(LED).join("harm")).context("a folder")?;
    let mut fuzzing = command(&[program, &corpus, "-print_final_stats=1"]);
    fuzzing
        .args([format!("-max_total_time={}", options.seconds), format!("-seed={}", options.seed)])
        .args([format!("-timeout={SECONDS_MAX}"), format!("-rss_limit_mb={MEMORY_MIB_MAX}")])
        .arg(format!("-artifact_prefix={harm}"))
        .env("VIRT_REPLICA_FUZZ_TARGET", name)
        .stdout(Stdio::null());
    let done = fuzzing.output().context("the fuzzer")?;
    let told = String::from_utf8_lossy(&done.stderr);
    let Reached { executions, begun, ended } = Reached::read(&told);
    if done.status.success() {
        println!("fuzz {name}: {executions} executions led from {begun} to {ended} edges, no harm");
    } else {
        let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with(['#', '\t'])).collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        println!("fuzz {name}: HARM, see {harm}*\n{last}");
    }
    Ok(done.status.success())
}

/// What libFuzzer tells of a run.
#[derive(PartialEq, Eq, Debug)]
struct Reached {
    executions: String,
    /// Edges that the inputs of the beginning reach, and those of the end.
    begun: String,
    ended: String,
}

impl Reached {
    fn read(told: &str) -> Reached {
        let after = |line: &str, word: &str| {
            let rest = line.split_once(word)?.1.split_whitespace().next()?;
            Some(rest.to_owned())
        };
        let mut edges = told.lines().filter_map(|line| after(line, " cov: "));
        let first = told.lines().find(|line| line.contains("INITED")).and_then(|line| after(line, " cov: "));
        let unknown = || "?".to_owned();
        let executions = told.lines().find_map(|line| after(line, "stat::number_of_executed_units:"));
        Reached {
            executions: executions.unwrap_or_else(unknown),
            begun: first.unwrap_or_else(unknown),
            ended: edges.next_back().unwrap_or_else(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reached;

    #[test]
    fn what_libfuzzer_tells_is_read_and_what_it_does_not_tell_is_unknown() {
        let told = "INFO: seed corpus: files: 3\n#4\tINITED cov: 517 ft: 518 corp: 3/2Kb\n#99\tNEW    cov: 600 ft: 9\n\
            #200\tDONE   cov: 604 ft: 10\nstat::number_of_executed_units: 200\n";
        let text = |text: &str| text.to_owned();
        assert_eq!(
            Reached::read(told),
            Reached { executions: text("200"), begun: text("517"), ended: text("604") }
        );
        assert_eq!(
            Reached::read("killed"),
            Reached { executions: text("?"), begun: text("?"), ended: text("?") }
        );
    }
}
