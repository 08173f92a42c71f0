use crate::simd::{Isa, dispatch};

/// What [`route`] does beyond comparing scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Experts that each row uses.
    pub used: usize,
    /// Whether a row's weights are divided by their sum.
    pub normalise: bool,
    /// By what weights are multiplied in the end.
    pub scale: f32,
}

impl Routing {
    /// What is added to the sum that weights are divided by.
    pub const EPSILON: f32 = 1e-6;
}

/// Chooses the experts of each row, those with the `used` largest `score + bias`, and weighs them by their scores alone:
/// `weight[j] = score[choice[j]] / (sum of the chosen scores + 1e-6) * scale`, without the quotient if weights are not normalised.
///
/// `scores` is `[rows, bias.len()]`, `choice` and `weights` are `[rows, used]`. A row's choice is in ascending order, and so is its sum of
/// scores. Among equals the lowest index is chosen; a sum with the bias that is NaN counts as -infinity.
/// Source: `Lfm2MoeSparseMoeBlock` of Hugging Face transformers.
///
/// # Panics
///
/// If a slice has another shape, or there are fewer experts than each row uses.
pub fn route(
    isa: Isa,
    scores: &[f32],
    bias: &[f32],
    routing: Routing,
    choice: &mut [u32],
    weights: &mut [f32],
) {
    let (count, used) = (bias.len(), routing.used);
    assert!((1..=count).contains(&used), "route: {used} of {count} experts");
    let rows = scores.len() / count;
    assert_eq!(scores.len(), rows * count, "route: scores are not whole rows of {count}");
    assert_eq!(choice.len(), rows * used, "route: choice is not {rows} rows of {used}");
    assert_eq!(weights.len(), rows * used, "route: weights are not {rows} rows of {used}");
    dispatch!(isa, simd => kernel(scores, bias, routing, choice, weights));
}

/// A few comparisons for each score: plain code in the kernels' floating-point environment.
#[inline(always)]
fn kernel(scores: &[f32], bias: &[f32], routing: Routing, choice: &mut [u32], weights: &mut [f32]) {
    let rows = choice.chunks_exact_mut(routing.used).zip(weights.chunks_exact_mut(routing.used));
    for (scores, (choice, weights)) in scores.chunks_exact(bias.len()).zip(rows) {
        choose(scores, bias, choice);
        let mut sum = 0.0;
        for (weight, &expert) in weights.iter_mut().zip(&*choice) {
            *weight = scores[expert as usize];
            sum += *weight;
        }
        for weight in weights {
            if routing.normalise {
                *weight /= sum + Routing::EPSILON;
            }
            *weight *= routing.scale;
        }
    }
}

#[inline(always)]
fn choose(scores: &[f32], bias: &[f32], choice: &mut [u32]) {
    let rank = |expert: u32| {
        let rank = scores[expert as usize] + bias[expert as usize];
        if rank.is_nan() { f32::NEG_INFINITY } else { rank }
    };
    // The best so far, best first.
    let mut found = 0;
    for expert in 0..scores.len() as u32 {
        let better = choice[..found].iter().rposition(|&other| rank(other) >= rank(expert));
        let place = better.map_or(0, |better| better + 1);
        if place < choice.len() {
            found = choice.len().min(found + 1);
            choice[place..found].rotate_right(1);
            choice[place] = expert;
        }
    }
    choice.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(scores: &[f32], bias: &[f32], routing: Routing) -> (Vec<u32>, Vec<f32>) {
        let rows = scores.len() / bias.len();
        let mut choice = vec![u32::MAX; rows * routing.used];
        let mut weights = vec![f32::NAN; rows * routing.used];
        route(Isa::best(), scores, bias, routing, &mut choice, &mut weights);
        (choice, weights)
    }

    const PLAIN: Routing = Routing { used: 2, normalise: false, scale: 1.0 };

    #[test]
    fn a_bias_chooses_and_does_not_weigh() {
        let (choice, weights) = routed(&[0.5, 0.25, 0.75], &[0.0, 1.0, 0.0], PLAIN);
        assert_eq!((&choice[..], &weights[..]), (&[1, 2][..], &[0.25, 0.75][..]));
        let routing = Routing { normalise: true, scale: 2.0, ..PLAIN };
        let (_, weights) = routed(&[0.5, 0.25, 0.75], &[0.0, 1.0, 0.0], routing);
        let sum = 1.0 + Routing::EPSILON;
        assert_eq!(weights, [0.25 / sum * 2.0, 0.75 / sum * 2.0]);
    }

    #[test]
    fn the_lowest_of_equals_is_chosen() {
        assert_eq!(routed(&[0.5; 5], &[0.0; 5], PLAIN).0, [0, 1]);
        assert_eq!(routed(&[0.0, 0.5, -0.0, 0.0], &[0.0; 4], PLAIN).0, [0, 1]);
        assert_eq!(routed(&[0.25, 0.5, 0.25, 0.5, 0.5], &[0.0; 5], PLAIN).0, [1, 3]);
    }

    #[test]
    fn nan_is_chosen_last() {
        let nan = f32::NAN;
        assert_eq!(routed(&[nan, 0.0, nan, -1.0], &[0.0; 4], PLAIN).0, [1, 3]);
        assert_eq!(routed(&[nan, nan, 0.5, nan], &[0.0; 4], PLAIN).0, [0, 2]);
        let bias = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(routed(&[0.5, nan, 0.5], &bias, PLAIN).0, [0, 1]);
    }
}
