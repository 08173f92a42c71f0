use std::ops::Range;

use super::{Gguf, TensorInfo, TensorType};
use crate::model::Error;

/// Where a tensor that the model asks for lies in the file.
pub(super) struct Place {
    pub kind: TensorType,
    pub shape: Vec<usize>,
    pub start: usize,
    pub bytes: usize,
}

/// The tensors of a layer that GGUF stores as Hugging Face does: by their names there and here.
const LAYER_NAMES: [(&str, &str); 16] = [
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
    ("feed_forward.w2.weight", "ffn_down.weight"),
    ("feed_forward.w3.weight", "ffn_up.weight"),
    ("feed_forward.gate.weight", "ffn_gate_inp.weight"),
    ("feed_forward.expert_bias", "exp_probs_b.bias"),
];

impl Gguf {
    /// Where the tensor of that name in Hugging Face's naming lies. `None` if it is not there.
    pub(super) fn place(&self, name: &str) -> Result<Option<Place>, Error> {
        let info = match name {
            "model.embed_tokens.weight" => self.info("token_embd.weight"),
            // The norm after the last layer, in spite of the name that llama.cpp's converter gives it.
            "model.embedding_norm.weight" => {
                self.info("token_embd_norm.weight").or_else(|| self.info("output_norm.weight"))
            }
            "lm_head.weight" => self.info("output.weight"),
            _ => {
                let layer =
                    name.strip_prefix("model.layers.").and_then(|name| name.split_once('.'));
                return layer.map_or(Ok(None), |(layer, part)| self.layer_place(layer, part));
            }
        };
        Ok(info.map(|info| self.whole(&info)))
    }

    fn layer_place(&self, layer: &str, part: &str) -> Result<Option<Place>, Error> {
        let stored = LAYER_NAMES.iter().find(|(name, _)| *name == part);
        if let Some(info) = stored.and_then(|(_, name)| self.layer_info(layer, name)) {
            let mut place = self.whole(&info);
            // Hugging Face has one input channel per channel, which most files leave out.
            if let ("conv.conv.weight", &[channels, taps]) = (part, &place.shape[..]) {
                place.shape = vec![channels, 1, taps];
            }
            return Ok(Some(place));
        }
        let projection = part.strip_prefix("self_attn.").and_then(|part| part.split_once("_proj."));
        if let Some((projection @ ("q" | "k" | "v"), "weight")) = projection {
            return self.fused_projection(layer, projection);
        }
        let expert =
            part.strip_prefix("feed_forward.experts.").and_then(|part| part.split_once('.'));
        if let Some((expert, part)) = expert
            && let Ok(expert) = expert.parse()
        {
            return self.expert(layer, expert, part);
        }
        Ok(None)
    }

    /// The rows of a projection where those of queries, keys and values are one tensor.
    fn fused_projection(&self, layer: &str, projection: &str) -> Result<Option<Place>, Error> {
        let fused = self.layer_info(layer, "attn_qkv.weight");
        let (Some(fused), Some(output)) = (fused, self.layer_info(layer, "attn_output.weight"))
        else {
            return Ok(None);
        };
        // The output projection takes as many columns as there are rows of queries.
        let (&[rows, _], &[_, queries]) = (&fused.shape[..], &output.shape[..]) else {
            return Err(self.not_stacked(&fused, 2));
        };
        if rows <= queries || !(rows - queries).is_multiple_of(2) {
            return Err(self.wrong(format!(
                "tensor {} has {rows} rows: expected {queries} of queries, and as many of keys as of values",
                fused.name
            )));
        }
        let keys = (rows - queries) / 2;
        let range = match projection {
            "q" => 0..queries,
            "k" => queries..queries + keys,
            _ => queries + keys..rows,
        };
        Ok(Some(self.rows(&fused, range)))
    }

    /// The rows of one expert, of tensors that stack those of all.
    fn expert(&self, layer: &str, expert: usize, part: &str) -> Result<Option<Place>, Error> {
        let (stacked, half) = match part {
            "w1.weight" => ("ffn_gate_exps.weight", 0),
            "w2.weight" => ("ffn_down_exps.weight", 0),
            "w3.weight" => ("ffn_up_exps.weight", 1),
            _ => return Ok(None),
        };
        let fused =
            || self.layer_info(layer, "ffn_gate_up_exps.weight").filter(|_| part != "w2.weight");
        let (info, halves) = match self.layer_info(layer, stacked) {
            Some(info) => (info, 1),
            // Each expert's gate first, then what it gates.
            None => match fused() {
                Some(info) => (info, 2),
                None => return Ok(None),
            },
        };
        let &[experts, rows, _] = &info.shape[..] else {
            return Err(self.not_stacked(&info, 3));
        };
        if expert >= experts {
            return Ok(None);
        }
        if !rows.is_multiple_of(halves) {
            return Err(self.wrong(format!(
                "tensor {} has {rows} rows for each expert: expected two halves",
                info.name
            )));
        }
        let count = rows / halves;
        let first = expert * rows + if halves == 2 { half * count } else { 0 };
        Ok(Some(self.rows(&info, first..first + count)))
    }

    pub(super) fn layer_info(&self, layer: &str, name: &str) -> Option<TensorInfo<'_>> {
        self.info(&format!("blk.{layer}.{name}"))
    }

    fn whole(&self, info: &TensorInfo) -> Place {
        let start = self.data + info.offset as usize;
        Place { kind: info.kind, shape: info.shape.to_vec(), start, bytes: info.bytes }
    }

    /// Some of a tensor's rows, counted over all its outer dimensions.
    fn rows(&self, info: &TensorInfo, rows: Range<usize>) -> Place {
        let columns = info.shape[info.shape.len() - 1];
        let row_bytes = columns / info.kind.block() * info.kind.block_bytes();
        Place {
            kind: info.kind,
            shape: vec![rows.len(), columns],
            start: self.data + info.offset as usize + rows.start * row_bytes,
            bytes: rows.len() * row_bytes,
        }
    }

    fn not_stacked(&self, info: &TensorInfo, dimensions: usize) -> Error {
        self.wrong(format!(
            "tensor {} has shape {:?}: expected {dimensions} dimensions",
            info.name, info.shape
        ))
    }
}
