//! How far a fit is to be trusted.

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::fit::Fit;
use super::noise::{Noise, interval};

/// What a fit says of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// The length; some are between those that were measured.
    pub length: f64,
    /// Seconds, by the fit.
    pub seconds: f64,
    /// 95 % of the fits that noise could have made of it are above.
    pub low: f64,
    /// And below.
    pub high: f64,
}

/// At every length, and at some between, shortest first.
///
/// Fits that noise could have made are those of times drawn about this one: as far from it as the time's standard error says, or as all
/// times lie about it, whichever is farther.
pub fn of(fit: &Fit, times: &[(f64, Estimate)]) -> Vec<Band> {
    const REPETITIONS: usize = 400;
    let scatter = scatter(fit, times);
    let mut noise = Noise::new();
    let mut drawn = |&(length, time): &(f64, Estimate)| {
        let deviation = (time.standard_error / time.seconds).max(scatter);
        (length, fit.at(length) * (deviation * noise.next()).exp())
    };
    let mut repetition = |_| Fit::of(&times.iter().map(&mut drawn).collect::<Vec<_>>());
    let fits: Vec<_> = (0..REPETITIONS).filter_map(&mut repetition).collect();
    let band = |length| {
        let (low, high) = interval(fits.iter().map(|fit| fit.at(length)).collect());
        Band { length, seconds: fit.at(length), low, high }
    };
    lengths(times).into_iter().map(band).collect()
}

/// By how much times differ from the fit: the root of the mean square of relative errors, less what the fit is free to take away.
fn scatter(fit: &Fit, times: &[(f64, Estimate)]) -> f64 {
    let terms = [fit.constant, fit.linear, fit.quadratic];
    let free = terms.iter().filter(|term| **term > 0.0).count();
    let error = |(length, time): &(f64, Estimate)| fit.at(*length) / time.seconds - 1.0;
    let sum: f64 = times.iter().map(|time| error(time).powi(2)).sum();
    (sum / (times.len() - free) as f64).sqrt()
}

/// Those that were measured, and three between any two neighbours, equally spaced in logarithms.
fn lengths(times: &[(f64, Estimate)]) -> Vec<f64> {
    const STEPS: i32 = 4;
    let between = |pair: &[(f64, Estimate)]| {
        let (shorter, longer) = (pair[0].0, pair[1].0);
        let step = move |i| shorter * (longer / shorter).powf(f64::from(i) / f64::from(STEPS));
        (0..STEPS).map(step)
    };
    let last = times.last().map(|(length, _)| *length);
    times.windows(2).flat_map(between).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn times(seconds: &[(f64, f64)], standard_error: f64) -> Vec<(f64, Estimate)> {
        let time = |&(length, seconds): &(f64, f64)| {
            let standard_error = standard_error * seconds;
            (length, Estimate { seconds, low: seconds, high: seconds, standard_error })
        };
        seconds.iter().map(time).collect()
    }

    fn width(times: &[(f64, Estimate)]) -> f64 {
        let points: Vec<_> = times.iter().map(|(length, time)| (*length, time.seconds)).collect();
        let band = of(&Fit::of(&points).unwrap(), times)[0];
        assert!(band.low < band.seconds && band.seconds < band.high, "{band:?}");
        (band.high / band.low).ln()
    }

    #[test]
    fn standard_errors_make_a_band() {
        // Lengths are equal, so that the fit is a mean of four: half as far off as one of them.
        let found = width(&times(&[(1.0, 2.0); 4], 0.01));
        assert_relative_eq!(found, 2.0 * 1.96 * 0.01 / 2.0, max_relative = 0.1);
    }

    #[test]
    fn scatter_makes_a_band() {
        // The fit is 0.9802, which is 8.91 % above the one and 10.89 % below the other: a mean square of 0.0099, of which three of four
        // terms are free, so 11.49 %.
        let seconds = [(1.0, 0.9), (1.0, 1.1), (1.0, 0.9), (1.0, 1.1)];
        let found = width(&times(&seconds, 0.01));
        assert_relative_eq!(found, 2.0 * 1.96 * 0.1149 / 2.0, max_relative = 0.1);
    }

    #[test]
    fn what_is_exact_has_no_width() {
        let line = times(&[(16.0, 17.0), (64.0, 65.0), (256.0, 257.0), (1024.0, 1025.0)], 0.0);
        let fit = Fit { constant: 1.0, linear: 1.0, quadratic: 0.0 };
        let bands = of(&fit, &line);
        let lengths: Vec<_> = bands.iter().map(|band| band.length.round()).collect();
        assert_eq!(lengths[..6], [16.0, 23.0, 32.0, 45.0, 64.0, 91.0]);
        assert_eq!((bands.len(), bands[12].length), (13, 1024.0));
        for Band { length, seconds, low, high } in bands {
            assert_eq!(seconds, length + 1.0);
            assert_relative_eq!(low, seconds, max_relative = 1e-9);
            assert_relative_eq!(high, seconds, max_relative = 1e-9);
        }
    }
}
