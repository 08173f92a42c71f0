//! Golden files: what PyTorch computed, and how near whole models come to it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use lfm2_kernels::linear::{Activations, WeightFormat};
use lfm2_kernels::model::{
    self, Config, Description, Logits, Model, Scratch, Sequence, Tensor, Tensors,
};
use lfm2_kernels::ops::{CacheElement, ShiftAxis};
use lfm2_kernels::{Isa, format};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::compare::equal_bits;
use crate::oracle::blocks::{self, BlockFormat, Run};

/// Why a golden file could not be used. Each message says what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model of a golden file cannot be loaded or run.
    #[error("{}", locate(path, source))]
    Model {
        /// Its folder or file.
        path: PathBuf,
        /// The reason.
        source: model::Error,
    },
}

/// Where the model is, but where the error names a file itself.
fn locate(path: &Path, error: &model::Error) -> String {
    match error {
        model::Error::File { .. } | model::Error::Format { .. } => error.to_string(),
        _ => format!("{}: {error}", path.display()),
    }
}

/// A safetensors file in memory.
pub struct GoldenFile {
    path: PathBuf,
    bytes: Vec<u8>,
    tensors: HashMap<String, Entry>,
}

/// Where a tensor lies.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl GoldenFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_path_buf();
        let bytes = fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|error| Error::Format {
            path: path.clone(),
            reason: format!("not a whole safetensors file of {} bytes: {error}", bytes.len()),
        })?;
        let entry = |(name, view): (&str, safetensors::tensor::TensorView)| {
            let start = view.data().as_ptr().addr() - bytes.as_ptr().addr();
            let range = start..start + view.data().len();
            let entry = Entry { dtype: view.dtype(), shape: view.shape().to_vec(), range };
            (name.to_string(), entry)
        };
        let tensors = parsed.iter().map(entry).collect();
        Ok(Self { path, bytes, tensors })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's shape.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], Error> {
        Ok(&self.entry(name)?.shape)
    }

    /// An F32 tensor, row-major.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or it has another type.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        let bytes = self.typed(name, Dtype::F32)?.as_chunks().0;
        Ok(bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// An F64 tensor, row-major.
    ///
    /// # Errors
    ///
    /// As [`f32`](Self::f32).
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, Error> {
        let bytes = self.typed(name, Dtype::F64)?.as_chunks().0;
        Ok(bytes.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }

    /// An I64 tensor, row-major.
    ///
    /// # Errors
    ///
    /// As [`f32`](Self::f32).
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, Error> {
        let bytes = self.typed(name, Dtype::I64)?.as_chunks().0;
        Ok(bytes.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// A U8 tensor, row-major.
    ///
    /// # Errors
    ///
    /// As [`f32`](Self::f32).
    pub fn bytes(&self, name: &str) -> Result<&[u8], Error> {
        self.typed(name, Dtype::U8)
    }

    /// An I64 tensor of token numbers, positions or sizes.
    ///
    /// # Errors
    ///
    /// As [`f32`](Self::f32), or if a number is negative or larger than a token can be.
    pub fn u32(&self, name: &str) -> Result<Vec<u32>, Error> {
        let small = |number: i64| {
            u32::try_from(number).map_err(|_| {
                self.wrong(format!("tensor {name} has {number}: expected 0 to 2^32 - 1"))
            })
        };
        self.i64(name)?.into_iter().map(small).collect()
    }

    /// A tensor of weights as stored; `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// If it has a type that no weight has.
    pub fn weight(&self, name: &str) -> Result<Option<Tensor<'_>>, model::Error> {
        let Some(Entry { dtype, shape, range }) = self.tensors.get(name) else {
            return Ok(None);
        };
        let format = format::weight_format(name, *dtype)?;
        let bytes = self.bytes[range.clone()].into();
        Ok(Some(Tensor { format, shape: shape.clone(), bytes }))
    }

    /// A tensor of weights in F32, F16 or BF16, widened exactly.
    ///
    /// # Errors
    ///
    /// As [`f32`](Self::f32).
    pub fn widened(&self, name: &str) -> Result<Vec<f32>, Error> {
        let tensor = self.weight(name).map_err(|error| self.wrong(error.to_string()))?;
        let Tensor { format, bytes, .. } =
            tensor.ok_or_else(|| self.wrong(format!("has no tensor {name}")))?;
        Ok(widen(format, &bytes))
    }

    fn typed(&self, name: &str, expected: Dtype) -> Result<&[u8], Error> {
        let Entry { dtype, range, .. } = self.entry(name)?;
        if *dtype != expected {
            return Err(self.wrong(format!("tensor {name} is {dtype:?}: expected {expected:?}")));
        }
        Ok(&self.bytes[range.clone()])
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        self.tensors.get(name).ok_or_else(|| self.wrong(format!("has no tensor {name}")))
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Format { path: self.path.clone(), reason }
    }
}

/// Little-endian weights as numbers, exactly: apart from the kernels' own code, which must not be its own judge.
pub fn widen(format: WeightFormat, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.as_chunks().0.iter().copied();
    match format {
        WeightFormat::F32 => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
        WeightFormat::F16 => pairs().map(f16::from_le_bytes).map(f32::from).collect(),
        WeightFormat::Bf16 => pairs().map(bf16::from_le_bytes).map(f32::from).collect(),
        _ => {
            let format = block_format(format).expect("all others are formats of blocks");
            blocks::runs(format, bytes).iter().flat_map(Run::weights).collect()
        }
    }
}

/// The oracle's name of a format of blocks.
pub fn block_format(format: WeightFormat) -> Option<BlockFormat> {
    Some(match format {
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => return None,
        WeightFormat::Q8_0 => BlockFormat::Q8_0,
        WeightFormat::Q4_0 => BlockFormat::Q4_0,
        WeightFormat::Q4_1 => BlockFormat::Q4_1,
        WeightFormat::Q5_0 => BlockFormat::Q5_0,
        WeightFormat::Q5_1 => BlockFormat::Q5_1,
        WeightFormat::Q4K => BlockFormat::Q4K,
        WeightFormat::Q5K => BlockFormat::Q5K,
        WeightFormat::Q6K => BlockFormat::Q6K,
    })
}

/// The largest normalised mean squared error of a whole model's logits against 64-bit arithmetic, where activations are as they are.
///
/// PyTorch's own 32-bit logits of the fixtures lie at 1e-13 to 4e-12 (`fixtures/manifest.json`). Ours do as many roundings of the same
/// size in another order, so their error has a variance of the same order; this leaves a factor of 2.5 over the worst.
pub const NMSE_BOUND: f64 = 1e-11;

/// As [`NMSE_BOUND`], with activations rounded to brain floats.
///
/// Rounding is wrong by up to 2^-8 of a number, by 2.6e-6 in the mean square, in each of the dozen linear layers that follow one another in
/// a fixture, and norms and attention make errors larger: the worst fixture has 1.2e-4. This leaves a factor of 8.
const NMSE_BOUND_BF16: f64 = 1e-3;

/// How many times llama.cpp's own error that with quantised activations may be. Both quantise to 8 bits in blocks of 32 (llama.cpp in
/// blocks of 256 where weights are), so the errors are of one size, and which of them is the larger is chance: on files of this size
/// a few percent.
const YARDSTICK_FACTOR: f64 = 1.1;

/// What llama.cpp reaches on GGUF files.
#[derive(Deserialize)]
struct Yardstick {
    /// The normalised mean squared error of its logits against 64-bit arithmetic, by the name of the file.
    nmse: HashMap<String, f64>,
}

/// A golden file of a model: `input_ids` `[T]`, and PyTorch's `logits` and `logits_f64` `[T, vocabulary]`.
pub struct ModelGolden {
    model: PathBuf,
    path: PathBuf,
    shift_axis: Option<ShiftAxis>,
    /// The normalised mean squared error that llama.cpp reaches, which quantises activations.
    yardstick: Option<f64>,
    /// The tokens.
    pub input_ids: Vec<u32>,
    /// What PyTorch computed in 32 bits.
    pub logits: Vec<f32>,
    /// What PyTorch computed in 64 bits.
    pub logits_f64: Vec<f64>,
}

impl ModelGolden {
    /// The golden files of a model.
    ///
    /// Of a folder: `golden.safetensors`, or for a model after issue #22287 `golden.time.safetensors` and
    /// `golden.feature.safetensors`, one for each shift axis. Of a GGUF file: the one beside it that has its name, but
    /// `.golden.safetensors` for `.gguf`.
    ///
    /// # Errors
    ///
    /// If there is none, or one lacks a tensor or has one of another type or shape.
    pub fn of(model: &Path) -> Result<Vec<Self>, Error> {
        let kind = fs::metadata(model)
            .map_err(|source| Error::File { path: model.to_path_buf(), source })?;
        let missing = |name: &str| {
            let reason = format!("has no {name}");
            Err(Error::Format { path: model.to_path_buf(), reason })
        };
        if !kind.is_dir() {
            let path = model.with_extension("golden.safetensors");
            if !path.exists() {
                return missing(&format!("golden file beside it, {}", path.display()));
            }
            return Ok(vec![Self::read(model, &path, None)?]);
        }
        let files = [
            ("golden.safetensors", None),
            ("golden.time.safetensors", Some(ShiftAxis::Time)),
            ("golden.feature.safetensors", Some(ShiftAxis::Feature)),
        ];
        let mut goldens = Vec::new();
        for (name, shift_axis) in files {
            let path = model.join(name);
            if path.exists() {
                goldens.push(Self::read(model, &path, shift_axis)?);
            }
        }
        match goldens.is_empty() {
            true => missing("golden.safetensors"),
            false => Ok(goldens),
        }
    }

    /// The golden file at `path` of a model that is anywhere.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn at(model: &Path, path: &Path) -> Result<Self, Error> {
        Self::read(model, path, None)
    }

    fn read(model: &Path, path: &Path, shift_axis: Option<ShiftAxis>) -> Result<Self, Error> {
        let file = GoldenFile::open(path)?;
        let mut golden = Self {
            model: model.to_path_buf(),
            path: path.to_path_buf(),
            shift_axis,
            yardstick: None,
            input_ids: file.u32("input_ids")?,
            logits: file.f32("logits")?,
            logits_f64: file.f64("logits_f64")?,
        };
        let shapes = ["input_ids", "logits", "logits_f64"].map(|name| file.shape(name));
        let [ids, single, double] = shapes.map(|shape| shape.expect("read above"));
        match (ids, single) {
            ([tokens], [rows, columns])
                if tokens == rows && tokens * columns > 0 && single == double =>
            {
                let yardstick = path.with_file_name("yardstick.json");
                if yardstick.exists() {
                    golden.set_yardstick(&yardstick)?;
                }
                Ok(golden)
            }
            _ => Err(file.wrong(format!(
                "input_ids is {ids:?}, logits {single:?}, logits_f64 {double:?}: expected [tokens], [tokens, vocabulary] and the same"
            ))),
        }
    }

    /// Bounds the errors of quantised activations by those of llama.cpp on that file, if `path` has them. Without this call that is the
    /// `yardstick.json` beside the golden file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is none of yardsticks.
    pub fn set_yardstick(&mut self, path: &Path) -> Result<(), Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::File { path: path.to_path_buf(), source })?;
        let Yardstick { nmse } = serde_json::from_str(&text).map_err(|error| Error::Format {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
        let name = self.model.file_name().unwrap_or_default().to_string_lossy();
        self.yardstick = nmse.get(&*name).copied();
        Ok(())
    }

    /// The golden file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many logits a token has.
    pub fn vocabulary(&self) -> usize {
        self.logits.len() / self.input_ids.len()
    }

    /// Reads the model's shape, with the shift axis that the golden file is for.
    ///
    /// # Errors
    ///
    /// If the model's files are missing or wrong, or it has no shift axis to set.
    pub fn config(&self) -> Result<Config, Error> {
        Ok(self.open()?.0)
    }

    fn open(&self) -> Result<(Config, Box<dyn Tensors>), Error> {
        let (mut config, source) =
            format::open(&self.model).map_err(|error| self.model_error(error))?;
        match (&mut config.description, self.shift_axis) {
            (Description::Issue22287 { shift_axis }, Some(wanted)) => *shift_axis = wanted,
            (Description::Lfm2, Some(_)) => {
                return Err(self.wrong("is for a model after issue #22287 alone".into()));
            }
            (_, None) => {}
        }
        Ok((config, source))
    }

    /// Loads the model of the golden file.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded, or has another vocabulary than the golden file.
    pub fn load_model(&self) -> Result<Model, Error> {
        let (config, source) = self.open()?;
        let model = Model::new(config, &*source).map_err(|error| self.model_error(error))?;
        let (columns, vocabulary) = (self.vocabulary(), model.config().vocabulary);
        if columns != vocabulary {
            let reason =
                format!("logits have {columns} columns: expected the vocabulary, {vocabulary}");
            return Err(self.wrong(reason));
        }
        Ok(model)
    }

    /// The modes in which the model's accuracy can be judged.
    pub fn modes(&self) -> Vec<Activations> {
        let int8 = self.yardstick.map(|_| Activations::Int8);
        [Activations::F32].into_iter().chain(int8).collect()
    }

    /// The largest normalised mean squared error against the 64-bit logits: 1e-11; 1e-3 where activations are rounded to brain floats; 1.1
    /// times what llama.cpp reaches where they are quantised.
    ///
    /// # Errors
    ///
    /// If nothing is known of llama.cpp on that file.
    pub fn bound(&self, activations: Activations) -> Result<f64, Error> {
        match (activations, self.yardstick) {
            (Activations::F32, _) => Ok(NMSE_BOUND),
            (Activations::Bf16, _) => Ok(NMSE_BOUND_BF16),
            (Activations::Int8, Some(nmse)) => Ok(YARDSTICK_FACTOR * nmse),
            (Activations::Int8, None) => Err(self.wrong(
                "no yardstick.json beside it says what llama.cpp reaches on that model, which bounds the errors of int8 activations".into(),
            )),
        }
    }

    /// Runs all tokens in one call: their logits.
    ///
    /// # Errors
    ///
    /// If a token is not in the vocabulary.
    pub fn run(&self, model: &Model, isa: Isa) -> Result<Vec<f32>, Error> {
        let mut state = model.new_state(self.input_ids.len(), CacheElement::F32);
        let mut logits = vec![f32::NAN; self.input_ids.len() * model.config().vocabulary];
        let sequence = Sequence { tokens: &self.input_ids, state: &mut state };
        model
            .forward(isa, &mut [sequence], &mut Scratch::default(), Logits::All(&mut logits))
            .map_err(|error| self.model_error(error))?;
        Ok(logits)
    }

    /// Runs the model on every one of `isas`, in every one of `modes`, and compares.
    ///
    /// # Errors
    ///
    /// As [`load_model`](Self::load_model), [`bound`](Self::bound) and [`run`](Self::run).
    pub fn compare(
        &self,
        isas: &[Isa],
        modes: &[Activations],
        mut ran: impl FnMut(),
    ) -> Result<Vec<GoldenReport>, Error> {
        let mut model = self.load_model()?;
        let mut reports = Vec::new();
        for activations in modes {
            let bound = self.bound(*activations)?;
            model.set_activations(*activations);
            let format = model.head().format();
            if *activations == Activations::Bf16 && !format.meets(*activations) {
                return Err(self.wrong(format!(
                    "is for a model of {format} weights: bf16 activations are for bf16 weights"
                )));
            }
            let mut first: Option<(&'static str, Vec<f32>)> = None;
            for isa in isas {
                let logits = self.run(&model, *isa)?;
                let compared = first.as_ref().map(|(with, first)| Compared {
                    with,
                    equal_bits: equal_bits(first, &logits).is_ok(),
                });
                reports.push(self.judge(*isa, *activations, bound, &logits, compared));
                first.get_or_insert_with(|| (isa.name(), logits));
                ran();
            }
        }
        Ok(reports)
    }

    fn judge(
        &self,
        isa: Isa,
        activations: Activations,
        nmse_bound: f64,
        logits: &[f32],
        compared: Option<Compared>,
    ) -> GoldenReport {
        let rows = logits.chunks(self.vocabulary()).zip(self.logits_f64.chunks(self.vocabulary()));
        let agreements = rows.filter(|(ours, golden)| largest(ours) == largest(golden)).count();
        let tokens = self.input_ids.len();
        let f64 = Difference::between(logits, self.logits_f64.iter().copied());
        // Rounded activations move logits that are nearly equal past one another.
        let agree = agreements == tokens || activations != Activations::F32;
        let equal_bits = compared.map(|compared| compared.equal_bits);
        GoldenReport {
            golden: self.path.display().to_string(),
            isa: isa.name(),
            activations: activations.name(),
            tokens,
            f32: Difference::between(logits, self.logits.iter().copied().map(f64::from)),
            f64,
            nmse_bound,
            argmax_agreements: agreements,
            compared_with: compared.map(|compared| compared.with),
            equal_bits,
            passed: f64.is_within(nmse_bound) && agree && equal_bits != Some(false),
        }
    }

    fn model_error(&self, source: model::Error) -> Error {
        Error::Model { path: self.model.clone(), source }
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Format { path: self.path.clone(), reason }
    }
}

/// What came of one golden file on one instruction set.
#[derive(Clone, Debug, Serialize)]
pub struct GoldenReport {
    /// The golden file.
    pub golden: String,
    /// The instruction set.
    pub isa: &'static str,
    /// How weights met activations: `f32`, `int8` or `bf16`.
    pub activations: &'static str,
    /// How many tokens the file has.
    pub tokens: usize,
    /// How far the logits are from PyTorch's in 32 bits, which have errors of their own.
    pub f32: Difference,
    /// How far the logits are from PyTorch's in 64 bits.
    pub f64: Difference,
    /// The largest normalised mean squared error that `f64` may have.
    pub nmse_bound: f64,
    /// At how many positions the most likely token is that of the 64-bit logits.
    pub argmax_agreements: usize,
    /// The first instruction set; `None` for the first itself.
    pub compared_with: Option<&'static str>,
    /// Whether every logit is equal, to the bit, to that of the first instruction set; `None` for the first itself.
    pub equal_bits: Option<bool>,
    /// Whether the error is within the bound, all positions agree (if activations are as they are) and no bits differ.
    pub passed: bool,
}

/// How logits compare with those of the first instruction set.
#[derive(Clone, Copy)]
struct Compared {
    with: &'static str,
    equal_bits: bool,
}

/// How far numbers are from what they should be.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    /// The normalised mean squared error, `sum((ours - golden)^2) / sum(golden^2)`.
    pub nmse: f64,
    /// The largest absolute error; NaN if there is any.
    pub max_absolute_error: f64,
}

impl Difference {
    /// The difference of as many numbers.
    ///
    /// # Panics
    ///
    /// If there are more or fewer of the one than of the other.
    pub fn between(ours: &[f32], golden: impl ExactSizeIterator<Item = f64>) -> Self {
        assert_eq!(ours.len(), golden.len(), "as many numbers on both sides");
        let (mut error, mut size, mut largest) = (0.0, 0.0, 0.0);
        for (ours, golden) in ours.iter().zip(golden) {
            let difference = f64::from(*ours) - golden;
            error += difference * difference;
            size += golden * golden;
            // `f64::max` would lose a NaN.
            if difference.is_nan() || difference.abs() > largest {
                largest = difference.abs();
            }
        }
        Self { nmse: if error == 0.0 { 0.0 } else { error / size }, max_absolute_error: largest }
    }

    /// Whether the normalised mean squared error is at most `nmse`; it is not if there is a NaN.
    pub fn is_within(&self, nmse: f64) -> bool {
        self.nmse <= nmse
    }
}

/// Where the largest value is, the first of equals.
fn largest<T: PartialOrd>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Compares a model with all its golden files, on every one of `isas`, in all modes that can be judged.
///
/// # Errors
///
/// If a golden file or the model is missing, damaged or of another shape.
pub fn run(model: &Path, isas: &[Isa]) -> Result<Vec<GoldenReport>, Error> {
    let mut reports = Vec::new();
    for golden in ModelGolden::of(model)? {
        reports.extend(golden.compare(isas, &golden.modes(), || ())?);
    }
    Ok(reports)
}
