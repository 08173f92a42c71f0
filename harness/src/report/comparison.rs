//! The same work on one instruction set against another, in one format against another, on one thread against several.

use std::collections::BTreeMap;

use lfm2_kernels::simd::ISA_NAMES;
use serde::{Deserialize, Serialize};

use super::id::Id;
use super::measurement::Measurement;

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The instruction set.
    Isa,
    /// The format.
    Format,
    /// The number of threads.
    Threads,
}

/// Cases that differ in one thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// In what.
    pub by: By,
    /// What they have in common: their ids with `*` for what differs.
    pub common: String,
    /// Those with which there is nothing to compare first.
    pub entries: Vec<Compared>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// What is its own.
    pub name: String,
    /// How long it takes.
    pub seconds: f64,
    /// How many times as fast as the first it is.
    pub times_as_fast: f64,
}

impl By {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Isa, Self::Format, Self::Threads];

    /// What is the case's own, and its place among others.
    fn own(self, id: &Id) -> (usize, String) {
        let at = |names: &[&str], name: &str| {
            names.iter().position(|known| *known == name).unwrap_or(names.len())
        };
        match self {
            Self::Isa => (at(&ISA_NAMES, &id.isa), id.isa.clone()),
            Self::Format => (at(&["f32", "bf16", "f16"], &id.format), id.format.clone()),
            Self::Threads => (id.threads, id.threads.to_string()),
        }
    }

    fn common(self, id: &Id) -> String {
        let Id { op, isa, format, shape, threads } = id;
        match self {
            Self::Isa => format!("{op}/*/{format}/{shape}/{threads}"),
            Self::Format => format!("{op}/{isa}/*/{shape}/{threads}"),
            Self::Threads => format!("{op}/{isa}/{format}/{shape}/*"),
        }
    }
}

/// Every comparison that the measurements allow, whole models first, then layers, then operations.
pub fn of(measurements: &[Measurement]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for by in By::ALL {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for measurement in measurements {
            let id = &measurement.id;
            let order = ["model", "conv_layer", "attention_layer"];
            let order = order.iter().position(|op| *op == id.op).unwrap_or(order.len());
            let key = (order, by.common(id));
            let entry = (by.own(id), measurement.time.seconds);
            groups.entry(key).or_default().push(entry);
        }
        for ((_, common), mut group) in groups {
            if group.len() < 2 {
                continue;
            }
            group.sort_by(|a, b| a.0.cmp(&b.0));
            let first = group[0].1;
            let entry =
                |((_, name), seconds)| Compared { name, seconds, times_as_fast: first / seconds };
            let entries = group.into_iter().map(entry).collect();
            comparisons.push(Comparison { by, common, entries });
        }
    }
    comparisons
}
