use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use lfm2_harness::machine::Machine;
use lfm2_kernels::Isa;
use lfm2_kernels::simd::ISA_NAMES;
use lfm2_kernels::tuning::{Knob, measured_family};
use serde::Serialize;

use super::Failure;
use super::output::{bytes, counted, print, print_json, table};
use super::profile::ProfileArguments;

/// Shows what this CPU has: instruction sets, cores, caches, memory; and which profile applies
///
/// Everything else runs on the best instruction set unless `--isa` names another.
#[derive(clap::Args)]
pub struct IsasArguments {
    #[command(flatten)]
    profile: ProfileArguments,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    isas: Vec<IsaReport>,
    best: &'static str,
    machine: Machine,
    /// The file of the profile that applies; `None` for the defaults.
    profile: Option<PathBuf>,
    /// The family of CPUs that the defaults were measured on; `None` if they follow from the caches alone.
    defaults_of: Option<&'static str>,
    /// The values in force.
    knobs: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct IsaReport {
    name: &'static str,
    available: bool,
}

pub fn run(arguments: IsasArguments) -> Result<ExitCode, Failure> {
    let available = Isa::available();
    let isa = |name| IsaReport { name, available: available.iter().any(|isa| isa.name() == name) };
    let applied = arguments.profile.applied()?;
    let report = Report {
        isas: ISA_NAMES.map(isa).into(),
        best: Isa::best().name(),
        machine: Machine::detect(),
        defaults_of: measured_family(),
        knobs: Knob::ALL.map(|knob| (knob.name(), applied.profile.value(knob))).into(),
        profile: applied.file,
    };
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_string(), value]);

    let cpu = machine.cpu.as_deref().unwrap_or("name unknown");
    row("cpu", format!("{cpu} ({})", machine.architecture));
    let cores = machine.cores.map_or(String::new(), |cores| counted(cores, "core") + ", ");
    row("cores", cores + &counted(machine.threads, "thread") + " for this process");
    for cache in &machine.caches {
        let shared = match cache.shared_by {
            1 => String::new(),
            threads => format!(", shared by {threads} threads"),
        };
        let kind = match cache.kind.as_str() {
            "Unified" => String::new(),
            kind => kind.to_lowercase() + ", ",
        };
        row("cache", format!("level {}, {kind}{}{shared}", cache.level, bytes(cache.bytes)));
    }
    if let Some(memory) = machine.memory_bytes {
        row("memory", bytes(memory));
    }
    for isa in &report.isas {
        let value = match isa.available {
            true if isa.name == report.best => "available, the best here",
            true => "available",
            false => "-",
        };
        row(isa.name, value.to_string());
    }
    for (name, present) in [("features", true), ("missing", false)] {
        let features = machine.features.iter().filter(|feature| feature.present == present);
        let names: Vec<_> = features.map(|feature| feature.name.as_str()).collect();
        if !names.is_empty() {
            row(name, names.join(" "));
        }
    }
    let profile = match (&report.profile, report.defaults_of) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(family)) => {
            format!("built in for {family}; lfm2 tune finds what is faster on this CPU")
        }
        (None, None) => {
            "built in for any CPU, derived from its caches: run lfm2 tune, as this one was not measured"
                .to_string()
        }
    };
    rows.push(["profile".to_string(), profile]);
    for knob in Knob::ALL {
        let value = report.knobs[knob.name()];
        if value != knob.default_value() {
            let default = knob.default_value();
            rows.push([String::new(), format!("{knob} = {value}, by default {default}")]);
        }
    }
    table(&rows)
}
