//! Quantised weights times quantised activations: products and their sums over a run of 32 are integers, exact and therefore free in
//! their order. Then one fused multiply-add per scale, in the order of the runs.

use std::ops::Range;

use super::multiply::{BLOCK_ROWS, Kernel};
use super::quantised::{Blocks, GROUPS, Line, Quantised, Quants, RUN, Scales};
use crate::simd::slices::{read, write};
use crate::simd::{
    Dots, Isa, LANES, Lanes, Registers, Simd, Words, WordsOf, dispatch, dispatch_dots,
};

/// A row's activations are a number of these: a run, quantised.
#[derive(Clone, Copy, Default)]
struct Activations {
    /// Four quants in each.
    words: [i32; GROUPS],
    /// What a quant of 1 stands for.
    scale: f32,
    /// All quants added up.
    sum: f32,
    /// At what the sums of products begin, for each half of the run; for both in the first where the run has one scale.
    starts: [i32; 2],
}

/// Runs of many rows that are quantised at once.
const GROUP: usize = 32;

/// Multiplies by quantised weights.
pub struct Integers<'a, B> {
    pub weights: &'a Quantised<B>,
}

/// The floats of the instruction set of `D`.
type LanesOf<D> = <<D as Dots>::Simd as Simd>::Lanes;

impl<B: Blocks> Kernel for Integers<'_, B> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn run(&self, isa: Isa, x: &[f32], first_panel: usize, out: &mut [&mut [f32]]) {
        /// Enough for a row of the smaller models: clearing a larger buffer would take longer than the row.
        const FEW_RUNS: usize = 32;
        /// Enough for a row of every published model.
        const MANY_RUNS: usize = 352;
        /// Enough for a decoded batch.
        const FEW_ROWS: usize = 16;
        match out {
            [out] if self.weights.row_runs() <= FEW_RUNS => {
                self.one_row(isa, x, first_panel, out, &mut [Activations::default(); FEW_RUNS]);
            }
            [out] => {
                self.one_row(isa, x, first_panel, out, &mut [Activations::default(); MANY_RUNS]);
            }
            out if out.len() <= FEW_ROWS => {
                let mut activations = [[Activations::default(); GROUP]; FEW_ROWS];
                self.many_rows(isa, x, first_panel, out, &mut activations);
            }
            out => {
                let mut activations = [[Activations::default(); GROUP]; BLOCK_ROWS];
                self.many_rows(isa, x, first_panel, out, &mut activations);
            }
        }
    }
}

impl<B: Blocks> Integers<'_, B> {
    const STARTS: Starts = Starts {
        offset: if B::Quants::ARE_BYTES { None } else { Some(B::OFFSET) },
        of_each_half: B::HAS_TWO_SCALES,
    };

    /// One row reads the weights once, so they are unpacked in registers.
    fn one_row(
        &self,
        isa: Isa,
        x: &[f32],
        first_panel: usize,
        out: &mut [f32],
        activations: &mut [Activations],
    ) {
        let most = activations.len();
        for (group, x) in x.chunks(most * RUN).enumerate() {
            let activations = &mut activations[..x.len() / RUN];
            quantise(isa, x, Self::STARTS, activations);
            dispatch_dots!(isa, dots => {
                self.row_panels(dots, activations, first_panel, group * most, out)
            });
        }
    }

    #[inline(always)]
    fn row_panels<D: Dots>(
        &self,
        dots: D,
        activations: &[Activations],
        first_panel: usize,
        first_run: usize,
        out: &mut [f32],
    ) {
        /// Panels at once.
        const PANELS: usize = 2;
        let (tiles, rest) = out.as_chunks_mut::<{ PANELS * LANES }>();
        let mut panel = first_panel;
        for out in tiles {
            self.row_tile::<D, PANELS>(dots, activations, panel, first_run, out);
            panel += PANELS;
        }
        for out in rest.chunks_mut(LANES) {
            self.row_tile::<D, 1>(dots, activations, panel, first_run, out);
            panel += 1;
        }
    }

    #[inline(always)]
    fn row_tile<D: Dots, const N: usize>(
        &self,
        dots: D,
        activations: &[Activations],
        panel: usize,
        first_run: usize,
        out: &mut [f32],
    ) {
        let simd = dots.simd();
        let mut sums = [[simd.splat(0.0); 1]; N];
        if first_run > 0 {
            for n in 0..N {
                sums[n][0] = read(simd, &out[n * LANES..]);
            }
        }
        for (i, activations) in activations.iter().enumerate() {
            for n in 0..N {
                let (groups, scales) = self.weights.run(simd, panel + n, first_run + i);
                let rows = [activations];
                match (B::Quants::ARE_BYTES, B::HAS_TWO_SCALES, B::HAS_MINIMUM) {
                    (true, ..) => Plain::<true>::add(dots, &groups, &scales, rows, &mut sums[n]),
                    (_, true, _) => TwoScales::add(dots, &groups, &scales, rows, &mut sums[n]),
                    (.., true) => WithMinimum::add(dots, &groups, &scales, rows, &mut sums[n]),
                    _ => Plain::<false>::add(dots, &groups, &scales, rows, &mut sums[n]),
                }
            }
        }
        for n in 0..N {
            write(sums[n][0], &mut out[n * LANES..]);
        }
    }

    fn many_rows(
        &self,
        isa: Isa,
        x: &[f32],
        first_panel: usize,
        out: &mut [&mut [f32]],
        activations: &mut [[Activations; GROUP]],
    ) {
        let row_runs = self.weights.row_runs();
        let panels = out[0].len().div_ceil(LANES);
        let mut unpacked = Unpacked::cleared();
        for start in (0..row_runs).step_by(GROUP) {
            let runs = start..row_runs.min(start + GROUP);
            for (x, activations) in x.chunks_exact(row_runs * RUN).zip(activations.iter_mut()) {
                let x = &x[runs.start * RUN..runs.end * RUN];
                quantise(isa, x, Self::STARTS, &mut activations[..runs.len()]);
            }
            for panel in 0..panels {
                dispatch!(isa, simd => {
                    unpacked.fill(self.weights, simd, first_panel + panel, runs.clone())
                });
                let tiles = Tiles { activations, weights: &unpacked, is_first: start == 0, panel };
                match (B::Quants::ARE_BYTES, B::HAS_TWO_SCALES, B::HAS_MINIMUM) {
                    (true, ..) => tiles.run::<Plain<true>>(isa, out),
                    (_, true, _) => tiles.run::<TwoScales>(isa, out),
                    (.., true) => tiles.run::<WithMinimum>(isa, out),
                    _ => tiles.run::<Plain<false>>(isa, out),
                }
            }
        }
    }
}

/// How the products of a run are added: several formats share a way.
trait Way {
    /// Adds a run's products to the sums of `R` rows.
    fn add<D: Dots, const R: usize>(
        dots: D,
        groups: &[WordsOf<D>; GROUPS],
        scales: &Scales<LanesOf<D>>,
        rows: [&Activations; R],
        sums: &mut [LanesOf<D>; R],
    );
}

/// A run has one scale. Its quants are bytes, or smaller.
struct Plain<const ARE_BYTES: bool>;

/// A run has one scale and a minimum.
struct WithMinimum;

/// Each half of a run has its scale.
struct TwoScales;

impl<const ARE_BYTES: bool> Way for Plain<ARE_BYTES> {
    #[inline(always)]
    fn add<D: Dots, const R: usize>(
        dots: D,
        groups: &[WordsOf<D>; GROUPS],
        scales: &Scales<LanesOf<D>>,
        rows: [&Activations; R],
        sums: &mut [LanesOf<D>; R],
    ) {
        let integers = products::<D, ARE_BYTES, R>(dots, groups, 0, 0..GROUPS, rows);
        add_scaled(dots, scales.scales[0], integers, rows, sums);
    }
}

impl Way for WithMinimum {
    #[inline(always)]
    fn add<D: Dots, const R: usize>(
        dots: D,
        groups: &[WordsOf<D>; GROUPS],
        scales: &Scales<LanesOf<D>>,
        rows: [&Activations; R],
        sums: &mut [LanesOf<D>; R],
    ) {
        Plain::<false>::add(dots, groups, scales, rows, sums);
        let simd = dots.simd();
        for r in 0..R {
            let minimum = scales.minimum * simd.splat(rows[r].scale);
            sums[r] = minimum.mul_add(simd.splat(rows[r].sum), sums[r]);
        }
    }
}

impl Way for TwoScales {
    #[inline(always)]
    fn add<D: Dots, const R: usize>(
        dots: D,
        groups: &[WordsOf<D>; GROUPS],
        scales: &Scales<LanesOf<D>>,
        rows: [&Activations; R],
        sums: &mut [LanesOf<D>; R],
    ) {
        for half in 0..2 {
            let own = half * GROUPS / 2..(half + 1) * GROUPS / 2;
            let integers = products::<D, false, R>(dots, groups, half, own, rows);
            add_scaled(dots, scales.scales[half], integers, rows, sums);
        }
    }
}

/// The sums of products over some groups.
#[inline(always)]
fn products<D: Dots, const ARE_BYTES: bool, const R: usize>(
    dots: D,
    groups: &[WordsOf<D>; GROUPS],
    half: usize,
    own: Range<usize>,
    rows: [&Activations; R],
) -> [WordsOf<D>; R] {
    let simd = dots.simd();
    let mut integers = [simd.splat_words(0); R];
    for r in 0..R {
        integers[r] = simd.splat_words(rows[r].starts[half]);
    }
    for g in own {
        for r in 0..R {
            let activations = simd.splat_words(rows[r].words[g]);
            integers[r] = if ARE_BYTES {
                dots.dot_biased(integers[r], groups[g], activations)
            } else {
                dots.dot_small(integers[r], groups[g], activations)
            };
        }
    }
    integers
}

#[inline(always)]
fn add_scaled<D: Dots, const R: usize>(
    dots: D,
    scale: LanesOf<D>,
    integers: [WordsOf<D>; R],
    rows: [&Activations; R],
    sums: &mut [LanesOf<D>; R],
) {
    for r in 0..R {
        let scale = scale * dots.simd().splat(rows[r].scale);
        sums[r] = scale.mul_add(integers[r].to_lanes(), sums[r]);
    }
}

/// All rows times a panel.
struct Tiles<'a> {
    activations: &'a [[Activations; GROUP]],
    weights: &'a Unpacked,
    is_first: bool,
    panel: usize,
}

impl Tiles<'_> {
    fn run<W: Way>(&self, isa: Isa, out: &mut [&mut [f32]]) {
        dispatch_dots!(isa, dots => self.tiles::<W, _>(dots, out));
    }

    #[inline(always)]
    fn tiles<W: Way, D: Dots>(&self, dots: D, out: &mut [&mut [f32]]) {
        let rows = out.len();
        let mut row = 0;
        while row < rows {
            row += match (D::Simd::REGISTERS, rows - row) {
                (Registers::Many, 8..) => self.tile::<W, D, 8>(dots, row, out),
                (_, 4..) => self.tile::<W, D, 4>(dots, row, out),
                (_, 2..) => self.tile::<W, D, 2>(dots, row, out),
                _ => self.tile::<W, D, 1>(dots, row, out),
            };
        }
    }

    /// `R` rows from `first` on; `R`.
    #[inline(always)]
    fn tile<W: Way, D: Dots, const R: usize>(
        &self,
        dots: D,
        first: usize,
        out: &mut [&mut [f32]],
    ) -> usize {
        let simd = dots.simd();
        let activations = self.activations[first..].first_chunk::<R>().expect("the tile's rows");
        let out = &mut out[first..];
        let mut sums = [simd.splat(0.0); R];
        if !self.is_first {
            for r in 0..R {
                sums[r] = read(simd, &out[r][self.panel * LANES..]);
            }
        }
        for run in 0..self.weights.runs {
            let (groups, scales) = self.weights.run(simd, run);
            let mut rows = [&activations[0][run]; R];
            for r in 0..R {
                rows[r] = &activations[r][run];
            }
            W::add(dots, &groups, &scales, rows, &mut sums);
        }
        for r in 0..R {
            write(sums[r], &mut out[r][self.panel * LANES..]);
        }
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
    /// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded to an integer, whose lower bits are the lower bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let simd = dots.simd();
    let (runs, _) = x.as_chunks::<RUN>();
    for (x, to) in runs.iter().zip(activations) {
        let (halves, _) = x.as_chunks::<LANES>();
        let (low, high) = (simd.load(&halves[0]), simd.load(&halves[1]));
        let zero = simd.splat(0.0);
        let largest = low.abs().max(high.abs()).largest();
        // Zero, but NaN where infinity or NaN was multiplied.
        let check = low.mul_add(zero, high * zero).sum();
        let (scale, inverse) =
            if largest <= 1e-30 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
        let (inverse, round) = (simd.splat(inverse), simd.splat(ROUND));
        let mut quants = [0_u8; RUN];
        for (half, x) in [low, high].into_iter().enumerate() {
            let rounded = x.mul_add(inverse, round).to_array();
            for i in 0..LANES {
                quants[half * LANES + i] = rounded[i].to_bits() as u8;
            }
        }
        let mut sums = [0; 2];
        let (halves, _) = quants.as_chunks::<LANES>();
        for half in 0..2 {
            for i in 0..LANES {
                sums[half] += i32::from(halves[half][i].cast_signed());
            }
        }
        let (words, _) = quants.as_chunks();
        for g in 0..GROUPS {
            to.words[g] = i32::from_le_bytes(words[g]);
        }
        to.scale = scale + check;
        to.sum = (sums[0] + sums[1]) as f32;
        if !starts.of_each_half {
            sums = [sums[0] + sums[1], 0];
        }
        for half in 0..2 {
            to.starts[half] = match starts.offset {
                Some(offset) => -offset * sums[half],
                None => dots.biased_start(sums[half]),
            };
        }
    }
}

/// Runs of a panel as bytes, since unpacking them for each tile of rows would take longer than reading them again.
struct Unpacked {
    runs: usize,
    groups: [[Line; GROUPS]; GROUP],
    scales: [[[f32; LANES]; 2]; GROUP],
    minima: [[f32; LANES]; GROUP],
}

impl Unpacked {
    #[inline(always)]
    fn cleared() -> Self {
        Self {
            runs: 0,
            groups: [[[0; 4 * LANES]; GROUPS]; GROUP],
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
            for g in 0..GROUPS {
                groups[g].store(&mut self.groups[to][g]);
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

    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, run: usize) -> ([S::Words; GROUPS], Scales<S::Lanes>) {
        let mut groups = [simd.splat_words(0); GROUPS];
        for g in 0..GROUPS {
            groups[g] = simd.load_words(&self.groups[run][g]);
        }
        let [first, second] = &self.scales[run];
        let scales = [simd.load(first), simd.load(second)];
        (groups, Scales { scales, minimum: simd.load(&self.minima[run]) })
    }
}
