use lfm2_kernels::format::{GgufTensor, gguf_name};
use lfm2_kernels::model::{Config, LayerKind};

use super::recipe::{Recipe, Role};

/// A tensor of the file and where it comes from.
pub(super) struct PlannedTensor {
    pub stored: GgufTensor,
    /// The tensors of the source that follow one another in it: one, or that of each expert.
    pub parts: Vec<String>,
    /// Of each part.
    pub part_shape: Vec<usize>,
}

/// A list of tensors in the making.
struct Plan {
    recipe: Recipe,
    tensors: Vec<PlannedTensor>,
}

impl Plan {
    fn add(&mut self, name: &str, role: Role, shape: &[usize]) {
        let place = gguf_name(name).expect("the tensors of LFM2 have a place in GGUF");
        let row = shape.last().copied().unwrap_or(1);
        if place.expert.is_some_and(|expert| expert > 0) {
            let stack = self.tensors.last_mut().expect("the first expert comes first");
            stack.parts.push(name.to_string());
            stack.stored.shape[0] += 1;
            return;
        }
        // The dimension between channels and taps has but one element, and GGUF leaves it out.
        let mut stored = match *shape {
            [channels, 1, taps] => vec![channels, taps],
            _ => shape.to_vec(),
        };
        if place.expert.is_some() {
            stored.insert(0, 1);
        }
        let format = self.recipe.format(role, row);
        self.tensors.push(PlannedTensor {
            stored: GgufTensor { name: place.name, format, shape: stored },
            parts: vec![name.to_string()],
            part_shape: shape.to_vec(),
        });
    }
}

/// The tensors of the model that `config` describes.
pub(super) fn planned_tensors(config: &Config, recipe: Recipe) -> Vec<PlannedTensor> {
    let mut plan = Plan { recipe, tensors: Vec::new() };
    let (width, vocabulary) = (config.hidden_size, config.vocabulary);
    let embedding = if config.tied_embedding { Role::Head } else { Role::Matrix };
    plan.add("model.embed_tokens.weight", embedding, &[vocabulary, width]);
    plan.add("model.embedding_norm.weight", Role::Values, &[width]);
    if !config.tied_embedding {
        plan.add("lm_head.weight", Role::Head, &[vocabulary, width]);
    }
    let mut attention_layers = 0..config.count(LayerKind::Attention);
    for (i, kind) in config.layers.iter().enumerate() {
        let mut add = |name: &str, role, shape: &[usize]| {
            plan.add(&format!("model.layers.{i}.{name}"), role, shape);
        };
        add("operator_norm.weight", Role::Values, &[width]);
        match kind {
            LayerKind::Conv => {
                add("conv.in_proj.weight", Role::Matrix, &[3 * width, width]);
                add("conv.conv.weight", Role::Values, &[width, 1, config.conv_length]);
                add("conv.out_proj.weight", Role::Matrix, &[width, width]);
            }
            LayerKind::Attention => {
                let (query, key_value) = (config.query_width(), config.key_value_width());
                let count = attention_layers.end;
                let index = attention_layers.next().expect("counted above");
                add("self_attn.q_proj.weight", Role::Matrix, &[query, width]);
                add("self_attn.k_proj.weight", Role::Matrix, &[key_value, width]);
                add(
                    "self_attn.v_proj.weight",
                    Role::Important { index, count },
                    &[key_value, width],
                );
                add("self_attn.out_proj.weight", Role::Matrix, &[width, query]);
                add("self_attn.q_layernorm.weight", Role::Values, &[config.head_dim]);
                add("self_attn.k_layernorm.weight", Role::Values, &[config.head_dim]);
            }
        }
        add("ffn_norm.weight", Role::Values, &[width]);
        let down = Role::Important { index: i, count: config.layers.len() };
        let Some(experts) = config.experts_of(i) else {
            let inner = config.feed_forward_width;
            add("feed_forward.w1.weight", Role::Matrix, &[inner, width]);
            add("feed_forward.w3.weight", Role::Matrix, &[inner, width]);
            add("feed_forward.w2.weight", down, &[width, inner]);
            continue;
        };
        add("feed_forward.gate.weight", Role::Values, &[experts.count, width]);
        add("feed_forward.expert_bias", Role::Values, &[experts.count]);
        for (name, role, shape) in [
            ("w1", Role::Matrix, [experts.width, width]),
            ("w3", Role::Matrix, [experts.width, width]),
            ("w2", down, [width, experts.width]),
        ] {
            for expert in 0..experts.count {
                add(&format!("feed_forward.experts.{expert}.{name}.weight"), role, &shape);
            }
        }
    }
    plan.tensors
}
