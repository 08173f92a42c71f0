//! Walks slices sixteen lanes at a time, so that kernels never see a tail.

use super::{LANES, Lanes, Simd};
use crate::fault;

/// Marks a closure `#[inline(always)]`: see the hazard in [`crate::simd`].
macro_rules! inlined {
    ($($closure:tt)*) => {
        #[inline(always)]
        $($closure)*
    };
}
pub(crate) use inlined;

/// Evaluates `$body` for each of `$count` indices from `$first` on, at most 4, 8 or 12, one after another.
///
/// The compiler does not unroll every loop of known length, and one that stores registers it may take for the copy of an array, which puts them all
/// into memory first.
macro_rules! straight {
    ($i:ident in $first:expr, $count:expr, of 4 => $body:expr) => {
        straight!(@ $i, $first, $count, $body; 0 1 2 3)
    };
    ($i:ident in $first:expr, $count:expr, of 8 => $body:expr) => {
        straight!(@ $i, $first, $count, $body; 0 1 2 3 4 5 6 7)
    };
    ($i:ident in $first:expr, $count:expr, of 12 => $body:expr) => {
        straight!(@ $i, $first, $count, $body; 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $i:ident, $first:expr, $count:expr, $body:expr; $($offset:literal)*) => {{
        const { assert!($count <= [$($offset),*].len()) };
        $(if const { $offset < $count } {
            let $i = $first + $offset;
            $body;
        })*
    }};
}
pub(crate) use straight;

/// Folds `x` into two sets of sixteen lanes, element `i` into lane `i mod 32`, and combines the sets.
///
/// `x` is padded with `identity`.
#[inline(always)]
pub fn fold<S: Simd>(
    simd: S,
    x: &[f32],
    identity: f32,
    step: impl Fn(S::Lanes, S::Lanes) -> S::Lanes,
    combine: impl Fn(S::Lanes, S::Lanes) -> S::Lanes,
) -> S::Lanes {
    let (pairs, tail) = x.as_chunks::<{ 2 * LANES }>();
    let mut first = simd.splat(identity);
    let mut second = first;
    for pair in pairs {
        let (low, high) = halves(pair);
        first = step(first, simd.load(low));
        second = step(second, simd.load(high));
    }
    if !tail.is_empty() {
        let padding = fault!(TailPaddedWithOnes: 1.0, else identity);
        let mut padded = [padding; 2 * LANES];
        padded[..tail.len()].copy_from_slice(tail);
        let (low, high) = halves(&padded);
        first = step(first, simd.load(low));
        second = step(second, simd.load(high));
    }
    combine(first, second)
}

#[inline(always)]
fn halves(pair: &[f32; 2 * LANES]) -> (&[f32; LANES], &[f32; LANES]) {
    let (halves, _) = pair.as_chunks::<LANES>();
    (&halves[0], &halves[1])
}

/// The first sixteen elements of `from`; where it has fewer, the missing lanes hold 0.
#[inline(always)]
pub fn read<S: Simd>(simd: S, from: &[f32]) -> S::Lanes {
    match from.first_chunk() {
        Some(chunk) => simd.load(chunk),
        None => simd.load_partial(from, 0.0),
    }
}

/// Writes the first sixteen elements of `to`, or all where it has fewer.
#[inline(always)]
pub fn write<L: Lanes>(lanes: L, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(chunk) => lanes.store(chunk),
        None => lanes.store_partial(to),
    }
}

/// Sixteen lanes at a time that long chains of operations take: see [`exp`](super::math::exp).
pub const AT_ONCE: usize = 4;

/// Replaces each element of `x` by `f` of it, `N` times sixteen at a time.
#[inline(always)]
pub fn map_in_place<S: Simd, const N: usize>(
    simd: S,
    x: &mut [f32],
    f: impl Fn([S::Lanes; N]) -> [S::Lanes; N],
) {
    let (blocks, tail) = split(x);
    for block in blocks {
        store_each(f(load_each(simd, block)), block);
    }
    if !tail.is_empty() {
        write_each(f(read_each(simd, tail)), tail);
    }
}

/// Replaces each element of `x` by `f` of it and its partner in `y`, `N` times sixteen at a time.
#[inline(always)]
pub fn zip_in_place<S: Simd, const N: usize>(
    simd: S,
    x: &mut [f32],
    y: &[f32],
    f: impl Fn([S::Lanes; N], [S::Lanes; N]) -> [S::Lanes; N],
) {
    let (blocks, tail) = split(x);
    let (y_blocks, _) = y.as_chunks().0.as_chunks();
    for (block, y) in blocks.iter_mut().zip(y_blocks) {
        store_each(f(load_each(simd, block), load_each(simd, y)), block);
    }
    if !tail.is_empty() {
        let y_tail = &y[y.len() - tail.len()..];
        write_each(f(read_each(simd, tail), read_each(simd, y_tail)), tail);
    }
}

/// Blocks of `N` times sixteen elements, and what is left.
#[inline(always)]
fn split<const N: usize>(x: &mut [f32]) -> (&mut [[[f32; LANES]; N]], &mut [f32]) {
    let (blocks, tail) = x.split_at_mut(x.len() / (N * LANES) * (N * LANES));
    (blocks.as_chunks_mut().0.as_chunks_mut().0, tail)
}

#[inline(always)]
fn load_each<S: Simd, const N: usize>(simd: S, from: &[[f32; LANES]; N]) -> [S::Lanes; N] {
    let mut lanes = [simd.splat(0.0); N];
    for n in 0..N {
        lanes[n] = simd.load(&from[n]);
    }
    lanes
}

#[inline(always)]
fn store_each<L: Lanes, const N: usize>(lanes: [L; N], to: &mut [[f32; LANES]; N]) {
    for n in 0..N {
        lanes[n].store(&mut to[n]);
    }
}

/// The elements of `from`, which are fewer; the missing lanes hold 0.
#[inline(always)]
fn read_each<S: Simd, const N: usize>(simd: S, from: &[f32]) -> [S::Lanes; N] {
    let mut lanes = [simd.splat(0.0); N];
    for n in 0..N {
        lanes[n] = read(simd, &from[from.len().min(n * LANES)..]);
    }
    lanes
}

/// As many elements as `to` has, which are fewer.
#[inline(always)]
fn write_each<L: Lanes, const N: usize>(lanes: [L; N], to: &mut [f32]) {
    let length = to.len();
    for n in 0..N {
        write(lanes[n], &mut to[length.min(n * LANES)..]);
    }
}

/// Writes `f` of each pair of elements to `out`.
#[inline(always)]
pub fn zip_map<S: Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    f: impl Fn(S::Lanes, S::Lanes) -> S::Lanes,
) {
    let (a, a_tail) = a.as_chunks();
    let (b, b_tail) = b.as_chunks();
    let (out, out_tail) = out.as_chunks_mut();
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        f(simd.load(a), simd.load(b)).store(out);
    }
    if !out_tail.is_empty() {
        let (a, b) = (simd.load_partial(a_tail, 0.0), simd.load_partial(b_tail, 0.0));
        f(a, b).store_partial(out_tail);
    }
}
