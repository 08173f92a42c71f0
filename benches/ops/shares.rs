//! Linear layers as a share of what the CPU can do at most: both in turn, so that a disturbance meets both.

use std::time::Duration;

use lfm2_benches::operations::{
    BF16, BF16_BF16, F32, FEED_FORWARD_WIDTH, HEAD, HEAD_DIM, KEY_VALUE_HEADS, Q4_0, Q8_0, ROWS,
    SHAPES, WIDTH, linear_case,
};
use lfm2_benches::{Case, Options, Spread, Stored, Weights, ceiling, counted};
use rayon::current_num_threads;
use serde::Serialize;

/// How often a token of the 350M goes through layers of each shape: in ten conv layers, six attention layers and sixteen feed-forwards.
const TIMES: [(usize, [usize; 2]); 6] = [
    (10, [3 * WIDTH, WIDTH]),
    (10 + 2 * 6, [WIDTH, WIDTH]),
    (2 * 6, [KEY_VALUE_HEADS * HEAD_DIM, WIDTH]),
    (2 * 16, [FEED_FORWARD_WIDTH, WIDTH]),
    (16, [WIDTH, FEED_FORWARD_WIDTH]),
    (1, HEAD),
];

/// How near a linear layer comes to a ceiling.
#[derive(Serialize)]
pub struct Share {
    isa: &'static str,
    format: &'static str,
    shape: String,
    of: Ceiling,
    ceiling: Spread,
    reached: Spread,
    /// The ratio of the medians, and the spread of the ratios of neighbours in time.
    percent: Spread,
}

/// What keeps a linear layer from being faster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ceiling {
    MultiplyAdd,
    BrainDot,
    Read,
}

/// A linear layer that is held against its ceiling.
#[derive(Clone, Copy)]
struct Trial {
    stored: Stored,
    shape: [usize; 2],
    rows: usize,
}

impl Trial {
    const PROMPT: [Stored; 4] = [F32, BF16_BF16, Q8_0, Q4_0];
    const DECODED: [Stored; 5] = [F32, BF16, BF16_BF16, Q8_0, Q4_0];

    fn all() -> Vec<Self> {
        let [prompt, decoded] = ROWS;
        let mut trials = Vec::new();
        for shape in SHAPES {
            trials.extend(Self::PROMPT.map(|stored| Self { stored, shape, rows: prompt }));
        }
        for stored in Self::DECODED {
            let shapes = SHAPES.into_iter().chain([HEAD]);
            trials.extend(shapes.map(|shape| Self { stored, shape, rows: decoded }));
        }
        trials
    }

    /// Its cases on the instruction sets on which it is asked for.
    fn cases<'a>(&self, options: &Options, weights: &'a Weights) -> Vec<Case<'a>> {
        let Self { stored, shape, rows } = *self;
        let isas = options.fast_isas().into_iter();
        let cases = isas.map(|isa| linear_case(isa, stored, shape, rows, weights));
        cases.filter(|case| options.matches(&case.id())).collect()
    }

    fn ceiling(&self) -> Ceiling {
        match *self {
            Self { rows: 1, .. } => Ceiling::Read,
            Self { stored: BF16_BF16, .. } => Ceiling::BrainDot,
            _ => Ceiling::MultiplyAdd,
        }
    }
}

/// About how long [`measure`] takes.
pub fn expected(options: &Options) -> Duration {
    const EACH: Duration = Duration::from_millis(600);
    let weights = Weights::default();
    let count: usize = Trial::all().iter().map(|trial| trial.cases(options, &weights).len()).sum();
    EACH * count as u32
}

/// Linear layers and their ceilings in turn.
pub fn measure(options: &Options, memory: &[f32]) -> Vec<Share> {
    let weights = Weights::default();
    let mut shares = Vec::new();
    for trial in Trial::all() {
        let cases = trial.cases(options, &weights);
        shares.extend(cases.iter().map(|case| trial.share(case, &weights, memory)));
    }
    let isas = options.fast_isas();
    for stored in Trial::DECODED {
        let together: Vec<_> =
            isas.iter().filter_map(|isa| of_a_token(stored, isa.name(), &shares)).collect();
        shares.extend(together);
    }
    let place = |name| isas.iter().position(|isa| isa.name() == name);
    shares.sort_by_key(|share| (share.of, place(share.isa)));
    shares
}

/// All linear layers that a decoded token goes through, one after another; `None` unless each was measured.
fn of_a_token(stored: Stored, isa: &'static str, shares: &[Share]) -> Option<Share> {
    let layers = TIMES.map(|(times, [outputs, inputs])| {
        let key = (isa, stored.name(), format!("1x{outputs}x{inputs}"));
        let is_it =
            |share: &&Share| (share.isa, share.format, &share.shape) == (key.0, key.1, &key.2);
        let bytes = (times * stored.format.bytes(outputs * inputs)) as f64;
        Some((bytes, shares.iter().find(is_it)?))
    });
    let layers: Vec<_> = layers.into_iter().collect::<Option<_>>()?;
    let bytes: f64 = layers.iter().map(|(bytes, _)| bytes).sum();
    let together = |rate: &dyn Fn(&Share) -> f64| {
        bytes / layers.iter().map(|(bytes, share)| bytes / rate(share)).sum::<f64>()
    };
    let spread = |of: fn(&Share) -> Spread| Spread {
        low: together(&|share| of(share).low),
        median: together(&|share| of(share).median),
        high: together(&|share| of(share).high),
    };
    Some(Share {
        isa,
        format: stored.name(),
        shape: "all of a token".to_string(),
        of: Ceiling::Read,
        ceiling: spread(|share| share.ceiling),
        reached: spread(|share| share.reached),
        percent: spread(|share| share.percent),
    })
}

impl Trial {
    /// Takes turns with the ceiling.
    fn share(&self, case: &Case, weights: &Weights, memory: &[f32]) -> Share {
        let Self { stored, shape: [outputs, inputs], rows } = *self;
        let (of, isa) = (self.ceiling(), case.isa);
        let copies = weights.get(stored, self.shape);
        // All of the weights are read between two looks at memory; a prompt takes long enough by itself.
        let (rounds, runs) = if of == Ceiling::Read { (9, copies.len()) } else { (21, 1) };
        let work = match of {
            Ceiling::Read => runs * copies[0].bytes(),
            _ => 2 * rows * outputs * inputs,
        };
        let mut workload = (case.prepare)();
        let mut seconds = || case.time(&mut *workload, runs as u64).as_secs_f64();
        let ceiling = || match of {
            Ceiling::MultiplyAdd => ceiling::multiply_add(isa),
            Ceiling::BrainDot => ceiling::brain_dot(isa),
            Ceiling::Read => ceiling::read(isa, memory),
        };
        let (mut ceilings, mut reached) = (Vec::new(), Vec::new());
        seconds();
        for _ in 0..rounds {
            ceilings.push(ceiling());
            reached.push(work as f64 / seconds());
        }
        let neighbours = reached.iter().zip(&ceilings).map(|(reached, ceiling)| reached / ceiling);
        let ratios = Spread::of(neighbours.map(|ratio| 100.0 * ratio).collect());
        let (ceiling, reached) = (Spread::of(ceilings), Spread::of(reached));
        Share {
            isa: isa.name(),
            format: stored.name(),
            shape: case.shape.clone(),
            of,
            percent: Spread { median: 100.0 * reached.median / ceiling.median, ..ratios },
            ceiling,
            reached,
        }
    }
}

impl Ceiling {
    const ALL: [Self; 3] = [Self::MultiplyAdd, Self::BrainDot, Self::Read];

    fn title(self) -> &'static str {
        match self {
            Self::MultiplyAdd => "a prompt's linear layers, of the multiply-add peak",
            Self::BrainDot => "a prompt's linear layers, of the peak of bf16 products",
            Self::Read => "a decoded token's linear layers, of the bandwidth of reading memory",
        }
    }

    fn unit(self) -> &'static str {
        if self == Self::Read { "GB/s" } else { "Gflop/s" }
    }
}

/// Prints a table for each ceiling.
pub fn print(shares: &[Share]) {
    for of in Ceiling::ALL {
        let shares: Vec<_> = shares.iter().filter(|share| share.of == of).collect();
        if shares.is_empty() {
            continue;
        }
        println!("\n{}, {}", of.title(), counted(current_num_threads(), "thread"));
        println!(
            "{:13}{:11}{:16}{:>10}{:>10}{:>10}{:>16}",
            "",
            "format",
            "shape",
            of.unit(),
            "ceiling",
            "percent",
            "middle half"
        );
        shares.into_iter().for_each(Share::print);
    }
}

impl Share {
    fn print(&self) {
        let Self { isa, format, shape, ceiling, reached, percent, of } = self;
        let half = format!("{:.0} to {:.0}", percent.low, percent.high);
        // Integers have more multipliers than floats: the peak is a yardstick for them.
        let is_ceiling = *of == Ceiling::Read || !format.ends_with("int8");
        let note = match percent.median > 100.0 && is_ceiling {
            true => "  harness error: the ceiling is not one",
            false => "",
        };
        println!(
            "{isa:13}{format:11}{shape:16}{:>10.1}{:>10.1}{:>8.0} %{half:>16}{note}",
            reached.median / 1e9,
            ceiling.median / 1e9,
            percent.median,
        );
    }
}
