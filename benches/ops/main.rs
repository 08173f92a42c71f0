//! Each operation at the 350M's shapes, and linear layers as a share of what the same run measures the CPU to do at most;
//! [`lfm2_benches::operations`] has what is timed.

use std::time::Duration;

use lfm2_benches::{Options, Session, Weights, operations};

mod shares;

fn main() {
    Options::from_args().in_pool(run);
}

fn run(options: Options) {
    let mut session = Session::new("ops", options);
    let weights = Weights::default();
    let cases = operations::cases(&session.options.isas(), session.options.extent(), &weights);
    session.expect(shares::expected(&session.options));
    session.measure(Duration::from_millis(400), cases.into_iter().map(|case| vec![case]).collect());
    drop(weights);
    let shares = session.memory().map(|memory| shares::measure(&session.options, memory));
    session.finish();
    if let Some(shares) = shares {
        session.print_peaks();
        shares::print(&shares);
        session.report(shares);
    }
}
