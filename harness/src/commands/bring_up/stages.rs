//! In what order an instruction set is looked at.

use std::fmt;

use clap::ValueEnum;
use lfm2_harness::cases::{OPS, Op};
use lfm2_kernels::Isa;

/// A part of the check. What a later one needs is looked at in an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Stage {
    Lanes,
    Unary,
    Reductions,
    Linear,
    Attention,
    Model,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Lanes, Self::Unary, Self::Reductions, Self::Linear, Self::Attention, Self::Model];

    fn name(self) -> &'static str {
        match self {
            Self::Lanes => "lanes",
            Self::Unary => "unary",
            Self::Reductions => "reductions",
            Self::Linear => "linear",
            Self::Attention => "attention",
            Self::Model => "model",
        }
    }

    /// What is looked at.
    pub fn about(self) -> &'static str {
        match self {
            Self::Lanes => "each verb by itself, against plain Rust",
            Self::Unary => "operations on one element, or one of each input",
            Self::Reductions => "sums, maxima and what comes of them",
            Self::Linear => "linear layers, in every format of weights",
            Self::Attention => "attention and convolutions",
            Self::Model => "whole models",
        }
    }

    /// The names, without formats, of the operations whose turn it is.
    fn families(self) -> &'static [&'static str] {
        match self {
            Self::Lanes => &[],
            Self::Unary => &[
                "add",
                "multiply",
                "add_scaled",
                "embedding",
                "rope",
                "exp",
                "silu",
                "silu_multiply",
            ],
            Self::Reductions => &["argmax", "softmax", "rms_norm", "route"],
            Self::Linear => &["linear"],
            Self::Attention => &["short_conv", "shift_sum_time", "shift_sum_feature", "attention"],
            Self::Model => &["model", "model_experts", "model_quantised"],
        }
    }

    /// The operations whose turn it is.
    pub fn ops(self) -> Vec<&'static Op> {
        OPS.iter().filter(|op| self.families().contains(&op.family())).collect()
    }

    /// What to do when it is not right.
    pub fn advice(self, isa: Isa) -> String {
        let file = format!("kernels/src/simd/{}.rs", isa.name().trim_end_matches("-nodot"));
        match self {
            Self::Lanes => format!(
                "Mend that verb in {file}. What it must do is said at its trait in kernels/src/simd.rs, and shown in kernels/src/simd/scalar.rs.\n"
            ),
            _ => format!(
                "Each line after FAILED runs one case again. Every verb of {file} was right on what it was tried with, so look at `apart`, and at the \
                 numbers of that case:\nsuch as they are belong to harness/src/verbs/draw.rs, so that the lanes fail first.\n"
            ),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_stage() {
        for op in OPS {
            let stages = Stage::ALL
                .into_iter()
                .filter(|stage| stage.ops().iter().any(|of_stage| of_stage.name == op.name));
            assert_eq!(stages.count(), 1, "{}", op.name);
        }
        for family in Stage::ALL.into_iter().flat_map(Stage::families) {
            assert!(OPS.iter().any(|op| op.family() == *family), "{family}");
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_str(stage.name(), false), Ok(stage));
        }
        assert!(Stage::ALL.is_sorted());
    }
}
