//! No heap allocation per decoded token after the first.

use lfm2_kernels::Isa;
use lfm2_kernels::linear::ElementType;
use lfm2_kernels::model::{Config, Logits, Model, Scratch, Sequence, State, Synthetic};
use lfm2_kernels::ops::CacheElement;
use rayon::ThreadPoolBuilder;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Heap blocks that were allocated so far, by any thread.
fn blocks() -> u64 {
    dhat::HeapStats::get().total_blocks
}

/// One test, since the counter counts every thread.
#[test]
fn decoding_does_not_allocate() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = blocks();
    std::hint::black_box(vec![1_u8; 100]);
    assert!(blocks() > before, "the counter does not count");

    let config = Config {
        vocabulary: 300,
        hidden_size: 128,
        feed_forward_width: 256,
        ..Config::preset("350m").expect("a preset")
    };
    let model = Model::new(config, &Synthetic::new(3, ElementType::F32)).expect("a model");
    for threads in [1, 2] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        for element in [CacheElement::F32, CacheElement::F16] {
            for isa in Isa::available() {
                let allocated = pool.install(|| decode(&model, isa, element));
                assert_eq!(allocated, 0, "{isa}, {threads} threads, {element:?}");
            }
        }
    }
}

/// Heap blocks allocated while three sequences decode twenty tokens together, after two tokens that may allocate.
fn decode(model: &Model, isa: Isa, element: CacheElement) -> u64 {
    let mut scratch = Scratch::default();
    let mut states: [State; 3] = [(); 3].map(|()| model.new_state(64, element));
    let mut logits = vec![0.0; 3 * 300];
    let mut step = |token: u32| {
        let [a, b, c] = &mut states;
        let tokens = [token];
        let mut sequences = [a, b, c].map(|state| Sequence { tokens: &tokens, state });
        model
            .forward(isa, &mut sequences, &mut scratch, Logits::Last(&mut logits))
            .expect("a valid call");
    };
    step(1);
    step(2);
    let before = blocks();
    (3..23).for_each(&mut step);
    blocks() - before
}
