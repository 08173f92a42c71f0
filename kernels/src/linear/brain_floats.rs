//! Brain floats times brain floats: the chains of the contract over activations that are rounded to 16 bits, two inputs with each
//! instruction where there is one for it.

use std::ops::Range;

use half::bf16;
use zerocopy::IntoBytes;

use super::chains::{self, CUT, multiply_elements};
use super::cut::Tiling;
use super::elements::{Elements, PAIR, Panel, Weight};
use super::multiply::{BLOCK_ROWS, Call, Kernel};
use super::next::Upcoming;
use super::sums::{Route, RowSums, keep};
use crate::aligned::CACHE_LINE;
use crate::buffers::Buffers;
use crate::fault;
use crate::simd::slices::{inlined, write};
use crate::simd::{BrainDots, Isa, LANES, Simd, dispatch, dispatch_brain_dots};
use crate::threads::{rows_worth_sharing, split_rows};
use crate::tuning::Knob;

/// Below this, 2^-55, a number counts as 0: then a product is 0 or a multiple of 2^-124, and no sum is subnormal. Instructions for brain floats
/// would take such a sum for 0.
const LEAST: f32 = f32::from_bits((127 - 55) << 23);

#[inline(always)]
fn without_tiny(x: f32) -> f32 {
    if x.abs() < fault!(LeastDoubled: 2.0 * LEAST, else LEAST) { 0.0 } else { x }
}

/// Replaces weights that count as 0.
pub fn drop_tiny(weights: &mut Elements<bf16>) {
    fault!(TinyWeightsKept => return);
    weights.change(|weight| {
        let weight = without_tiny(weight.to_f32());
        bf16::from_bits((weight.to_bits() >> 16) as u16)
    });
}

/// The nearest brain float, ties to even, as a single; 0 where that counts as 0.
#[inline(always)]
fn round(x: f32) -> f32 {
    /// Half a unit in the last place, less one.
    const ALMOST_HALF: u32 = 0x7FFF;
    let bits = x.to_bits();
    let is_odd = bits >> 16 & 1;
    let nearest = bits.wrapping_add(ALMOST_HALF + is_odd);
    // Adding could make something else of a NaN, and its lower bits could be all that makes it one.
    let nearest = if x.is_nan() { bits | 1 << 22 } else { nearest };
    let rounded = f32::from_bits(nearest & 0xFFFF_0000);
    fault!(TinyActivationsKept: rounded, else without_tiny(rounded))
}

/// Two inputs of a row as brain floats, the first in the upper half, as in a pair of weights.
type Word = i32;

/// Words of a cut.
const WORDS: usize = CUT / PAIR;

/// From a row's words of a cut to the next row's: not a power of two, so that rows do not compete for the same lines of the first-level cache.
const STRIDE: usize = WORDS + LANES;

/// A row between two cuts.
type RowCut = [Word; STRIDE];

/// The height of most tiles.
const TILE_ROWS: usize = 12;

/// Rows tile by tile, and the rows of a tile cut by cut.
pub static ROUNDED: Buffers<RowCut> = Buffers::new();

/// Rounded rows where they are singles.
pub static SINGLES: Buffers<f32> = Buffers::new();

/// Multiplies rows by brain floats. They are rounded once, for all tasks.
pub fn multiply<const N: usize>(
    call: &Call,
    weights: [&Elements<bf16>; N],
    x: &[f32],
    out: &mut [f32],
) {
    if call.isa.has_brain_dots() {
        multiply_pairs(call, weights, x, out);
    } else {
        multiply_singles(call, weights, x, out);
    }
}

/// How rows are cut.
pub fn tiling(isa: Isa, weights: &Elements<bf16>) -> Tiling {
    if isa.has_brain_dots() { pair_tiling(weights) } else { chains::tiling(isa, weights) }
}

fn pair_tiling(weights: &Elements<bf16>) -> Tiling {
    Tiling { rows: TILE_ROWS, row_panels: ROW_PANELS, panel_bytes: weights.panel_bytes() }
}

/// Rounds rows to words, block by block.
fn multiply_pairs<const N: usize>(
    call: &Call,
    weights: [&Elements<bf16>; N],
    x: &[f32],
    out: &mut [f32],
) {
    let Call { isa, inputs, .. } = *call;
    call.split(pair_tiling(weights[0]).of_each(N), x, out, &|x, block| {
        let rows = x.len() / inputs;
        let (height, cuts) = (rows.min(TILE_ROWS), inputs.div_ceil(CUT));
        let tiles = rows.div_ceil(height);
        ROUNDED.with(tiles * cuts * height, [0; STRIDE], |tiles| {
            let most = rows_worth_sharing(height * inputs);
            split_rows(tiles, cuts * height, most, &|first, tiles| {
                let x = x[first * height * inputs..].chunks(height * inputs);
                for (tile, x) in tiles.chunks_exact_mut(cuts * height).zip(x) {
                    dispatch!(isa, _simd => round_rows(x, inputs, height, tile));
                }
            });
            let tiles = &*tiles;
            let pairs = |weights| Pairs { weights, tiles, height, cuts, inputs };
            call.multiply(weights.map(pairs), block);
        });
    });
}

/// Rounds rows to singles.
fn multiply_singles<const N: usize>(
    call: &Call,
    weights: [&Elements<bf16>; N],
    x: &[f32],
    out: &mut [f32],
) {
    /// A bound to the memory that a long prompt takes.
    const MOST_ROWS: usize = 8 * BLOCK_ROWS;
    let Call { isa, inputs, outputs, .. } = *call;
    for (x, out) in x.chunks(MOST_ROWS * inputs).zip(out.chunks_mut(MOST_ROWS * outputs)) {
        SINGLES.with(x.len(), 0.0, |rounded| {
            split_rows(rounded, 1, rows_worth_sharing(1), &|first, rounded| {
                let x = &x[first..][..rounded.len()];
                dispatch!(isa, _simd => for (rounded, &x) in rounded.iter_mut().zip(x) {
                    *rounded = round(x);
                });
            });
            multiply_elements(call, weights, rounded, out);
        });
    }
}

/// Rounds up to `height` rows.
#[inline(always)]
fn round_rows(x: &[f32], inputs: usize, height: usize, tile: &mut [RowCut]) {
    for (r, x) in x.chunks_exact(inputs).enumerate() {
        for (words, x) in tile[r..].iter_mut().step_by(height).zip(x.chunks(CUT)) {
            let (pairs, rest) = x.as_chunks();
            for (word, pair) in words.iter_mut().zip(pairs) {
                *word = word_of(*pair);
            }
            if let [last] = rest {
                words[pairs.len()] = word_of([*last, 0.0]);
            }
        }
    }
}

#[inline(always)]
fn word_of([first, second]: [f32; PAIR]) -> Word {
    (round(first).to_bits() | round(second).to_bits() >> 16).cast_signed()
}

/// Weights times rows of words.
struct Pairs<'a> {
    weights: &'a Elements<bf16>,
    tiles: &'a [RowCut],
    /// Rows of a tile.
    height: usize,
    /// Cut pieces of a row.
    cuts: usize,
    inputs: usize,
}

/// Panels that rows pass together: those of a strip.
const PANELS: usize = <bf16 as Weight>::STRIP;

/// Panels that one row takes at once: a single chain would wait for each instruction.
const ROW_PANELS: usize = PANELS;

/// Bytes of a strip's pair.
const PAIR_BYTES: usize = size_of::<Strip>();

/// Lines of a strip that are asked for with each pair of inputs: as many as a pair has, for a tile alone.
const FEW_ROWS: usize = PAIR_BYTES / CACHE_LINE;
const MANY_ROWS: usize = 1;

type Strip = <bf16 as Weight>::Strip;

type LanesOf<D> = <<D as BrainDots>::Simd as Simd>::Lanes;

impl Kernel for Pairs<'_> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn row_panels(&self) -> usize {
        ROW_PANELS
    }

    fn run(&self, isa: Isa, first_panel: usize, out: &mut [&mut [f32]]) {
        let rows = out.len();
        // Apart, since together in one function each would be slower.
        match out {
            [out] => {
                dispatch_brain_dots!(isa, dots => self.one_row(dots, first_panel, out));
            }
            out => keep(rows, |kept| {
                if rows < Knob::ManyRows.get() {
                    dispatch_brain_dots!(isa, dots => {
                        self.many_rows::<_, FEW_ROWS>(dots, first_panel, kept, out);
                    });
                } else {
                    dispatch_brain_dots!(isa, dots => {
                        self.many_rows::<_, MANY_ROWS>(dots, first_panel, kept, out);
                    });
                }
            }),
        }
    }
}

impl Pairs<'_> {
    /// A cut piece of the rows of a tile.
    #[inline(always)]
    fn rows(&self, tile: usize, cut: usize) -> &[RowCut] {
        &self.tiles[(tile * self.cuts + cut) * self.height..][..self.height]
    }

    #[inline(always)]
    fn inputs_of(&self, cut: usize) -> Range<usize> {
        cut * CUT..self.inputs.min((cut + 1) * CUT)
    }

    /// A cut piece of the strip of a panel; as good as any where there is no such panel.
    #[inline(always)]
    fn strip(&self, panel: usize, cut: usize) -> &[Strip] {
        let panel = panel.min(self.weights.panels() - 1);
        self.weights.panel(panel).of_inputs(self.inputs_of(cut)).strips()
    }

    /// A cut piece of `N` panels from `first` on.
    #[inline(always)]
    fn panels<const N: usize>(&self, first: usize, cut: usize) -> [Panel<'_, bf16>; N] {
        let mut panels = [self.weights.panel(first); N];
        for n in 0..N {
            panels[n] = self.weights.panel(first + n).of_inputs(self.inputs_of(cut));
        }
        panels
    }

    #[inline(always)]
    fn one_row<D: BrainDots>(&self, dots: D, first_panel: usize, out: &mut [f32]) {
        let ahead = Knob::BrainAhead.get();
        let tiles = (first_panel..).step_by(ROW_PANELS).zip(out.chunks_mut(ROW_PANELS * LANES));
        for (panel, out) in tiles {
            match out.len().div_ceil(LANES) {
                ROW_PANELS => self.row_panels::<D, ROW_PANELS>(dots, panel, ahead, out),
                _ => self.row_panels::<D, 1>(dots, panel, ahead, out),
            }
        }
    }

    #[inline(always)]
    fn row_panels<D: BrainDots, const N: usize>(
        &self,
        dots: D,
        panel: usize,
        ahead: usize,
        out: &mut [f32],
    ) {
        let simd = dots.simd();
        let mut totals = [simd.splat(0.0); N];
        for cut in 0..self.cuts {
            let row = self.rows(0, cut).first_chunk::<1>().expect("the row");
            let panels = self.panels::<N>(panel, cut);
            let strips = panels[0].strips();
            let mut sums = [[simd.splat(0.0); N]; 1];
            for pair in 0..strips.len() {
                if ahead > 0 {
                    for line in (0..PAIR_BYTES).step_by(CACHE_LINE) {
                        simd.prefetch(strips, pair * PAIR_BYTES + ahead + line);
                    }
                }
                sums = chain(dots, pair..pair + 1, row, panels, inlined!(|_| ()), sums);
            }
            for n in 0..N {
                totals[n] = if cut == 0 { sums[0][n] } else { totals[n] + sums[0][n] };
            }
        }
        for n in 0..N {
            write(totals[n], &mut out[n * LANES..]);
        }
    }

    /// Between two cuts each strip passes over all rows.
    #[inline(always)]
    fn many_rows<D: BrainDots, const LINES: usize>(
        &self,
        dots: D,
        first_panel: usize,
        kept: &mut [RowSums<PANELS>],
        out: &mut [&mut [f32]],
    ) {
        let panels = out[0].len().div_ceil(LANES);
        let at_once = Knob::BrainCuts.get();
        for group in (0..self.cuts).step_by(at_once) {
            let end = self.cuts.min(group + at_once);
            for panel in (0..panels).step_by(PANELS) {
                for cut in group..end {
                    let (next_panel, next_cut) =
                        if cut + 1 < end { (panel, cut + 1) } else { (panel + PANELS, group) };
                    let mut tiles = Tiles {
                        pairs: self,
                        first_panel,
                        panel,
                        cut,
                        route: Route::new(cut, group, cut + 1 == end, panel * LANES),
                        kept,
                        next: self.strip(first_panel + next_panel, next_cut).as_bytes(),
                    };
                    match panels - panel {
                        1 => tiles.run::<D, 1, LINES>(dots, out),
                        _ => tiles.run::<D, PANELS, LINES>(dots, out),
                    }
                }
            }
        }
    }
}

/// All rows times some panels between two cuts.
struct Tiles<'a> {
    pairs: &'a Pairs<'a>,
    /// The panel that begins the outputs.
    first_panel: usize,
    /// The first of these panels, counted from there.
    panel: usize,
    cut: usize,
    route: Route,
    kept: &'a mut [RowSums<PANELS>],
    /// What is read next.
    next: &'a [u8],
}

impl Tiles<'_> {
    #[inline(always)]
    fn run<D: BrainDots, const N: usize, const LINES: usize>(
        &mut self,
        dots: D,
        out: &mut [&mut [f32]],
    ) {
        let panels = self.pairs.panels::<N>(self.first_panel + self.panel, self.cut);
        let upcoming = Upcoming::new([self.next], out.len(), panels[0].pairs());
        let height = self.pairs.height;
        for (tile, first) in (0..out.len()).step_by(height).enumerate() {
            let rows = self.pairs.rows(tile, self.cut);
            let end = out.len().min(first + height);
            let mut row = first;
            while row < end {
                let rows = &rows[row - first..];
                row += match end - row {
                    TILE_ROWS.. => {
                        self.tile::<D, N, LINES, TILE_ROWS>(dots, rows, panels, upcoming, row, out)
                    }
                    8.. => self.tile::<D, N, LINES, 8>(dots, rows, panels, upcoming, row, out),
                    4.. => self.tile::<D, N, LINES, 4>(dots, rows, panels, upcoming, row, out),
                    2.. => self.tile::<D, N, LINES, 2>(dots, rows, panels, upcoming, row, out),
                    _ => self.tile::<D, N, LINES, 1>(dots, rows, panels, upcoming, row, out),
                };
            }
        }
    }

    /// The first `R` rows, which are those from `first` on of the output; `R`.
    #[inline(always)]
    fn tile<D: BrainDots, const N: usize, const LINES: usize, const R: usize>(
        &mut self,
        dots: D,
        rows: &[RowCut],
        panels: [Panel<bf16>; N],
        upcoming: Upcoming<1>,
        first: usize,
        out: &mut [&mut [f32]],
    ) -> usize {
        let simd = dots.simd();
        let rows = rows.first_chunk::<R>().expect("the tile's rows");
        let pairs = panels[0].pairs();
        let next = upcoming.of_tile::<1>(first, R);
        let kept = self.kept[first..].first_chunk_mut::<R>().expect("a block's rows");
        let out = out[first..].first_chunk_mut::<R>().expect("the tile's rows");
        self.route.ask::<_, N>(simd, out);
        let sums = chain(
            dots,
            0..pairs,
            rows,
            panels,
            inlined!(|pair| next.ask::<_, LINES>(simd, pair)),
            [[simd.splat(0.0); N]; R],
        );
        let sums = self.route.add(simd, kept, out, sums);
        self.route.put(&sums, kept, out);
        R
    }
}

/// Continues the chains `sums` over some pairs of inputs, and does something `with` each.
#[inline(always)]
fn chain<D: BrainDots, const N: usize, const R: usize>(
    dots: D,
    pairs: Range<usize>,
    rows: &[RowCut; R],
    panels: [Panel<bf16>; N],
    with: impl Fn(usize),
    mut sums: [[LanesOf<D>; N]; R],
) -> [[LanesOf<D>; N]; R] {
    let simd = dots.simd();
    assert!(pairs.end <= WORDS);
    for n in 0..N {
        assert!(pairs.end <= panels[n].pairs());
    }
    for pair in pairs {
        with(pair);
        let mut weights = [simd.splat_words(0); N];
        for n in 0..N {
            weights[n] = dots.load_pairs(panels[n].pair(pair));
        }
        for r in 0..R {
            let activations = simd.splat_words(rows[r][pair]);
            for n in 0..N {
                sums[r][n] = dots.add_products(sums[r][n], weights[n], activations);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every upper half, with the lower halves next to where rounding changes.
    fn singles() -> impl Iterator<Item = f32> {
        let lower = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
        let upper = 0..=u32::from(u16::MAX);
        upper.flat_map(move |upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)))
    }

    #[test]
    fn numbers_are_rounded_to_nearest_and_tiny_ones_are_dropped() {
        for x in singles() {
            let (rounded, nearest) = (round(x), bf16::from_f32(x).to_f32());
            if x.is_nan() {
                assert!(rounded.is_nan(), "{:x}", x.to_bits());
                assert_eq!(rounded.to_bits() & 0xFFFF, 0);
            } else if nearest.abs() < 2.0_f32.powi(-55) {
                assert_eq!(rounded, 0.0);
            } else {
                assert_eq!(rounded.to_bits(), nearest.to_bits(), "{:x}", x.to_bits());
            }
        }
        let least = 2.0_f32.powi(-55);
        assert_eq!(
            [round(least), round(least.next_down()), round(least * 0.99)],
            [least, least, 0.0]
        );
    }
}
