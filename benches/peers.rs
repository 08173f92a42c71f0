//! Linear layers in `f32` against the matrix products of the crates `gemm`, `faer` and `matrixmultiply`, at the shapes of LFM2-350M and
//! LFM2-1.2B.
//!
//! ```text
//! cargo bench --features peers --bench peers
//! cargo bench --features peers --bench peers -- --threads 1 'linear/.*/512x'
//! ```
//!
//! Peers get the weights as checkpoints store them, `[outputs, inputs]`, and multiply by their transpose by strides, as users of these
//! crates do; ours are packed once, when a model is loaded. Every peer chooses its instruction set by itself.
//!
//! All take turns, so that a disturbance meets all. Criterion times one case after another, and so has no part in this.
//!
//! All have the same number of threads. Ours, `gemm` and `faer` share a pool, whose threads are awake when the clock starts.
//! `matrixmultiply` brings its own, and uses one, two or four (two of three, four of more); meanwhile those of the pool sleep.

use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use gemm::{Parallelism, gemm};
use lfm2_benches::{Extent, Options, Session, Spread, Stored, matrices, values};
use lfm2_kernels::Isa;
use lfm2_kernels::linear::{Matrix, WeightFormat};
use lfm2_kernels::model::Config;
use lfm2_kernels::ops::linear;
use lfm2_kernels::threads::enter;
use matrixmultiply::sgemm;
use rayon::current_num_threads;
use serde::Serialize;

fn main() {
    Options::from_args().in_idle_pool(run);
}

fn run(options: Options) {
    give_threads_to_matrixmultiply();
    let session = Session::new("peers", options);
    let products = products(&session.options);
    if session.options.has("--list") {
        products.iter().for_each(|product| println!("{}: benchmark", product.id()));
        return;
    }
    let mut comparisons = Vec::new();
    let mut left = products.len();
    for products in products.chunk_by(|a, b| a.weight == b.weight) {
        let weights = Weights::new(products[0].weight);
        for &product in products {
            eprintln!("[{left} left] {}", product.id());
            let mut layer = Layer::new(product, &weights);
            Contender::PEERS.into_iter().for_each(|peer| layer.verify(peer));
            if session.options.measures() {
                comparisons.push(layer.compare(session.options.extent()));
            }
            left -= 1;
        }
    }
    if !comparisons.is_empty() {
        let isas = session.options.isas();
        let mut tables: Vec<_> = isas.iter().map(|&isa| Table::of(isa, &comparisons)).collect();
        tables.retain(|table| !table.comparisons.is_empty());
        tables.iter().for_each(Table::print);
        session.finish();
        session.report(tables);
    }
}

/// As many as the pool has. It reads the variable once, when it is first called.
#[expect(unsafe_code)]
fn give_threads_to_matrixmultiply() {
    let threads = current_num_threads().to_string();
    // SAFETY: the other threads, those of the pool and the one that waits for it, read the environment through std alone, which locks it.
    unsafe { std::env::set_var("MATMUL_NUM_THREADS", threads) };
}

/// Some rows times the transpose of a weight matrix.
#[derive(Clone, Copy)]
struct Product {
    model: &'static str,
    /// `[outputs, inputs]`.
    weight: [usize; 2],
    rows: usize,
    /// Of ours.
    isa: Isa,
}

impl Product {
    /// As in the bench `ops`.
    fn id(&self) -> String {
        let Self { isa, weight: [outputs, inputs], rows, .. } = self;
        format!("linear/{isa}/f32/{rows}x{outputs}x{inputs}/{}", current_num_threads())
    }

    fn operations(&self) -> f64 {
        let [outputs, inputs] = self.weight;
        (2 * self.rows * outputs * inputs) as f64
    }
}

fn products(options: &Options) -> Vec<Product> {
    let (models, rows): (&[_], &[_]) = match options.extent() {
        Extent::Quick => (&["350m"], &[1, 16, 512]),
        Extent::Usual | Extent::Full => (&["350m", "1.2b"], &[1, 4, 16, 128, 512]),
    };
    let mut products = Vec::new();
    for &model in models {
        for weight in projections(model) {
            for &rows in rows {
                let of = |isa| Product { model, weight, rows, isa };
                products.extend(options.isas().into_iter().map(of));
            }
        }
    }
    let is_too_slow = |isa: Isa| isa.name() == "scalar" && options.extent() != Extent::Full;
    products.retain(|product| !is_too_slow(product.isa) && options.matches(&product.id()));
    products
}

/// Into and out of the mixers, into and out of the feed-forward.
fn projections(model: &str) -> [[usize; 2]; 5] {
    let config = Config::preset(model).expect("a preset");
    let (width, feed_forward_width) = (config.hidden_size, config.feed_forward_width);
    [
        [3 * width, width],
        [width, width],
        [config.key_value_width(), width],
        [feed_forward_width, width],
        [width, feed_forward_width],
    ]
}

/// Whose product it is.
#[derive(Clone, Copy, PartialEq)]
enum Contender {
    Ours,
    Gemm,
    Faer,
    Matrixmultiply,
}

impl Contender {
    const PEERS: [Self; 3] = [Self::Gemm, Self::Faer, Self::Matrixmultiply];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Gemm => "gemm",
            Self::Faer => "faer",
            Self::Matrixmultiply => "matrixmultiply",
        }
    }
}

/// Copies of a weight matrix, packed for us and plain for the peers: of each kind as many as are together beyond any cache.
struct Weights {
    shape: [usize; 2],
    packed: Vec<Matrix>,
    plain: Vec<Vec<f32>>,
}

impl Weights {
    fn new(shape: [usize; 2]) -> Self {
        let [outputs, inputs] = shape;
        let packed = matrices(Stored::plain(WeightFormat::F32), outputs, inputs);
        let plain = vec![packed[0].to_rows(); packed.len()];
        Self { shape, packed, plain }
    }
}

/// A linear layer that everyone runs.
struct Layer<'a> {
    product: Product,
    weights: &'a Weights,
    x: Vec<f32>,
    out: Vec<f32>,
    turn: usize,
}

impl<'a> Layer<'a> {
    fn new(product: Product, weights: &'a Weights) -> Self {
        let [outputs, inputs] = weights.shape;
        let (x, out) = (values("x", product.rows * inputs), vec![0.0; product.rows * outputs]);
        Self { product, weights, x, out, turn: 0 }
    }

    /// `out = x W^T`, with the next copy of `W`.
    #[expect(unsafe_code)]
    fn run(&mut self, contender: Contender) {
        let (rows, [outputs, inputs]) = (self.product.rows, self.weights.shape);
        let (x_stride, out_stride) = (inputs as isize, outputs as isize);
        let at = self.turn % self.weights.plain.len();
        self.turn += 1;
        let (x, weight, out) = (&self.x[..], &self.weights.plain[at][..], &mut self.out[..]);
        assert_eq!(x.len(), rows * inputs);
        assert_eq!(weight.len(), outputs * inputs);
        assert_eq!(out.len(), rows * outputs);
        match contender {
            Contender::Ours => linear(self.product.isa, x, &self.weights.packed[at], None, out),
            Contender::Faer => {
                let x = MatRef::from_row_major_slice(x, rows, inputs);
                let weight = MatRef::from_row_major_slice(weight, outputs, inputs);
                let out = MatMut::from_row_major_slice_mut(out, rows, outputs);
                let threads = Par::rayon(current_num_threads());
                matmul(out, Accum::Replace, x, weight.transpose(), 1.0, threads);
            }
            // SAFETY: the slices are as long as asserted, and the strides are those of their rows.
            Contender::Gemm => unsafe {
                gemm(
                    rows,
                    outputs,
                    inputs,
                    out.as_mut_ptr(),
                    1,
                    out_stride,
                    false,
                    x.as_ptr(),
                    1,
                    x_stride,
                    weight.as_ptr(),
                    x_stride,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::Rayon(current_num_threads()),
                );
            },
            // SAFETY: as above.
            Contender::Matrixmultiply => unsafe {
                sgemm(
                    rows,
                    inputs,
                    outputs,
                    1.0,
                    x.as_ptr(),
                    x_stride,
                    1,
                    weight.as_ptr(),
                    1,
                    x_stride,
                    0.0,
                    out.as_mut_ptr(),
                    out_stride,
                    1,
                );
            },
        }
        black_box(&mut self.out);
    }

    /// Compares a peer's result with ours.
    ///
    /// A sum of `n` products, in any order, fused or not, is within `gamma * sum |x w|` of the exact one, where `gamma = n u / (1 - n u)`
    /// with `u = 2^-24` (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); so two such sums are within twice that. `sum |x w|`
    /// is at most the product of the vectors' lengths.
    ///
    /// # Panics
    ///
    /// If they differ by more: what is wrong is not timed.
    fn verify(&mut self, peer: Contender) {
        let mut result = |contender| {
            self.out.fill(f32::NAN);
            self.run(contender);
            self.out.clone()
        };
        let (ours, theirs) = (result(Contender::Ours), result(peer));
        let [outputs, inputs] = self.weights.shape;
        let rounding = inputs as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = rounding / (1.0 - rounding);
        let (rows, columns) = (lengths(&self.x, inputs), lengths(&self.weights.plain[0], inputs));
        for (at, (&ours, &theirs)) in ours.iter().zip(&theirs).enumerate() {
            let (row, column) = (at / outputs, at % outputs);
            let tolerance = 2.0 * gamma * rows[row] * columns[column];
            let difference = (f64::from(ours) - f64::from(theirs)).abs();
            assert!(
                difference <= tolerance,
                "{} is not timed, because {} is wrong: output {column} of row {row} is {theirs}, ours {ours}, which differ by {difference:e}, more \
                 than {tolerance:e}",
                self.product.id(),
                peer.name(),
            );
        }
    }

    /// Times everyone in turn.
    fn compare(&mut self, extent: Extent) -> Comparison {
        /// Seconds of ours.
        const TURN: f64 = 0.005;
        let rounds = match extent {
            Extent::Quick => 7,
            Extent::Usual => 21,
            Extent::Full => 81,
        };
        let runs = (TURN / self.seconds(Contender::Ours, 1)).ceil() as usize;
        let mut ours = Vec::new();
        let mut theirs = Contender::PEERS.map(|_| Vec::new());
        for _ in 0..rounds {
            ours.push(self.seconds(Contender::Ours, runs));
            for (peer, seconds) in Contender::PEERS.into_iter().zip(&mut theirs) {
                seconds.push(self.seconds(peer, runs));
            }
        }
        Comparison::of(self.product, ours, theirs)
    }

    /// How long a run takes, the mean of `runs`.
    fn seconds(&mut self, contender: Contender, runs: usize) -> f64 {
        /// After so long without work the pool's threads sleep.
        const REST: Duration = Duration::from_millis(1);
        let mut timed = || {
            let start = Instant::now();
            (0..runs).for_each(|_| self.run(contender));
            start.elapsed().as_secs_f64() / runs as f64
        };
        if contender == Contender::Matrixmultiply {
            sleep(REST);
            return timed();
        }
        enter(|| {
            // Until all are awake.
            rayon::broadcast(|_| ());
            timed()
        })
    }
}

/// Of each row of a matrix, as a vector.
fn lengths(matrix: &[f32], width: usize) -> Vec<f64> {
    let squares = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    matrix.chunks_exact(width).map(|row| squares(row).sqrt()).collect()
}

/// Ours and the peers', all in the same minute.
#[derive(Clone, Serialize)]
struct Comparison {
    #[serde(skip)]
    isa: Isa,
    model: &'static str,
    outputs: usize,
    inputs: usize,
    rows: usize,
    ours: Speed,
    peers: Vec<Speed>,
    /// The peer that takes the least time.
    best: &'static str,
    /// Our speed as a multiple of that peer's, of neighbours in time.
    ratio: Spread,
}

#[derive(Clone, Serialize)]
struct Speed {
    of: &'static str,
    seconds: Spread,
    operations_per_second: f64,
}

impl Comparison {
    fn of(product: Product, ours: Vec<f64>, theirs: [Vec<f64>; 3]) -> Self {
        let Product { isa, model, weight: [outputs, inputs], rows } = product;
        let speed = |contender: Contender, seconds: &[f64]| {
            let seconds = Spread::of(seconds.to_vec());
            let operations_per_second = product.operations() / seconds.median;
            Speed { of: contender.name(), seconds, operations_per_second }
        };
        let peers: Vec<_> = Contender::PEERS
            .iter()
            .zip(&theirs)
            .map(|(&peer, seconds)| speed(peer, seconds))
            .collect();
        let median = |at: &usize| peers[*at].seconds.median;
        let best = (0..peers.len()).min_by(|a, b| median(a).total_cmp(&median(b)));
        let best = best.expect("there are peers");
        let ratios = theirs[best].iter().zip(&ours).map(|(theirs, ours)| theirs / ours);
        Self {
            isa,
            model,
            outputs,
            inputs,
            rows,
            ratio: Spread::of(ratios.collect()),
            ours: speed(Contender::Ours, &ours),
            best: peers[best].of,
            peers,
        }
    }

    fn is_behind(&self) -> bool {
        self.ratio.median < 1.0
    }
}

/// All comparisons of an instruction set of ours.
#[derive(Serialize)]
struct Table {
    isa: &'static str,
    comparisons: Vec<Comparison>,
    means: Vec<Mean>,
}

/// Of some comparisons.
#[derive(Serialize)]
struct Mean {
    of: String,
    /// The geometric mean of the ratios.
    ratio: f64,
    comparisons: usize,
    /// In how many the best peer is faster.
    behind: usize,
}

impl Table {
    fn of(isa: Isa, comparisons: &[Comparison]) -> Self {
        let mut comparisons: Vec<_> =
            comparisons.iter().filter(|comparison| comparison.isa == isa).cloned().collect();
        comparisons.sort_by_key(|comparison| comparison.rows);
        let mut means: Vec<_> = comparisons
            .chunk_by(|a, b| a.rows == b.rows)
            .map(|comparisons| Mean::of(format!("T = {}", comparisons[0].rows), comparisons))
            .collect();
        let many = comparisons.partition_point(|comparison| comparison.rows < 16);
        means.push(Mean::of("T >= 16".into(), &comparisons[many..]));
        means.push(Mean::of("all".into(), &comparisons));
        means.retain(|mean| mean.comparisons > 0);
        Self { isa: isa.name(), comparisons, means }
    }

    fn print(&self) {
        let (isa, threads) = (self.isa, current_num_threads());
        println!("\nT rows of a linear layer: {isa}, f32, {threads} threads, in Gflop/s");
        print!("{:6}{:>5}{:>12}{:>10}", "", "T", "shape", "ours");
        Contender::PEERS.iter().for_each(|peer| print!("{:>16}", peer.name()));
        println!("  {:16}{:>10}{:>16}", "best", "ours/best", "middle half");
        for comparison in &self.comparisons {
            let Comparison { model, outputs, inputs, rows, ours, peers, best, ratio, .. } =
                comparison;
            let shape = format!("{outputs}x{inputs}");
            print!("{model:6}{rows:>5}{shape:>12}{:>10.1}", ours.operations_per_second / 1e9);
            peers.iter().for_each(|peer| print!("{:>16.1}", peer.operations_per_second / 1e9));
            let half = format!("{:.2} to {:.2}", ratio.low, ratio.high);
            let note = if comparison.is_behind() { "  behind" } else { "" };
            println!("  {best:16}{:>10.2}{half:>16}{note}", ratio.median);
        }
        for Mean { of, ratio, comparisons, behind } in &self.means {
            println!("  {of:8} geometric mean {ratio:.2}, behind in {behind} of {comparisons}");
        }
    }
}

impl Mean {
    fn of(of: String, comparisons: &[Comparison]) -> Self {
        let logarithms = comparisons.iter().map(|comparison| comparison.ratio.median.ln());
        Self {
            of,
            ratio: (logarithms.sum::<f64>() / comparisons.len() as f64).exp(),
            comparisons: comparisons.len(),
            behind: comparisons.iter().filter(|comparison| comparison.is_behind()).count(),
        }
    }
}
