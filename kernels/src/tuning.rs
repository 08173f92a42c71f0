//! What the numeric contract leaves free and CPUs want differently: how work is cut, and how early weights are asked for.
//!
//! A [`Knob`] is one such number, a [`Profile`] a value for some of them. The values in force are those of the whole process: no value changes a bit, so
//! that nobody has to know which are. A knob that a profile leaves out has its default: what was fastest on CPUs of [this one's
//! family](measured_family), if that was measured; else what follows from the sizes of its caches, for those knobs that depend on them, or what was
//! fastest on most.
//!
//! ```
//! use lfm2_kernels::tuning::{Knob, Profile};
//!
//! let mut profile = Profile::default();
//! profile.set(Knob::BlockRows, 96)?;
//! profile.install();
//! assert_eq!(Knob::BlockRows.get(), 96);
//! Profile::default().install();
//! # Ok::<(), lfm2_kernels::tuning::NotAllowed>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

mod caches;
mod measured;

pub use caches::{Cache, caches};

use crate::linear::BLOCK_ROWS;
use crate::model::Scratch;
use crate::threads::MOST_PARTS;

/// All there is to know of a knob.
struct Entry {
    name: &'static str,
    about: &'static str,
    range: RangeInclusive<usize>,
    step: usize,
    tried: &'static [usize],
    default: Source,
}

/// From what a default follows.
enum Source {
    /// The same everywhere.
    Always(usize),
    /// What a second-level cache of 1 MiB wants, on which it was found; more where there is more of it, and less where there is less: beside one
    /// of 512 KiB a third.
    OfSecondLevel(usize),
}

macro_rules! knobs {
    ($($(#[doc = $about:literal])* $knob:ident = $name:literal: $range:expr, step $step:expr, tried $tried:expr, default $default:expr;)*) => {
        /// A number that the numeric contract leaves free.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Knob {
            $($(#[doc = $about])* $knob),*
        }

        impl Knob {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$knob),*];

            fn entry(self) -> Entry {
                match self {
                    $(Self::$knob => Entry {
                        name: $name,
                        about: concat!($($about),*).trim_ascii(),
                        range: $range,
                        step: $step,
                        tried: &$tried,
                        default: $default,
                    }),*
                }
            }
        }
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

knobs! {
    /// The level of the cache that weights are brought into before they are read, on x86-64.
    PrefetchLevel = "prefetch_level": 1..=2, step 1, tried [1, 2], default Source::Always(2);
    /// Whether packed weights and large caches lie in huge pages where the system has them: 1, or 0.
    HugePages = "huge_pages": 0..=1, step 1, tried [0, 1], default Source::Always(1);
    /// Rows that share one pass over the weights.
    BlockRows = "block_rows": 24..=BLOCK_ROWS, step 12, tried [48, 72, 96, 120, 144], default Source::Always(BLOCK_ROWS);
    /// Tasks that each thread gets of many rows. One more makes the end evener; it costs making its rows ready again.
    TasksPerThread = "tasks_per_thread": 1..=16, step 1, tried [1, 2, 3, 4, 6], default Source::Always(2);
    /// Weights that are worth handing to another thread, in bytes.
    SharedBytes = "shared_bytes": 4 * KIB..=16 * KIB * KIB, step 4 * KIB, tried [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB], default Source::Always(64 * KIB);
    /// Weights that one row takes at a time when few are left, in bytes: so few that threads end together.
    RowRunBytes = "row_run_bytes": 4 * KIB..=16 * KIB * KIB, step 4 * KIB, tried [32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB], default Source::Always(128 * KIB);
    /// Threads that share one row, at most: a few may read as fast as memory gives.
    RowThreads = "row_threads": 1..=MOST_PARTS, step 1, tried [1, 2, 4, 8, 16, 32, MOST_PARTS], default Source::Always(MOST_PARTS);
    /// Rows for which it is enough to ask for one line of what is next with each step of a tile, and from which tiles take two panels with AVX2: fewer rows have fewer tiles to ask in.
    ManyRows = "many_rows": 2..=BLOCK_ROWS + 1, step 1, tried [16, 48, 96], default Source::Always(48);
    /// Rows for which narrow weights are widened once where there are few registers, and not in every tile.
    WidenedRows = "widened_rows": 2..=144, step 1, tried [4, 16, 64], default Source::Always(16);
    /// Whether weights in half precision are widened once for [many rows](Self::ManyRows) where there are many registers, too: 1, or 0.
    WidenedHalves = "widened_halves": 0..=1, step 1, tried [0, 1], default Source::Always(0);
    /// Cuts of 256 inputs that all rows take at once with weights that stay numbers: with a block's rows they fill half of a second-level cache of 1 MiB, and less of a smaller one.
    ChainCuts = "chain_cuts": 1..=8, step 1, tried [1, 2, 3, 4, 6, 8], default Source::OfSecondLevel(4);
    /// Cuts of 256 inputs that all rows take at once with activations in brain floats: with a block's rows they fill half of a second-level cache of 1 MiB, and less of a smaller one.
    BrainCuts = "brain_cuts": 1..=16, step 1, tried [2, 4, 6, 8, 12], default Source::OfSecondLevel(6);
    /// Groups of 512 inputs that all rows take at once with quantised activations: they stay in the second-level cache while all panels pass.
    IntegerGroups = "integer_groups": 1..=8, step 1, tried [1, 2, 3, 4, 6], default Source::OfSecondLevel(3);
    /// How far ahead one row asks for weights in f32, in bytes; 0 leaves it to the CPU.
    WideAhead = "wide_ahead_bytes": 0..=64 * KIB, step KIB, tried [0, 2 * KIB, 4 * KIB, 6 * KIB, 8 * KIB, 12 * KIB, 16 * KIB], default Source::Always(6 * KIB);
    /// How far ahead one row asks for weights of 16 bits, in bytes; 0 leaves it to the CPU.
    NarrowAhead = "narrow_ahead_bytes": 0..=64 * KIB, step KIB, tried [0, 4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB, 24 * KIB], default Source::Always(12 * KIB);
    /// How far ahead one row in brain floats asks for weights, in bytes; 0 leaves it to the CPU.
    BrainAhead = "brain_ahead_bytes": 0..=64 * KIB, step KIB, tried [0, 4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB, 24 * KIB], default Source::Always(12 * KIB);
    /// How far ahead one quantised row asks for weights of eight bits, in bytes; 0 asks for what is used now, all at once.
    EightBitAhead = "eight_bit_ahead_bytes": 0..=64 * KIB, step KIB, tried [0, 2 * KIB, 4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB], default Source::Always(8 * KIB);
    /// How far ahead one quantised row asks for weights of fewer bits, in bytes; 0 asks for what is used now.
    QuantisedAhead = "quantised_ahead_bytes": 0..=64 * KIB, step KIB, tried [0, 2 * KIB, 4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB], default Source::Always(8 * KIB);
    /// Cached elements that are worth handing to another thread when one row attends.
    SharedKeys = "shared_cached_elements": 4 * KIB..=4 * KIB * KIB, step 4 * KIB, tried [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB], default Source::Always(64 * KIB);
    /// Tasks that each thread gets when many rows attend: many, so that threads end together.
    AttentionTasks = "attention_tasks_per_thread": 1..=32, step 1, tried [2, 4, 8, 16], default Source::Always(8);
    /// Bands of 24 query rows in a task of attention, at most: each block of keys is brought near once for all of them.
    AttentionBands = "attention_bands": 1..=16, step 1, tried [2, 4, 8, 16], default Source::Always(8);
    /// About as many rows as a pass through the model has: enough to share each reading of the weights, and few enough that what one operation leaves is
    /// still in the last cache when the next one reads it.
    PassRows = "pass_rows": 16..=1024, step 16, tried [128, 192, 256, 384, 512], default Source::Always(Scratch::ENOUGH_ROWS);
    /// Elements that are worth handing to another thread in an operation that does little with each.
    SharedElements = "shared_elements": KIB..=KIB * KIB, step KIB, tried [4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB], default Source::Always(16 * KIB);
}

/// The values in force.
static VALUES: LazyLock<[AtomicUsize; Knob::ALL.len()]> =
    LazyLock::new(|| Knob::ALL.map(|knob| AtomicUsize::new(knob.default_value())));

impl Knob {
    /// The value in force.
    #[inline]
    pub fn get(self) -> usize {
        VALUES[self as usize].load(Ordering::Relaxed)
    }

    /// As profiles name it.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// What it is.
    pub fn about(self) -> &'static str {
        self.entry().about
    }

    /// The least value and the most.
    pub fn range(self) -> RangeInclusive<usize> {
        self.entry().range
    }

    /// Values are multiples of it.
    pub fn step(self) -> usize {
        self.entry().step
    }

    /// The values that are worth trying.
    pub fn tried(self) -> &'static [usize] {
        self.entry().tried
    }

    /// The value on this CPU where no profile says otherwise.
    pub fn default_value(self) -> usize {
        static VALUES: LazyLock<&[(Knob, usize)]> =
            LazyLock::new(|| measured::family().map_or(&[], |family| family.values));
        let measured = VALUES.iter().find(|(knob, _)| *knob == self);
        measured.map_or_else(|| self.derived_value(), |(_, value)| *value)
    }

    /// The default where nothing is known of this CPU but the sizes of its caches.
    fn derived_value(self) -> usize {
        static SECOND_LEVEL: LazyLock<usize> = LazyLock::new(|| second_level(&caches()));
        self.default_with(*SECOND_LEVEL)
    }

    /// The default beside a second-level cache of so many bytes.
    fn default_with(self, second_level: usize) -> usize {
        let Entry { default, range, step, .. } = self.entry();
        match default {
            Source::Always(value) => value,
            Source::OfSecondLevel(of_one_mib) => {
                // Whatever its size, as much is taken by what else passes through: of a small one that is a larger part.
                const OTHERS: usize = 256 * KIB;
                let beside_others = second_level.saturating_sub(OTHERS);
                let value = (of_one_mib * second_level / MIB)
                    .min(of_one_mib * beside_others / (MIB - OTHERS));
                (value / step * step).clamp(*range.start(), *range.end())
            }
        }
    }

    /// Whether it may have that value.
    ///
    /// # Errors
    ///
    /// What values it may have.
    pub fn check(self, value: usize) -> Result<(), NotAllowed> {
        let is_allowed = self.range().contains(&value) && value.is_multiple_of(self.step());
        if is_allowed { Ok(()) } else { Err(NotAllowed { knob: self, value }) }
    }

    /// What values it may have, in words.
    pub fn allowed(self) -> String {
        let Entry { range, step, .. } = self.entry();
        let multiples = if step == 1 { String::new() } else { format!(", a multiple of {step}") };
        format!("a whole number from {} to {}{multiples}", range.start(), range.end())
    }
}

/// The size that is known, or a usual one.
fn second_level(caches: &[Cache]) -> usize {
    const USUAL: usize = 1 << 20;
    let found = caches.iter().find(|cache| cache.level == 2 && cache.kind != "Instruction");
    found.map_or(USUAL, |cache| cache.bytes as usize)
}

/// The family of CPUs that were measured and that this one is of, if it is: its defaults are what was fastest there.
pub fn measured_family() -> Option<&'static str> {
    measured::family().map(|family| family.name)
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no knob has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no knob {name:?}: expected one of {}", Knob::ALL.map(Knob::name).join(", "))]
pub struct NoKnob {
    name: String,
}

impl FromStr for Knob {
    type Err = NoKnob;

    fn from_str(name: &str) -> Result<Self, NoKnob> {
        let knob = Self::ALL.into_iter().find(|knob| knob.name() == name);
        knob.ok_or_else(|| NoKnob { name: name.to_string() })
    }
}

/// A value that a knob may not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{knob} = {value}: expected {}", knob.allowed())]
pub struct NotAllowed {
    knob: Knob,
    value: usize,
}

/// Values of some knobs; the others have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile(BTreeMap<Knob, usize>);

impl Profile {
    /// What a CPU with this one's caches gets that was not measured, where that is not what this one gets.
    pub fn of_unknown_cpu() -> Self {
        let derived = Knob::ALL.map(|knob| (knob, knob.derived_value()));
        Self(derived.into_iter().filter(|(knob, value)| *value != knob.default_value()).collect())
    }

    /// Gives a knob a value.
    ///
    /// # Errors
    ///
    /// If it may not have it.
    pub fn set(&mut self, knob: Knob, value: usize) -> Result<(), NotAllowed> {
        knob.check(value)?;
        self.0.insert(knob, value);
        Ok(())
    }

    /// The value of a knob: its own, or the default.
    pub fn value(&self, knob: Knob) -> usize {
        self.0.get(&knob).copied().unwrap_or_else(|| knob.default_value())
    }

    /// Gives a knob its default again.
    pub fn unset(&mut self, knob: Knob) {
        self.0.remove(&knob);
    }

    /// The knobs that it has values of, and those.
    pub fn iter(&self) -> impl Iterator<Item = (Knob, usize)> {
        self.0.iter().map(|(knob, value)| (*knob, *value))
    }

    /// Puts its values in force, and the defaults of the other knobs, for all calls in this process that begin from now on. Weights that are already
    /// packed lie where they are.
    pub fn install(&self) {
        for knob in Knob::ALL {
            VALUES[knob as usize].store(self.value(knob), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_what_is_tried_are_allowed() {
        for knob in Knob::ALL {
            for second_level in [0, 256 * KIB, 512 * KIB, 1 << 20, 2 << 20, 1 << 40] {
                assert_eq!(knob.check(knob.default_with(second_level)), Ok(()));
            }
            assert!(knob.tried().iter().all(|value| knob.check(*value).is_ok()), "{knob}");
            assert!(knob.tried().is_sorted() && knob.tried().len() > 1, "{knob}");
            assert_eq!(knob.name().parse(), Ok(knob));
            assert!(!knob.about().is_empty(), "{knob}");
        }
    }

    #[test]
    fn defaults_follow_the_second_level() {
        let of = |second_level| {
            [Knob::ChainCuts, Knob::BrainCuts, Knob::IntegerGroups, Knob::BlockRows]
                .map(|knob| knob.default_with(second_level))
        };
        assert_eq!(of(1 << 20), [4, 6, 3, 144]);
        assert_eq!(of(512 << 10), [1, 2, 1, 144]);
        assert_eq!(of(2 << 20), [8, 12, 6, 144]);
        assert_eq!(second_level(&[]), 1 << 20);
        let cache =
            |level, kind: &str, bytes| Cache { level, kind: kind.into(), bytes, shared_by: 1 };
        let caches = [cache(1, "Data", 1), cache(2, "Instruction", 2), cache(2, "Unified", 3)];
        assert_eq!(second_level(&caches), 3);
    }

    #[test]
    fn an_unknown_cpu_gets_what_its_caches_say() {
        let unknown = Profile::of_unknown_cpu();
        for knob in Knob::ALL {
            assert_eq!(unknown.value(knob), knob.derived_value());
        }
        assert_eq!(unknown.value(Knob::PrefetchLevel), 2);
        assert!(measured_family().is_some() || unknown == Profile::default());
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let mut profile = Profile::default();
        for value in [23, 25, 156, usize::MAX] {
            let error = profile.set(Knob::BlockRows, value).unwrap_err().to_string();
            let expected = "expected a whole number from 24 to 144, a multiple of 12";
            assert_eq!(error, format!("block_rows = {value}: {expected}"));
        }
        assert_eq!(profile, Profile::default());
        assert!("blockrows".parse::<Knob>().unwrap_err().to_string().contains("block_rows, "));
    }
}
