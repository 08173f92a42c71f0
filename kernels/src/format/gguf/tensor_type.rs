use std::fmt;

use crate::linear::WeightFormat;

/// In what a tensor of a GGUF file is stored: `ggml_type` of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// What a weight matrix may be stored in.
    Weights(WeightFormat),
    /// Another one, of which the size is known and nothing else.
    Other(&'static ForeignType),
}

/// How large a type is that no kernel reads.
#[derive(Debug, PartialEq, Eq)]
pub struct ForeignType {
    id: u32,
    name: &'static str,
    block: usize,
    block_bytes: usize,
}

const WEIGHTS: [(u32, WeightFormat); 11] = [
    (0, WeightFormat::F32),
    (1, WeightFormat::F16),
    (2, WeightFormat::Q4_0),
    (3, WeightFormat::Q4_1),
    (6, WeightFormat::Q5_0),
    (7, WeightFormat::Q5_1),
    (8, WeightFormat::Q8_0),
    (12, WeightFormat::Q4K),
    (13, WeightFormat::Q5K),
    (14, WeightFormat::Q6K),
    (30, WeightFormat::Bf16),
];

/// Source: `GGML_QUANT_SIZES` of gguf-py.
static OTHERS: [ForeignType; 23] = [
    foreign(10, "q2_k", 256, 84),
    foreign(11, "q3_k", 256, 110),
    foreign(16, "iq2_xxs", 256, 66),
    foreign(17, "iq2_xs", 256, 74),
    foreign(18, "iq3_xxs", 256, 98),
    foreign(19, "iq1_s", 256, 50),
    foreign(20, "iq4_nl", 32, 18),
    foreign(21, "iq3_s", 256, 110),
    foreign(22, "iq2_s", 256, 82),
    foreign(23, "iq4_xs", 256, 136),
    foreign(24, "i8", 1, 1),
    foreign(25, "i16", 1, 2),
    foreign(26, "i32", 1, 4),
    foreign(27, "i64", 1, 8),
    foreign(28, "f64", 1, 8),
    foreign(29, "iq1_m", 256, 56),
    foreign(34, "tq1_0", 256, 54),
    foreign(35, "tq2_0", 256, 66),
    foreign(39, "mxfp4", 32, 17),
    foreign(40, "nvfp4", 64, 36),
    foreign(41, "q1_0", 128, 18),
    // Made for activations, though no rule keeps a file from having them.
    foreign(9, "q8_1", 32, 36),
    foreign(15, "q8_k", 256, 292),
];

const fn foreign(id: u32, name: &'static str, block: usize, block_bytes: usize) -> ForeignType {
    ForeignType { id, name, block, block_bytes }
}

impl TensorType {
    /// The type of that number, if it is known.
    pub fn from_id(id: u32) -> Option<Self> {
        let weights = WEIGHTS.iter().find(|(known, _)| *known == id);
        let other = || OTHERS.iter().find(|foreign| foreign.id == id);
        weights.map(|(_, format)| Self::Weights(*format)).or_else(|| other().map(Self::Other))
    }

    /// Its number in a file.
    pub fn id(self) -> u32 {
        let of_format = |format| WEIGHTS.iter().find(|(_, known)| *known == format);
        match self {
            Self::Weights(format) => of_format(format).expect("every format has a number").0,
            Self::Other(foreign) => foreign.id,
        }
    }

    /// The name in lower case, such as `q4_k` or `iq4_nl`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights(format) => format.name(),
            Self::Other(foreign) => foreign.name,
        }
    }

    /// Elements in a block: a row is whole blocks.
    pub fn block(self) -> usize {
        match self {
            Self::Weights(format) => format.block(),
            Self::Other(foreign) => foreign.block,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Weights(format) => format.block_bytes(),
            Self::Other(foreign) => foreign.block_bytes,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_types_are_pairs() {
        let known: Vec<_> = (0..100).filter_map(TensorType::from_id).collect();
        assert_eq!(known.len(), WEIGHTS.len() + OTHERS.len());
        assert!(known.iter().all(|kind| TensorType::from_id(kind.id()) == Some(*kind)));
        for format in WeightFormat::ALL {
            assert!(known.contains(&TensorType::Weights(format)), "{format}");
        }
    }
}
