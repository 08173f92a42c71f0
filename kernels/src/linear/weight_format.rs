use std::fmt;
use std::str::FromStr;

/// How the rows of a linear layer's input meet its weights. Weights for which there is no such way meet them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// As they are: weights widen to singles. The accurate mode.
    #[default]
    F32,
    /// Quantised to 8 bits in blocks of 32, so that products are integers. The fast mode for quantised weights.
    Int8,
    /// Rounded to 16 bits, as brain floats. The fast mode for weights that are such.
    Bf16,
}

impl Activations {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::F32, Self::Int8, Self::Bf16];

    /// The name in lower case: `f32`, `int8` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
        }
    }
}

/// In what a weight matrix is stored, in a file as in memory.
///
/// The first three store each weight by itself. In the others a block of weights of one row shares its scales: `d`, a half, and in some
/// formats a minimum `m`. Source: the block formats of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// Four bytes, IEEE single.
    F32,
    /// Two bytes, IEEE half.
    F16,
    /// Two bytes, the upper half of a single.
    Bf16,
    /// Blocks of 32: `d * q`, q of 8 bits, -128 to 127.
    Q8_0,
    /// Blocks of 32: `d * (q - 8)`, q of 4 bits.
    Q4_0,
    /// Blocks of 32: `d * q + m`, q of 4 bits.
    Q4_1,
    /// Blocks of 32: `d * (q - 16)`, q of 5 bits.
    Q5_0,
    /// Blocks of 32: `d * q + m`, q of 5 bits.
    Q5_1,
    /// Blocks of 256: `(d * s) * q - (m * t)`, q of 4 bits; each 32 have a scale s and a minimum t of 6 bits.
    Q4K,
    /// Blocks of 256: `(d * s) * q - (m * t)`, q of 5 bits; each 32 have a scale s and a minimum t of 6 bits.
    Q5K,
    /// Blocks of 256: `(d * s) * (q - 32)`, q of 6 bits; each 16 have a scale s of 8 bits, signed.
    Q6K,
}

impl WeightFormat {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name in lower case, such as `bf16`, `q4_0` or `q4_k`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Weights in a block: a row is whole blocks.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `weights` weights.
    ///
    /// # Panics
    ///
    /// If they are not whole blocks.
    pub fn bytes(self, weights: usize) -> usize {
        assert!(weights.is_multiple_of(self.block()), "{self}: {weights} weights are no blocks");
        weights / self.block() * self.block_bytes()
    }

    /// Whether weights share scales.
    pub fn is_quantised(self) -> bool {
        self.block() > 1
    }

    /// Whether there is a way of its own for weights in this format to meet `activations`.
    pub fn meets(self, activations: Activations) -> bool {
        match activations {
            Activations::F32 => true,
            Activations::Int8 => self.is_quantised(),
            Activations::Bf16 => self == Self::Bf16,
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Text that names no weight format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown weight format {name:?}: expected one of {}", WeightFormat::ALL.map(WeightFormat::name).join(", "))]
pub struct UnknownWeightFormat {
    /// The text.
    pub name: String,
}

impl FromStr for WeightFormat {
    type Err = UnknownWeightFormat;

    /// Reads a [`name`](Self::name), in whatever case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownWeightFormat { name: text.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_whatever_case() {
        for format in WeightFormat::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(format.name().to_uppercase().parse(), Ok(format));
        }
        let error = "q3_k".parse::<WeightFormat>().unwrap_err().to_string();
        assert!(error.contains("\"q3_k\"") && error.contains("bf16, q8_0, q4_0"), "{error}");
    }
}
