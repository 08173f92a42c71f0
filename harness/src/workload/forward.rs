//! A prompt that passes through a model.

use lfm2_kernels::Isa;
use lfm2_kernels::model::{Config, Logits, Model, Operations, Scratch, Sequence, Synthetic};
use lfm2_kernels::ops::CacheElement;

use super::function::workload;
use super::{Case, Stored};
use crate::ceiling::Work;

/// So many tokens at the start of a sequence, with random weights.
pub fn forward_case<'a>(isa: Isa, stored: Stored, config: Config, rows: usize) -> Case<'a> {
    let Operations { linear, attention } = config.operations(0, rows);
    let weights = config.operations(0, 1).linear as usize / 2;
    let work = Work {
        rows,
        operations: attention,
        bytes: (stored.format.bytes(weights) + 4 * config.cached(rows)) as u64,
        ..Work::default()
    };
    Case {
        op: "forward",
        isa,
        format: stored.name(),
        shape: format!("prefill-{rows}"),
        work: work.with_linear(stored.activations, linear),
        prepare: Box::new(move || {
            let source = Synthetic::new(1, stored.format);
            let mut model = Model::new(config.clone(), &source).expect("a model of random weights");
            model.set_activations(stored.activations);
            let vocabulary = config.vocabulary;
            let tokens: Vec<_> = (0..rows).map(|i| (i * 7919 % vocabulary) as u32).collect();
            let mut state = model.new_state(rows, CacheElement::F32);
            let mut scratch = Scratch::default();
            workload(vec![0.0; vocabulary], move |isa, _, _, out| {
                state.reset();
                let sequence = Sequence { tokens: &tokens, state: &mut state };
                model
                    .forward(isa, &mut [sequence], &mut scratch, Logits::Last(out))
                    .expect("a valid call");
            })
        }),
    }
}
