use super::{Gguf, Value};
use crate::model::{Config, Description, Error, ExpertsConfig, LayerKind};

/// Largest of the numbers that describe a shape, as [`Config::validate`] has it.
const MOST: u64 = 1 << 24;

/// The keys of the metadata that describe a model, all of which begin with the architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Gguf {
    /// The shape of the model: from the metadata, and from the tensors where they know better. In some files the metadata give another
    /// width of the feed-forward, and fine-tuned ones another vocabulary.
    ///
    /// # Errors
    ///
    /// If the file holds another kind of model, or one that cannot be run.
    pub fn config(&self) -> Result<Config, Error> {
        let config = self.read_config().map_err(|reason| self.wrong(reason))?;
        config.validate().map_err(|error| error.in_file(self.path()))?;
        Ok(config)
    }

    fn read_config(&self) -> Result<Config, String> {
        let expected = "expected \"lfm2\" or \"lfm2moe\"";
        let architecture = match self.value("general.architecture") {
            Some(Value::String(name @ ("lfm2" | "lfm2moe"))) => name,
            Some(other) => return Err(format!("general.architecture is {other}: {expected}")),
            None => return Err(format!("has no general.architecture: {expected}")),
        };
        if let Some(count) = self.value("split.count").filter(|count| unsigned(*count) != Some(1)) {
            return Err(format!("split.count is {count}: expected a file that is not split"));
        }
        let keys = Keys { gguf: self, architecture };
        keys.refuse_variants()?;
        let hidden_size = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let head_dim = keys.optional_size("attention.key_length")?.unwrap_or(hidden_size / heads);
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = keys.optional_size(key)?.filter(|other| *other != head_dim) {
                return Err(format!(
                    "{architecture}.{key} is {other}: expected the size of a head, {head_dim}"
                ));
            }
        }
        let (layers, key_value_heads) = keys.layers()?;
        let rows = |name: &str| self.info(name).map(|info| info.shape[0]);
        let feed_forward_width = rows("blk.0.ffn_gate.weight");
        let vocabulary = rows("token_embd.weight");
        Ok(Config {
            description: Description::Lfm2,
            vocabulary: vocabulary.map_or_else(|| keys.size("vocab_size"), Ok)?,
            hidden_size,
            layers,
            heads,
            key_value_heads,
            head_dim,
            feed_forward_width: feed_forward_width
                .map_or_else(|| keys.size("feed_forward_length"), Ok)?,
            conv_length: keys.size("shortconv.l_cache")?,
            conv_bias: false,
            norm_epsilon: keys.float("attention.layer_norm_rms_epsilon")? as f32,
            rope_theta: keys.float("rope.freq_base")?,
            tied_embedding: self.info("output.weight").is_none(),
            experts: keys.experts()?,
        })
    }
}

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<Value<'_>> {
        self.gguf.value(&format!("{}.{key}", self.architecture))
    }

    fn wrong(&self, key: &str, found: Option<Value>, expected: impl std::fmt::Display) -> String {
        let key = format!("{}.{key}", self.architecture);
        match found {
            Some(found) => format!("{key} is {found}: expected {expected}"),
            None => format!("has no {key}: expected {expected}"),
        }
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        let found = self.value(key);
        let size = found.and_then(unsigned).filter(|size| (1..=MOST).contains(size));
        size.map(|size| size as usize).ok_or_else(|| self.wrong(key, found, "1 to 2^24"))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, String> {
        self.value(key).map(|_| self.size(key)).transpose()
    }

    fn float(&self, key: &str) -> Result<f64, String> {
        match self.value(key) {
            Some(Value::Float(number)) => Ok(number),
            found => Err(self.wrong(key, found, "a number with a point")),
        }
    }

    /// Keys that ask for what the kernels do not do, and that would be missed only in the result.
    fn refuse_variants(&self) -> Result<(), String> {
        let key = "attention.causal";
        match self.value(key) {
            None | Some(Value::Bool(true)) => {}
            found => return Err(self.wrong(key, found, "true")),
        }
        let key = "attention.sliding_window";
        match self.value(key) {
            None => {}
            Some(window) if unsigned(window) == Some(0) => {}
            found => return Err(self.wrong(key, found, "0: no window")),
        }
        let key = "rope.scaling.type";
        match self.value(key) {
            None | Some(Value::String("none")) => Ok(()),
            found => Err(self.wrong(key, found, "\"none\"")),
        }
    }

    /// The mixture of experts, if the model has one.
    fn experts(&self) -> Result<Option<ExpertsConfig>, String> {
        if self.architecture != "lfm2moe" {
            return Ok(None);
        }
        let key = "expert_gating_func";
        let found = self.value(key);
        if found.and_then(unsigned) != Some(2) {
            return Err(self.wrong(key, found, "2, the sigmoid"));
        }
        let dense_layers = match self.value("leading_dense_block_count") {
            Some(count) if unsigned(count) == Some(0) => 0,
            _ => self.size("leading_dense_block_count")?,
        };
        // Writers that scale no weights leave this out, or write 0.
        let scale = match self.value("expert_weights_scale") {
            Some(Value::Float(scale)) if scale != 0.0 => scale as f32,
            _ => 1.0,
        };
        let first = dense_layers.to_string();
        Ok(Some(ExpertsConfig {
            count: self.size("expert_count")?,
            used: self.size("expert_used_count")?,
            width: self.size("expert_feed_forward_length")?,
            dense_layers,
            use_bias: self.gguf.layer_info(&first, "exp_probs_b.bias").is_some(),
            normalise: true,
            scale,
        }))
    }

    /// The kind of each layer, and how many heads keys and values have in those of attention.
    fn layers(&self) -> Result<(Vec<LayerKind>, usize), String> {
        let count = self.size("block_count")?;
        // Each layer has tensors: what a number alone promises is not looked for.
        let most = Config::MAX_LAYERS.min(self.gguf.infos().len());
        if count > most {
            let found = self.value("block_count");
            let expected = format!("at most {most}, since each layer has tensors");
            return Err(self.wrong("block_count", found, expected));
        }
        let key = "attention.head_count_kv";
        let found = self.value(key);
        let Some(Value::Array(heads)) = found else {
            // One number for all layers, so that their kinds show in their tensors alone.
            let kind = |layer: usize| match self
                .gguf
                .layer_info(&layer.to_string(), "shortconv.in_proj.weight")
            {
                Some(_) => LayerKind::Conv,
                None => LayerKind::Attention,
            };
            return Ok(((0..count).map(kind).collect(), self.size(key)?));
        };
        let expected = format!("a number for each of {count} layers: 0, or the same one");
        if heads.length() != count {
            return Err(self.wrong(key, found, expected));
        }
        let (mut layers, mut most) = (Vec::new(), 0);
        for heads in heads.values() {
            let heads = unsigned(heads).filter(|heads| *heads <= MOST);
            match heads {
                Some(0) => layers.push(LayerKind::Conv),
                Some(heads) if most == 0 || heads == most => {
                    layers.push(LayerKind::Attention);
                    most = heads;
                }
                _ => return Err(self.wrong(key, found, expected)),
            }
        }
        Ok((layers, most as usize))
    }
}

/// A number that is not negative, in whatever type it is stored.
fn unsigned(value: Value) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(number),
        Value::Signed(number) => number.try_into().ok(),
        _ => None,
    }
}
