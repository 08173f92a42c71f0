//! What GGUF calls the tensors that Hugging Face's checkpoints of LFM2 hold. Data and their order are the same.

/// A tensor of a GGUF file, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufName {
    /// The tensor's name.
    pub name: String,
    /// Which part of the tensor, where those of all experts are stacked.
    pub expert: Option<usize>,
}

/// Outside the layers.
const MODEL: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    // The norm after the last layer, in spite of its name.
    ("model.embedding_norm.weight", "token_embd_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Within a layer.
const LAYER: [(&str, &str); 16] = [
    ("operator_norm.weight", "attn_norm.weight"),
    ("ffn_norm.weight", "ffn_norm.weight"),
    ("conv.in_proj.weight", "shortconv.in_proj.weight"),
    ("conv.conv.weight", "shortconv.conv.weight"),
    ("conv.out_proj.weight", "shortconv.out_proj.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.out_proj.weight", "attn_output.weight"),
    ("self_attn.q_layernorm.weight", "attn_q_norm.weight"),
    ("self_attn.k_layernorm.weight", "attn_k_norm.weight"),
    ("feed_forward.w1.weight", "ffn_gate.weight"),
    ("feed_forward.w3.weight", "ffn_up.weight"),
    ("feed_forward.w2.weight", "ffn_down.weight"),
    ("feed_forward.gate.weight", "ffn_gate_inp.weight"),
    ("feed_forward.expert_bias", "exp_probs_b.bias"),
];

/// Within an expert.
const EXPERT: [(&str, &str); 3] = [
    ("w1.weight", "ffn_gate_exps.weight"),
    ("w3.weight", "ffn_up_exps.weight"),
    ("w2.weight", "ffn_down_exps.weight"),
];

/// Where GGUF keeps the tensor that Hugging Face calls `name`; `None` if it has no place for it, as for the biases of conv blocks.
pub fn gguf_name(name: &str) -> Option<GgufName> {
    let find = |names: &[(&str, &'static str)], name: &str| {
        names.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs)
    };
    if let Some(name) = find(&MODEL, name) {
        return Some(GgufName { name: name.to_string(), expert: None });
    }
    let (layer, name) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (expert, name) = match name.strip_prefix("feed_forward.experts.") {
        None => (None, find(&LAYER, name)?),
        Some(name) => {
            let (expert, name) = name.split_once('.')?;
            (Some(expert.parse().ok()?), find(&EXPERT, name)?)
        }
    };
    Some(GgufName { name: format!("blk.{layer}.{name}"), expert })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_kind() {
        for (name, expected, expert) in [
            ("model.embedding_norm.weight", "token_embd_norm.weight", None),
            ("model.layers.12.self_attn.k_layernorm.weight", "blk.12.attn_k_norm.weight", None),
            ("model.layers.3.feed_forward.gate.weight", "blk.3.ffn_gate_inp.weight", None),
            (
                "model.layers.3.feed_forward.experts.31.w2.weight",
                "blk.3.ffn_down_exps.weight",
                Some(31),
            ),
        ] {
            let expected = GgufName { name: expected.into(), expert };
            assert_eq!(gguf_name(name), Some(expected));
        }
        for name in [
            "model.layers.0.conv.conv.bias",
            "model.layers.0",
            "norm.weight",
            "model.layers.1.feed_forward.experts.x.w1.weight",
        ] {
            assert_eq!(gguf_name(name), None);
        }
    }
}
