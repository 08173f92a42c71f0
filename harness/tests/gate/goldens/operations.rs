//! Every operation, on the inputs of `fixtures/ops`.

use std::path::Path;
use std::sync::Arc;

use approx::abs_diff_eq;
use lfm2_harness::coverage::Coverage;
use lfm2_harness::golden::GoldenFile;
use lfm2_harness::oracle::expected::{self, Expected};
use lfm2_harness::oracle::ops::ShiftAxis as OracleShiftAxis;
use lfm2_kernels::Isa;
use lfm2_kernels::linear::Matrix;
use lfm2_kernels::ops::{
    self, CacheElement, KeyValueCache, RopeTable, ShiftAxis, ShiftSumState, ShortConv,
};
use libtest_mimic::{Failed, Trial};

use super::{Case, entries, stem};

/// The suite's name in the table of coverage.
const SUITE: &str = "golden operations";

/// PyTorch's 64-bit result and the oracle's do roundings of 2^-53 where a kernel does roundings of 2^-24, so they differ by about
/// 2^-29 of its bound. Their sums run in other orders, for which this leaves a factor of 2^9.
const TWIN: f64 = 1.0 / (1 << 20) as f64;

/// PyTorch's own 32-bit result does as many roundings as the kernel or a few more, in another order: its error stays below this multiple
/// of the kernel's bound. If not, the file's two results are not of one graph.
const PYTORCH: f64 = 2.0;

/// Runs a case on an instruction set: everything that the operation writes.
type Run = fn(&Case, Isa) -> Result<Vec<Output>, Failed>;

/// The operations, by the names of their files.
const RUNS: &[(&str, Run)] = &[
    ("add", add),
    ("argmax", argmax),
    ("attention", attention),
    ("embedding", embedding),
    ("linear", linear),
    ("multiply", multiply),
    ("rms_norm", rms_norm),
    ("rope", rope),
    ("shift_sum", shift_sum),
    ("short_conv", short_conv),
    ("silu_multiply", silu_multiply),
    ("softmax", softmax),
];

/// One trial for each file; one that has no operation fails.
pub fn trials(coverage: &Arc<Coverage>) -> Vec<Trial> {
    coverage.announce(SUITE);
    let found: Vec<_> = entries("ops").iter().map(|path| stem(path)).collect();
    let known: Vec<_> = RUNS.iter().map(|(name, _)| name.to_string()).collect();
    let complete = move || match found == known {
        true => Ok(()),
        false => Err(format!("fixtures/ops has {found:?}: expected {known:?}").into()),
    };
    let trial = |(name, run): &(&str, Run)| {
        let (run, coverage) = (*run, Arc::clone(coverage));
        let path = super::fixtures().join(format!("ops/{name}.safetensors"));
        Trial::test(format!("goldens::operations::{name}"), move || holds(&path, run, &coverage))
    };
    let mut trials = vec![Trial::test("goldens::operations::every_file", complete)];
    trials.extend(RUNS.iter().map(trial));
    trials
}

/// One thing that an operation writes.
struct Output {
    /// The name of its tensor.
    tensor: &'static str,
    values: Vec<f32>,
    /// What the oracle expects.
    expected: Vec<Expected>,
    /// By how much PyTorch's inputs to the arithmetic differ from ours, element by element, beyond what the bound knows.
    inputs: Vec<f64>,
}

impl Output {
    fn new(tensor: &'static str, values: Vec<f32>, expected: Vec<Expected>) -> Self {
        let inputs = vec![0.0; values.len()];
        Self { tensor, values, expected, inputs }
    }
}

fn holds(path: &Path, run: Run, coverage: &Coverage) -> Result<(), Failed> {
    let file = GoldenFile::open(path)?;
    let cases = Case::all(&file)?;
    for isa in Isa::available() {
        for case in &cases {
            for output in run(case, isa)? {
                output.judge(case).map_err(|failed| {
                    let (case, tensor) = (case.index, output.tensor);
                    let message = failed.message().unwrap_or_default().to_string();
                    format!("case {case} on {isa}: {tensor}: {message}")
                })?;
            }
        }
        coverage.record(SUITE, isa, cases.len());
    }
    Ok(())
}

impl Output {
    fn judge(&self, case: &Case) -> Result<(), Failed> {
        let Self { tensor, values, expected, inputs } = self;
        let (single, double) = (case.f32(tensor)?, case.f64(&format!("{tensor}_f64"))?);
        let lengths = [values.len(), expected.len(), single.len(), double.len()];
        if lengths != [double.len(); 4] {
            return Err(format!("lengths differ: {lengths:?}").into());
        }
        for i in 0..values.len() {
            let (value, twin, pytorch) = (f64::from(values[i]), double[i], f64::from(single[i]));
            let Expected { value: oracle, bound } = expected[i];
            let near = |what: &str, a: f64, b: f64, epsilon: f64| match abs_diff_eq!(
                a,
                b,
                epsilon = epsilon
            ) {
                true => Ok(()),
                false => Err(format!(
                    "element {i}: {what}: {a:e} and {b:e} are more than {epsilon:e} apart"
                )),
            };
            let twin_bound = TWIN * bound + inputs[i];
            near("the oracle and PyTorch in f64", oracle, twin, twin_bound)?;
            // The bound is derived from the operation's count of roundings, step by step: see `oracle::bound`.
            near("the kernel and PyTorch in f64", value, twin, bound + twin_bound)?;
            near("PyTorch in f32 and in f64", pytorch, twin, PYTORCH * bound)?;
            near(
                "the kernel and PyTorch in f32",
                value,
                pytorch,
                bound + twin_bound + PYTORCH * bound,
            )?;
        }
        Ok(())
    }
}

fn add(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let (a, b) = (case.f32("a")?, case.f32("b")?);
    let mut out = a.clone();
    ops::add(isa, &mut out, &b);
    Ok(vec![Output::new("out", out, expected::expected_add(&a, &b))])
}

fn multiply(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let (a, b) = (case.f32("a")?, case.f32("b")?);
    let mut out = a.clone();
    ops::multiply(isa, &mut out, &b);
    Ok(vec![Output::new("out", out, expected::expected_multiply(&a, &b))])
}

fn silu_multiply(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let (gate, up) = (case.f32("gate")?, case.f32("up")?);
    let mut out = gate.clone();
    ops::silu_multiply(isa, &mut out, &up);
    Ok(vec![Output::new("out", out, expected::expected_silu_multiply(&gate, &up))])
}

/// Whole numbers: there is nothing but equality.
fn argmax(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [_, length] = case.shape("x")?;
    let x = case.f32("x")?;
    let found: Vec<_> = x.chunks_exact(length).map(|row| ops::argmax(isa, row) as u32).collect();
    match (found, case.u32("out")?) {
        (found, expected) if found == expected => Ok(Vec::new()),
        (found, expected) => {
            Err(format!("case {} on {isa}: {found:?} instead of {expected:?}", case.index).into())
        }
    }
}

fn embedding(case: &Case, _: Isa) -> Result<Vec<Output>, Failed> {
    let [vocabulary, width] = case.shape("weight")?;
    let (table, tokens) = (case.f32("weight")?, case.u32("tokens")?);
    let mut out = vec![f32::NAN; tokens.len() * width];
    ops::embedding(&Matrix::from_f32(vocabulary, width, &table), &tokens, &mut out);
    Ok(vec![Output::new("out", out, expected::expected_embedding(&tokens, &table, width))])
}

fn rms_norm(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let (x, weight, epsilon) = (case.f32("x")?, case.f32("weight")?, case.f32("epsilon")?[0]);
    let mut out = vec![f32::NAN; x.len()];
    ops::rms_norm(isa, &x, &weight, epsilon, &mut out);
    Ok(vec![Output::new("out", out, expected::expected_rms_norm(&x, &weight, epsilon))])
}

fn linear(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let ([rows, _], [outputs, inputs]) = (case.shape("x")?, case.shape("weight")?);
    let (x, bias) = (case.f32("x")?, case.optional("bias")?);
    let name = case.name("weight");
    let tensor = case.file.weight(&name)?.ok_or("no weight")?;
    let weight = Matrix::from_le_bytes(tensor.format, outputs, inputs, &tensor.bytes);
    let mut out = vec![f32::NAN; rows * outputs];
    ops::linear(isa, &x, &weight, bias.as_deref(), &mut out);
    let widened = case.file.widened(&name)?;
    let expected = expected::expected_linear(&x, rows, &widened, bias.as_deref());
    Ok(vec![Output::new("out", out, expected)])
}

fn softmax(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [_, length] = case.shape("x")?;
    let x = case.f32("x")?;
    let mut out = x.clone();
    ops::softmax(isa, &mut out, length);
    let expected = x.chunks_exact(length).flat_map(expected::expected_softmax).collect();
    Ok(vec![Output::new("out", out, expected)])
}

fn rope(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [rows, heads, head_dim] = case.shape("x")?;
    let half = head_dim / 2;
    let (x, positions, theta) = (case.f32("x")?, case.u32("positions")?, case.f64("theta")?[0]);
    let mut table = RopeTable::new(theta, head_dim, rows);
    table.fill(positions.iter().map(|&position| position as usize));
    let mut out = x.clone();
    ops::rope(isa, &mut out, heads, &table);
    let expected = expected::expected_rope(&x, heads, head_dim, &positions, theta);

    // PyTorch's sines and cosines are rounded to f32 in its 64-bit result, too; vector code may miss the nearest f32 by one. So each lies
    // within 1.5 units in the last place, 2^-24 below 1, of the true value, ours within half a unit of it.
    const TRUE: f64 = 1.5 / (1 << 24) as f64;
    const OURS: f32 = 2.0 / (1 << 24) as f32;
    let (cosines, sines) = (case.f32("cos")?, case.f32("sin")?);
    for row in 0..rows {
        for i in 0..head_dim {
            let at = row * head_dim + i;
            let (cosine, sine) = (table.cosines(row)[i % half], table.sines(row)[i % half]);
            if !abs_diff_eq!(cosine, cosines[at], epsilon = OURS)
                || !abs_diff_eq!(sine, sines[at], epsilon = OURS)
            {
                return Err(
                    format!("case {}: angle {i} of row {row} is another", case.index).into()
                );
            }
        }
    }
    let pair = |i: usize| {
        let other = if i % head_dim < half { i + half } else { i - half };
        f64::from(x[i].abs() + x[other].abs())
    };
    let inputs = (0..x.len()).map(|i| TRUE * pair(i)).collect();
    Ok(vec![Output { inputs, ..Output::new("out", out, expected) }])
}

fn attention(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [rows, heads, head_dim] = case.shape("query")?;
    let [positions, key_value_heads, _] = case.shape("key")?;
    let (query, key, value) = (case.f32("query")?, case.f32("key")?, case.f32("value")?);
    let mut cache = KeyValueCache::new(key_value_heads, head_dim, positions, CacheElement::F32);
    cache.append(&key, &value);
    let mut out = vec![f32::NAN; query.len()];
    ops::attention(isa, &query, heads, &cache, positions - rows, &mut out);
    let expected =
        expected::expected_attention(&query, &key, &value, heads, key_value_heads, head_dim);
    Ok(vec![Output::new("out", out, expected)])
}

fn short_conv(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [width, _, _] = case.shape("weight")?;
    let (bcx, weight, bias) = (case.f32("bcx")?, case.f32("weight")?, case.optional("bias")?);
    let initial_state = case.f32("initial_state")?;
    let mut state = initial_state.clone();
    let mut out = vec![f32::NAN; bcx.len() / 3];
    let conv = ShortConv::new(width, &weight, bias.clone());
    ops::short_conv(isa, &bcx, &conv, &mut state, &mut out);
    let (expected_out, expected_state) =
        expected::expected_short_conv(&bcx, width, &weight, bias.as_deref(), &initial_state);
    Ok(vec![Output::new("out", out, expected_out), Output::new("state", state, expected_state)])
}

fn shift_sum(case: &Case, isa: Isa) -> Result<Vec<Output>, Failed> {
    let [width, _, length] = case.shape("weight")?;
    let (projected, weight, bias) =
        (case.f32("projected")?, case.f32("weight")?, case.f32("bias")?);
    let (axis, oracle_axis) = match case.integer("axis")? {
        0 => (ShiftAxis::Time, OracleShiftAxis::Time),
        _ => (ShiftAxis::Feature, OracleShiftAxis::Feature),
    };
    let conv = ShortConv::new(width, &weight, Some(bias.clone()));
    let mut out = vec![f32::NAN; projected.len() / 3];
    let mut state = ShiftSumState::new(width, length);
    ops::shift_sum(isa, &mut projected.clone(), axis, &conv, &mut state, &mut out);
    let expected =
        expected::expected_shift_sum(&projected, width, oracle_axis, &weight, Some(&bias));
    Ok(vec![Output::new("out", out, expected)])
}
