use std::rc::Rc;

use lfm2_kernels::Aligned;
use lfm2_kernels::linear::{Activations, Matrix, WeightFormat};
use lfm2_kernels::model::{Synthetic, Tensors};
use lfm2_kernels::tuning::Knob;

use super::Last;
use crate::ceiling::beyond_cache;

/// Seeded values with variance 1, of either sign.
pub fn values(name: &str, length: usize) -> Vec<f32> {
    Synthetic::new(1, WeightFormat::F32).values(name, &[length, 1])
}

/// Such values where the model has its own: from the beginning of a cache line on.
pub fn buffer(name: &str, length: usize) -> Aligned<f32> {
    let mut buffer = Aligned::zeroed(length);
    buffer.copy_from_slice(&values(name, length));
    buffer
}

/// How the weights of a case are stored, and how they meet activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// In what they are stored.
    pub format: WeightFormat,
    /// Of a choice for some formats alone.
    pub activations: Activations,
}

impl Stored {
    /// Weights that meet activations as they are.
    pub const fn plain(format: WeightFormat) -> Self {
        Self { format, activations: Activations::F32 }
    }

    /// Quantised weights that meet quantised activations.
    pub const fn int8(format: WeightFormat) -> Self {
        Self { format, activations: Activations::Int8 }
    }

    /// Brain floats that meet activations rounded to such.
    pub const fn brain() -> Self {
        Self { format: WeightFormat::Bf16, activations: Activations::Bf16 }
    }

    /// The name of the format, and that of the activations' after it where they are not as they are.
    pub const fn name(self) -> &'static str {
        match (self.activations, self.format) {
            (Activations::Int8, WeightFormat::Q8_0) => "q8_0_int8",
            (Activations::Int8, WeightFormat::Q4_0) => "q4_0_int8",
            (Activations::Int8, WeightFormat::Q4_1) => "q4_1_int8",
            (Activations::Int8, WeightFormat::Q5_0) => "q5_0_int8",
            (Activations::Int8, WeightFormat::Q5_1) => "q5_1_int8",
            (Activations::Int8, WeightFormat::Q4K) => "q4_k_int8",
            (Activations::Int8, WeightFormat::Q5K) => "q5_k_int8",
            (Activations::Int8, WeightFormat::Q6K) => "q6_k_int8",
            (Activations::Bf16, WeightFormat::Bf16) => "bf16_bf16",
            (_, format) => format.name(),
        }
    }
}

/// Copies of a random weight matrix, as many as are together beyond any cache.
pub fn matrices(stored: Stored, outputs: usize, inputs: usize) -> Vec<Matrix> {
    matrices_of(stored, [outputs, inputs], beyond_cache())
}

/// Copies of a random weight matrix that take so many bytes together, or more.
fn matrices_of(stored: Stored, [outputs, inputs]: [usize; 2], least: usize) -> Vec<Matrix> {
    let Stored { format, activations } = stored;
    let source = Synthetic::new(1, format);
    let tensor = source.tensor("weight", &[outputs, inputs]).ok().flatten();
    let bytes = tensor.expect("synthetic weights have every tensor").bytes;
    let copies = least.div_ceil(bytes.len());
    let matrix = || {
        let mut matrix = Matrix::from_le_bytes(format, outputs, inputs, &bytes);
        matrix.set_activations(activations);
        matrix
    };
    (0..copies).map(|_| matrix()).collect()
}

/// The weights of the last shape that was asked for: cases of one shape follow each other.
pub struct Weights {
    last: Last<(Stored, [usize; 2], usize), Vec<Matrix>>,
    /// Bytes that copies take together, at least.
    least: usize,
}

impl Default for Weights {
    fn default() -> Self {
        Self::of_bytes(beyond_cache())
    }
}

impl Weights {
    /// Such that the copies of a matrix take so many bytes together, or more.
    pub fn of_bytes(least: usize) -> Self {
        Self { last: Last::default(), least }
    }

    /// Copies of that matrix: by default as many as are together beyond any cache.
    pub fn get(&self, stored: Stored, shape: [usize; 2]) -> Rc<Vec<Matrix>> {
        // Memory that is packed otherwise is other memory.
        let key = (stored, shape, Knob::HugePages.get());
        self.last.get(key, || matrices_of(stored, shape, self.least))
    }
}
