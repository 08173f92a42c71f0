use std::sync::Arc;

use lfm2_harness::coverage::Coverage;
use libtest_mimic::Trial;

pub fn trials(_: &Arc<Coverage>) -> Vec<Trial> {
    Vec::new()
}
