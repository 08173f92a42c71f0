//! Where two curves cost the same.

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::noise::{self, Noise};

/// What conv and attention cost at one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The length.
    pub length: usize,
    /// Of conv.
    pub conv: Estimate,
    /// Of attention.
    pub attention: Estimate,
}

impl Pair {
    /// How many times as much attention costs.
    pub fn ratio(&self) -> f64 {
        self.attention.seconds / self.conv.seconds
    }
}

/// Where attention begins to cost as much as conv for good, or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Crossing {
    /// Within the range.
    At {
        /// The last length at which they cost the same.
        length: f64,
        /// 95 % of the lengths that noise could have made of it are above.
        low: f64,
        /// And below.
        high: f64,
        /// At how many other, shorter lengths they cost the same, too.
        others: usize,
    },
    /// Nowhere in the range: attention costs more.
    AttentionCostsMore,
    /// Nowhere in the range: attention costs less.
    AttentionCostsLess,
    /// Everywhere in the range.
    Equal,
    /// There is no range.
    Unknown,
}

impl Crossing {
    /// Of pairs in order of their lengths.
    ///
    /// Between two lengths a straight line is drawn in logarithms of both. The interval is that of a thousand repetitions with times as
    /// normal as their standard errors say; a repetition without a crossing counts as one at that end of the range where it would
    /// lie beyond.
    pub fn of(pairs: &[Pair]) -> Self {
        let ratios: Vec<_> =
            pairs.iter().map(|pair| (pair.length as f64, pair.ratio().ln())).collect();
        let crossings = crossings(&ratios);
        let Some(&length) = crossings.last() else {
            return match ratios[..] {
                [] | [_] => Self::Unknown,
                _ if ratios.iter().all(|(_, ratio)| *ratio == 0.0) => Self::Equal,
                _ if ratios.iter().all(|(_, ratio)| *ratio >= 0.0) => Self::AttentionCostsMore,
                _ => Self::AttentionCostsLess,
            };
        };
        let (low, high) = interval(pairs);
        Self::At { length, low, high, others: crossings.len() - 1 }
    }
}

/// Where logarithms of ratios pass 0. One that is 0 belongs to those above.
fn crossings(ratios: &[(f64, f64)]) -> Vec<f64> {
    let crossing = |pair: &[(f64, f64)]| {
        let [(shorter, before), (longer, after)] = *pair else { return None };
        let part = before / (before - after);
        ((before < 0.0) != (after < 0.0)).then(|| shorter * (longer / shorter).powf(part))
    };
    ratios.windows(2).filter_map(crossing).collect()
}

/// What noise could have made of the last crossing.
fn interval(pairs: &[Pair]) -> (f64, f64) {
    const REPETITIONS: usize = 1000;
    let mut noise = Noise::new();
    noise::interval((0..REPETITIONS).map(|_| repetition(pairs, &mut noise)).collect())
}

fn repetition(pairs: &[Pair], noise: &mut Noise) -> f64 {
    let mut noise = |estimate: &Estimate| estimate.standard_error / estimate.seconds * noise.next();
    let ratio = |pair: &Pair| {
        let ratio = pair.ratio().ln() + noise(&pair.attention) - noise(&pair.conv);
        (pair.length as f64, ratio)
    };
    let ratios: Vec<_> = pairs.iter().map(ratio).collect();
    crossings(&ratios).last().copied().unwrap_or_else(|| {
        // Who rises must rise further, or have risen before.
        let rises = ratios[ratios.len() - 1].1 > ratios[0].1;
        let end = if rises == (ratios[0].1 < 0.0) { ratios.len() - 1 } else { 0 };
        ratios[end].0
    })
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn pairs(ratios: &[(usize, f64)], standard_error: f64) -> Vec<Pair> {
        let estimate = |seconds| Estimate { seconds, low: seconds, high: seconds, standard_error };
        let pair =
            |&(length, ratio)| Pair { length, conv: estimate(1.0), attention: estimate(ratio) };
        ratios.iter().map(pair).collect()
    }

    #[test]
    fn a_crossing_lies_on_a_line_in_logarithms() {
        // From 1/2 to 2 is as far below 1 as above, and so is 128 of 64 and 256.
        let found = Crossing::of(&pairs(&[(16, 0.5), (64, 0.5), (256, 2.0)], 0.0));
        let Crossing::At { length, low, high, others: 0 } = found else { panic!("{found:?}") };
        for found in [length, low, high] {
            assert_relative_eq!(found, 128.0, max_relative = 1e-12);
        }
    }

    #[test]
    fn no_crossing_is_an_answer() {
        let of = |ratios: &[(usize, f64)]| Crossing::of(&pairs(ratios, 0.1));
        assert_eq!(of(&[(16, 1.5), (64, 2.0)]), Crossing::AttentionCostsMore);
        assert_eq!(of(&[(16, 1.0), (64, 2.0)]), Crossing::AttentionCostsMore);
        assert_eq!(of(&[(16, 0.9), (64, 0.8)]), Crossing::AttentionCostsLess);
    }

    #[test]
    fn degenerate_curves_have_no_single_crossing() {
        let of = |ratios: &[(usize, f64)]| Crossing::of(&pairs(ratios, 0.1));
        assert_eq!(of(&[(16, 1.0), (64, 1.0)]), Crossing::Equal);
        assert_eq!(of(&[(16, 1.5)]), Crossing::Unknown);
        assert_eq!(of(&[]), Crossing::Unknown);
    }

    #[test]
    fn the_last_of_several_counts() {
        let found = Crossing::of(&pairs(&[(16, 2.0), (64, 0.5), (256, 2.0)], 0.0));
        assert!(matches!(found, Crossing::At { others: 1, length, .. } if length > 64.0));
    }

    #[test]
    fn noise_makes_the_interval_wide() {
        let width = |standard_error| {
            let found = Crossing::of(&pairs(&[(64, 0.8), (256, 1.25)], standard_error));
            let Crossing::At { length, low, high, .. } = found else { panic!("{found:?}") };
            assert!(low < length && length < high && low >= 64.0 && high <= 256.0);
            high / low
        };
        // Logarithms of ratios have sqrt(2) times the noise of a time. At the crossing they rise by ln(25/16) while that of the length
        // rises by ln 4: the crossing's spreads by about 0.01 * ln 4 / ln(25/16), as two points share the noise.
        let expected = (2.0 * 1.96 * 0.01 * 4_f64.ln() / (25.0_f64 / 16.0).ln()).exp();
        assert_relative_eq!(width(0.01), expected, max_relative = 0.02);
        assert!(width(0.1) > width(0.01));
    }
}
