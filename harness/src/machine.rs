//! The machine that a result was made on: CPU, caches, memory.
//!
//! Read from what Linux tells in `/proc` and `/sys`; elsewhere, what is not known is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

pub use lfm2_kernels::tuning::Cache;
use lfm2_kernels::tuning::caches;
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name, if the system gives one.
    pub cpu: Option<String>,
    /// The architecture, as Rust names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Cores, if known.
    pub cores: Option<usize>,
    /// Hardware threads that this process may use.
    pub threads: usize,
    /// The caches of the first core, nearest first; empty if not known.
    pub caches: Vec<Cache>,
    /// Bytes of memory, if known. A limit that a container sets counts.
    pub memory_bytes: Option<u64>,
    /// The version of the system's kernel, if known.
    #[serde(default)]
    pub kernel: Option<String>,
    /// How the system chooses the clock's speed, if known: `performance`, `powersave` and the like.
    #[serde(default)]
    pub governor: Option<String>,
    /// Features of the CPU that matter to the kernels, or may to later ones.
    pub features: Vec<Feature>,
}

/// Something that a CPU may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name, as Rust names it.
    pub name: String,
    /// Whether this CPU has it.
    pub present: bool,
}

/// The features of that name, each asked of the CPU.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! features {
    ($detected:ident: $($name:tt)*) => {
        vec![$(Feature { name: $name.to_string(), present: std::arch::$detected!($name) }),*]
    };
}

impl Machine {
    /// The machine that this runs on.
    pub fn detect() -> Self {
        let cpu_information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu_name(&cpu_information),
            architecture: std::env::consts::ARCH.to_string(),
            cores: cores(Path::new("/sys/devices/system/cpu")),
            threads: thread::available_parallelism().map_or(1, Into::into),
            caches: caches(),
            memory_bytes: memory(),
            kernel: word(Path::new("/proc/sys/kernel/osrelease")),
            governor: word(Path::new("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            features: features(),
        }
    }
}

/// What differs between two descriptions of what should be one machine, and how; `None` if nothing does.
///
/// A feature that one of the two programs does not ask for is no difference.
pub fn difference(a: &Machine, b: &Machine) -> Option<String> {
    let Machine {
        cpu, architecture, cores, threads, caches, memory_bytes, kernel, governor, ..
    } = a;
    let presence = |machine: &Machine, name: &str| {
        machine.features.iter().find(|feature| feature.name == name).map(|feature| feature.present)
    };
    let feature =
        a.features.iter().find(|Feature { name, present }| presence(b, name) == Some(!present));
    let pairs = [
        ("CPU", format!("{cpu:?}"), format!("{:?}", b.cpu)),
        ("architecture", architecture.clone(), b.architecture.clone()),
        ("cores", format!("{cores:?}"), format!("{:?}", b.cores)),
        ("threads", threads.to_string(), b.threads.to_string()),
        ("caches", format!("{caches:?}"), format!("{:?}", b.caches)),
        ("memory", format!("{memory_bytes:?}"), format!("{:?}", b.memory_bytes)),
        ("kernel", format!("{kernel:?}"), format!("{:?}", b.kernel)),
        ("governor", format!("{governor:?}"), format!("{:?}", b.governor)),
    ];
    let pair = pairs.into_iter().find(|(_, a, b)| a != b);
    let pair = pair.map(|(name, a, b)| format!("{name}: {a} and {b}"));
    pair.or_else(|| feature.map(|feature| format!("feature {}: one has it", feature.name)))
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<Feature> {
    features!(is_x86_feature_detected:
        "ssse3" "sse4.1"
        "avx2" "fma" "f16c" "avxvnni"
        "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16"
    )
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<Feature> {
    features!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<Feature> {
    Vec::new()
}

/// The name in the text of `/proc/cpuinfo`. Arm's gives numbers, which are all that there is.
fn cpu_name(information: &str) -> Option<String> {
    let field = |key| {
        information.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key && !value.trim().is_empty()).then(|| value.trim().to_string())
        })
    };
    field("model name").or_else(|| {
        let (implementer, part) = (field("CPU implementer")?, field("CPU part")?);
        Some(format!("implementer {implementer}, part {part}"))
    })
}

/// Cores, told apart by the threads that share each.
fn cores(folder: &Path) -> Option<usize> {
    let cpus = fs::read_dir(folder).ok()?.flatten();
    let siblings = cpus.filter_map(|cpu| {
        fs::read_to_string(cpu.path().join("topology/thread_siblings_list")).ok()
    });
    let cores: BTreeSet<_> = siblings.collect();
    (!cores.is_empty()).then_some(cores.len())
}

/// What a file of the system says.
fn word(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

fn memory() -> Option<u64> {
    let information = fs::read_to_string("/proc/meminfo").ok()?;
    let total = information.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
    })?;
    // "max", where there is no limit, is not a number.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(u64::MAX);
    Some(total.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_thread_and_unique_features() {
        let machine = Machine::detect();
        assert!(machine.threads > 0);
        let names: BTreeSet<_> = machine.features.iter().map(|feature| &feature.name).collect();
        assert_eq!(names.len(), machine.features.len());
    }

    #[test]
    fn machines_differ_in_what_both_were_asked_for() {
        let machine = Machine::detect();
        let mut other = machine.clone();
        other.features.pop();
        assert_eq!((difference(&machine, &other), difference(&other, &machine)), (None, None));
        let flipped = &mut other.features[0];
        flipped.present = !flipped.present;
        let name = flipped.name.clone();
        assert!(difference(&machine, &other).is_some_and(|found| found.contains(&name)));
        let other = Machine { governor: Some("powersave".into()), ..machine.clone() };
        assert!(difference(&machine, &other).is_some_and(|found| found.contains("powersave")));
    }

    #[test]
    fn names_of_both_architectures_are_found() {
        let x86 = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: Some CPU: 9\n";
        assert_eq!(cpu_name(x86).as_deref(), Some("Some CPU: 9"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";
        assert_eq!(cpu_name(arm).as_deref(), Some("implementer 0x41, part 0xd40"));
        assert_eq!(cpu_name(""), None);
    }
}
