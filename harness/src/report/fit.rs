//! Curves through times against lengths.

use serde::{Deserialize, Serialize};

/// A length, and the seconds that it took.
pub type Point = (f64, f64);

/// `constant + linear * length + quadratic * length^2`, in seconds; none is negative, as no part of the work takes less than no time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// For a call.
    pub constant: f64,
    /// For a token.
    pub linear: f64,
    /// For a pair of tokens.
    pub quadratic: f64,
}

impl Fit {
    /// The fewest points that say more than a fit is free to say.
    pub const LEAST_POINTS: usize = 4;

    /// The fit with the least sum of squares of relative errors; `None` of fewer than [`LEAST_POINTS`](Self::LEAST_POINTS).
    pub fn of(points: &[Point]) -> Option<Self> {
        if points.len() < Self::LEAST_POINTS {
            return None;
        }
        // Lengths as parts of the longest, so that no column is a million times as large as another.
        let longest = points.iter().map(|(length, _)| *length).fold(0.0, f64::max);
        let rows: Vec<_> = points
            .iter()
            .map(|(length, seconds)| {
                [0, 1, 2].map(|power| (length / longest).powi(power) / seconds)
            })
            .collect();
        let [constant, linear, quadratic] = non_negative_least_squares(&rows)?;
        Some(Self { constant, linear: linear / longest, quadratic: quadratic / longest.powi(2) })
    }

    /// Seconds at `length`.
    pub fn at(&self, length: f64) -> f64 {
        self.constant + (self.linear + self.quadratic * length) * length
    }
}

/// The longest length from `shortest` to `longest` at which two fits are equal.
pub fn fits_cross(one: &Fit, other: &Fit, shortest: f64, longest: f64) -> Option<f64> {
    let (a, b, c) =
        (one.quadratic - other.quadratic, one.linear - other.linear, one.constant - other.constant);
    let roots = if a == 0.0 {
        [-c / b; 2]
    } else {
        let root = (b * b - 4.0 * a * c).sqrt();
        [(-b - root) / (2.0 * a), (-b + root) / (2.0 * a)]
    };
    let in_range = |root: &f64| (shortest..=longest).contains(root);
    roots.into_iter().filter(in_range).reduce(f64::max)
}

/// The non-negative `x` for which every `row * x` is as near to 1 as can be.
///
/// With three unknowns, each of the seven choices of those that are not 0 can be tried.
fn non_negative_least_squares(rows: &[[f64; 3]]) -> Option<[f64; 3]> {
    let error = |x: &[f64; 3]| -> f64 {
        let product = |row: &[f64; 3]| (0..3).map(|i| row[i] * x[i]).sum::<f64>();
        rows.iter().map(|row| (product(row) - 1.0).powi(2)).sum()
    };
    let choices = (1..8).map(|choice| [1, 2, 4].map(|bit| choice & bit != 0));
    let solutions = choices.filter_map(|chosen| least_squares(rows, chosen));
    let allowed = solutions.filter(|x| x.iter().all(|x| *x >= 0.0));
    allowed.min_by(|a, b| error(a).total_cmp(&error(b)))
}

/// As [`non_negative_least_squares`], but of either sign, and 0 where not chosen: the normal equations, by Gauss and Jordan.
fn least_squares(rows: &[[f64; 3]], chosen: [bool; 3]) -> Option<[f64; 3]> {
    let sum = |term: &dyn Fn(&[f64; 3]) -> f64| rows.iter().map(term).sum::<f64>();
    let mut equations = [[0.0; 4]; 3];
    for i in 0..3 {
        for j in 0..3 {
            let both = chosen[i] && chosen[j];
            equations[i][j] = if both { sum(&|row| row[i] * row[j]) } else { 0.0 };
        }
        equations[i][3] = if chosen[i] { sum(&|row| row[i]) } else { 0.0 };
        if !chosen[i] {
            equations[i][i] = 1.0;
        }
    }
    for i in 0..3 {
        let magnitude = |&row: &usize| equations[row][i].abs();
        let pivot = (i..3).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b)))?;
        equations.swap(i, pivot);
        let divisor = equations[i][i];
        if divisor == 0.0 {
            return None;
        }
        equations[i] = equations[i].map(|term| term / divisor);
        for row in (0..3).filter(|row| *row != i) {
            let factor = equations[row][i];
            for column in 0..4 {
                equations[row][column] -= factor * equations[i][column];
            }
        }
    }
    Some(equations.map(|equation| equation[3]))
}

/// The power of the length by which time grows at the long end: the slope of a line through the logarithms of the last three points.
pub fn exponent(points: &[Point]) -> Option<f64> {
    const POINTS: usize = 3;
    let last = &points[points.len().checked_sub(POINTS)?..];
    let logarithms: Vec<_> =
        last.iter().map(|(length, seconds)| (length.ln(), seconds.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logarithms.iter().map(of).sum::<f64>() / POINTS as f64;
    let (x, y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let covariance: f64 = logarithms.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    let variance: f64 = logarithms.iter().map(|(a, _)| (a - x).powi(2)).sum();
    Some(covariance / variance)
}

/// What a fit without a length says of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// The length: the longest but one.
    pub length: usize,
    /// Seconds, by a fit through all others.
    pub predicted: f64,
    /// Seconds.
    pub measured: f64,
    /// By how many percent the prediction is too high.
    pub percent: f64,
    /// Whether that is within [`TOLERANCE`](Self::TOLERANCE).
    pub is_near: bool,
}

impl HeldOut {
    /// How many percent a prediction may be off.
    pub const TOLERANCE: f64 = 15.0;

    /// Of the longest length but one.
    pub fn of(points: &[Point]) -> Option<Self> {
        let mut others = points.to_vec();
        let (length, measured) = others.remove(points.len().checked_sub(2)?);
        let predicted = Fit::of(&others)?.at(length);
        let percent = 100.0 * (predicted / measured - 1.0);
        let is_near = percent.abs() <= Self::TOLERANCE;
        Some(Self { length: length as usize, predicted, measured, percent, is_near })
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn points(lengths: &[f64], seconds: impl Fn(f64) -> f64) -> Vec<Point> {
        lengths.iter().map(|&length| (length, seconds(length))).collect()
    }

    const LENGTHS: [f64; 6] = [16.0, 64.0, 256.0, 1024.0, 4096.0, 32768.0];

    #[test]
    fn what_is_a_polynomial_is_found() {
        for [a, b, c] in [[1e-4, 2e-5, 3e-9], [0.0, 2e-5, 0.0], [3e-4, 0.0, 0.0], [0.0, 0.0, 1e-8]]
        {
            let fit = Fit::of(&points(&LENGTHS, |t| a + b * t + c * t * t)).unwrap();
            assert_relative_eq!(fit.constant, a, max_relative = 1e-8, epsilon = 1e-12);
            assert_relative_eq!(fit.linear, b, max_relative = 1e-8, epsilon = 1e-14);
            assert_relative_eq!(fit.quadratic, c, max_relative = 1e-8, epsilon = 1e-17);
        }
    }

    #[test]
    fn no_part_is_negative() {
        let concave = Fit::of(&points(&[1.0, 4.0, 16.0, 64.0], f64::sqrt)).unwrap();
        assert_eq!(concave.quadratic, 0.0);
        assert!(concave.constant > 0.0 && concave.linear > 0.0);
    }

    #[test]
    fn weights_are_relative() {
        // Of a constant c: (c - 1)^2 + (c/3 - 1)^2 twice is least at c = 1.2. Lengths are equal, so nothing else fits.
        let fit = Fit::of(&[(1.0, 1.0), (1.0, 3.0), (1.0, 1.0), (1.0, 3.0)]).unwrap();
        assert_relative_eq!(fit.at(1.0), 1.2, max_relative = 1e-12);
    }

    #[test]
    fn fits_cross_where_they_are_equal() {
        let fit = |constant, linear, quadratic| Fit { constant, linear, quadratic };
        let cross = |one, other| fits_cross(&one, &other, 1.0, 100.0);
        assert_eq!(cross(fit(0.0, 10.0, 0.0), fit(20.0, 0.0, 0.0)), Some(2.0));
        // At 2 and at 5.
        assert_eq!(cross(fit(10.0, 0.0, 1.0), fit(0.0, 7.0, 0.0)), Some(5.0));
        assert_eq!(cross(fit(10.0, 0.0, 1.0), fit(0.0, 0.0, 0.0)), None);
        assert_eq!(cross(fit(1.0, 1.0, 1.0), fit(1.0, 1.0, 1.0)), None);
        assert_eq!(cross(fit(0.0, 1.0, 0.0), fit(200.0, 0.0, 0.0)), None);
    }

    #[test]
    fn few_points_say_nothing() {
        assert_eq!(Fit::of(&points(&LENGTHS[..3], |t| t)), None);
        assert_eq!(exponent(&points(&LENGTHS[..2], |t| t)), None);
        assert_eq!(HeldOut::of(&points(&LENGTHS[..4], |t| t)), None);
        assert_eq!(HeldOut::of(&[]), None);
    }

    #[test]
    fn the_exponent_is_of_the_long_end() {
        let bent = |t: f64| if t < 300.0 { 256.0 * t } else { t * t };
        assert_relative_eq!(exponent(&points(&LENGTHS, bent)).unwrap(), 2.0, max_relative = 1e-12);
    }

    #[test]
    fn a_held_out_length_that_is_off_shows() {
        let mut line = points(&LENGTHS, |t| 1e-5 * t);
        let found = HeldOut::of(&line).unwrap();
        assert_eq!((found.length, found.is_near), (4096, true));
        line[4].1 *= 2.0;
        let found = HeldOut::of(&line).unwrap();
        assert_relative_eq!(found.percent, -50.0, max_relative = 1e-9);
        assert!(!found.is_near);
    }
}
