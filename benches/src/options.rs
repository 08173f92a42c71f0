use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use clap::{CommandFactory, Parser};
use criterion::Criterion;
use lfm2_harness::workload::Extent;
use lfm2_kernels::Isa;
use lfm2_kernels::threads::enter;
use rayon::ThreadPoolBuilder;
use regex::Regex;

/// Where [`Options::from_args`] leaves this package's flags for Criterion not to see them.
const VARIABLE: &str = "LFM2_BENCH_OPTIONS";

/// What the command line asks for.
#[derive(Clone)]
pub struct Options {
    flags: Flags,
    isas: Option<Vec<Isa>>,
    /// What is left for Criterion.
    rest: Vec<String>,
    filter: Option<Filter>,
    is_plain: bool,
}

/// Flags of the LFM2 benches, besides Criterion's own
#[derive(Clone, Parser)]
#[command(name = "cargo bench --", no_binary_name = true, disable_help_flag = true)]
struct Flags {
    /// Instruction sets to time, by name, or `all` [default: the widest; with --full, all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    isa: Vec<String>,

    /// Threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,

    /// Measure less: in about two minutes
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// Measure every instruction set, length, shape and format; what takes the scalar reference seconds only where --isa names it
    #[arg(long)]
    full: bool,
}

#[derive(Clone)]
enum Filter {
    Pattern(Regex),
    Exact(String),
}

impl Options {
    /// Reads the command line; ends the process if it cannot be followed.
    ///
    /// Criterion refuses flags that it does not know, and reads the process's arguments itself. Where there are flags of ours, the
    /// program therefore becomes itself again without them, and hands them over in a variable.
    pub fn from_args() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        if let Ok(flags) = env::var(VARIABLE) {
            let flags: Vec<String> = flags.split_whitespace().map(String::from).collect();
            return Self::parse(&flags, arguments).unwrap_or_else(|error| error.exit());
        }
        let (flags, rest) = split(arguments);
        if rest.iter().any(|argument| argument == "--help" || argument == "-h") {
            println!("{}\nCriterion's flags:\n", Flags::command().render_help());
        }
        let options = Self::parse(&flags, rest).unwrap_or_else(|error| error.exit());
        if flags.is_empty() {
            return options;
        }
        let program = env::current_exe().expect("the program knows its file");
        let mut command = Command::new(program);
        let error = command.args(options.rest).env(VARIABLE, flags.join(" ")).exec();
        panic!("the program can be started: {error}");
    }

    fn parse(flags: &[String], rest: Vec<String>) -> Result<Self, clap::Error> {
        use clap::error::ErrorKind::ValueValidation;
        let flags = Flags::try_parse_from(flags)?;
        let isas = match &flags.isa[..] {
            [] => None,
            [all] if all == "all" => Some(Isa::available()),
            names => {
                let isas: Result<_, _> = names.iter().map(|name| name.parse::<Isa>()).collect();
                Some(isas.map_err(|error| Flags::command().error(ValueValidation, error))?)
            }
        };
        let has = |flag: &str| rest.iter().any(|argument| argument == flag);
        let filter = match positional(&rest) {
            None => None,
            Some(id) if has("--exact") => Some(Filter::Exact(id.to_string())),
            Some(pattern) => Some(Filter::Pattern(
                Regex::new(pattern)
                    .map_err(|error| Flags::command().error(ValueValidation, error))?,
            )),
        };
        let is_plain = isas.is_none() && flags.threads.is_none() && rest == ["--bench"];
        Ok(Self { flags, isas, rest, filter, is_plain })
    }

    /// Runs `work` on a thread of a pool of as many threads as were asked for, with the others awake, as in a forward pass.
    ///
    /// # Panics
    ///
    /// If threads cannot be started.
    pub fn in_pool(self, work: impl FnOnce(Self) + Send) {
        self.in_idle_pool(|options| enter(|| work(options)));
    }

    /// As [`in_pool`](Self::in_pool), but the other threads sleep while they have no work.
    ///
    /// # Panics
    ///
    /// If threads cannot be started.
    pub fn in_idle_pool(self, work: impl FnOnce(Self) + Send) {
        let pool = ThreadPoolBuilder::new().num_threads(self.flags.threads.unwrap_or(0) as usize);
        pool.build().expect("threads can be started").install(|| work(self));
    }

    /// The same with one thread: what to compare several with, unless the command line says how many or there are no more.
    pub fn with_one_thread(&self) -> Option<Self> {
        let has_more = thread::available_parallelism().is_ok_and(|threads| threads.get() > 1);
        let flags = Flags { threads: Some(1), ..self.flags.clone() };
        (has_more && self.flags.threads.is_none()).then(|| Self { flags, ..self.clone() })
    }

    /// The instruction sets to compare: those that were asked for, else all but fallbacks for which there is something better.
    pub fn compared_isas(&self) -> Vec<Isa> {
        let is_compared = |isa: &Isa| *isa == Isa::best() || !isa.is_fallback();
        self.isas
            .clone()
            .unwrap_or_else(|| Isa::available().into_iter().filter(is_compared).collect())
    }

    /// The instruction sets to time: those that were asked for, else the widest, or all.
    pub fn isas(&self) -> Vec<Isa> {
        self.isas.clone().unwrap_or_else(|| match self.extent() {
            Extent::Full => Isa::available(),
            _ => vec![Isa::best()],
        })
    }

    /// Whether to time what takes very long.
    pub fn is_patient(&self) -> bool {
        self.extent() == Extent::Full && self.isas.is_some()
    }

    /// The instruction sets to hold against what the CPU can do at most: those that were asked for, else all but the scalar
    /// reference.
    pub fn fast_isas(&self) -> Vec<Isa> {
        self.compared_isas().into_iter().filter(|isa| isa.name() != "scalar").collect()
    }

    /// How much to measure.
    pub fn extent(&self) -> Extent {
        if self.flags.full {
            Extent::Full
        } else if self.flags.quick || self.has("--test") || !self.has("--bench") {
            Extent::Quick
        } else {
            Extent::Usual
        }
    }

    /// Whether times are taken, instead of a listing, a trial of every case or a profile.
    pub fn measures(&self) -> bool {
        let not_measuring = ["--test", "--list", "--profile-time", "--load-baseline"];
        self.has("--bench") && !not_measuring.iter().any(|flag| self.has(flag))
    }

    /// Whether Criterion is told how to take samples.
    pub fn chooses_samples(&self) -> bool {
        ["--sample-size", "--measurement-time", "--warm-up-time"].iter().any(|flag| self.has(flag))
    }

    /// Whether nothing but how much is measured was chosen.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether cases are left out.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether the case of that id is to be run.
    pub fn matches(&self, id: &str) -> bool {
        match &self.filter {
            None => true,
            Some(Filter::Pattern(pattern)) => pattern.is_match(id),
            Some(Filter::Exact(exact)) => id == exact,
        }
    }

    /// Whether Criterion was given that flag.
    pub fn has(&self, flag: &str) -> bool {
        let value = format!("{flag}=");
        self.rest.iter().any(|argument| argument == flag || argument.starts_with(&value))
    }

    /// Criterion, as the command line asks for it.
    pub fn criterion(&self) -> Criterion {
        Criterion::default().nresamples(10_000).configure_from_args()
    }
}

/// This package's flags, and the other arguments.
fn split(arguments: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut flags, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" | "--full" => flags.push(argument),
            "--isa" | "--threads" => {
                flags.push(argument);
                flags.extend(arguments.next());
            }
            with_value
                if with_value.starts_with("--isa=") || with_value.starts_with("--threads=") =>
            {
                flags.push(argument);
            }
            _ => rest.push(argument),
        }
    }
    (flags, rest)
}

/// The first argument that is neither a flag of Criterion nor a flag's value.
fn positional(arguments: &[String]) -> Option<&str> {
    const WITH_VALUE: [&str; 19] = [
        "-b",
        "-c",
        "-s",
        "--baseline",
        "--baseline-lenient",
        "--color",
        "--confidence-level",
        "--format",
        "--load-baseline",
        "--measurement-time",
        "--noise-threshold",
        "--nresamples",
        "--output-format",
        "--plotting-backend",
        "--profile-time",
        "--sample-size",
        "--save-baseline",
        "--significance-level",
        "--warm-up-time",
    ];
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return Some(argument);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn flags_of_both_kinds_mix() {
        let line = "--bench --isa scalar linear --save-baseline main --quick --threads=2";
        let (flags, rest) = split(words(line));
        assert_eq!(flags, words("--isa scalar --quick --threads=2"));
        assert_eq!(rest, words("--bench linear --save-baseline main"));
        let options = Options::parse(&flags, rest).unwrap();
        assert_eq!(options.extent(), Extent::Quick);
        assert_eq!(options.isas(), Isa::available()[..1]);
        assert!(options.measures() && options.has("--save-baseline"));
        assert!(options.matches("linear/avx2/f32/1x16x16/2"));
        assert!(!options.matches("rope/avx2/f32/1x16x16/2"));
    }

    #[test]
    fn a_full_run_is_of_all_instruction_sets() {
        let parse = |flags| Options::parse(&words(flags), words("--bench")).unwrap();
        assert_eq!(parse("").isas(), [Isa::best()]);
        let full = parse("--full");
        assert_eq!((full.isas(), full.is_patient()), (Isa::available(), false));
        let named = parse("--full --isa scalar");
        assert_eq!((named.isas(), named.is_patient()), (Isa::available()[..1].to_vec(), true));
    }

    #[test]
    fn a_fallback_is_timed_where_it_is_named() {
        let compared =
            |flags: &str| Options::parse(&words(flags), words("--bench")).unwrap().compared_isas();
        let is_fallback = |isa: &Isa| isa.is_fallback() && *isa != Isa::best();
        let Some(fallback) = Isa::available().into_iter().find(is_fallback) else { return };
        assert!(!compared("").contains(&fallback) && compared("").contains(&Isa::best()));
        assert_eq!(compared(&format!("--isa {fallback}")), [fallback]);
        assert_eq!(compared("--isa all"), Isa::available());
    }

    #[test]
    fn one_thread_is_compared_with_several() {
        let parse = |flags| Options::parse(&words(flags), words("--bench")).unwrap();
        let alone = parse("").with_one_thread();
        assert_eq!(alone.is_some(), thread::available_parallelism().unwrap().get() > 1);
        assert!(alone.is_none_or(|alone| alone.is_plain()));
        assert!(parse("--threads 2").with_one_thread().is_none());
    }

    #[test]
    fn what_changes_the_work_is_not_plain() {
        let is_plain = |flags, rest| Options::parse(&words(flags), words(rest)).unwrap().is_plain();
        assert!(is_plain("", "--bench") && is_plain("--quick", "--bench"));
        for flags in ["--isa all", "--threads 1"] {
            assert!(!is_plain(flags, "--bench"), "{flags}");
        }
        assert!(!is_plain("", "--bench linear") && !is_plain("", "--bench --sample-size 10"));
    }

    #[test]
    fn a_value_of_a_flag_is_no_filter() {
        let positional = |line| positional(&words(line)).map(String::from);
        assert_eq!(positional("--bench --sample-size 20"), None);
        assert_eq!(positional("-s main conv --warm-up-time 1"), Some("conv".into()));
    }

    #[test]
    fn wrong_flags_are_errors() {
        let error = |line| Options::parse(&words(line), Vec::new()).err().map(|e| e.to_string());
        assert!(error("--isa axv2").is_some_and(|error| error.contains("unknown instruction set")));
        assert!(error("--threads 0").is_some());
        assert!(error("--quick --full").is_some());
        assert!(error("--isa all").is_none());
    }
}
