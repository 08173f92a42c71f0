use std::ops::Range;

use super::{Gguf, TensorInfo, TensorType};
use crate::format::gguf_names::{GgufName, gguf_name};
use crate::model::Error;

/// Where a tensor that the model asks for lies in the file.
pub(super) struct Place {
    pub kind: TensorType,
    pub shape: Vec<usize>,
    pub start: usize,
    pub bytes: usize,
}

impl Gguf {
    /// Where the tensor of that name in Hugging Face's naming lies. `None` if it is not there.
    pub(super) fn place(&self, name: &str) -> Result<Option<Place>, Error> {
        let Some(GgufName { name: stored, expert }) = gguf_name(name) else {
            return Ok(None);
        };
        if let Some(expert) = expert {
            return self.expert(&stored, expert);
        }
        if let Some(info) = self.info(&stored) {
            let mut place = self.whole(&info);
            // Hugging Face has one input channel per channel, which most files leave out.
            if let (true, &[channels, taps]) =
                (stored.ends_with("shortconv.conv.weight"), &place.shape[..])
            {
                place.shape = vec![channels, 1, taps];
            }
            return Ok(Some(place));
        }
        // What other writers do.
        if stored == "token_embd_norm.weight" {
            return Ok(self.info("output_norm.weight").map(|info| self.whole(&info)));
        }
        match stored.strip_suffix(".weight").and_then(|name| name.rsplit_once(".attn_")) {
            Some((layer, projection @ ("q" | "k" | "v"))) => {
                self.fused_projection(layer, projection)
            }
            _ => Ok(None),
        }
    }

    /// The rows of a projection where those of queries, keys and values are one tensor of `layer`, such as `blk.2`.
    fn fused_projection(&self, layer: &str, projection: &str) -> Result<Option<Place>, Error> {
        let info = |name: &str| self.info(&format!("{layer}.{name}.weight"));
        let (Some(fused), Some(output)) = (info("attn_qkv"), info("attn_output")) else {
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

    /// The rows of one expert, of the tensor `stacked` that has those of all, or of one that has each expert's gate, then what it gates.
    fn expert(&self, stacked: &str, expert: usize) -> Result<Option<Place>, Error> {
        let fused = |part: &str| {
            let layer = stacked.strip_suffix(part)?;
            self.info(&format!("{layer}ffn_gate_up_exps.weight"))
        };
        let found = self.info(stacked).map(|info| (info, 1, 0));
        let found = found
            .or_else(|| fused("ffn_gate_exps.weight").map(|info| (info, 2, 0)))
            .or_else(|| fused("ffn_up_exps.weight").map(|info| (info, 2, 1)));
        let Some((info, halves, half)) = found else {
            return Ok(None);
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
        let first = expert * rows + half * count;
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
