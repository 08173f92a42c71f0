use std::process;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::super::random::Random;
use super::*;

fn config(description: Description, mixers: &[Mixer]) -> OracleConfig {
    OracleConfig {
        description,
        mixers: mixers.to_vec(),
        heads: 4,
        key_value_heads: 2,
        head_dim: 4,
        experts: None,
        convolution_bias: description != Description::Lfm2,
        tied_embedding: true,
        norm_epsilon: 1e-5,
        rope_theta: 1e6,
    }
}

/// A random model of width 6, feed-forward width 5 and vocabulary 11; its numbers are in every type
/// a file may have.
fn random_tensors(config: &OracleConfig) -> Tensors {
    let mut random = Random::new(30);
    let mut tensors = Tensors::new();
    let mut insert = |name: String, shape: &[usize]| {
        let length = shape.iter().product();
        let elements = (0..length).map(|_| bf16::from_f64(random.normal()).to_f64()).collect();
        tensors.insert(name, (shape.to_vec(), elements));
    };
    insert("model.embed_tokens.weight".into(), &[11, 6]);
    insert("model.embedding_norm.weight".into(), &[6]);
    for (index, mixer) in config.mixers.iter().enumerate() {
        let mut insert =
            |name: &str, shape: &[usize]| insert(format!("model.layers.{index}.{name}"), shape);
        insert("operator_norm.weight", &[6]);
        insert("ffn_norm.weight", &[6]);
        insert("feed_forward.w1.weight", &[5, 6]);
        insert("feed_forward.w3.weight", &[5, 6]);
        insert("feed_forward.w2.weight", &[6, 5]);
        if *mixer == Mixer::Attention {
            insert("self_attn.q_proj.weight", &[16, 6]);
            insert("self_attn.k_proj.weight", &[8, 6]);
            insert("self_attn.v_proj.weight", &[8, 6]);
            insert("self_attn.out_proj.weight", &[6, 16]);
            insert("self_attn.q_layernorm.weight", &[4]);
            insert("self_attn.k_layernorm.weight", &[4]);
            continue;
        }
        insert("conv.in_proj.weight", &[18, 6]);
        insert("conv.conv.weight", &[6, 1, 3]);
        insert("conv.out_proj.weight", &[6, 6]);
        if config.convolution_bias {
            insert("conv.in_proj.bias", &[18]);
            insert("conv.conv.bias", &[6]);
            insert("conv.out_proj.bias", &[6]);
        }
    }
    tensors
}

const HYBRID: [Mixer; 3] = [Mixer::Convolution, Mixer::Attention, Mixer::Convolution];

#[test]
fn residuals_by_hand() {
    // Of width 1 and without epsilon, a norm returns the sign times its weight. The embedding 1
    // becomes B = 2, C = -3, x = 5, so the mixer gives -30 / 10. Then silu(ln 3) = 3/4 ln 3 and
    // silu(-ln 3) = -1/4 ln 3, so the feed-forward network gives 3 for 1 and 1 for -1: 1 - 3 + 1 is
    // negative, 1 - 3 + 3 is positive.
    let log = 3.0_f64.ln();
    let one_by_one = |value: f64| (vec![1, 1], vec![value]);
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let mut tensors = Tensors::from([
        ("model.embed_tokens.weight".into(), (vec![2, 1], vec![1.0, -2.0])),
        ("model.embedding_norm.weight".into(), (vec![1], vec![0.5])),
        (layer("operator_norm"), (vec![1], vec![1.0])),
        (layer("ffn_norm"), (vec![1], vec![1.0])),
        (layer("feed_forward.w1"), one_by_one(log)),
        (layer("feed_forward.w3"), one_by_one(1.0 / log)),
        (layer("feed_forward.w2"), one_by_one(4.0)),
        (layer("conv.in_proj"), (vec![3, 1], vec![2.0, -3.0, 5.0])),
        (layer("conv.conv"), (vec![1, 1, 3], vec![7.0, 0.0, 1.0])),
        (layer("conv.out_proj"), one_by_one(0.1)),
    ]);
    let config = OracleConfig { norm_epsilon: 0.0, ..config(Description::Lfm2, &HYBRID[..1]) };
    let run = Oracle::new(config.clone(), tensors.clone()).unwrap().forward(&[0]);
    assert_eq!(run.logits, [-0.5, 1.0]);
    assert_eq!(run.conv_state, [[0.0, 10.0]]);

    // The issue's first chunk alone reaches the first token: 2 + 1, and 3 - 33 makes the same -30
    // before out_proj.
    for (name, bias) in [("in_proj", vec![1.0; 3]), ("conv", vec![-33.0]), ("out_proj", vec![0.0])]
    {
        tensors.insert(format!("model.layers.0.conv.{name}.bias"), (vec![bias.len()], bias));
    }
    let issue = Description::Issue22287(ShiftAxis::Time);
    let config = OracleConfig { description: issue, convolution_bias: true, ..config };
    let run = Oracle::new(config, tensors).unwrap().forward(&[0]);
    assert_eq!(run.logits, [0.5, -1.0]);
    assert_eq!(run.conv_state, [[0.0, 3.0]]);
}

/// The model of [`random_tensors`] with `experts` in the place of each network from layer 1 on, which `tensors` then alters.
fn with_experts(
    mixture: Mixture,
    experts: usize,
    alter: impl FnOnce(&mut Tensors),
) -> (Oracle, Oracle) {
    let dense = config(Description::Lfm2, &HYBRID);
    let mut tensors = random_tensors(&dense);
    let without = Oracle::new(dense.clone(), tensors.clone()).unwrap();
    for layer in mixture.dense_layers..HYBRID.len() {
        let name = |part: &str| format!("model.layers.{layer}.feed_forward.{part}");
        for part in ["w1", "w2", "w3"] {
            let tensor = tensors.remove(&name(&format!("{part}.weight"))).unwrap();
            for expert in 0..experts {
                tensors.insert(name(&format!("experts.{expert}.{part}.weight")), tensor.clone());
            }
        }
        tensors.insert(name("gate.weight"), (vec![experts, 6], vec![0.0; experts * 6]));
        tensors.insert(name("expert_bias"), (vec![experts], vec![0.0; experts]));
    }
    alter(&mut tensors);
    let config = OracleConfig { experts: Some(mixture), ..dense };
    (Oracle::new(config, tensors).unwrap(), without)
}

fn nmse(found: &[f64], expected: &[f64]) -> f64 {
    let squares = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>() / expected.iter().map(|x| x * x).sum::<f64>()
}

#[test]
fn experts_that_are_all_alike_are_a_dense_network() {
    // Scores are one half: two of them weigh one together.
    let mixture = Mixture { used: 2, dense_layers: 1, bias: true, normalise: false, scale: 1.0 };
    let tokens = [3, 10, 0, 7];
    let (oracle, dense) = with_experts(mixture.clone(), 3, |_| ());
    let expected = dense.forward(&tokens).logits;
    assert!(nmse(&oracle.forward(&tokens).logits, &expected) < 1e-28);
    // One half of four times one, over a sum that is a millionth more than one.
    let mixture = Mixture { normalise: true, scale: 1.000_001, ..mixture };
    let (oracle, _) = with_experts(mixture, 3, |_| ());
    assert!(nmse(&oracle.forward(&tokens).logits, &expected) < 1e-28);
}

#[test]
fn a_bias_chooses_experts_and_near_ties_have_alternatives() {
    let mixture = Mixture { used: 1, dense_layers: 2, bias: true, normalise: false, scale: 2.0 };
    let spoil = |tensors: &mut Tensors, spoilt: usize, bias: [f64; 3]| {
        let name = |part: &str| format!("model.layers.2.feed_forward.{part}");
        let network = tensors.get_mut(&name(&format!("experts.{spoilt}.w2.weight"))).unwrap();
        network.1.iter_mut().for_each(|weight| *weight *= -3.0);
        tensors.get_mut(&name("expert_bias")).unwrap().1 = bias.to_vec();
    };
    let run = |spoilt, bias, margin| {
        let alter = |tensors: &mut Tensors| spoil(tensors, spoilt, bias);
        let (oracle, dense) = with_experts(mixture.clone(), 3, alter);
        let expected = dense.forward(&[3, 10]).logits;
        let runs = oracle.alternatives(&[3, 10], margin);
        assert_eq!(runs[0], oracle.forward(&[3, 10]));
        runs.iter().map(|run| nmse(&run.logits, &expected) < 1e-28).collect::<Vec<_>>()
    };
    // Among equals the first is used; a bias moves the choice away from it, and the weight stays one.
    assert_eq!(run(0, [0.0; 3], 0.0), [false]);
    assert_eq!(run(2, [0.0; 3], 0.0), [true]);
    assert_eq!(run(0, [0.0, 0.0, 0.1], 0.0), [true]);
    assert_eq!(run(0, [0.1, 0.0, 0.0], 1e-3), [false]);
    // Two rows with one doubt each: one of four runs takes the right network for both.
    assert_eq!(run(0, [1e-4, 0.0, -1.0], 1e-3), [false, false, false, true]);
}

#[test]
fn tokens_do_not_see_later_ones() {
    let tokens = [3, 10, 0, 0, 7, 5];
    for description in [
        Description::Lfm2,
        Description::Issue22287(ShiftAxis::Time),
        Description::Issue22287(ShiftAxis::Feature),
    ] {
        let config = config(description, &HYBRID);
        let oracle = Oracle::new(config.clone(), random_tensors(&config)).unwrap();
        let whole = oracle.forward(&tokens);
        assert_eq!((whole.conv_state.len(), whole.keys.len(), whole.values.len()), (2, 1, 1));
        for length in 1..=tokens.len() {
            let part = oracle.forward(&tokens[..length]);
            assert_eq!(part.logits, whole.logits[..length * 11]);
            assert_eq!(part.keys[0], whole.keys[0][..length * 8]);
            assert_eq!(part.values[0], whole.values[0][..length * 8]);
            assert_eq!(part.conv_state[1].len(), 12);
            assert_eq!(length == 1, part.conv_state[1][..6] == [0.0; 6]);
        }
    }
}

#[test]
fn descriptions_differ() {
    let config = config(Description::Issue22287(ShiftAxis::Time), &HYBRID);
    let oracle = Oracle::new(config.clone(), random_tensors(&config)).unwrap();
    let time = oracle.forward(&[1, 2, 3]);
    let feature = oracle
        .clone()
        .with_description(Description::Issue22287(ShiftAxis::Feature))
        .forward(&[1, 2, 3]);
    let published = oracle.with_description(Description::Lfm2).forward(&[1, 2, 3]);
    assert_ne!(time.logits, feature.logits);
    assert_ne!(time.logits, published.logits);
}

#[test]
fn an_own_head_is_used() {
    let config = OracleConfig { tied_embedding: false, ..config(Description::Lfm2, &HYBRID) };
    let mut tensors = random_tensors(&config);
    assert!(Oracle::new(config.clone(), tensors.clone()).unwrap_err().contains("lm_head"));
    tensors.insert("lm_head.weight".into(), (vec![11, 6], vec![0.0; 66]));
    assert_eq!(Oracle::new(config, tensors).unwrap().forward(&[4]).logits, [0.0; 11]);
}

#[test]
fn unfit_tensors_are_refused() {
    let config = config(Description::Lfm2, &HYBRID);
    let good = random_tensors(&config);
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = good.clone();
        change(&mut tensors);
        Oracle::new(config.clone(), tensors).unwrap_err()
    };
    for name in good.keys() {
        assert!(refused(&|tensors| drop(tensors.remove(name))).contains("no "), "{name}");
        let lengthened = refused(&|tensors| tensors.get_mut(name).unwrap().1.push(0.0));
        assert!(lengthened.contains(name.as_str()), "{name}: {lengthened}");
    }
    let bias = "model.layers.0.conv.conv.bias";
    assert!(
        refused(&|tensors| drop(tensors.insert(bias.into(), (vec![6], vec![0.0; 6]))))
            .contains("bias")
    );
}

fn parse(json: Value) -> Result<OracleConfig, String> {
    let mut fields = json!({
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    fields.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    OracleConfig::from_json(&fields)
}

#[test]
fn published_configs() {
    use Mixer::{Attention, Convolution};
    let types =
        parse(json!({"layer_types": ["conv", "full_attention", "conv"], "full_attn_idxs": null}))
            .unwrap();
    assert_eq!(types.mixers, [Convolution, Attention]);
    assert_eq!(
        (types.description, types.head_dim, types.convolution_bias),
        (Description::Lfm2, 16, false)
    );
    assert_eq!((types.norm_epsilon, types.rope_theta, types.tied_embedding), (1e-5, 1e6, true));

    let flat =
        parse(json!({"full_attn_idxs": [0], "rope_theta": 5e6, "head_dim": 8, "norm_eps": 1e-6}))
            .unwrap();
    assert_eq!(flat.mixers, [Attention, Convolution]);
    assert_eq!((flat.rope_theta, flat.head_dim, flat.norm_epsilon), (5e6, 8, 1e-6));

    let nested =
        json!({"rope_theta": 5e6, "rope_parameters": {"rope_theta": 1e7, "rope_type": "default"}});
    assert_eq!(parse(nested).unwrap().rope_theta, 1e7);
    assert_eq!(parse(json!({})).unwrap().mixers, [Attention, Attention]);
    let untied = parse(json!({"tie_embedding": false, "tie_word_embeddings": true})).unwrap();
    assert!(!untied.tied_embedding);
}

#[test]
fn the_config_of_the_issue() {
    let layers = json!({
        "conv_layers": [0], "attention_layers": [1], "conv_kernel": 3, "rms_norm_eps": 2e-5,
    });
    let config = parse(layers.clone()).unwrap();
    assert_eq!(config.description, Description::Issue22287(ShiftAxis::Time));
    assert_eq!(config.mixers, [Mixer::Convolution, Mixer::Attention]);
    assert_eq!((config.norm_epsilon, config.convolution_bias), (2e-5, true));

    let mut feature = layers;
    feature["shift_axis"] = "feature".into();
    assert_eq!(parse(feature).unwrap().description, Description::Issue22287(ShiftAxis::Feature));
}

#[test]
fn unfit_configs_are_refused() {
    for (json, reason) in [
        (json!({"layer_types": ["conv"]}), "1 layer_types for 2 layers"),
        (json!({"full_attn_idxs": [2]}), "full_attn_idxs"),
        (json!({"conv_layers": [0], "attention_layers": [0, 1]}), "layer 0"),
        (json!({"conv_layers": [0], "attention_layers": []}), "layer 1"),
        (json!({"conv_layers": [0, 1], "shift_axis": "channel"}), "shift_axis"),
        (json!({"rope_parameters": {"rope_type": "yarn"}}), "yarn"),
        (json!({"model_type": "lfm2_moe", "num_dense_layers": 1}), "num_experts_per_tok"),
        (json!({"model_type": "lfm2_moe", "num_experts_per_tok": 1}), "num_dense_layers"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"conv_bias": 1}), "conv_bias"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

/// A tensor's name, shape and elements.
type Named<'a> = (&'a String, &'a (Vec<usize>, Vec<f64>));

/// A folder of this test's own, removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lfm2-oracle-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write_config(&self) {
        let config = json!({
            "hidden_size": 6, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "layer_types": ["conv", "full_attention", "conv"],
        });
        fs::write(self.0.join("config.json"), config.to_string()).unwrap();
    }

    fn write_tensors(&self, file: &str, tensors: &[Named], dtype: Dtype) {
        let bytes = |element: &f64| match dtype {
            Dtype::F32 => (*element as f32).to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f64(*element).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f64(*element).to_le_bytes().to_vec(),
            _ => element.to_le_bytes().to_vec(),
        };
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, (_, elements))| elements.iter().flat_map(bytes).collect())
            .collect();
        let views = tensors.iter().zip(&data).map(|((name, (shape, _)), data)| {
            (name.as_str(), TensorView::new(dtype, shape.clone(), data).unwrap())
        });
        fs::write(self.0.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_every_type_load() {
    let config = config(Description::Lfm2, &HYBRID);
    let tensors = random_tensors(&config);
    let expected = Oracle::new(config, tensors.clone()).unwrap().forward(&[1, 2, 3]);
    let all: Vec<_> = tensors.iter().collect();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let folder = Folder::new(&format!("{dtype:?}"));
        folder.write_config();
        folder.write_tensors("model.safetensors", &all, dtype);
        assert_eq!(Oracle::load(&folder.0).unwrap().forward(&[1, 2, 3]), expected, "{dtype:?}");
    }
    let folder = Folder::new("f64");
    folder.write_config();
    folder.write_tensors("model.safetensors", &all, Dtype::F64);
    assert!(Oracle::load(&folder.0).unwrap_err().contains("F64"));
}

#[test]
fn shards_load() {
    let config = config(Description::Lfm2, &HYBRID);
    let tensors = random_tensors(&config);
    let expected = Oracle::new(config, tensors.clone()).unwrap().forward(&[1, 2, 3]);
    let all: Vec<_> = tensors.iter().collect();
    let (first, second) = all.split_at(all.len() / 2);
    let folder = Folder::new("shards");
    folder.write_config();
    let mut map = Map::new();
    for (file, part, dtype) in
        [("a.safetensors", first, Dtype::F32), ("b.safetensors", second, Dtype::BF16)]
    {
        folder.write_tensors(file, part, dtype);
        map.extend(part.iter().map(|(name, _)| ((*name).clone(), file.into())));
    }
    fs::write(
        folder.0.join("model.safetensors.index.json"),
        json!({ "weight_map": map }).to_string(),
    )
    .unwrap();
    assert_eq!(Oracle::load(&folder.0).unwrap().forward(&[1, 2, 3]), expected);

    fs::remove_file(folder.0.join("b.safetensors")).unwrap();
    assert!(Oracle::load(&folder.0).unwrap_err().contains("b.safetensors"));
}

/// The `f64` twins of the golden files come from the same graph in PyTorch, except that its sines
/// and cosines are `f32`, as in the model.
#[test]
fn pytorch_agrees() {
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/models"));
    let time = Description::Issue22287(ShiftAxis::Time);
    let feature = Description::Issue22287(ShiftAxis::Feature);
    for (model, golden, description) in [
        ("tied-gqa2", "golden", Description::Lfm2),
        ("bias-gqa3", "golden", Description::Lfm2),
        ("bf16-theta1e7", "golden", Description::Lfm2),
        ("f16-untied", "golden", Description::Lfm2),
        ("sharded", "golden", Description::Lfm2),
        ("bf16-experts", "golden", Description::Lfm2),
        ("issue-22287", "golden.time", time),
        ("issue-22287", "golden.feature", feature),
    ] {
        let folder = models.join(model);
        let bytes = fs::read(folder.join(format!("{golden}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 8]> {
            file.tensor(name)
                .unwrap()
                .data()
                .chunks_exact(8)
                .map(|word| word.try_into().unwrap())
                .collect()
        };
        let tokens: Vec<u32> =
            words("input_ids").into_iter().map(|word| i64::from_le_bytes(word) as u32).collect();
        let expected: Vec<f64> = words("logits_f64").into_iter().map(f64::from_le_bytes).collect();
        let actual =
            Oracle::load(&folder).unwrap().with_description(description).forward(&tokens).logits;
        assert_eq!(actual.len(), expected.len());
        let error: f64 = actual
            .iter()
            .zip(&expected)
            .map(|(actual, expected)| (actual - expected).powi(2))
            .sum();
        let power: f64 = expected.iter().map(|expected| expected.powi(2)).sum();
        assert!(error < 1e-13 * power, "{model}, {golden}: {:e}", error / power);
    }
}
