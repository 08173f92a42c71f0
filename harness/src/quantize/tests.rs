use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use lfm2_kernels::format::GgufValue;
use lfm2_kernels::model::{ExpertsConfig, LayerKind, Synthetic};

use super::*;

const ORIGIN: Origin = Origin { name: "small", context_length: 64 };

/// Two convolutions and two attentions, rows of whole blocks of 256 but for one matrix.
fn small() -> Config {
    use LayerKind::{Attention, Conv};
    Config {
        vocabulary: 40,
        hidden_size: 256,
        layers: vec![Conv, Attention, Conv, Attention],
        heads: 4,
        key_value_heads: 2,
        feed_forward_width: 96,
        ..Config::preset("350m").expect("a preset")
    }
}

fn recipe(name: &str) -> Recipe {
    name.parse().expect("a recipe")
}

/// What the data of each tensor are.
fn data<'a>(file: &'a [u8], tensors: &[GgufTensor]) -> Vec<&'a [u8]> {
    let padded = |tensor: &GgufTensor| tensor.bytes().next_multiple_of(32);
    let mut rest = &file[file.len() - tensors.iter().map(padded).sum::<usize>()..];
    let mut data = Vec::new();
    for tensor in tensors {
        let (these, others) = rest.split_at(padded(tensor));
        data.push(&these[..tensor.bytes()]);
        rest = others;
    }
    data
}

#[test]
fn a_file_holds_the_weights_up_to_the_error_of_their_formats() {
    let source = Synthetic::new(7, WeightFormat::F32);
    for recipe in Recipe::ALL {
        let file = GgufFile::new(small(), &source, recipe).expect("a plan");
        let mut converted = 0;
        let bytes = file.write(Vec::new(), ORIGIN, |weights| converted += weights).expect("a file");
        let tensors: Vec<_> = file.tensors().cloned().collect();
        let names: HashSet<_> = tensors.iter().map(|tensor| &tensor.name).collect();
        assert_eq!((tensors.len(), names.len()), (40, 40));
        let weights = |tensor: &GgufTensor| tensor.shape.iter().product::<usize>();
        assert_eq!(converted, tensors.iter().map(weights).sum::<usize>());
        for ((plan, data), stored) in file.tensors.iter().zip(data(&bytes, &tensors)).zip(&tensors)
        {
            let [name] = &plan.parts[..] else { panic!("{} parts", plan.parts.len()) };
            let weights = source.values(name, &plan.part_shape);
            let decoded = blocks::decode(stored.format, data);
            let squares =
                |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
            let pairs = weights.iter().zip(&decoded);
            let nmse = squares(&mut pairs.map(|(w, d)| f64::from(*w) - f64::from(*d)))
                / squares(&mut weights.iter().copied().map(f64::from));
            // Even weights of a range of 2 have a mean square of 1/3, and lose step^2 / 12 of it, with steps of 2 / count. A step of f16 or
            // bf16 is at most 2^-10 or 2^-7 of a weight.
            let steps: f64 = match stored.format {
                WeightFormat::F32 => f64::INFINITY,
                WeightFormat::F16 => 1024.0,
                WeightFormat::Bf16 => 128.0,
                WeightFormat::Q8_0 => 254.0,
                WeightFormat::Q4_0 => 16.0,
                WeightFormat::Q4_1 | WeightFormat::Q4K => 15.0,
                WeightFormat::Q5_0 => 32.0,
                WeightFormat::Q5_1 | WeightFormat::Q5K => 31.0,
                WeightFormat::Q6K => 63.0,
            };
            let bound = 1.1 * steps.powi(-2);
            assert!(nmse <= bound, "{recipe}: {name} in {}: {nmse:e}", stored.format);
        }
    }
}

#[test]
fn formats_are_those_of_llama_cpp() {
    let source = Synthetic::new(7, WeightFormat::F32);
    let formats = |name: &str, config: Config| {
        let file = GgufFile::new(config, &source, recipe(name)).expect("a plan");
        file.tensors().map(|tensor| (tensor.name.clone(), tensor.format)).collect::<HashMap<_, _>>()
    };
    let wide = Config { feed_forward_width: 256, ..small() };
    // What llama.cpp's quantiser made of a model of this shape.
    let medium = formats("Q4_K_M", wide.clone());
    let six_bits = [
        "token_embd.weight",
        "blk.2.ffn_down.weight",
        "blk.3.ffn_down.weight",
        "blk.3.attn_v.weight",
    ];
    for (name, format) in &medium {
        let expected = match &name[..] {
            name if six_bits.contains(&name) => WeightFormat::Q6K,
            name if name.contains("norm") || name.contains("shortconv.conv.") => WeightFormat::F32,
            _ => WeightFormat::Q4K,
        };
        assert_eq!(*format, expected, "{name}");
    }
    for (name, head, matrix) in [
        ("F16", WeightFormat::F16, WeightFormat::F16),
        ("Q8_0", WeightFormat::Q8_0, WeightFormat::Q8_0),
        ("Q4_0", WeightFormat::Q6K, WeightFormat::Q4_0),
        ("Q4_K", WeightFormat::Q6K, WeightFormat::Q4K),
    ] {
        let formats = formats(name, wide.clone());
        assert_eq!(formats["token_embd.weight"], head, "{name}");
        assert_eq!(formats["blk.3.attn_v.weight"], matrix, "{name}");
        assert_eq!(formats["blk.3.ffn_down.weight"], matrix, "{name}");
    }
    // Rows of 96 are no blocks of 256.
    assert_eq!(formats("Q4_K", small())["blk.0.ffn_down.weight"], WeightFormat::Q5_0);
    assert_eq!(formats("Q5_K_M", small())["blk.3.ffn_down.weight"], WeightFormat::Q8_0);
}

#[test]
fn shapes_and_metadata_are_those_of_llama_cpp() {
    let source = Synthetic::new(7, WeightFormat::F32);
    let file = GgufFile::new(small(), &source, recipe("Q4_K_M")).expect("a plan");
    let shape = |name: &str| {
        let tensor = file.tensors().find(|tensor| tensor.name == name);
        tensor.map(|tensor| &tensor.shape[..])
    };
    assert_eq!(shape("token_embd.weight"), Some(&[40, 256][..]));
    assert_eq!(shape("blk.2.shortconv.conv.weight"), Some(&[256, 3][..]));
    assert_eq!(shape("blk.2.shortconv.in_proj.weight"), Some(&[768, 256][..]));
    assert_eq!(shape("blk.1.attn_v.weight"), Some(&[128, 256][..]));
    assert_eq!(shape("blk.1.ffn_down.weight"), Some(&[256, 96][..]));

    let metadata = metadata::metadata(&file.config, file.recipe, ORIGIN);
    for (key, value) in [
        ("general.architecture", GgufValue::String("lfm2".into())),
        ("general.name", GgufValue::String("small".into())),
        ("general.file_type", GgufValue::U32(15)),
        ("lfm2.block_count", GgufValue::U32(4)),
        ("lfm2.context_length", GgufValue::U32(64)),
        ("lfm2.embedding_length", GgufValue::U32(256)),
        ("lfm2.feed_forward_length", GgufValue::U32(96)),
        ("lfm2.attention.head_count", GgufValue::U32(4)),
        ("lfm2.attention.head_count_kv", GgufValue::I32s(vec![0, 2, 0, 2])),
        ("lfm2.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5)),
        ("lfm2.rope.freq_base", GgufValue::F32(1e6)),
        ("lfm2.shortconv.l_cache", GgufValue::U32(3)),
        ("lfm2.vocab_size", GgufValue::U32(40)),
    ] {
        let found = metadata.iter().find(|(found, _)| found == key);
        assert_eq!(found.map(|(_, found)| found), Some(&value), "{key}");
    }
}

#[test]
fn experts_are_stacked_in_order() {
    let experts = ExpertsConfig {
        count: 3,
        used: 2,
        width: 64,
        dense_layers: 1,
        ..Config::preset("lfm2-8b-a1b").expect("a preset").experts.expect("experts")
    };
    let config = Config { experts: Some(experts), ..small() };
    let source = Synthetic::new(7, WeightFormat::F32);
    let file = GgufFile::new(config.clone(), &source, recipe("Q4_0")).expect("a plan");
    let bytes = file.write(Vec::new(), ORIGIN, |_| ()).expect("a file");
    let tensors: Vec<_> = file.tensors().cloned().collect();
    let find = |name: &str| {
        let index = tensors.iter().position(|tensor| tensor.name == name);
        let index = index.unwrap_or_else(|| panic!("no {name}"));
        (&tensors[index], data(&bytes, &tensors)[index])
    };
    for (ours, theirs, shape) in
        [("gate", "w1", [64, 256]), ("up", "w3", [64, 256]), ("down", "w2", [256, 64])]
    {
        let (stack, data) = find(&format!("blk.2.ffn_{ours}_exps.weight"));
        assert_eq!(
            (stack.format, &stack.shape[..]),
            (WeightFormat::Q4_0, &[3, shape[0], shape[1]][..])
        );
        let encoded = (0..3).flat_map(|expert| {
            let name = format!("model.layers.2.feed_forward.experts.{expert}.{theirs}.weight");
            blocks::encode(WeightFormat::Q4_0, &source.values(&name, &shape))
        });
        assert!(encoded.eq(data.iter().copied()), "{ours}");
    }
    for (ours, theirs, shape) in [
        ("ffn_gate_inp.weight", "gate.weight", &[3, 256][..]),
        ("exp_probs_b.bias", "expert_bias", &[3]),
    ] {
        let (stored, data) = find(&format!("blk.1.{ours}"));
        assert_eq!((stored.format, &stored.shape[..]), (WeightFormat::F32, shape));
        let values = source.values(&format!("model.layers.1.feed_forward.{theirs}"), shape);
        assert_eq!(blocks::decode(WeightFormat::F32, data), values);
    }
    assert_eq!(find("blk.0.ffn_up.weight").0.shape, [96, 256]);
    let scaled = Config { experts: Some(ExpertsConfig { scale: 2.5, ..experts }), ..config };
    let error = GgufFile::new(scaled, &source, recipe("F16")).err().expect("an error").to_string();
    assert!(error.contains("routed_scaling_factor"), "{error}");
}

/// In millions of bytes, those of the published files less 2 for the vocabulary.
#[test]
fn files_are_as_large_as_the_published_ones() {
    for (preset, name, expected) in [
        ("350m", "F16", 709),
        ("350m", "Q8_0", 377),
        ("350m", "Q4_0", 217),
        ("350m", "Q4_K_M", 227),
        ("350m", "Q5_K_M", 258),
        ("350m", "Q6_K", 291),
        ("1.2b", "Q4_K_M", 729),
        ("2.6b", "Q5_K_M", 1827),
    ] {
        let config = Config::preset(preset).expect("a preset");
        let tensors = planned_tensors(&config, recipe(name));
        let bytes: usize = tensors.iter().map(|tensor| tensor.stored.bytes()).sum();
        assert_eq!((bytes + 500_000) / 1_000_000, expected, "{preset} in {name}");
    }
}

/// A source in which one tensor is another.
struct Spoilt {
    others: Synthetic,
    name: &'static str,
    /// Its shape and its last weight, if it is there; all others are 0.
    tensor: Option<(Vec<usize>, f32)>,
}

fn spoilt(name: &'static str, tensor: Option<(Vec<usize>, f32)>) -> Spoilt {
    Spoilt { others: Synthetic::new(7, WeightFormat::F32), name, tensor }
}

impl Tensors for Spoilt {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, model::Error> {
        if name != self.name {
            return self.others.tensor(name, shape);
        }
        Ok(self.tensor.as_ref().map(|(shape, last)| {
            let mut weights = vec![0.0; shape.iter().product()];
            *weights.last_mut().expect("not empty") = *last;
            let bytes = Cow::Owned(blocks::encode(WeightFormat::F32, &weights));
            Tensor { format: WeightFormat::F32, shape: shape.clone(), bytes }
        }))
    }
}

fn error(config: Config, source: &Spoilt, name: &str) -> String {
    let file = GgufFile::new(config, source, recipe(name));
    let written = file.and_then(|file| file.write(Vec::new(), ORIGIN, |_| ()));
    written.expect_err("an error").to_string()
}

#[test]
fn what_cannot_be_stored_is_told() {
    let last = "model.layers.3.feed_forward.w2.weight";
    let weight = |value| spoilt(last, Some((vec![256, 96], value)));
    for (source, format, expected) in [
        (weight(f32::NAN), "F32", "infinite or NaN"),
        (weight(f32::NEG_INFINITY), "Q6_K", "infinite or NaN"),
        (weight(65520.0), "F16", "too large for f16"),
        (weight(1e7), "Q8_0", "too large for q8_0"),
        (spoilt(last, Some((vec![96, 256], 0.0))), "Q4_0", "[96, 256]: expected [256, 96]"),
        (spoilt(last, None), "Q4_0", last),
        (spoilt("model.embed_tokens.weight", None), "Q4_0", "model.embed_tokens.weight"),
        (spoilt("model.embed_tokens.weight", Some((vec![40, 255], 0.0))), "Q4_0", "[40, 255]"),
        (spoilt("lm_head.weight", Some((vec![41, 256], 0.0))), "Q4_0", "[41, 256]"),
    ] {
        let error = error(small(), &source, format);
        assert!(error.contains(expected), "{error}");
    }
    let good = weight(0.0);
    let biased = Config { conv_bias: true, ..small() };
    assert!(error(biased, &good, "F16").contains("conv_bias"));
    let issue = Config::preset("issue-22287").expect("a preset");
    assert!(error(issue, &good, "F16").contains("issue #22287"));
    let impossible = Config { hidden_size: 0, ..small() };
    assert!(error(impossible, &good, "F16").contains("hidden_size"));
}

#[test]
fn the_source_decides_on_vocabulary_and_head() {
    let head = spoilt("lm_head.weight", Some((vec![40, 256], 0.5)));
    let file = GgufFile::new(small(), &head, recipe("Q4_0")).expect("a plan");
    let formats: Vec<_> = file.tensors().take(3).map(|t| (&t.name[..], t.format)).collect();
    assert_eq!(
        formats,
        [
            ("token_embd.weight", WeightFormat::Q4_0),
            ("token_embd_norm.weight", WeightFormat::F32),
            ("output.weight", WeightFormat::Q6K)
        ]
    );
    let rows = spoilt("model.embed_tokens.weight", Some((vec![50, 256], 0.5)));
    let file = GgufFile::new(small(), &rows, recipe("Q4_0")).expect("a plan");
    assert_eq!(file.tensors().next().map(|tensor| &tensor.shape[..]), Some(&[50, 256][..]));
}
