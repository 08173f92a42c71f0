//! The list of operations under test. Whoever tests, times or lists operations goes through it.

use std::ops::Range;

use half::f16;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{WeightFormat, blocks};
use proptest::strategy::BoxedStrategy;

use crate::buffer::Buffer;
use crate::compare::Errors;
use crate::data::Data;
use crate::fill::Fill;
use crate::golden::widen;
use crate::kernels::Kernels;
use crate::oracle::expected::Expected;
use crate::plan::Check;

mod add_scaled;
mod argmax;
mod attention;
mod element_wise;
mod embedding;
mod linear;
mod model;
mod rms_norm;
mod rope;
mod route;
mod shape;
mod shift_sum;
mod short_conv;
mod softmax;

pub use self::shape::{Dimension, Shape};
use self::shape::{Sizes, affordable, among, at_most, between, one_of, shapes};

/// Every operation, in every format of weights or cache.
pub const OPS: &[Op] = &[
    embedding::F32,
    embedding::F16,
    embedding::BF16,
    embedding::Q8_0,
    embedding::Q4_0,
    embedding::Q4_1,
    embedding::Q5_0,
    embedding::Q5_1,
    embedding::Q4_K,
    embedding::Q5_K,
    embedding::Q6_K,
    rms_norm::OP,
    linear::F32,
    linear::F16,
    linear::BF16,
    linear::BF16_BF16,
    linear::Q8_0,
    linear::Q8_0_INT8,
    linear::Q4_0,
    linear::Q4_0_INT8,
    linear::Q4_1,
    linear::Q4_1_INT8,
    linear::Q5_0,
    linear::Q5_0_INT8,
    linear::Q5_1,
    linear::Q5_1_INT8,
    linear::Q4_K,
    linear::Q4_K_INT8,
    linear::Q5_K,
    linear::Q5_K_INT8,
    linear::Q6_K,
    linear::Q6_K_INT8,
    rope::OP,
    softmax::OP,
    softmax::EXP,
    attention::F32,
    attention::F16,
    short_conv::OP,
    shift_sum::TIME,
    shift_sum::FEATURE,
    element_wise::SILU_MULTIPLY,
    element_wise::SILU,
    element_wise::ADD,
    element_wise::MULTIPLY,
    add_scaled::OP,
    argmax::OP,
    route::OP,
    model::OP,
    model::WITH_EXPERTS,
    model::QUANTISED,
];

/// An operation: how its cases are drawn and made.
#[derive(Clone, Copy)]
pub struct Op {
    /// The name of its function, and of its format where there are several.
    pub name: &'static str,
    /// The format of its weights or cache, which ends its name, where there are several.
    pub format: Option<&'static str>,
    /// The checks that its results go through besides bits, threads and hashes, which all do.
    pub checks: &'static [Check],
    /// What the sizes of a shape are, in order, and what each may be.
    pub dimensions: &'static [Dimension],
    /// Whether sizes that are right one by one are so together: an error says what is wrong, and what would be right.
    pub fit_together: fn(&Shape) -> Result<(), String>,
    /// Shapes that every run takes, simplest first: each tail of the lanes, the edges of tiles and blocks.
    pub fixed_shapes: fn() -> Vec<Shape>,
    /// Shapes to draw from, among them long ones; they shrink towards the simplest.
    pub drawn_shapes: fn() -> BoxedStrategy<Shape>,
    /// Makes the inputs of a case.
    pub make: fn(&Shape, Data) -> Box<dyn Case>,
}

impl Op {
    /// The operation of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        OPS.iter().find(|op| op.name == name)
    }

    /// Its name without the format.
    pub fn family(&self) -> &'static str {
        let end = self.format.map_or(0, |format| format.len() + 1);
        &self.name[..self.name.len() - end]
    }

    /// The shape that `text` names, such as `rows=3,width=17`.
    ///
    /// # Errors
    ///
    /// If the operation takes no such sizes.
    pub fn shape(&self, text: &str) -> Result<Shape, ShapeError> {
        let &Self { name: op, dimensions, .. } = self;
        let malformed = || ShapeError::Names { found: text.into(), op, dimensions };
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() != dimensions.len() {
            return Err(malformed());
        }
        let mut sizes = Vec::new();
        for (dimension, part) in dimensions.iter().zip(parts) {
            let (name, size) = part.split_once('=').ok_or_else(malformed)?;
            if name != dimension.name {
                return Err(malformed());
            }
            let size = size.parse().ok().filter(|&size| dimension.takes(size));
            let expected = *dimension;
            sizes.push(size.ok_or_else(|| ShapeError::Size {
                found: part.into(),
                op,
                expected,
            })?);
        }
        let shape = Shape::new(sizes);
        match (self.fit_together)(&shape) {
            Ok(()) => Ok(shape),
            Err(reason) => Err(ShapeError::Together { found: text.into(), op, reason }),
        }
    }
}

/// Why a text is no shape of an operation.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Other sizes than the operation's.
    #[error("shape {found:?}: {op} has {}", dimensions.iter().map(|it| format!("{}=N", it.name)).collect::<Vec<_>>().join(","))]
    Names {
        /// What was given.
        found: String,
        /// Of which operation.
        op: &'static str,
        /// Its dimensions.
        dimensions: &'static [Dimension],
    },
    /// A size that the operation cannot take.
    #[error("{found}: {op} takes {expected}")]
    Size {
        /// What was given.
        found: String,
        /// Of which operation.
        op: &'static str,
        /// What it takes.
        expected: Dimension,
    },
    /// Sizes that the operation cannot take together.
    #[error("shape {found:?}: {op}: {reason}")]
    Together {
        /// What was given.
        found: String,
        /// Of which operation.
        op: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// An operation's inputs, ready to run.
pub trait Case: Sync {
    /// Runs the operation: everything that it writes, states as well.
    fn run(&self, kernels: &Kernels, isa: Isa) -> Vec<Output>;

    /// What the oracle expects of each output, in the order of [`run`](Self::run); nothing if it judges the [whole](Self::judge_whole).
    /// Asked for infinities and NaN only where [`Check::NonFinite`] is one of the operation's.
    fn expected(&self) -> Vec<Vec<Expected>>;

    /// The same case with its numbers where `data` says, if there is a shorter way to it than to make it again.
    fn moved(&self, _data: Data) -> Option<Box<dyn Case>> {
        None
    }

    /// Another way to some of the outputs, which must give the same bits. Nothing, unless [`Check::OtherWay`] is one of the operation's.
    fn run_another_way(&self, _kernels: &Kernels, _isa: Isa) -> Vec<Output> {
        Vec::new()
    }

    /// What that way is called.
    fn other_way(&self) -> &'static str {
        "one row at a time"
    }

    /// What the oracle says of outputs that have no bounds one by one.
    ///
    /// # Errors
    ///
    /// If they are wrong.
    fn judge_whole(&self, _outputs: &[Output]) -> Result<Errors, String> {
        Ok(Errors::default())
    }

    /// How many of the rows of a result depend on one input alone, and of how many: a softmax of 1 and zeros, for instance.
    fn saturated_rows(&self, _outputs: &[Output]) -> [usize; 2] {
        [0, 0]
    }
}

/// One thing that an operation writes.
pub struct Output {
    /// What it is.
    pub name: &'static str,
    /// What was written.
    pub values: Buffer,
}

impl Output {
    pub(crate) fn new(name: &'static str, values: Buffer) -> Self {
        Self { name, values }
    }

    /// The results of an operation that returns them instead of writing to a slice of the case's.
    fn returned(name: &'static str, values: &[f32]) -> Self {
        Self { name, values: values.into() }
    }
}

/// Weights in the format under test.
struct Weights {
    /// As stored.
    bytes: Vec<u8>,
    /// As numbers: what the oracle sees.
    widened: Vec<f32>,
}

impl Weights {
    /// Rounds `values` to a format that stores weights one by one.
    fn new(format: WeightFormat, values: &[f32]) -> Self {
        let bytes = blocks::encode(format, values);
        Self { widened: widen(format, &bytes), bytes }
    }

    /// Blocks of any bits, whose scales and minimums are numbers of the case's fill: all quants occur, the extreme ones too.
    fn blocks(format: WeightFormat, data: Data, name: &str, count: usize) -> Self {
        let (size, bits) = (format.block_bytes(), data.stream(name));
        // Where weights of one format have halves, and finer scales.
        let (halves, fine): (&[usize], Range<usize>) = match format {
            WeightFormat::Q4_1 | WeightFormat::Q5_1 => (&[0, 2], 0..0),
            WeightFormat::Q4K | WeightFormat::Q5K => (&[0, 2], 4..16),
            WeightFormat::Q6K => (&[208], 192..208),
            _ => (&[0], 0..0),
        };
        let scales = data.stream(&format!("{name} scales"));
        let mut bytes: Vec<u8> =
            (0..count * size).map(|i| bits.bits(i as u64 ^ 1 << 40) as u8).collect();
        for (i, block) in bytes.chunks_exact_mut(size).enumerate() {
            match data.fill {
                // Small finer scales, so that sums stay exact.
                Fill::Integers => block[fine.clone()].iter_mut().for_each(|byte| *byte &= 3),
                // All quants alike, and often extreme.
                Fill::Constant => {
                    let byte = [0, 0xFF, 0x80, 0x7F, bits.bits(0) as u8][bits.below(1, 5)];
                    block.fill(byte);
                }
                // Neighbours alike, so that activations that cancel do so in the sum.
                Fill::Cancelling if halves.len() == 1 => {
                    for pair in block.as_chunks_mut::<2>().0 {
                        pair[1] = pair[0];
                    }
                }
                _ => (),
            }
            for (half, &at) in halves.iter().enumerate() {
                let value = f16::from_f32(data.fill.value(scales, i * halves.len() + half));
                block[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
        }
        Self { widened: widen(format, &bytes), bytes }
    }
}

/// Exactly `values`.
fn exactly(values: &[f32]) -> Vec<Expected> {
    values.iter().map(|&value| Expected { value: f64::from(value), bound: 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use rustix::param::page_size;

    use super::*;
    use crate::buffer::Place;
    use crate::case_line::Plan;
    use crate::compare::equal_bits;
    use crate::plan::{Depth, fixed_plans};

    #[test]
    fn names_are_unique() {
        for (i, op) in OPS.iter().enumerate() {
            assert!(OPS[..i].iter().all(|other| other.name != op.name), "{} twice", op.name);
        }
    }

    #[test]
    fn a_format_ends_the_name() {
        for op in OPS {
            match op.format {
                Some(format) => assert_eq!(op.name, format!("{}_{format}", op.family())),
                None => assert_eq!(op.name, op.family()),
            }
        }
    }

    /// A check that an operation could go through must not be left out of its list.
    #[test]
    fn another_way_is_promised_where_there_is_one() {
        for op in OPS {
            let plan = fixed_plans(op, Depth::Quick).swap_remove(2);
            let case = (op.make)(&plan.shape, plan.data());
            let has_other_way = !case.run_another_way(&Kernels::OURS, Isa::best()).is_empty();
            assert_eq!(op.checks.contains(&Check::OtherWay), has_other_way, "{}", op.name);
        }
    }

    /// A case that is moved lies where it was moved to, and gives what one gives that is made there.
    #[test]
    fn a_moved_case_is_the_one_that_would_be_made() {
        let isa = Isa::best();
        let mut count = 0;
        for op in OPS {
            let plans = fixed_plans(op, Depth::Quick);
            let guarded = plans.into_iter().find(|plan| plan.place == Place::GuardedEnd);
            let plan = guarded.expect("each shape runs in guarded memory");
            let make = |plan: &Plan| (op.make)(&plan.shape, plan.data());
            let ordinary = Plan { place: Place::Ordinary, ..plan.clone() };
            let Some(moved) = make(&ordinary).moved(plan.data()) else { continue };
            let made = make(&plan);
            let runs = [moved.run(&Kernels::OURS, isa), made.run(&Kernels::OURS, isa)];
            let ways = [&moved, &made].map(|case| case.run_another_way(&Kernels::OURS, isa));
            for [moved, made] in [&runs, &ways] {
                assert_eq!(moved.len(), made.len(), "{}", op.name);
                for (moved, made) in moved.iter().zip(made) {
                    assert_eq!(moved.name, made.name);
                    equal_bits(&made.values, &moved.values).expect(op.name);
                }
            }
            let end = runs[0][0].values.as_ptr_range().end as usize;
            assert!(end.is_multiple_of(page_size()), "{}", op.name);
            count += 1;
        }
        assert!(count > 0, "no case can be moved");
    }

    /// Every tail of the lanes is among the shapes that every run takes.
    #[test]
    fn every_tail_is_covered() {
        for op in OPS {
            let shapes = (op.fixed_shapes)();
            let covered = (0..op.dimensions.len()).any(|dimension| {
                (1..=2 * lfm2_kernels::simd::LANES)
                    .all(|tail| shapes.iter().any(|shape| shape.0[dimension] == tail))
            });
            assert!(covered || op.name.starts_with("attention"), "{}", op.name);
        }
    }
}
