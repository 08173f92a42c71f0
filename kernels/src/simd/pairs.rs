//! Products of bytes on x86 without VNNI: an instruction multiplies unsigned bytes by signed ones and adds each two neighbours to 16 bits,
//! where the sum saturates. Weights of few bits leave room for several sums. Those of eight are multiplied by their size, at most 128, while
//! their sign goes to the activation: by an instruction for signs, or where weights were taken apart for many rows, by an exclusive or.

use super::slices::straight;
use super::{Dots, Simd, Words, WordsOf};

/// Words as pairs of 16 bits.
pub trait Pairs: Words {
    /// As [`Dots::TAKES_APART`].
    const TAKES_APART: bool = false;

    /// The products of unsigned bytes by signed ones, of which each two neighbours are added. They must fit 16 bits.
    fn pairs(self, activations: Self) -> Self;

    /// Bytes that stand for 128 less: how large they are, and words whose bytes have their signs.
    fn sizes_and_signs(self) -> (Self, Self);

    /// Bytes, negated where those of `signs` are negative; anything where those are 0.
    fn with_signs(self, signs: Self) -> Self;

    /// Adds 16 bits to 16 bits.
    fn add_pairs(self, other: Self) -> Self;

    /// Adds each two neighbours of 16 bits, times `factor`, to a sum.
    fn add_to(self, sums: Self, factor: i16) -> Self;

    /// As [`Dots::take_apart`] of these weights.
    #[inline(always)]
    fn take_apart(self, sums: Self) -> ([Self; 2], Self) {
        ([self, self], sums)
    }

    /// As [`Dots::dot_apart`] with these activations.
    #[inline(always)]
    fn dot_apart(self, sums: Self, [weights, _]: [Self; 2]) -> Self {
        dot_by_signs(sums, weights, self)
    }
}

/// As [`Dots::dot_biased`]. Two products are at most `2 * 128 * 127`.
#[inline(always)]
fn dot_by_signs<W: Pairs>(sums: W, weights: W, activations: W) -> W {
    let (sizes, signs) = weights.sizes_and_signs();
    sizes.pairs(activations.with_signs(signs)).add_to(sums, 1)
}

/// Words that multiply pairs of bytes give dot products to their instruction set.
impl<S: Simd<Words: Pairs>> Dots for S {
    type Simd = Self;

    const TAKES_APART: bool = S::Words::TAKES_APART;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn apart<R>(self, kernel: impl FnOnce() -> R) -> R {
        Simd::apart(self, kernel)
    }

    #[inline(always)]
    fn dot_small(self, sums: S::Words, weights: S::Words, activations: S::Words) -> S::Words {
        // Two products are at most 2 * 63 * 127.
        weights.pairs(activations).add_to(sums, 1)
    }

    #[inline(always)]
    fn dot_biased(self, sums: S::Words, weights: S::Words, activations: S::Words) -> S::Words {
        dot_by_signs(sums, weights, activations)
    }

    #[inline(always)]
    fn take_apart(self, sums: S::Words, weights: S::Words) -> ([S::Words; 2], S::Words) {
        weights.take_apart(sums)
    }

    #[inline(always)]
    fn dot_apart(self, sums: S::Words, weights: [S::Words; 2], activations: S::Words) -> S::Words {
        activations.dot_apart(sums, weights)
    }

    #[inline(always)]
    fn dots<const BITS: u32, const G: usize, const N: usize, const R: usize>(
        self,
        weights: impl Fn(usize, usize) -> S::Words,
        activations: [&[i32; G]; R],
        sums: &mut [[S::Words; N]; R],
    ) {
        pairs_of_bytes::<_, BITS, G, N, R>(self, weights, activations, sums);
    }

    #[inline(always)]
    fn biased_start(self, _activations: i32) -> i32 {
        0
    }
}

/// As [`Dots::dots`].
#[inline(always)]
fn pairs_of_bytes<D, const BITS: u32, const G: usize, const N: usize, const R: usize>(
    dots: D,
    weights: impl Fn(usize, usize) -> WordsOf<D>,
    activations: [&[i32; G]; R],
    sums: &mut [[WordsOf<D>; N]; R],
) where
    D: Dots<Simd: Simd<Words: Pairs>>,
{
    let simd = dots.simd();
    let mut local = *sums;
    let at_once = const { groups_at_once(BITS) };
    const { assert!(G.is_multiple_of(groups_at_once(BITS))) };
    let mut first = 0;
    while first + at_once <= G {
        if const { BITS == 8 } {
            straight!(g in first, groups_at_once(BITS), of 8 => for n in 0..N {
                let (sizes, signs) = weights(n, g).sizes_and_signs();
                for r in 0..R {
                    let activations = simd.splat_words(activations[r][g]);
                    let products = sizes.pairs(activations.with_signs(signs));
                    local[r][n] = products.add_to(local[r][n], 1);
                }
            });
        } else {
            let mut pairs = [[simd.splat_words(0); N]; R];
            straight!(g in first, groups_at_once(BITS), of 8 => for n in 0..N {
                let group = weights(n, g);
                for r in 0..R {
                    let activations = simd.splat_words(activations[r][g]);
                    pairs[r][n] = pairs[r][n].add_pairs(group.pairs(activations));
                }
            });
            for r in 0..R {
                for n in 0..N {
                    local[r][n] = pairs[r][n].add_to(local[r][n], 1);
                }
            }
        }
        first += at_once;
    }
    *sums = local;
}

/// How many groups, a power of two, are taken at once: as many as there is room for in 16 bits, where two products of weights of so many bits are at most
/// 254 times the largest. Products of eight bits have none for a second one; four groups a turn of the loop are enough there.
const fn groups_at_once(bits: u32) -> usize {
    let room: usize = 32767 / (254 * ((1 << bits) - 1));
    match room {
        0 => 4,
        1..8 => 1 << room.ilog2(),
        _ => 8,
    }
}
