//! The chains of the contract: `fma(x[k], w[k], sum)` over the inputs in order, a lane for each output, cut at every 256.

use std::ops::Range;

use arrayvec::ArrayVec;
use zerocopy::IntoBytes;

use super::cut::Tiling;
use super::elements::{Elements, PAIR, Panel, Weight};
use super::multiply::{Call, Kernel};
use super::next::{AndNext, Upcoming};
use super::quantised::{Blocks, Quantised, RUN};
use super::sums::{Route, RowSums, keep};
use super::tile::{Line as _, OneByOne, SideBySide, chain};
use crate::aligned::CACHE_LINE;
use crate::buffers::Buffers;
use crate::simd::slices::{read, write};
use crate::simd::{Isa, LANES, Lanes, Registers, Simd, dispatch};
use crate::threads::{rows_worth_sharing, split_rows};
use crate::tuning::Knob;

/// Where a chain is cut: part of the numeric contract.
pub const CUT: usize = 256;

/// From one copied row to the next: not a power of two, so that rows do not compete for the same lines of the first-level cache.
const STRIDE: usize = CUT + LANES;

/// Copies of rows, cut by cut.
pub static PACKED: Buffers<[f32; STRIDE]> = Buffers::new();

/// Panels that pass over rows at once, at most.
const PANELS: usize = 3;

/// Inputs for which one row asks at a time.
const STEP: usize = 16;

/// Weights that chains read.
pub trait Panels: Sync {
    /// What chains read: weights as stored, or widened.
    type Weight: Weight;

    /// Whether a cut of a panel is made ready in a buffer, not read where it is.
    const IS_BUFFERED: bool;

    /// Panels that lie side by side in memory.
    const SIDE_BY_SIDE: usize;

    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize;

    /// The weights of `inputs` of a panel, in `buffer` if they have to be widened.
    fn read<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [StripOf<Self>],
    ) -> Panel<'a, Self::Weight>;

    /// What [`read`](Self::read) reads from: of panels that lie side by side, to each its share. As good as any where there is no such panel.
    fn memory(&self, panel: usize, inputs: Range<usize>) -> &[u8];
}

type StripOf<P> = <<P as Panels>::Weight as Weight>::Strip;

impl<E: Weight> Panels for Elements<E> {
    type Weight = E;

    const IS_BUFFERED: bool = false;

    const SIDE_BY_SIDE: usize = E::STRIP;

    fn panel_bytes(&self) -> usize {
        Self::panel_bytes(self)
    }

    fn read<'a>(
        &'a self,
        _isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        _buffer: &'a mut [E::Strip],
    ) -> Panel<'a, E> {
        self.panel(panel).of_inputs(inputs)
    }

    fn memory(&self, panel: usize, inputs: Range<usize>) -> &[u8] {
        let panel = panel.min(self.panels() - 1);
        let strips = self.panel(panel).of_inputs(inputs).strips();
        let share = strips.len() / E::STRIP;
        strips[panel % E::STRIP * share..][..share].as_bytes()
    }
}

/// Narrow weights, widened once for all of many rows: in every tile, it would take registers that some instruction sets lack.
pub struct Widened<'a, E: Weight>(pub &'a Elements<E>);

impl<E: Weight> Panels for Widened<'_, E> {
    type Weight = f32;

    const IS_BUFFERED: bool = true;

    const SIDE_BY_SIDE: usize = E::STRIP;

    fn panel_bytes(&self) -> usize {
        self.0.panel_bytes()
    }

    fn read<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [StripOf<Self>],
    ) -> Panel<'a, f32> {
        let narrow = self.0.panel(panel).of_inputs(inputs);
        let buffer = &mut buffer[..narrow.pairs()];
        dispatch!(isa, simd => for (i, [[first, second]]) in buffer.iter_mut().enumerate() {
            let pair = narrow.pair(i);
            let lines = [E::line(pair, 0).load(simd), E::line(pair, 1).load(simd)];
            lines[0].store(first);
            lines[1].store(second);
        });
        Panel::new(buffer, 0)
    }

    fn memory(&self, panel: usize, inputs: Range<usize>) -> &[u8] {
        self.0.memory(panel, inputs)
    }
}

impl<B: Blocks> Panels for Quantised<B> {
    type Weight = f32;

    const IS_BUFFERED: bool = true;

    const SIDE_BY_SIDE: usize = 1;

    fn panel_bytes(&self) -> usize {
        Self::panel_bytes(self)
    }

    fn read<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        inputs: Range<usize>,
        buffer: &'a mut [StripOf<Self>],
    ) -> Panel<'a, f32> {
        let buffer = &mut buffer[..inputs.len() / PAIR];
        let (runs, _) = buffer.as_flattened_mut().as_flattened_mut().as_chunks_mut();
        let first = inputs.start / RUN;
        dispatch!(isa, simd => for (i, run) in runs.iter_mut().enumerate() {
            self.widen(simd, panel, first + i, run);
        });
        Panel::new(buffer, 0)
    }

    fn memory(&self, panel: usize, inputs: Range<usize>) -> &[u8] {
        self.lines_of(panel, inputs.start / RUN..inputs.end / RUN).as_flattened()
    }
}

/// Panels that one row takes at once from a buffer, where a single chain would wait for each multiply-add. Memory is slower than that.
const ROW_PANELS: usize = 4;

/// Cuts of panels that a row or a tile takes at once.
const BUFFERED_STRIPS: usize = ROW_PANELS * CUT / PAIR;

/// Multiplies rows by weights that are stored one by one.
pub fn multiply_elements<E: Weight, const N: usize>(
    call: &Call,
    weights: [&Elements<E>; N],
    x: &[f32],
    out: &mut [f32],
) {
    let rows = out.len() / call.outputs;
    let is_worth_widening = match call.isa.registers() {
        Registers::Few => weights[0].is_narrow() && rows >= Knob::WidenedRows.get(),
        Registers::Many => {
            let may_be_widened = E::ARE_CONVERTED && Knob::WidenedHalves.get() == 1;
            may_be_widened && rows >= Knob::ManyRows.get()
        }
    };
    if is_worth_widening {
        multiply(call, weights.map(Widened).each_ref(), x, out);
    } else {
        multiply(call, weights, x, out);
    }
}

/// Multiplies rows by weights.
pub fn multiply<P: Panels, const N: usize>(
    call: &Call,
    weights: [&P; N],
    x: &[f32],
    out: &mut [f32],
) {
    let Call { isa, inputs, .. } = *call;
    let cuts = inputs.div_ceil(CUT);
    call.split(tiling(isa, weights[0]).of_each(N), x, out, &|x, block| {
        let rows = x.len() / inputs;
        let lines = if rows == 1 { 0 } else { rows * cuts };
        PACKED.with(lines, [0.0; STRIDE], |packed| {
            split_rows(packed, 1, rows_worth_sharing(CUT), &|first, packed| {
                for (i, packed) in (first..).zip(packed) {
                    let cut = i / rows * CUT..inputs.min((i / rows + 1) * CUT);
                    packed[..cut.len()].copy_from_slice(&x[i % rows * inputs..][cut]);
                }
            });
            let packed = &*packed;
            call.multiply(weights.map(|weights| Chains { x, packed, inputs, weights }), block);
        });
    });
}

/// How rows are cut.
pub fn tiling<P: Panels>(isa: Isa, weights: &P) -> Tiling {
    Tiling {
        rows: tile_height(isa.registers(), panels_at_once::<P>(isa, usize::MAX), usize::MAX),
        row_panels: row_panels::<P>(),
        panel_bytes: weights.panel_bytes(),
    }
}

/// Panels that one row takes at once.
fn row_panels<P: Panels>() -> usize {
    // What is read where it lies is a straight line through memory, which is read fastest.
    if P::IS_BUFFERED { ROW_PANELS } else { P::Weight::STRIP }
}

/// Chains over weights.
struct Chains<'a, P> {
    /// The rows of a block.
    x: &'a [f32],
    /// The first cut of all rows, then the next: copies, since rows are far apart. Of one row there are none.
    packed: &'a [[f32; STRIDE]],
    inputs: usize,
    weights: &'a P,
}

impl<P: Panels> Kernel for Chains<'_, P> {
    fn panel_bytes(&self) -> usize {
        self.weights.panel_bytes()
    }

    fn row_panels(&self) -> usize {
        row_panels::<P>()
    }

    fn run(&self, isa: Isa, first_panel: usize, out: &mut [&mut [f32]]) {
        let mut cleared;
        let buffer: &mut [_] = if P::IS_BUFFERED {
            cleared = [P::Weight::ZEROS; BUFFERED_STRIPS];
            &mut cleared
        } else {
            &mut []
        };
        if let [out] = out {
            dispatch!(isa, simd => self.one_row(simd, isa, first_panel, out, buffer));
            return;
        }
        // Sums of the panels that pass at once, or of one after another.
        keep(out.len() * PANELS, |kept| self.many_rows(isa, first_panel, out, kept, buffer));
    }
}

/// Panels that a row or a tile takes at once.
type Taken<'a, P> = ArrayVec<Panel<'a, <P as Panels>::Weight>, ROW_PANELS>;

impl<P: Panels> Chains<'_, P> {
    /// One row needs no packing, and its outputs stay in registers from cut to cut.
    #[inline(always)]
    fn one_row<S: Simd>(
        &self,
        simd: S,
        isa: Isa,
        first_panel: usize,
        out: &mut [f32],
        buffer: &mut [StripOf<P>],
    ) {
        let step = if P::IS_BUFFERED { CUT } else { self.inputs };
        let most = self.row_panels();
        let ahead = ahead::<P>();
        for (tile, out) in out.chunks_mut(most * LANES).enumerate() {
            let first = first_panel + tile * most;
            let panels = first..first + out.len().div_ceil(LANES);
            for start in (0..self.inputs).step_by(step) {
                let end = self.inputs.min(start + step);
                let weights = self.read(isa, panels.clone(), start..end, buffer);
                let x = &self.x[start..end];
                match *weights {
                    [a, b, c, d] if const { P::IS_BUFFERED } => {
                        row_tile::<S, P, 4>(simd, x, [a, b, c, d], ahead, start == 0, out)
                    }
                    [a, b] if const { P::IS_BUFFERED || P::Weight::STRIP == 2 } => {
                        row_tile::<S, P, 2>(simd, x, [a, b], ahead, start == 0, out)
                    }
                    _ => {
                        for (weights, out) in weights.iter().zip(out.chunks_mut(LANES)) {
                            row_tile::<S, P, 1>(simd, x, [*weights], ahead, start == 0, out);
                        }
                    }
                }
            }
        }
    }

    /// Reads `inputs` of some panels.
    fn read<'a>(
        &'a self,
        isa: Isa,
        panels: Range<usize>,
        inputs: Range<usize>,
        buffer: &'a mut [StripOf<P>],
    ) -> Taken<'a, P> {
        let mut taken = Taken::<P>::new();
        let mut rest = buffer;
        for panel in panels {
            let (own, others) = rest.split_at_mut(if P::IS_BUFFERED { CUT / PAIR } else { 0 });
            taken.push(self.weights.read(isa, panel, inputs.clone(), own));
            rest = others;
        }
        taken
    }

    /// Between two cuts each panel passes over all rows. The sums of a tile go to memory between two cuts, and stay near while a few cuts follow each
    /// other.
    fn many_rows(
        &self,
        isa: Isa,
        first_panel: usize,
        out: &mut [&mut [f32]],
        kept: &mut [RowSums<PANELS>],
        buffer: &mut [StripOf<P>],
    ) {
        let (rows, panels) = (out.len(), out[0].len().div_ceil(LANES));
        let tile_panels = panels_at_once::<P>(isa, rows);
        let most = Knob::ChainCuts.get();
        for group in (0..self.inputs).step_by(most * CUT) {
            let end = self.inputs.min(group + most * CUT);
            let cut_from = |start: usize| start..end.min(start + CUT);
            let cuts = (group..end).step_by(CUT).map(cut_from);
            let packed = &self.packed[group / CUT * rows..];
            for panel in (0..panels).step_by(tile_panels) {
                let first = first_panel + panel;
                let last = first + tile_panels.min(panels - panel);
                for (cut, packed) in cuts.clone().zip(packed.chunks_exact(rows)) {
                    let next = if cut.end < end { (first, cut.end) } else { (last, group) };
                    let weights = self.read(isa, first..last, cut.clone(), buffer);
                    let mut next_memory: [&[u8]; PANELS] = [&[]; PANELS];
                    for (n, memory) in next_memory.iter_mut().enumerate() {
                        *memory = self.weights.memory(next.0 + n, cut_from(next.1));
                    }
                    let tiles = Tiles {
                        rows: packed,
                        weights: &weights,
                        next: next_memory,
                        depth: cut.len(),
                        route: Route::new(cut.start, group, cut.end == end, panel * LANES),
                    };
                    tiles.run(isa, kept, out);
                }
            }
        }
    }
}

/// Multiplies a row by panels, one to [`ROW_PANELS`] of them, from a cut's beginning on: adds to `out`, unless it `is_first`.
#[inline(always)]
fn row_tile<S: Simd, P: Panels, const N: usize>(
    simd: S,
    x: &[f32],
    weights: [Panel<P::Weight>; N],
    ahead: usize,
    is_first: bool,
    out: &mut [f32],
) {
    // Narrow weights take more instructions a line: memory can be asked little by little, if it is asked at all.
    let step = if P::Weight::STRIP == 1 || ahead == 0 { STEP } else { PAIR };
    let mut totals = [simd.splat(0.0); N];
    if !is_first {
        for n in 0..N {
            totals[n] = read(simd, &out[n * LANES..]);
        }
    }
    for start in (0..x.len()).step_by(CUT) {
        let end = x.len().min(start + CUT);
        let mut sums = [[simd.splat(0.0); N]; 1];
        for first in (start..end).step_by(step) {
            let depth = step.min(end - first);
            let (row, _) = x[first..][..depth].as_chunks::<1>();
            let mut panels = weights;
            for n in 0..N {
                panels[n] = weights[n].of_inputs(first..first + depth);
                if !P::IS_BUFFERED {
                    prefetch(simd, weights[n], first..first + step, ahead);
                }
            }
            sums = chain(simd, 0..depth, SideBySide(row), panels, sums);
        }
        for n in 0..N {
            totals[n] = if is_first && start == 0 { sums[0][n] } else { totals[n] + sums[0][n] };
        }
    }
    for n in 0..N {
        write(totals[n], &mut out[n * LANES..]);
    }
}

/// How far ahead one row asks for what it will read, in bytes: memory answers in more than 100 ns, in which a core could read 4 KB and more.
fn ahead<P: Panels>() -> usize {
    let knob = if P::Weight::STRIP == 1 { Knob::WideAhead } else { Knob::NarrowAhead };
    knob.get()
}

/// Asks for what a row will read some time after some inputs of a panel.
#[inline(always)]
fn prefetch<S: Simd, E: Weight>(simd: S, panel: Panel<E>, inputs: Range<usize>, ahead: usize) {
    if ahead == 0 || !panel.is_first_of_strip() {
        return;
    }
    let ahead = inputs.start / PAIR * size_of::<E::Strip>() + ahead;
    for line in (0..inputs.len() / PAIR * size_of::<E::Strip>()).step_by(CACHE_LINE) {
        simd.prefetch(panel.strips(), ahead + line);
    }
}

/// Evaluates `$body` with the constant `$rows` equal to what [`tile_height`] gives. Heights that it never gives here are not compiled.
macro_rules! with_height {
    (tile_height($registers:expr, $panels:expr, $left:expr), $rows:ident => $body:expr) => {
        with_height!(@ $registers, $panels, $left, $rows, $body; 12 8 6 4 3 2)
    };
    (@ $registers:expr, $panels:expr, $left:expr, $rows:ident, $body:expr; $($height:literal)*) => {
        match tile_height($registers, $panels, $left) {
            $($height if const { tile_height($registers, $panels, $height) == $height } => {
                const $rows: usize = $height;
                $body
            })*
            _ => {
                const $rows: usize = 1;
                $body
            }
        }
    };
}

/// The height of the next tile of so many panels when `left` rows are left: such that its sums stay in registers.
#[inline(always)]
const fn tile_height(registers: Registers, panels: usize, left: usize) -> usize {
    match (registers, panels, left) {
        (Registers::Many, ..3, 12..) => 12,
        (Registers::Many, _, 8..) => 8,
        (Registers::Few, 2, 3..) => 3,
        (Registers::Few, ..2, 6..) => 6,
        (Registers::Few, ..2, 4..) | (Registers::Many, _, 4..) => 4,
        (_, _, 2..) => 2,
        _ => 1,
    }
}

/// Panels that pass over so many rows at once: whole strips, and as many as leave a tile's sums in registers.
fn panels_at_once<P: Panels>(isa: Isa, rows: usize) -> usize {
    match (isa.registers(), P::SIDE_BY_SIDE) {
        (Registers::Many, 1) => 3,
        (Registers::Few, 1) if isa.takes_two_panels() && rows >= Knob::ManyRows.get() => 2,
        (_, side_by_side) => side_by_side,
    }
}

/// All rows times some panels between two cuts.
struct Tiles<'a, E: Weight> {
    rows: &'a [[f32; STRIDE]],
    weights: &'a [Panel<'a, E>],
    /// What the panels after these are read from.
    next: [&'a [u8]; PANELS],
    depth: usize,
    /// Where the sums of these panels come from and go to.
    route: Route,
}

impl<E: Weight> Tiles<'_, E> {
    fn run(&self, isa: Isa, kept: &mut [RowSums<PANELS>], out: &mut [&mut [f32]]) {
        // Each compiled by itself: together they would share registers.
        if out.len() < Knob::ManyRows.get() {
            dispatch!(isa, simd => self.all_panels::<_, FEW_ROWS>(simd, kept, out));
        } else {
            dispatch!(isa, simd => self.all_panels::<_, MANY_ROWS>(simd, kept, out));
        }
    }

    #[inline(always)]
    fn all_panels<S: Simd, const LINES: usize>(
        &self,
        simd: S,
        kept: &mut [RowSums<PANELS>],
        out: &mut [&mut [f32]],
    ) {
        match self.weights {
            &[a, b, c] if const { S::REGISTERS.are_many() } => {
                self.panels::<S, 3, LINES>(simd, [a, b, c], 0, kept, out);
            }
            &[a, b] if const { Self::takes_two::<S, LINES>() } => {
                self.panels::<S, 2, LINES>(simd, [a, b], 0, kept, out);
            }
            weights => {
                for (n, weights) in weights.iter().enumerate() {
                    let kept = &mut kept[n * out.len()..];
                    self.panels::<S, 1, LINES>(simd, [*weights], n, kept, out);
                }
            }
        }
    }

    /// Whether a tile takes two panels. Where registers are few, none is left to widen weights; and for few rows, to ask twice as often costs
    /// more than it spares.
    #[inline(always)]
    const fn takes_two<S: Simd, const LINES: usize>() -> bool {
        match S::REGISTERS {
            Registers::Few => S::TAKES_TWO_PANELS && E::STRIP == 1 && LINES == MANY_ROWS,
            Registers::Many => true,
        }
    }

    /// `N` panels, those from `which` on of these.
    #[inline(always)]
    fn panels<S: Simd, const N: usize, const LINES: usize>(
        &self,
        simd: S,
        weights: [Panel<E>; N],
        which: usize,
        kept: &mut [RowSums<PANELS>],
        out: &mut [&mut [f32]],
    ) {
        let out_rows = out.len();
        let next = *self.next[which..].first_chunk::<N>().expect("the panels after these");
        let upcoming = Upcoming::new(next, out.len(), self.depth / PAIR);
        let route = self.route.from(which * LANES);
        let mut first = 0;
        while first < out_rows {
            let packed = &self.rows[first..];
            with_height!(tile_height(S::REGISTERS, N, out_rows - first), R => {
                let next = upcoming.of_tile(first, R);
                let columns = AndNext::<_, N, LINES> { columns: weights, next };
                let rows = OneByOne(packed.first_chunk::<R>().expect("the tile's rows were copied"));
                let zero = [[simd.splat(0.0); N]; R];
                let kept = kept[first..].first_chunk_mut().expect("the tile's rows");
                let out = out[first..].first_chunk_mut::<R>().expect("the tile's rows");
                route.ask::<S, N>(simd, out);
                let sums = chain(simd, 0..self.depth, rows, columns, zero);
                let sums = route.add(simd, kept, out, sums);
                route.put(&sums, kept, out);
                first += R;
            });
        }
    }
}

/// Lines of a panel that are asked for with each pair of inputs: as many as a pair has, for a tile alone.
const FEW_ROWS: usize = size_of::<[f32; PAIR * LANES]>() / CACHE_LINE;
const MANY_ROWS: usize = 1;
