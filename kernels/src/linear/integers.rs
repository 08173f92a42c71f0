//! Quantised weights times quantised activations: products and their sums over a run of 32 are integers, exact and therefore free in
//! their order. Then one fused multiply-add per scale, in the order of the runs.

use std::ops::Range;

use super::cut::Tiling;
use super::multiply::{Block, Call, Kernel};
use super::next::Upcoming;
use super::quantised::{
    Blocks, Bytes, FiveBits, GROUPS, Line, Nibbles, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0,
    Quantised, Quants, RUN, Scales, SixBits,
};
use super::sums::{Route, RowSums, keep};
use crate::buffers::Buffers;
use crate::simd::slices::{inlined, read, straight, write};
use crate::simd::{
    Dots, Isa, LANES, Lanes, Registers, Simd, Words, WordsOf, dispatch, dispatch_dots,
};
use crate::threads::{rows_worth_sharing, split_rows};
use crate::tuning::Knob;

/// A row's activations are a number of these: a run, quantised.
#[derive(Clone, Copy, Default)]
pub struct Activations {
    /// Four quants in each.
    words: [i32; GROUPS],
    /// What a quant of 1 stands for.
    scale: f32,
    /// What all quants added up stand for.
    sum: f32,
    /// At what the sums of products begin, for each half of the run; for both in the first where the run has one scale.
    starts: [i32; 2],
}

/// Runs of a panel that are unpacked at once: they stay in the first-level cache while all rows pass.
const GROUP: usize = 16;

/// Panels that share activations, where registers hold so many sums.
const PANELS: usize = 2;

/// Rows of a tile of [`PANELS`] panels.
const HIGH_TILE: usize = 6;

/// Rows of a tile of one panel.
const LOW_TILE: usize = 4;

/// Rows of a tile of one panel that is [taken apart](Dots::take_apart): its parts need more registers.
const APART_TILE: usize = 3;

/// Rows that make up for taking panels apart.
const APART_ROWS: usize = 48;

fn takes_apart(isa: Isa) -> bool {
    fn of<D: Dots>(_: D) -> bool {
        D::TAKES_APART
    }
    dispatch_dots!(isa, dots => of(dots))
}

/// The floats of the instruction set of `D`.
pub type LanesOf<D> = <<D as Dots>::Simd as Simd>::Lanes;

/// Multiplies one row by quantised weights: it reads them once, so they are unpacked in registers.
pub fn one_row<B: Summed>(call: &Call, weights: &Quantised<B>, x: &[f32], out: &mut [f32]) {
    /// Enough for a row of the smaller models: clearing a larger buffer would take longer than the row.
    const FEW: usize = 32;
    /// Enough for a row of every published model.
    const MANY: usize = 352;
    if weights.row_runs() <= FEW {
        row_in_groups(call, weights, x, out, &mut [Activations::default(); FEW]);
    } else {
        row_in_groups(call, weights, x, out, &mut [Activations::default(); MANY]);
    }
}

/// Quantises as many runs at once as there is room for, once for all threads.
fn row_in_groups<B: Summed>(
    call: &Call,
    weights: &Quantised<B>,
    x: &[f32],
    out: &mut [f32],
    activations: &mut [Activations],
) {
    let most = activations.len();
    for first_run in (0..weights.row_runs()).step_by(most) {
        let end = weights.row_runs().min(first_run + most);
        let activations = &mut activations[..end - first_run];
        quantise(call.isa, &x[first_run * RUN..end * RUN], starts_of::<B>(), activations);
        let bias = call.bias.filter(|_| end == weights.row_runs());
        Call { bias, ..*call }.multiply([Row { weights, activations, first_run }], Block::row(out));
    }
}

/// Some runs of one row, quantised.
struct Row<'a, B> {
    weights: &'a Quantised<B>,
    activations: &'a [Activations],
    first_run: usize,
}

impl<B: Summed> Kernel for Row<'_, B> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn run(&self, isa: Isa, first_panel: usize, out: &mut [&mut [f32]]) {
        let [out] = out else { unreachable!("there is one row") };
        dispatch_dots!(isa, dots => self.panels(dots, first_panel, out));
    }
}

impl<B: Summed> Row<'_, B> {
    #[inline(always)]
    fn panels<D: Dots>(&self, dots: D, first_panel: usize, out: &mut [f32]) {
        let simd = dots.simd();
        let ahead = Quantised::<B>::ahead();
        // One panel after another: a straight line through memory is read fastest.
        for (panel, out) in (first_panel..).zip(out.chunks_mut(LANES)) {
            let begin = if self.first_run == 0 { simd.splat(0.0) } else { read(simd, out) };
            let mut sums = [[begin]];
            let blocks = self.weights.blocks(panel, self.first_run);
            let activations = self.activations.chunks_exact(Quantised::<B>::RUNS);
            for (block, activations) in blocks.zip(activations) {
                for (run, activations) in activations.iter().enumerate() {
                    block.prefetch_ahead(simd, run, ahead);
                    let (groups, scales) = block.run(simd, run);
                    let scales = &[scales];
                    B::Way::add(dots, inlined!(|_, g| groups[g]), scales, [activations], &mut sums);
                }
            }
            write(sums[0][0], out);
        }
    }
}

/// At what sums begin with weights of a format.
const fn starts_of<B: Summed>() -> Starts {
    Starts {
        offset: if B::Quants::BITS == 8 { None } else { Some(B::OFFSET) },
        of_each_half: B::HAS_TWO_SCALES,
    }
}

/// How rows are cut.
pub fn tiling<B: Summed>(isa: Isa, weights: &Quantised<B>) -> Tiling {
    let rows = match isa.registers() {
        Registers::Few => LOW_TILE,
        Registers::Many => HIGH_TILE,
    };
    Tiling { rows, row_panels: 1, panel_bytes: weights.panel_bytes() }
}

/// Multiplies several rows by quantised weights. They are quantised block by block, once for all tasks of a block.
pub fn many_rows<B: Summed, const N: usize>(
    call: &Call,
    weights: [&Quantised<B>; N],
    x: &[f32],
    out: &mut [f32],
) {
    let Call { isa, inputs, .. } = *call;
    let groups = weights[0].row_runs().div_ceil(GROUP);
    call.split(tiling(isa, weights[0]).of_each(N), x, out, &|x, block| {
        let rows = x.len() / inputs;
        QUANTISED.with(rows * groups, [Activations::default(); GROUP], |activations| {
            let most = rows_worth_sharing(GROUP * RUN);
            split_rows(activations, 1, most, &|first, activations| {
                for (i, activations) in (first..).zip(activations) {
                    let x = &x[i % rows * inputs..][..inputs];
                    let x = &x[i / rows * GROUP * RUN..];
                    let x = &x[..x.len().min(GROUP * RUN)];
                    quantise(isa, x, starts_of::<B>(), activations);
                }
            });
            let activations = &*activations;
            call.multiply(weights.map(|weights| Integers { weights, activations, rows }), block);
        });
    });
}

/// Groups of runs of rows, quantised.
pub static QUANTISED: Buffers<[Activations; GROUP]> = Buffers::new();

/// Several rows, quantised: the first [`GROUP`] runs of each row, then the next of each, so that rows lie close that pass together.
struct Integers<'a, B> {
    weights: &'a Quantised<B>,
    activations: &'a [[Activations; GROUP]],
    rows: usize,
}

impl<B: Summed> Kernel for Integers<'_, B> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn run(&self, isa: Isa, first_panel: usize, out: &mut [&mut [f32]]) {
        keep(out.len(), |kept| {
            if const { B::Quants::BITS == Bytes::BITS }
                && out.len() >= APART_ROWS
                && takes_apart(isa)
            {
                self.many_rows::<Apart, { GROUP * Apart::LINES }>(isa, first_panel, kept, out);
            } else {
                self.many_rows::<B::Way, { GROUP * GROUPS }>(isa, first_panel, kept, out);
            }
        });
    }
}

impl<B: Summed> Integers<'_, B> {
    /// Takes some runs of all rows at once, over which then each panel passes. `LINES` are those of a group of runs.
    fn many_rows<W: Way, const LINES: usize>(
        &self,
        isa: Isa,
        first_panel: usize,
        kept: &mut [RowSums<PANELS>],
        out: &mut [&mut [f32]],
    ) {
        let row_runs = self.weights.row_runs();
        let (rows, panels) = (out.len(), out[0].len().div_ceil(LANES));
        let mut unpacked = [const { Unpacked::<LINES>::cleared() }; PANELS];
        let most = match isa.registers() {
            Registers::Few => 1,
            Registers::Many => PANELS,
        };
        let at_once = Knob::IntegerGroups.get() * GROUP;
        for start in (0..row_runs).step_by(at_once) {
            let end = row_runs.min(start + at_once);
            let groups = (start..end).step_by(GROUP).map(|first| first..end.min(first + GROUP));
            for panel in (0..panels).step_by(most) {
                let unpacked = &mut unpacked[..most.min(panels - panel)];
                for runs in groups.clone() {
                    let activations = &self.activations[runs.start / GROUP * self.rows..];
                    let activations = &activations[..rows];
                    if const { W::IS_APART } {
                        dispatch_dots!(isa, dots => for (n, unpacked) in unpacked.iter_mut().enumerate() {
                            let panel = first_panel + panel + n;
                            unpacked.take_apart(self.weights, dots, panel, runs.clone());
                        });
                    }
                    dispatch!(isa, simd => for (n, unpacked) in unpacked.iter_mut().enumerate() {
                        unpacked.fill(self.weights, simd, first_panel + panel + n, runs.clone());
                    });
                    let (next_panel, next_runs) = if runs.end < end {
                        (panel, runs.end..end.min(runs.end + GROUP))
                    } else {
                        (panel + most, start..end.min(start + GROUP))
                    };
                    let mut lines: [&[Line]; PANELS] = [&[]; PANELS];
                    for (n, unpacked) in unpacked.iter().enumerate() {
                        let panel = first_panel + panel + n;
                        lines[n] = unpacked.lines::<W, B>(self.weights, panel, runs.clone());
                    }
                    let next = [0, 1].map(|n| {
                        let panel = first_panel + next_panel + n;
                        self.weights.lines_of(panel, next_runs.clone()).as_flattened()
                    });
                    let mut tiles = Tiles {
                        activations,
                        weights: unpacked,
                        lines: &lines[..unpacked.len()],
                        route: Route::new(runs.start, start, runs.end == end, panel * LANES),
                        kept,
                        upcoming: Upcoming::new(next, rows, runs.len()),
                    };
                    tiles.run::<W>(isa, out);
                }
            }
        }
    }
}

/// A format whose products are added in some way.
pub trait Summed: Blocks {
    /// Which one.
    type Way: Way;
}

macro_rules! summed {
    ($($format:ident: $way:ty;)*) => {
        $(impl Summed for $format { type Way = $way; })*
    };
}
summed! {
    Q8_0: Plain<{ Bytes::BITS }>;
    Q4_0: Plain<{ Nibbles::BITS }>;
    Q4_1: WithMinimum<{ Nibbles::BITS }>;
    Q5_0: Plain<{ FiveBits::BITS }>;
    Q5_1: WithMinimum<{ FiveBits::BITS }>;
    Q4K: WithMinimum<{ Nibbles::BITS }>;
    Q5K: WithMinimum<{ FiveBits::BITS }>;
    Q6K: TwoScales;
}

/// How the products of a run are added: several formats share a way.
pub trait Way {
    /// Whether weights are taken apart.
    const IS_APART: bool = false;

    /// Lines of a run of weights.
    const LINES: usize = GROUPS;

    /// Adds a run's products to the sums of `R` rows and `N` panels. `weights` gives a panel's line.
    fn add<D: Dots, const N: usize, const R: usize>(
        dots: D,
        weights: impl Fn(usize, usize) -> WordsOf<D>,
        scales: &[Scales<LanesOf<D>>; N],
        rows: [&Activations; R],
        sums: &mut [[LanesOf<D>; N]; R],
    );
}

/// A run has one scale, and quants of `BITS` bits.
pub struct Plain<const BITS: u32>;

/// As [`Plain`] of quants of eight bits that are [taken apart](Dots::take_apart). A run's lines are the first parts of all groups, the second parts,
/// and at what sums begin.
pub struct Apart;

/// A run has one scale and a minimum, and quants of `BITS` bits.
pub struct WithMinimum<const BITS: u32>;

/// Each half of a run has its scale; quants have six bits.
pub struct TwoScales;

impl<const BITS: u32> Way for Plain<BITS> {
    #[inline(always)]
    fn add<D: Dots, const N: usize, const R: usize>(
        dots: D,
        weights: impl Fn(usize, usize) -> WordsOf<D>,
        scales: &[Scales<LanesOf<D>>; N],
        rows: [&Activations; R],
        sums: &mut [[LanesOf<D>; N]; R],
    ) {
        let mut words = [&rows[0].words; R];
        for r in 0..R {
            words[r] = &rows[r].words;
        }
        let mut integers = starts::<D, N, R>(dots, rows, 0);
        dots.dots::<BITS, GROUPS, N, R>(weights, words, &mut integers);
        add_scaled(dots, scales, 0, integers, rows, sums);
    }
}

impl Way for Apart {
    const IS_APART: bool = true;

    const LINES: usize = 2 * GROUPS + 1;

    #[inline(always)]
    fn add<D: Dots, const N: usize, const R: usize>(
        dots: D,
        weights: impl Fn(usize, usize) -> WordsOf<D>,
        scales: &[Scales<LanesOf<D>>; N],
        rows: [&Activations; R],
        sums: &mut [[LanesOf<D>; N]; R],
    ) {
        let mut integers = [[dots.simd().splat_words(0); N]; R];
        for n in 0..N {
            let start = weights(n, 2 * GROUPS);
            for r in 0..R {
                integers[r][n] = start;
            }
        }
        for first in (0..GROUPS).step_by(4) {
            straight!(g in first, 4, of 4 => for n in 0..N {
                let parts = [weights(n, g), weights(n, GROUPS + g)];
                for r in 0..R {
                    let activations = dots.simd().splat_words(rows[r].words[g]);
                    integers[r][n] = dots.dot_apart(integers[r][n], parts, activations);
                }
            });
        }
        add_scaled(dots, scales, 0, integers, rows, sums);
    }
}

impl<const BITS: u32> Way for WithMinimum<BITS> {
    #[inline(always)]
    fn add<D: Dots, const N: usize, const R: usize>(
        dots: D,
        weights: impl Fn(usize, usize) -> WordsOf<D>,
        scales: &[Scales<LanesOf<D>>; N],
        rows: [&Activations; R],
        sums: &mut [[LanesOf<D>; N]; R],
    ) {
        Plain::<BITS>::add(dots, weights, scales, rows, sums);
        let simd = dots.simd();
        for r in 0..R {
            let sum = simd.splat(rows[r].sum);
            for n in 0..N {
                sums[r][n] = scales[n].minimum.mul_add(sum, sums[r][n]);
            }
        }
    }
}

impl Way for TwoScales {
    #[inline(always)]
    fn add<D: Dots, const N: usize, const R: usize>(
        dots: D,
        weights: impl Fn(usize, usize) -> WordsOf<D>,
        scales: &[Scales<LanesOf<D>>; N],
        rows: [&Activations; R],
        sums: &mut [[LanesOf<D>; N]; R],
    ) {
        const HALF: usize = GROUPS / 2;
        for half in 0..2 {
            let mut words: [&[i32; HALF]; R] = [&[0; HALF]; R];
            for r in 0..R {
                words[r] = &rows[r].words.as_chunks().0[half];
            }
            let mut integers = starts::<D, N, R>(dots, rows, half);
            dots.dots::<{ SixBits::BITS }, HALF, N, R>(
                inlined!(|n, g| weights(n, half * HALF + g)),
                words,
                &mut integers,
            );
            add_scaled(dots, scales, half, integers, rows, sums);
        }
    }
}

#[inline(always)]
fn starts<D: Dots, const N: usize, const R: usize>(
    dots: D,
    rows: [&Activations; R],
    half: usize,
) -> [[WordsOf<D>; N]; R] {
    let mut integers = [[dots.simd().splat_words(0); N]; R];
    for r in 0..R {
        integers[r] = [dots.simd().splat_words(rows[r].starts[half]); N];
    }
    integers
}

#[inline(always)]
fn add_scaled<D: Dots, const N: usize, const R: usize>(
    dots: D,
    scales: &[Scales<LanesOf<D>>; N],
    half: usize,
    integers: [[WordsOf<D>; N]; R],
    rows: [&Activations; R],
    sums: &mut [[LanesOf<D>; N]; R],
) {
    for r in 0..R {
        let activations = dots.simd().splat(rows[r].scale);
        for n in 0..N {
            let scale = scales[n].scales[half] * activations;
            sums[r][n] = scale.mul_add(integers[r][n].to_lanes(), sums[r][n]);
        }
    }
}

/// All rows times a group of runs of some panels.
struct Tiles<'a, const LINES: usize> {
    activations: &'a [[Activations; GROUP]],
    weights: &'a [Unpacked<LINES>],
    lines: &'a [&'a [Line]],
    route: Route,
    kept: &'a mut [RowSums<PANELS>],
    upcoming: Upcoming<'a, PANELS>,
}

impl<const LINES: usize> Tiles<'_, LINES> {
    fn run<W: Way>(&mut self, isa: Isa, out: &mut [&mut [f32]]) {
        if out.len() < Knob::ManyRows.get() {
            dispatch_dots!(isa, dots => self.tiles::<W, _, true>(dots, out));
        } else {
            dispatch_dots!(isa, dots => self.tiles::<W, _, false>(dots, out));
        }
    }

    /// Takes lower tiles and asks for more lines at a time where rows are `FEW`.
    #[inline(always)]
    fn tiles<W: Way, D: Dots, const FEW: bool>(&mut self, dots: D, out: &mut [&mut [f32]]) {
        let rows = out.len();
        let mut row = 0;
        while row < rows {
            row += if const { D::Simd::REGISTERS.are_many() } && self.weights.len() == 2 {
                match rows - row {
                    HIGH_TILE.. => self.tile::<W, D, FEW, 2, HIGH_TILE>(dots, row, out),
                    4.. if FEW => self.tile::<W, D, FEW, 2, 4>(dots, row, out),
                    3.. => self.tile::<W, D, FEW, 2, 3>(dots, row, out),
                    2.. if FEW => self.tile::<W, D, FEW, 2, 2>(dots, row, out),
                    _ => self.tile::<W, D, FEW, 2, 1>(dots, row, out),
                }
            } else {
                match rows - row {
                    LOW_TILE.. if const { !W::IS_APART } => {
                        self.tile::<W, D, FEW, 1, LOW_TILE>(dots, row, out)
                    }
                    APART_TILE.. if const { W::IS_APART } => {
                        self.tile::<W, D, FEW, 1, APART_TILE>(dots, row, out)
                    }
                    2.. => self.tile::<W, D, FEW, 1, 2>(dots, row, out),
                    _ => self.tile::<W, D, FEW, 1, 1>(dots, row, out),
                }
            };
        }
    }

    /// `R` rows from `first` on times `N` panels; `R`.
    #[inline(always)]
    fn tile<W: Way, D: Dots, const FEW: bool, const N: usize, const R: usize>(
        &mut self,
        dots: D,
        first: usize,
        out: &mut [&mut [f32]],
    ) -> usize {
        let simd = dots.simd();
        let weights: &[_; N] = self.weights.try_into().expect("the tile's panels");
        let lines: &[_; N] = self.lines.try_into().expect("the tile's panels");
        let activations = self.activations[first..].first_chunk::<R>().expect("the tile's rows");
        let (out, after) = out[first..].split_first_chunk_mut::<R>().expect("the tile's rows");
        self.route.ask::<_, N>(simd, &after[..R.min(after.len())]);
        let kept = self.kept[first..].first_chunk_mut::<R>().expect("a block's rows");
        let mut sums = self.route.before(simd, kept, out);
        let runs = weights[0].runs;
        let next = self.upcoming.of_tile::<N>(first, R);
        for run in 0..runs {
            if FEW {
                next.ask_for_all(simd, run);
            } else {
                next.ask::<_, 1>(simd, run);
            }
            let mut scales = [weights[0].scales(simd, run); N];
            for n in 1..N {
                scales[n] = weights[n].scales(simd, run);
            }
            let mut rows = [&activations[0][run]; R];
            for r in 0..R {
                rows[r] = &activations[r][run];
            }
            let mut of_run = [&lines[0][run * W::LINES..][..W::LINES]; N];
            for n in 1..N {
                of_run[n] = &lines[n][run * W::LINES..][..W::LINES];
            }
            W::add(
                dots,
                inlined!(|n: usize, line: usize| simd.load_words(&of_run[n][line])),
                &scales,
                rows,
                &mut sums,
            );
        }
        self.route.put(&sums, kept, out);
        R
    }
}

/// At what sums of products begin.
#[derive(Clone, Copy)]
struct Starts {
    /// How much more weights' quants are than what they stand for; `None` where that is left to the instruction set.
    offset: Option<i32>,
    /// Whether the halves of a run are summed apart.
    of_each_half: bool,
}

/// Quantises whole runs of a row: `scale = max |x| / 127`, `quant = x * (127 / max |x|)` to the nearest integer, ties to even. A run
/// of at most 1e-30 is zeros, since its reciprocal could overflow. A run with something that is not finite has a scale of NaN.
fn quantise(isa: Isa, x: &[f32], starts: Starts, activations: &mut [Activations]) {
    dispatch_dots!(isa, dots => quantise_runs(dots, x, starts, activations));
}

#[inline(always)]
fn quantise_runs<D: Dots>(dots: D, x: &[f32], starts: Starts, activations: &mut [Activations]) {
    let (runs, _) = x.as_chunks::<RUN>();
    // Sixteen runs at a time, whose scales are lanes: a division for each would take as long as all else.
    for (runs, activations) in runs.chunks(LANES).zip(activations.chunks_mut(LANES)) {
        quantise_some(dots, runs, starts, activations);
    }
}

/// Quantises up to sixteen runs.
#[inline(always)]
fn quantise_some<D: Dots>(
    dots: D,
    runs: &[[f32; RUN]],
    starts: Starts,
    activations: &mut [Activations],
) {
    /// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an integer.
    const ROUND: f32 = 12_582_912.0;
    let simd = dots.simd();
    let mut largest = [0.0; LANES];
    for (i, x) in runs.iter().enumerate() {
        let (halves, _) = x.as_chunks::<LANES>();
        let (low, high) = (simd.load(&halves[0]), simd.load(&halves[1]));
        largest[i] = low.abs().max(high.abs()).largest();
    }
    let largest = simd.load(&largest);
    let (most, zero) = (simd.splat(127.0), simd.splat(0.0));
    // Not a number counts as not above, too.
    let above = simd.splat(1e-30) - largest;
    let scales = above.select_negative(largest / most, zero).to_array();
    let inverses = above.select_negative(most / largest, zero).to_array();

    let round = simd.splat(ROUND);
    let mut sums = [[0.0; LANES]; 2];
    for (i, (x, to)) in runs.iter().zip(&mut *activations).enumerate() {
        let (halves, _) = x.as_chunks::<LANES>();
        let inverse = simd.splat(inverses[i]);
        let low = simd.load(&halves[0]).mul_add(inverse, round) - round;
        let high = simd.load(&halves[1]).mul_add(inverse, round) - round;
        if starts.of_each_half {
            (sums[0][i], sums[1][i]) = (low.sum(), high.sum());
        } else {
            sums[0][i] = (low + high).sum();
        }
        let mut quants = [[0; LANES]; 2];
        low.store_integers(&mut quants[0]);
        high.store_integers(&mut quants[1]);
        let (words, _) = quants.as_flattened().as_chunks();
        for g in 0..GROUPS {
            to.words[g] = i32::from_le_bytes(words[g].map(i8::cast_unsigned));
        }
    }
    let mut begins = [[0; LANES]; 2];
    for half in 0..2 {
        for i in 0..LANES {
            let sum = if sums[half][i].is_finite() { sums[half][i] } else { 0.0 };
            // An integer of a few bits: where nothing is left for a fraction, its bits are those of the sum.
            let sum = (sum + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
            begins[half][i] = match starts.offset {
                Some(offset) => -offset * sum,
                None => dots.biased_start(sum),
            };
        }
    }
    for (i, to) in activations.iter_mut().enumerate() {
        to.scale = scales[i];
        let quants = sums[0][i] + sums[1][i];
        to.sum = scales[i] * quants;
        to.starts = [begins[0][i], begins[1][i]];
        // Where an activation is not finite, its product with the inverse is not, or with 0 where that is the inverse.
        if !quants.is_finite() {
            *to = Activations { scale: f32::NAN, ..Activations::default() };
        }
    }
}

/// Runs of a panel as bytes, since unpacking them for each tile of rows would take longer than reading them again.
///
/// No vector of it straddles two cache lines.
#[repr(C, align(64))]
struct Unpacked<const LINES: usize> {
    lines: [Line; LINES],
    scales: [[[f32; LANES]; 2]; GROUP],
    minima: [[f32; LANES]; GROUP],
    runs: usize,
}

impl<const LINES: usize> Unpacked<LINES> {
    const fn cleared() -> Self {
        Self {
            runs: 0,
            lines: [[0; 4 * LANES]; LINES],
            scales: [[[0.0; LANES]; 2]; GROUP],
            minima: [[0.0; LANES]; GROUP],
        }
    }

    #[inline(always)]
    fn fill<S: Simd, B: Blocks>(
        &mut self,
        weights: &Quantised<B>,
        simd: S,
        panel: usize,
        runs: Range<usize>,
    ) {
        self.runs = runs.len();
        for (to, run) in runs.enumerate() {
            let (groups, Scales { scales, minimum }) = weights.run(simd, panel, run);
            if const { !Self::are_bytes::<B>() } {
                let lines = &mut self.lines[to * GROUPS..][..GROUPS];
                for g in 0..GROUPS {
                    groups[g].store(&mut lines[g]);
                }
            }
            scales[0].store(&mut self.scales[to][0]);
            if B::HAS_TWO_SCALES {
                scales[1].store(&mut self.scales[to][1]);
            }
            if B::HAS_MINIMUM {
                minimum.store(&mut self.minima[to]);
            }
        }
    }

    /// Takes the quants of `runs` apart, for all rows.
    #[inline(always)]
    fn take_apart<D: Dots, B: Blocks>(
        &mut self,
        weights: &Quantised<B>,
        dots: D,
        panel: usize,
        runs: Range<usize>,
    ) {
        let simd = dots.simd();
        let (lines, _) = self.lines.as_chunks_mut::<{ Apart::LINES }>();
        for (to, run) in lines.iter_mut().zip(runs) {
            let (groups, _) = weights.run(simd, panel, run);
            let mut start = simd.splat_words(0);
            for g in 0..GROUPS {
                let (parts, with_group) = dots.take_apart(start, groups[g]);
                parts[0].store(&mut to[g]);
                parts[1].store(&mut to[GROUPS + g]);
                start = with_group;
            }
            start.store(&mut to[2 * GROUPS]);
        }
    }

    /// Whether quants are stored as bytes: then they are read where they are.
    const fn are_bytes<B: Blocks>() -> bool {
        B::Quants::BITS == 8
    }

    /// The quants of `runs`, with which this was filled.
    fn lines<'a, W: Way, B: Blocks>(
        &'a self,
        weights: &'a Quantised<B>,
        panel: usize,
        runs: Range<usize>,
    ) -> &'a [Line] {
        if Self::are_bytes::<B>() && !W::IS_APART {
            weights.lines_of(panel, runs)
        } else {
            &self.lines[..runs.len() * W::LINES]
        }
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S, run: usize) -> Scales<S::Lanes> {
        let [first, second] = &self.scales[run];
        let scales = [simd.load(first), simd.load(second)];
        Scales { scales, minimum: simd.load(&self.minima[run]) }
    }
}
