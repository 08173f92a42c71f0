//! When two results agree.

use std::fmt;

use crate::oracle::expected::Expected;

/// The first place where a result is not what it must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// There are too few elements, or too many.
    Length {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// Bits differ.
    Bits {
        /// Of the element.
        index: usize,
        /// What it must be.
        expected: f32,
        /// What it is.
        actual: f32,
    },
    /// The error is beyond its bound.
    Error {
        /// Of the element.
        index: usize,
        /// What it must be near to.
        expected: Expected,
        /// What it is.
        actual: f32,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, actual } => {
                write!(f, "{actual} elements instead of {expected}")
            }
            Self::Bits { index, expected, actual } => {
                write!(
                    f,
                    "element {index} is {actual:e} ({:#010x}) instead of {expected:e} ({:#010x})",
                    actual.to_bits(),
                    expected.to_bits()
                )?;
                match ulp_distance(*expected, *actual) {
                    Some(distance) => write!(f, ", {distance} ULP apart"),
                    None => Ok(()),
                }
            }
            Self::Error { index, expected, actual } => write!(
                f,
                "element {index} is {actual:e}, which is {:e} away from {:e}: {} times the bound {:e}",
                (f64::from(*actual) - expected.value).abs(),
                expected.value,
                fraction(*expected, *actual).unwrap_or(0.0),
                expected.bound
            ),
        }
    }
}

/// Demands the same bits, all NaNs counting as one: their signs and payloads differ between processors.
pub fn equal_bits(expected: &[f32], actual: &[f32]) -> Result<(), Mismatch> {
    if expected.len() != actual.len() {
        return Err(Mismatch::Length { expected: expected.len(), actual: actual.len() });
    }
    for (index, (&expected, &actual)) in expected.iter().zip(actual).enumerate() {
        let both_nan = expected.is_nan() && actual.is_nan();
        if !both_nan && expected.to_bits() != actual.to_bits() {
            return Err(Mismatch::Bits { index, expected, actual });
        }
    }
    Ok(())
}

/// How many steps from one `f32` to the next lie between two numbers; both zeros are one number, and NaN has no place.
pub fn ulp_distance(a: f32, b: f32) -> Option<u64> {
    let place = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7FFF_FFFF);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    (!a.is_nan() && !b.is_nan()).then(|| place(a).abs_diff(place(b)))
}

/// How near a result comes to its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// The worst error as a fraction of its bound.
    pub worst: f64,
    /// Elements compared.
    pub elements: usize,
    /// Elements that have a bound.
    pub bounded: usize,
    /// Elements whose bound is 0.
    pub exact: usize,
}

impl Errors {
    /// Adds those of another result.
    pub fn merge(&mut self, other: Self) {
        self.worst = self.worst.max(other.worst);
        self.elements += other.elements;
        self.bounded += other.bounded;
        self.exact += other.exact;
    }
}

/// How much of a result proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triviality {
    /// Elements of its first output that are zero.
    pub zeros: usize,
    /// Elements of its first output.
    pub elements: usize,
    /// Rows that depend on one input alone.
    pub saturated: usize,
    /// Rows that could.
    pub rows: usize,
}

impl Triviality {
    /// That of an output with so many saturated rows of so many.
    pub fn of(output: &[f32], [saturated, rows]: [usize; 2]) -> Self {
        let zeros = output.iter().filter(|&&value| value == 0.0).count();
        Self { zeros, elements: output.len(), saturated, rows }
    }

    /// Whether most of it is zero or saturated, or nothing is there.
    pub fn prevails(self) -> bool {
        self.elements == 0 || 2 * self.zeros > self.elements || 2 * self.saturated > self.rows
    }

    /// Adds that of another result.
    pub fn merge(&mut self, other: Self) {
        self.zeros += other.zeros;
        self.elements += other.elements;
        self.saturated += other.saturated;
        self.rows += other.rows;
    }
}

impl fmt::Display for Triviality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zeros {} of {}", self.zeros, self.elements)?;
        match self.rows {
            0 => Ok(()),
            rows => write!(f, ", saturated rows {} of {rows}", self.saturated),
        }
    }
}

/// Demands that every element lies within its bound.
pub fn within_bounds(expected: &[Expected], actual: &[f32]) -> Result<Errors, Mismatch> {
    if expected.len() != actual.len() {
        return Err(Mismatch::Length { expected: expected.len(), actual: actual.len() });
    }
    let mut errors = Errors { elements: actual.len(), ..Errors::default() };
    for (index, (&expected, &actual)) in expected.iter().zip(actual).enumerate() {
        let Some(fraction) = fraction(expected, actual) else { continue };
        // Written so that a fraction that is NaN fails.
        if fraction.is_nan() || fraction > 1.0 {
            return Err(Mismatch::Error { index, expected, actual });
        }
        errors.worst = errors.worst.max(fraction);
        errors.bounded += 1;
        errors.exact += usize::from(expected.bound == 0.0);
    }
    Ok(errors)
}

/// The error as a fraction of its bound, infinite where an exact result is missed or only one side is NaN or infinite; nothing where
/// there is no bound.
pub fn fraction(expected: Expected, actual: f32) -> Option<f64> {
    let Expected { value, bound } = expected;
    if !bound.is_finite() {
        return None;
    }
    let actual = f64::from(actual);
    let same = actual == value || (actual.is_nan() && value.is_nan());
    let error = (actual - value).abs();
    Some(if same {
        0.0
    } else if error.is_finite() {
        error / bound
    } else {
        f64::INFINITY
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;

    fn expected(value: f64, bound: f64) -> Expected {
        Expected { value, bound }
    }

    #[test]
    fn equal_bits_pass() {
        let values = [0.0, -0.0, 1.5, -INFINITY, f32::from_bits(1), NAN];
        assert_eq!(equal_bits(&values, &values), Ok(()));
        assert_eq!(equal_bits(&[NAN], &[-NAN]), Ok(()));
        assert_eq!(equal_bits(&[NAN], &[f32::from_bits(0xFFC1_2345)]), Ok(()));
        assert_eq!(equal_bits(&[], &[]), Ok(()));
    }

    #[test]
    fn any_other_bits_fail() {
        let pairs = [
            (0.0, -0.0),
            (0.0, f32::from_bits(1)),
            (1.0, 1.0 + f32::EPSILON),
            (1.0, -1.0),
            (INFINITY, -INFINITY),
            (INFINITY, f32::MAX),
            (NAN, 0.0),
            (NAN, INFINITY),
        ];
        for (a, b) in pairs {
            for (a, b) in [(a, b), (b, a)] {
                let mismatch = equal_bits(&[7.0, a], &[7.0, b]).unwrap_err();
                assert!(matches!(mismatch, Mismatch::Bits { index: 1, .. }), "{mismatch}");
            }
        }
    }

    #[test]
    fn other_lengths_fail() {
        for (expected_length, actual_length) in [(2, 1), (1, 2), (1, 0), (0, 1)] {
            let mismatch = Mismatch::Length { expected: expected_length, actual: actual_length };
            let (wanted, found) = (vec![0.0; expected_length], vec![0.0; actual_length]);
            assert_eq!(equal_bits(&wanted, &found), Err(mismatch.clone()));
            let wanted = vec![expected(0.0, 1.0); expected_length];
            assert_eq!(within_bounds(&wanted, &found), Err(mismatch));
        }
    }

    #[test]
    fn a_mismatch_names_the_place_both_values_and_their_distance() {
        let text = equal_bits(&[0.0, 1.0], &[0.0, 1.0 + f32::EPSILON]).unwrap_err().to_string();
        for part in ["element 1", "0x3f800001", "0x3f800000", "1 ULP"] {
            assert!(text.contains(part), "{text}");
        }
        let text = within_bounds(&[expected(0.0, 0.5)], &[2.0]).unwrap_err().to_string();
        assert!(text.contains("element 0") && text.contains("4 times"), "{text}");
    }

    #[test]
    fn an_error_as_large_as_its_bound_passes() {
        let unbounded = expected(3.0, f64::INFINITY);
        let wanted = [expected(1.0, 0.5), expected(2.0, 0.0), expected(0.0, 0.0), unbounded];
        let errors = within_bounds(&wanted, &[1.5, 2.0, 0.0, 7.0]);
        assert_eq!(errors, Ok(Errors { worst: 1.0, elements: 4, bounded: 3, exact: 2 }));
    }

    #[test]
    fn what_is_merged_is_added_up() {
        let mut errors = Errors { worst: 0.25, elements: 3, bounded: 5, exact: 7 };
        errors.merge(Errors { worst: 0.5, elements: 11, bounded: 13, exact: 17 });
        assert_eq!(errors, Errors { worst: 0.5, elements: 14, bounded: 18, exact: 24 });
        let mut triviality = Triviality { zeros: 3, elements: 5, saturated: 7, rows: 11 };
        triviality.merge(Triviality { zeros: 13, elements: 17, saturated: 19, rows: 23 });
        let sum = Triviality { zeros: 16, elements: 22, saturated: 26, rows: 34 };
        assert_eq!(triviality, sum);
    }

    #[test]
    fn distances_are_counted_across_zero() {
        assert_eq!(ulp_distance(0.0, -0.0), Some(0));
        assert_eq!(ulp_distance(f32::from_bits(1), -f32::from_bits(1)), Some(2));
        assert_eq!(ulp_distance(f32::MAX, INFINITY), Some(1));
        assert_eq!(ulp_distance(-INFINITY, INFINITY), Some(2 * 0x7F80_0000));
        assert_eq!(ulp_distance(NAN, 1.0), None);
    }

    #[test]
    fn fractions_of_a_bound() {
        assert_eq!(fraction(expected(1.0, 0.5), 1.25), Some(0.5));
        assert_eq!(fraction(expected(0.0, 2.0), -1.0), Some(0.5));
        assert_eq!(fraction(expected(0.0, 1e-40), 1e-39), Some(f64::from(1e-39_f32) / 1e-40));
        assert_eq!(fraction(expected(1.0, f64::INFINITY), NAN), None);
        assert_eq!(fraction(expected(1.0, f64::NAN), 1.0), None);
    }

    #[test]
    fn no_bound_means_exact() {
        assert_eq!(fraction(expected(3.0, 0.0), 3.0), Some(0.0));
        assert_eq!(fraction(expected(0.0, 0.0), -0.0), Some(0.0));
        assert_eq!(fraction(expected(0.0, 0.0), f32::from_bits(1)), Some(f64::INFINITY));
    }

    #[test]
    fn infinities_and_nan_must_be_met() {
        let infinity = f64::INFINITY;
        assert_eq!(fraction(expected(infinity, 1.0), INFINITY), Some(0.0));
        assert_eq!(fraction(expected(f64::NAN, 1.0), NAN), Some(0.0));
        for (value, actual) in [
            (infinity, -INFINITY),
            (infinity, f32::MAX),
            (1.0, INFINITY),
            (1.0, NAN),
            (f64::NAN, 1.0),
            (f64::NAN, INFINITY),
            (infinity, NAN),
        ] {
            let expected = expected(value, 1.0);
            assert_eq!(fraction(expected, actual), Some(infinity), "{value} {actual}");
            assert!(within_bounds(&[expected], &[actual]).is_err(), "{value} {actual}");
        }
    }

    #[test]
    fn zeros_saturated_rows_and_empty_results_are_trivial() {
        assert!(Triviality::of(&[], [0, 0]).prevails());
        assert!(Triviality::of(&[0.0, -0.0, 1.0], [0, 0]).prevails());
        assert!(!Triviality::of(&[0.0, 1.0], [0, 0]).prevails());
        assert!(Triviality::of(&[1.0, 1.0], [2, 3]).prevails());
        assert!(!Triviality::of(&[1.0, 1.0], [1, 2]).prevails());
        let text = Triviality::of(&[0.0, 1.0], [1, 2]).to_string();
        assert_eq!(text, "zeros 1 of 2, saturated rows 1 of 2");
    }

    #[test]
    fn the_worst_error_is_reported_and_one_beyond_its_bound_fails() {
        let wanted = [expected(0.0, 1.0), expected(2.0, 0.0), expected(0.0, f64::INFINITY)];
        let errors = within_bounds(&wanted, &[0.75, 2.0, NAN]).unwrap();
        assert_eq!(errors, Errors { worst: 0.75, elements: 3, bounded: 2, exact: 1 });
        assert!(within_bounds(&wanted, &[1.0 + f32::EPSILON, 2.0, 0.0]).is_err());
        assert!(within_bounds(&wanted, &[0.0, 2.0 + f32::EPSILON * 2.0, 0.0]).is_err());
    }
}
