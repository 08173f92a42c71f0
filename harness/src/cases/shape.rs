//! The sizes of a case: what they may be, and how they are drawn.

use std::fmt;

use proptest::sample::select;
use proptest::strategy::{BoxedStrategy, Strategy, Union};

use super::Op;

/// The largest size of a case: more than any that is checked.
pub(super) const MOST: usize = 1 << 24;

/// The most products that a case of an operation takes: more than any that is checked.
const MOST_PRODUCTS: usize = 1 << 26;

/// One of the sizes of an operation, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// What it is a size of.
    pub name: &'static str,
    least: usize,
    most: usize,
    /// What it is a multiple of.
    unit: usize,
}

impl Dimension {
    /// A size between two, both included.
    pub const fn between(name: &'static str, least: usize, most: usize) -> Self {
        Self { name, least, most, unit: 1 }
    }

    /// Any size, even none.
    pub const fn any(name: &'static str) -> Self {
        Self::between(name, 0, MOST)
    }

    /// At least one.
    pub const fn positive(name: &'static str) -> Self {
        Self::between(name, 1, MOST)
    }

    /// No or yes.
    pub const fn flag(name: &'static str) -> Self {
        Self::between(name, 0, 1)
    }

    /// Which one of several.
    pub const fn choice(name: &'static str, count: usize) -> Self {
        Self::between(name, 0, count - 1)
    }

    /// A multiple of `unit` up to `most`.
    pub const fn multiple(name: &'static str, unit: usize, most: usize) -> Self {
        Self { name, least: unit, most, unit }
    }

    /// Whether it may be `size`.
    pub fn takes(&self, size: usize) -> bool {
        (self.least..=self.most).contains(&size) && size.is_multiple_of(self.unit)
    }
}

impl fmt::Display for Dimension {
    /// What it may be: `1 to 8`, or `a multiple of 16 up to 128`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { least, most, unit: 1, .. } => write!(f, "{least} to {most}"),
            Self { most, unit, .. } => write!(f, "a multiple of {unit} up to {most}"),
        }
    }
}

/// The sizes of a case, one for each of its operation's dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub(super) Vec<usize>);

impl Shape {
    /// As many sizes as an operation has dimensions.
    pub(crate) fn new(sizes: Vec<usize>) -> Self {
        Self(sizes)
    }

    /// The sizes, as many as there are dimensions.
    pub(crate) fn sizes<const N: usize>(&self) -> [usize; N] {
        self.0[..].try_into().expect("a shape has a size for every dimension")
    }

    /// The shape with the names of its dimensions, such as `rows=3,width=17`.
    pub fn display(&self, op: &Op) -> impl fmt::Display {
        assert_eq!(self.0.len(), op.dimensions.len(), "{}: as many sizes as dimensions", op.name);
        let sizes = op.dimensions.iter().zip(&self.0);
        let sizes = sizes.map(|(dimension, size)| format!("{}={size}", dimension.name));
        sizes.collect::<Vec<_>>().join(",")
    }

    /// Whether a case whose sizes are all multiplied is small enough.
    ///
    /// # Errors
    ///
    /// If it is too large.
    pub fn is_affordable(&self) -> Result<(), String> {
        affordable(&self.0)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Self(sizes.into())
    }
}

/// Whether a case that multiplies these sizes is small enough: an error says how large it may be.
pub(super) fn affordable(sizes: &[usize]) -> Result<(), String> {
    let products = sizes.iter().fold(1_usize, |product, &size| product.saturating_mul(size.max(1)));
    at_most(MOST_PRODUCTS, "the number of products", products)
}

/// Whether a number is small enough: an error says how large it may be.
pub(super) fn at_most(most: usize, what: &str, found: usize) -> Result<(), String> {
    match found <= most {
        true => Ok(()),
        false => Err(format!("{what} is {found}: expected at most {most}")),
    }
}

/// How one size is drawn.
pub(super) type Sizes = BoxedStrategy<usize>;

/// Any shape whose sizes are drawn independently.
pub(super) fn shapes<const N: usize>(sizes: [Sizes; N]) -> BoxedStrategy<Shape> {
    sizes.prop_map(Shape::from).boxed()
}

/// One of several kinds of shapes, each with its weight; shrinks towards the first.
pub(super) fn one_of(
    kinds: impl IntoIterator<Item = (u32, BoxedStrategy<Shape>)>,
) -> BoxedStrategy<Shape> {
    Union::new_weighted(kinds.into_iter().collect()).boxed()
}

/// A size between two, both included.
pub(super) fn between(least: usize, most: usize) -> Sizes {
    (least..=most).boxed()
}

/// One of some sizes.
pub(super) fn among(sizes: &'static [usize]) -> Sizes {
    select(sizes).boxed()
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::cases::OPS;

    /// What is checked must be among what is said to be possible.
    #[test]
    fn shapes_that_are_checked_fit() {
        let mut runner = TestRunner::deterministic();
        for op in OPS {
            let mut drawn =
                || (op.drawn_shapes)().new_tree(&mut runner).expect("a shape").current();
            let drawn: Vec<Shape> = (0..500).map(|_| drawn()).collect();
            for shape in (op.fixed_shapes)().into_iter().chain(drawn) {
                let text = shape.display(op).to_string();
                assert_eq!(op.shape(&text), Ok(shape), "{}", op.name);
            }
        }
    }
}
