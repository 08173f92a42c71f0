//! What is wrong is an error that says what, where and what would be right: never a panic, and never a state that is half advanced.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use lfm2_harness::check::cases_from_environment;
use lfm2_harness::golden::ModelGolden;
use lfm2_harness::random_model::{RandomModel, VOCABULARY, state_values};
use lfm2_kernels::Isa;
use lfm2_kernels::format::Checkpoint;
use lfm2_kernels::model::{
    Config, Description, Error, Logits, Model, Scratch, Sequence, State, Tensor,
};
use lfm2_kernels::ops::{CacheElement, ShiftAxis};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A configuration that says what [`RandomModel::small`] is.
fn config() -> Value {
    json!({
        "model_type": "lfm2",
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 40,
        "block_auto_adjust_ff_dim": false,
        "conv_L_cache": 3,
        "conv_bias": true,
        "norm_eps": 1e-5,
        "rope_theta": 1e6
    })
}

/// The tensors of a safetensors file.
type Stored = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// Makes a fault.
type Change<'a> = &'a dyn Fn(&mut Stored);

fn stored() -> Stored {
    stored_of(&RandomModel::small(Description::Lfm2))
}

/// What [`RandomModel::small_with_experts`] is, and its tensors.
fn with_experts() -> (Value, Stored) {
    let mut config = config();
    for (key, value) in [
        ("model_type", json!("lfm2_moe")),
        ("num_experts", json!(6)),
        ("num_experts_per_tok", json!(2)),
        ("moe_intermediate_size", json!(24)),
        ("num_dense_layers", json!(1)),
    ] {
        config[key] = value;
    }
    (config, stored_of(&RandomModel::small_with_experts()))
}

fn stored_of(model: &RandomModel) -> Stored {
    let (_, weights) = model.recorded();
    let tensors = weights.tensors.into_iter();
    tensors
        .map(|(name, Tensor { shape, bytes, .. })| (name, Dtype::F32, shape, bytes.to_vec()))
        .collect()
}

fn serialize(tensors: &Stored) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape");
        (name.clone(), view)
    });
    safetensors::serialize(views, None).expect("tensors can be serialized")
}

/// A model's folder.
fn folder(config: &str, weights: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), config).expect("a file");
    fs::write(folder.path().join("model.safetensors"), weights).expect("a file");
    folder
}

fn refusal(folder: &Path) -> Error {
    match Model::load(folder) {
        Ok(_) => panic!("{}: is not refused", folder.display()),
        Err(error) => error,
    }
}

/// Fails unless the message has every one of `parts`.
fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn the_model_without_a_fault_loads() {
    let folder = folder(&config().to_string(), &serialize(&stored()));
    let model = Model::load(folder.path()).expect("a good model");
    assert_eq!(*model.config(), RandomModel::small(Description::Lfm2).config);
    let (config, tensors) = with_experts();
    let folder = self::folder(&config.to_string(), &serialize(&tensors));
    let model = Model::load(folder.path()).expect("a good model");
    assert_eq!(*model.config(), RandomModel::small_with_experts().config);
}

#[test]
fn a_truncated_file_is_refused_at_any_length() {
    let bytes = serialize(&stored());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let lengths = [0, 1, 7, 8, 9, header / 2, header - 1, header, header + 1, bytes.len() - 1];
    for length in lengths {
        let folder = folder(&config().to_string(), &bytes[..length]);
        let error = refusal(folder.path());
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        says(&error, &["model.safetensors", &format!(" {length} bytes")]);
    }
}

#[test]
fn a_missing_file_is_refused() {
    let folder = folder(&config().to_string(), &[]);
    for name in ["model.safetensors", "config.json"] {
        fs::remove_file(folder.path().join(name)).expect("a file");
        let error = refusal(folder.path());
        assert!(matches!(error, Error::File { .. }), "{error:?}");
        says(&error, &[name]);
    }
}

/// Every tensor that the model asks for, one at a time.
#[test]
fn a_missing_tensor_is_refused() {
    for (config, tensors) in [(config(), stored()), with_experts()] {
        assert!(tensors.len() > 20, "only {} tensors", tensors.len());
        for missing in 0..tensors.len() {
            let mut others = tensors.clone();
            let (name, ..) = others.remove(missing);
            let folder = folder(&config.to_string(), &serialize(&others));
            let error = refusal(folder.path());
            assert!(matches!(error, Error::MissingTensor { .. }), "{name}: {error:?}");
            says(&error, &[&name]);
        }
    }
}

#[test]
fn a_wrong_shape_is_refused() {
    for (config, tensors) in [(config(), stored()), with_experts()] {
        every_wrong_shape_is_refused(&config, &tensors);
    }
}

fn every_wrong_shape_is_refused(config: &Value, tensors: &Stored) {
    for wrong in 0..tensors.len() {
        let mut tensors = tensors.clone();
        let (name, _, shape, bytes) = &mut tensors[wrong];
        let expected = format!("{shape:?}");
        // One row less; of a vector, one dimension more.
        match &mut shape[..] {
            [_] => shape.push(1),
            [rows, ..] => {
                bytes.truncate(bytes.len() / *rows * (*rows - 1));
                *rows -= 1;
            }
            [] => unreachable!("a weight has dimensions"),
        }
        let (name, found) = (name.clone(), format!("{shape:?}"));
        // The number of rows of the embedding is the vocabulary, whatever it is.
        if name == "model.embed_tokens.weight" {
            let (_, _, shape, _) = &mut tensors[wrong];
            shape.reverse();
            let folder = folder(&config.to_string(), &serialize(&tensors));
            says(&refusal(folder.path()), &[&name, &expected]);
            continue;
        }
        let folder = folder(&config.to_string(), &serialize(&tensors));
        let error = refusal(folder.path());
        assert!(matches!(error, Error::Shape { .. }), "{name}: {error:?}");
        says(&error, &[&name, &expected, &found]);
    }
}

#[test]
fn a_wrong_type_is_refused() {
    for (dtype, size) in [(Dtype::F64, 8), (Dtype::I32, 4), (Dtype::I8, 1), (Dtype::F8_E4M3, 1)] {
        let mut tensors = stored();
        for (_, kept, shape, bytes) in &mut tensors {
            *kept = dtype;
            bytes.resize(shape.iter().product::<usize>() * size, 0);
        }
        let folder = folder(&config().to_string(), &serialize(&tensors));
        let error = refusal(folder.path());
        assert!(matches!(error, Error::TensorType { .. }), "{error:?}");
        says(&error, &[&format!("{dtype:?}"), "expected F32, F16 or BF16"]);
    }
}

#[test]
fn a_wrong_configuration_is_refused() {
    let weights = serialize(&stored());
    let cases: [(&str, Value, &[&str]); 18] = [
        ("model_type", json!("llama"), &["config.json", "llama", "lfm2"]),
        ("model_type", Value::Null, &["config.json", "model_type", "lfm2"]),
        ("vocab_size", json!("many"), &["config.json", "many"]),
        ("hidden_size", json!(0), &["config.json", "hidden_size is 0"]),
        ("hidden_size", json!(1_u64 << 40), &["config.json", "hidden_size"]),
        ("hidden_size", json!(-1), &["config.json", "-1"]),
        ("num_hidden_layers", json!(0), &["config.json", "num_hidden_layers is 0"]),
        ("num_hidden_layers", json!(4), &["config.json", "layer_types", "3", "4"]),
        ("num_attention_heads", json!(3), &["config.json", "num_attention_heads is 3", "2"]),
        ("num_attention_heads", json!(0), &["config.json", "num_attention_heads is 0"]),
        ("num_key_value_heads", json!(0), &["config.json", "num_key_value_heads is 0"]),
        ("head_dim", json!(24), &["config.json", "head_dim is 24", "16"]),
        ("intermediate_size", Value::Null, &["config.json", "intermediate_size"]),
        ("conv_L_cache", json!(0), &["config.json", "conv_L_cache is 0"]),
        ("norm_eps", json!(-1.0), &["config.json", "norm_eps is -1"]),
        ("rope_theta", json!(0.0), &["config.json", "rope_theta is 0"]),
        ("rope_scaling", json!({"rope_type": "yarn"}), &["config.json", "yarn", "default"]),
        ("tie_embedding", json!(false), &["lm_head.weight"]),
    ];
    for (key, value, parts) in cases {
        let mut config = config();
        config[key] = value;
        let folder = folder(&config.to_string(), &weights);
        says(&refusal(folder.path()), parts);
    }
    for text in ["", "{", "[]", "null", "\u{feff}{}", "{\"model_type\": \"lfm2\"}"] {
        says(&refusal(folder(text, &weights).path()), &["config.json"]);
    }
}

#[test]
fn a_wrong_index_is_refused() {
    let weights = serialize(&stored());
    let name = "model.embedding_norm.weight";
    let open = |index: &str| {
        let folder = folder(&config().to_string(), &weights);
        fs::write(folder.path().join("model.safetensors.index.json"), index).expect("a file");
        refusal(folder.path())
    };
    for escape in ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", ""] {
        let error = open(&json!({"weight_map": {name: escape}}).to_string());
        says(&error, &["model.safetensors.index.json", escape, "not a file name"]);
    }
    let error =
        open(&json!({"weight_map": {name: "model-00001-of-00002.safetensors"}}).to_string());
    says(&error, &["model-00001-of-00002.safetensors"]);
    let error = open(&json!({"weight_map": {"no.such.weight": "model.safetensors"}}).to_string());
    says(&error, &["model.safetensors.index.json", "no.such.weight"]);
    for text in ["", "{}", "[]", "{\"weight_map\": 1}", "{\"weight_map\": {\"a\": 1}}"] {
        says(&open(text), &["model.safetensors.index.json"]);
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let weights = serialize(&stored());
    let folder = folder(&config().to_string(), &weights);
    fs::write(folder.path().join("other.safetensors"), &weights).expect("a file");
    let map = json!({"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}});
    fs::write(folder.path().join("model.safetensors.index.json"), map.to_string()).expect("a file");
    says(&refusal(folder.path()), &["other.safetensors", "another shard"]);
}

/// All bits of a state.
fn bits(state: &State) -> (usize, Vec<Vec<u32>>) {
    let bits = |part: &Vec<f32>| part.iter().map(|x| x.to_bits()).collect();
    (state.position(), state_values(state).iter().map(bits).collect())
}

/// Makes the call, which must fail, and checks that both states are as before.
fn refused(
    model: &Model,
    [first, second]: [&[u32]; 2],
    states: &mut [State; 2],
    logits: Logits,
) -> Error {
    let before = [bits(&states[0]), bits(&states[1])];
    let [one, two] = &mut *states;
    let mut sequences =
        [Sequence { tokens: first, state: one }, Sequence { tokens: second, state: two }];
    let error = model
        .forward(Isa::best(), &mut sequences, &mut Scratch::default(), logits)
        .expect_err("the call is wrong");
    assert!([bits(&states[0]), bits(&states[1])] == before, "a state has changed: {error}");
    error
}

#[test]
fn a_wrong_call_is_refused_and_changes_nothing() {
    let descriptions = [
        Description::Lfm2,
        Description::Issue22287 { shift_axis: ShiftAxis::Time },
        Description::Issue22287 { shift_axis: ShiftAxis::Feature },
    ];
    for description in descriptions {
        let model = RandomModel::small(description).model();
        let mut states = [(); 2].map(|()| model.new_state(8, CacheElement::F32));
        let mut last = vec![0.0; 2 * VOCABULARY];
        let [one, two] = &mut states;
        let mut sequences =
            [Sequence { tokens: &[1, 2, 3], state: one }, Sequence { tokens: &[4], state: two }];
        model
            .forward(Isa::best(), &mut sequences, &mut Scratch::default(), Logits::Last(&mut last))
            .expect("a good call");

        let vocabulary = VOCABULARY as u32;
        let mut call =
            |tokens: [&[u32]; 2]| refused(&model, tokens, &mut states, Logits::Last(&mut last));
        // The fault is in the second sequence: the first must not have advanced.
        let error = call([&[1], &[]]);
        assert!(matches!(error, Error::NoTokens { sequence: 1 }), "{error:?}");
        says(&error, &["sequence 1", "no tokens"]);
        for token in [vocabulary, u32::MAX] {
            let error = call([&[1], &[2, 3, token]]);
            assert!(matches!(error, Error::Token { .. }), "{error:?}");
            says(&error, &[&format!("token {token} at position 3"), "37"]);
        }
        let error = call([&[1, 2, 3, 4, 5], &[1; 8]]);
        assert!(matches!(error, Error::Capacity { positions: 9, capacity: 8 }), "{error:?}");
        says(&error, &["9 positions", "8"]);

        for wrong in [0, VOCABULARY, 2 * VOCABULARY - 1, 2 * VOCABULARY + 1] {
            let mut logits = vec![7.0; wrong];
            let error = refused(&model, [&[1], &[2]], &mut states, Logits::Last(&mut logits));
            assert!(matches!(error, Error::Length { .. }), "{error:?}");
            says(&error, &["logits", &wrong.to_string(), "74"]);
            assert!(logits.iter().all(|&x| x == 7.0), "logits were written");
        }
        let mut logits = vec![7.0; 2 * VOCABULARY];
        let error = refused(&model, [&[1, 2], &[2]], &mut states, Logits::All(&mut logits));
        says(&error, &["logits", "74", "111"]);

        // And the states still work.
        let [one, two] = &mut states;
        let mut sequences =
            [Sequence { tokens: &[1], state: one }, Sequence { tokens: &[2; 7], state: two }];
        model
            .forward(Isa::best(), &mut sequences, &mut Scratch::default(), Logits::Last(&mut last))
            .expect("a good call");
        assert_eq!([states[0].position(), states[1].position()], [4, 8]);
    }
}

#[test]
fn a_foreign_state_is_refused() {
    let small = RandomModel::small(Description::Lfm2);
    let model = small.model();
    let with = |change: &dyn Fn(&mut Config)| {
        let mut other = small.clone();
        change(&mut other.config);
        other.model().new_state(8, CacheElement::F32)
    };
    let foreign = [
        with(&|config| config.layers.swap(0, 1)),
        with(&|config| config.layers.push(config.layers[0])),
        with(&|config| config.layers.truncate(2)),
        with(&|config| config.hidden_size = 64),
        with(&|config| config.conv_length = 4),
        with(&|config| config.key_value_heads = 1),
        with(&|config| config.head_dim = 32),
        with(&|config| {
            config.description = Description::Issue22287 { shift_axis: ShiftAxis::Time };
        }),
    ];
    for (i, foreign) in foreign.into_iter().enumerate() {
        let own = model.new_state(8, CacheElement::F32);
        let mut states = [own, foreign];
        let mut logits = vec![0.0; 2 * VOCABULARY];
        let error = refused(&model, [&[1], &[2]], &mut states, Logits::Last(&mut logits));
        assert!(matches!(error, Error::ForeignState | Error::Length { .. }), "{i}: {error:?}");
        says(&error, &["state"]);
    }
}

/// A golden file's faults, as the command reports them.
#[test]
fn a_wrong_golden_file_is_refused() {
    let number = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let ids = ("input_ids".to_string(), Dtype::I64, vec![2], number(&[1, 2]));
    let logits = ("logits".to_string(), Dtype::F32, vec![2, 3], vec![0; 24]);
    let double = ("logits_f64".to_string(), Dtype::F64, vec![2, 3], vec![0; 48]);
    let good = vec![ids, logits, double];
    let refusal = |change: Change| {
        let mut tensors = good.clone();
        change(&mut tensors);
        let folder = folder(&config().to_string(), &serialize(&stored()));
        let golden = folder.path().join("golden.safetensors");
        fs::write(&golden, serialize(&tensors)).expect("a file");
        lfm2_harness::golden::run(folder.path(), &[Isa::best()])
            .expect_err("the golden file is wrong")
            .to_string()
    };
    let cases: [(&str, Change); 8] = [
        ("no tensor input_ids", &|tensors| drop(tensors.remove(0))),
        ("no tensor logits", &|tensors| drop(tensors.remove(1))),
        ("logits is I32: expected F32", &|tensors| tensors[1].1 = Dtype::I32),
        ("has -1", &|tensors| tensors[0].3 = number(&[1, -1])),
        ("[2, 3]", &|tensors| tensors[0].2 = vec![1, 2]),
        ("[3, 2]", &|tensors| tensors[2].2 = vec![3, 2]),
        ("3 columns: expected the vocabulary, 37", &|_| ()),
        ("[tokens]", &|tensors| {
            for (_, _, shape, bytes) in tensors {
                shape[0] = 0;
                bytes.clear();
            }
        }),
    ];
    for (part, change) in cases {
        let message = refusal(change);
        assert!(message.contains("golden.safetensors"), "{message}");
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    let empty = tempfile::tempdir().expect("a temporary folder");
    assert!(ModelGolden::of(empty.path()).is_err());
    assert!(ModelGolden::of(&empty.path().join("no")).is_err());
}

/// What random damage does to a file.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Flip(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Truncate(Index),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let digits = prop::sample::select(b"0123456789-.eE\"{}[],:nul \\".to_vec());
    let damage = prop_oneof![
        (any::<Index>(), digits.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), digits).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Truncate),
    ];
    prop::collection::vec(damage, 1..4)
}

/// Damages the first `header` bytes.
fn damaged(bytes: &[u8], header: usize, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let header = header.min(bytes.len());
        if header == 0 {
            break;
        }
        match damage {
            Damage::Replace(at, byte) => bytes[at.index(header)] = *byte,
            Damage::Flip(at, bit) => bytes[at.index(header)] ^= 1 << bit,
            Damage::Remove(at) => drop(bytes.remove(at.index(header))),
            Damage::Insert(at, byte) => bytes.insert(at.index(header), *byte),
            Damage::Truncate(at) => bytes.truncate(at.index(header)),
        }
    }
    bytes
}

fn runner() -> TestRunner {
    // Writing and mapping a file costs most; under an emulator fewer will do.
    let asked = cases_from_environment().expect("LFM2_CASES is a number");
    let cases = asked.map_or(1024, |count| 16 * count);
    let config = RunnerConfig { cases, failure_persistence: None, ..RunnerConfig::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

/// Most damages are refused; some leave a model, such as one in a string that nobody reads. None panics.
#[test]
fn a_damaged_header_never_panics() {
    let bytes = serialize(&stored());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let small = RandomModel::small(Description::Lfm2).config;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (refused, cases) = (Cell::new(0), Cell::new(0));
    runner()
        .run(&damages(), |damages| {
            let path = folder.path().join("model.safetensors");
            // A file that is mapped must not change: each case has a new one.
            let _ = fs::remove_file(&path);
            fs::write(&path, damaged(&bytes, header, &damages)).expect("a file");
            let loaded = Checkpoint::open(folder.path())
                .and_then(|checkpoint| Model::new(small.clone(), &checkpoint));
            cases.set(cases.get() + 1);
            refused.set(refused.get() + u32::from(loaded.is_err()));
            Ok(())
        })
        .expect("no damage panics");
    let (refused, cases) = (refused.get(), cases.get());
    assert!(2 * refused > cases, "only {refused} of {cases} damages were refused");
}

#[test]
fn a_damaged_configuration_never_panics() {
    let issue = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models/issue-22287/config.json"),
    )
    .expect("the fixture");
    let checkpoint_folder = folder(&config().to_string(), &serialize(&stored()));
    let checkpoint = Checkpoint::open(checkpoint_folder.path()).expect("a good checkpoint");
    for text in [config().to_string().into_bytes(), issue] {
        runner()
            .run(&damages(), |damages| {
                let text = damaged(&text, text.len(), &damages);
                let config = Config::from_json(&String::from_utf8_lossy(&text));
                if let Ok(config) = config {
                    // A shape that the checkpoint does not have must not become memory.
                    let _ = Model::new(config, &checkpoint);
                }
                Ok(())
            })
            .expect("no damage panics");
    }
}
