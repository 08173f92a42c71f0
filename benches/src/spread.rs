use serde::Serialize;

/// The middle of some measurements, and the ends of their middle half.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// A quarter of the measurements is lower.
    pub low: f64,
    /// Half of the measurements are lower.
    pub median: f64,
    /// A quarter of the measurements is higher.
    pub high: f64,
}

impl Spread {
    /// Of `values`, in any order.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "no measurements");
        values.sort_by(f64::total_cmp);
        let quarter = |quarters: f64| {
            let at = (values.len() - 1) as f64 * quarters / 4.0;
            let (below, above) = (values[at.floor() as usize], values[at.ceil() as usize]);
            below + (above - below) * at.fract()
        };
        Self { low: quarter(1.0), median: quarter(2.0), high: quarter(3.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_lie_between_neighbours() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Spread::of(vec![7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
    }
}
