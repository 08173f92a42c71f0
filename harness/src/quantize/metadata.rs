use lfm2_kernels::format::GgufValue;
use lfm2_kernels::model::{Config, LayerKind};

use super::Recipe;

/// What a GGUF file says of a model beside its shape.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The model's name.
    pub name: &'a str,
    /// How many positions it was made for.
    pub context_length: u32,
}

/// The keys that llama.cpp's converter writes for a model without a tokeniser.
pub(super) fn metadata(
    config: &Config,
    recipe: Recipe,
    origin: Origin,
) -> Vec<(String, GgufValue)> {
    let architecture = if config.experts.is_some() { "lfm2moe" } else { "lfm2" };
    let text = |text: &str| GgufValue::String(text.to_string());
    // A configuration that can be run has no larger numbers.
    let number = |number: usize| GgufValue::U32(number as u32);
    // These numbers are the only record of the kinds of layers.
    let key_value_heads = config.layers.iter().map(|kind| match kind {
        LayerKind::Conv => 0,
        LayerKind::Attention => config.key_value_heads as i32,
    });
    let mut of_architecture = vec![
        ("block_count", number(config.layers.len())),
        ("context_length", GgufValue::U32(origin.context_length)),
        ("embedding_length", number(config.hidden_size)),
        ("feed_forward_length", number(config.feed_forward_width)),
        ("attention.head_count", number(config.heads)),
        ("attention.head_count_kv", GgufValue::I32s(key_value_heads.collect())),
        ("attention.key_length", number(config.head_dim)),
        ("attention.value_length", number(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", GgufValue::F32(config.norm_epsilon)),
        ("rope.freq_base", GgufValue::F32(config.rope_theta as f32)),
        ("shortconv.l_cache", number(config.conv_length)),
        ("vocab_size", number(config.vocabulary)),
    ];
    if let Some(experts) = &config.experts {
        // By sigmoid.
        const GATING: u32 = 2;
        of_architecture.extend([
            ("expert_count", number(experts.count)),
            ("expert_used_count", number(experts.used)),
            ("expert_feed_forward_length", number(experts.width)),
            ("leading_dense_block_count", number(experts.dense_layers)),
            ("expert_gating_func", GgufValue::U32(GATING)),
        ]);
    }
    let mut metadata = vec![
        ("general.architecture".to_string(), text(architecture)),
        ("general.type".to_string(), text("model")),
        ("general.name".to_string(), text(origin.name)),
        ("general.file_type".to_string(), GgufValue::U32(recipe.file_type())),
        ("general.quantization_version".to_string(), GgufValue::U32(2)),
        ("tokenizer.ggml.model".to_string(), text("none")),
    ];
    let with_architecture = |(key, value)| (format!("{architecture}.{key}"), value);
    metadata.extend(of_architecture.into_iter().map(with_architecture));
    metadata
}
