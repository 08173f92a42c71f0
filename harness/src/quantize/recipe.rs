use std::fmt;
use std::str::FromStr;

use lfm2_kernels::linear::WeightFormat;

/// In what the tensors of a file are stored: by llama.cpp's rules, the names of which these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// All matrices in one format. The head is better off in those of less than six bits: in Q6_K.
    Plain(WeightFormat),
    /// As plain Q4_K or Q5_K, with half of the matrices that matter most in Q6_K: Q4_K_M and Q5_K_M.
    Medium(WeightFormat),
}

/// Text that names no recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {name:?}: expected one of {}", Recipe::ALL.map(|recipe| recipe.to_string()).join(", "))]
pub struct UnknownRecipe {
    /// The text.
    pub name: String,
}

/// What a tensor is in a model, as far as it matters in what it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Small, or read element by element: stays in singles.
    Values,
    /// A linear layer, or an embedding that is not the head.
    Matrix,
    /// A linear layer that matters more: the `index`th of `count` of its kind.
    Important { index: usize, count: usize },
    /// What makes the logits.
    Head,
}

impl Recipe {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::Plain(WeightFormat::F32),
        Self::Plain(WeightFormat::F16),
        Self::Plain(WeightFormat::Bf16),
        Self::Plain(WeightFormat::Q8_0),
        Self::Plain(WeightFormat::Q4_0),
        Self::Plain(WeightFormat::Q4_1),
        Self::Plain(WeightFormat::Q5_0),
        Self::Plain(WeightFormat::Q5_1),
        Self::Plain(WeightFormat::Q4K),
        Self::Plain(WeightFormat::Q5K),
        Self::Plain(WeightFormat::Q6K),
        Self::Medium(WeightFormat::Q4K),
        Self::Medium(WeightFormat::Q5K),
    ];

    /// The number of `general.file_type`. llama.cpp has none for plain Q4_K and Q5_K: theirs are those of Q4_K_S and Q5_K_S.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Plain(WeightFormat::F32) => 0,
            Self::Plain(WeightFormat::F16) => 1,
            Self::Plain(WeightFormat::Q4_0) => 2,
            Self::Plain(WeightFormat::Q4_1) => 3,
            Self::Plain(WeightFormat::Q8_0) => 7,
            Self::Plain(WeightFormat::Q5_0) => 8,
            Self::Plain(WeightFormat::Q5_1) => 9,
            Self::Plain(WeightFormat::Q4K) => 14,
            Self::Plain(WeightFormat::Q5K) => 16,
            Self::Plain(WeightFormat::Q6K) => 18,
            Self::Plain(WeightFormat::Bf16) => 32,
            Self::Medium(WeightFormat::Q4K) => 15,
            Self::Medium(_) => 17,
        }
    }

    /// In what a tensor is stored that has rows of `row` weights.
    pub(super) fn format(self, role: Role, row: usize) -> WeightFormat {
        let (Self::Plain(format) | Self::Medium(format)) = self;
        let wanted = match role {
            Role::Values => WeightFormat::F32,
            Role::Head if format.is_quantised() && format != WeightFormat::Q8_0 => {
                WeightFormat::Q6K
            }
            Role::Important { index, count }
                if matches!(self, Self::Medium(_)) && has_more_bits(index, count) =>
            {
                WeightFormat::Q6K
            }
            _ => format,
        };
        fitting(wanted, row)
    }
}

/// The first and last eighth, and every third between.
fn has_more_bits(index: usize, count: usize) -> bool {
    let eighth = count / 8;
    index < eighth || index >= 7 * count / 8 || (index - eighth) % 3 == 2
}

/// The format, or the next larger one of which a row is whole blocks.
fn fitting(format: WeightFormat, row: usize) -> WeightFormat {
    if row.is_multiple_of(format.block()) {
        return format;
    }
    match format {
        WeightFormat::Q4K => fitting(WeightFormat::Q5_0, row),
        WeightFormat::Q5K => fitting(WeightFormat::Q5_1, row),
        WeightFormat::Q6K => fitting(WeightFormat::Q8_0, row),
        _ => WeightFormat::F16,
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(format) => f.pad(&format.name().to_uppercase()),
            Self::Medium(format) => f.pad(&format!("{}_M", format.name().to_uppercase())),
        }
    }
}

impl FromStr for Recipe {
    type Err = UnknownRecipe;

    /// Reads a name, in whatever case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|recipe| recipe.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownRecipe { name: text.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_important_matrices_have_more_bits() {
        let indices = |count| (0..count).filter(|i| has_more_bits(*i, count)).collect::<Vec<_>>();
        assert_eq!(indices(16), [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(indices(6), [2, 5]);
        assert_eq!(indices(4), [2, 3]);
    }

    #[test]
    fn rows_that_are_no_blocks_take_a_larger_format() {
        use WeightFormat::{F16, F32, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for (format, row, expected) in [
            (Q4K, 512, Q4K),
            (Q4K, 96, Q5_0),
            (Q5K, 96, Q5_1),
            (Q6K, 96, Q8_0),
            (Q6K, 100, F16),
            (Q4_0, 96, Q4_0),
            (Q4_0, 100, F16),
            (F32, 3, F32),
        ] {
            assert_eq!(fitting(format, row), expected, "{format} with rows of {row}");
        }
    }

    #[test]
    fn names_are_read_in_whatever_case() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.to_string().parse(), Ok(recipe));
            assert_eq!(recipe.to_string().to_lowercase().parse(), Ok(recipe));
        }
        let error = "Q3_K".parse::<Recipe>().unwrap_err().to_string();
        assert!(error.contains("\"Q3_K\"") && error.contains("Q6_K, Q4_K_M, Q5_K_M"), "{error}");
    }
}
