use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lfm2_kernels::Isa;
use lfm2_kernels::format::{Array, Checkpoint, Gguf, StoredTensor, TensorType, Value, ValueType};
use lfm2_kernels::linear::{Activations, WeightFormat};
use lfm2_kernels::model::{Config, LayerKind};
use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::output::{bytes, counted, print, print_json, table};
use super::settings::ActivationsName;

const EXAMPLES: &str = "\
Examples:
  lfm2 inspect F.gguf
  lfm2 inspect DIR --activations int8 --json";

/// Shows what a model's files hold, and with what it would run
///
/// Prints the metadata (of a folder: config.json), every tensor with its type, shape and size, and for each type how many there
/// are and which kernel would take them. Of arrays in the metadata only the first values are shown. Loads no weights.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArguments {
    /// A GGUF file, or a Hugging Face folder
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The instruction set that would be used [default: this CPU's best]
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    /// How weights would meet activations
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    activations: ActivationsName,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    path: String,
    format: &'static str,
    metadata: Vec<Entry>,
    tensors: Vec<TensorReport>,
    totals: Vec<Total>,
    bytes: usize,
    isa: &'static str,
    activations: &'static str,
    /// The shape of the model, if it can be run.
    model: Option<Shape>,
    /// Why it cannot.
    refused: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    r#type: String,
    value: serde_json::Value,
    /// How many values an array has, of which only the first are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    r#type: String,
    shape: Vec<usize>,
    bytes: usize,
    kernel: Option<&'static str>,
}

/// The tensors of one type that one kernel takes.
#[derive(Serialize)]
struct Total {
    r#type: String,
    kernel: Option<&'static str>,
    tensors: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct Shape {
    layers: usize,
    conv_layers: usize,
    attention_layers: usize,
    hidden_size: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    feed_forward_width: usize,
    vocabulary: usize,
}

/// Most values of an array that are shown.
const MOST_SHOWN: usize = 8;

/// Most characters of a value in the table.
const LONGEST_VALUE: usize = 80;

pub fn run(arguments: InspectArguments) -> Result<ExitCode, Failure> {
    let report = inspect(&arguments)?;
    match arguments.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(arguments: &InspectArguments) -> Result<Report, Failure> {
    let path = &arguments.path;
    let activations = arguments.activations.into();
    let (format, metadata, mut tensors, config) = match path.is_dir() {
        true => folder(path, activations)?,
        false => gguf(path, activations)?,
    };
    // Layer 2 comes before layer 10.
    tensors.sort_by_cached_key(|tensor| -> Vec<_> {
        let parts = tensor.name.split('.');
        parts.map(|part| (part.parse::<u64>().ok(), part.to_string())).collect()
    });
    let mut totals = BTreeMap::<_, (usize, usize)>::new();
    for tensor in &tensors {
        let (count, bytes) = totals.entry((tensor.r#type.clone(), tensor.kernel)).or_default();
        *count += 1;
        *bytes += tensor.bytes;
    }
    let total = |((r#type, kernel), (tensors, bytes))| Total { r#type, kernel, tensors, bytes };
    let (model, refused) = match config {
        Ok(config) => (Some(Shape::of(&config)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Report {
        path: path.display().to_string(),
        format,
        metadata,
        bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        totals: totals.into_iter().map(total).collect(),
        tensors,
        isa: arguments.isa.unwrap_or_else(Isa::best).name(),
        activations: activations.name(),
        model,
        refused,
    })
}

/// What there is in a model's files: the format, the metadata, the tensors, and the shape or why there is none.
type Contents =
    (&'static str, Vec<Entry>, Vec<TensorReport>, Result<Config, lfm2_kernels::model::Error>);

fn gguf(path: &Path, activations: Activations) -> Result<Contents, Failure> {
    let gguf = Gguf::open(path)?;
    let entry = |entry: lfm2_kernels::format::Entry| Entry {
        key: entry.key.into(),
        r#type: match entry.value {
            Value::Array(array) => format!("array of {}", array.element().name()),
            _ => entry.kind.name().into(),
        },
        value: json_of(entry.value, entry.kind),
        length: match entry.value {
            Value::Array(array) => Some(array.length()),
            _ => None,
        },
    };
    let tensor = |info: lfm2_kernels::format::TensorInfo| {
        let format = match info.kind {
            TensorType::Weights(format) => Some(format),
            TensorType::Other(_) => None,
        };
        TensorReport {
            name: info.name.into(),
            r#type: info.kind.to_string(),
            kernel: kernel(info.name, &info.shape, format, activations),
            shape: info.shape.to_vec(),
            bytes: info.bytes,
        }
    };
    let (metadata, tensors) = (gguf.entries().map(entry), gguf.infos().map(tensor));
    Ok(("gguf", metadata.collect(), tensors.collect(), gguf.config()))
}

fn folder(path: &Path, activations: Activations) -> Result<Contents, Failure> {
    let config_path = path.join("config.json");
    let config = Config::read(&config_path);
    // A configuration that describes another model is shown; one that is no JSON has been refused above.
    let metadata = match fs::read_to_string(&config_path).map(|text| serde_json::from_str(&text)) {
        Ok(Ok(serde_json::Value::Object(object))) => object.into_iter().map(json_entry).collect(),
        _ => Vec::new(),
    };
    let checkpoint = Checkpoint::open(path)?;
    let tensor = |name: &str| {
        let StoredTensor { kind, format, shape, bytes } =
            checkpoint.info(name).expect("a name of its own");
        TensorReport {
            name: name.into(),
            r#type: kind,
            kernel: kernel(name, shape, format, activations),
            shape: shape.to_vec(),
            bytes,
        }
    };
    let tensors = checkpoint.names().into_iter().map(tensor).collect();
    Ok(("safetensors", metadata, tensors, config))
}

fn json_entry((key, value): (String, serde_json::Value)) -> Entry {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let (r#type, value, length) = match value {
        Array(mut values) => {
            let length = values.len();
            values.truncate(MOST_SHOWN);
            ("array", Array(values), Some(length))
        }
        Null => ("null", value, None),
        Bool(_) => ("bool", value, None),
        Number(_) => ("number", value, None),
        String(_) => ("string", value, None),
        Object(_) => ("object", value, None),
    };
    Entry { key, r#type: r#type.into(), value, length }
}

fn json_of(value: Value, kind: ValueType) -> serde_json::Value {
    match value {
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => json!(number),
        // As short as a single may be written.
        Value::Float(number) if kind == ValueType::F32 => {
            json!((number as f32).to_string().parse::<f64>().unwrap_or(number))
        }
        Value::Float(number) => json!(number),
        Value::Bool(value) => json!(value),
        Value::String(text) => json!(text),
        Value::Array(array) => first_values(array),
    }
}

fn first_values(array: Array) -> serde_json::Value {
    array.values().take(MOST_SHOWN).map(|value| json_of(value, array.element())).collect()
}

/// What takes a tensor: matrices are multiplied, everything else is small and widened when it is loaded. `None` where nothing can.
fn kernel(
    name: &str,
    shape: &[usize],
    format: Option<WeightFormat>,
    activations: Activations,
) -> Option<&'static str> {
    let is_matrix = shape.len() > 1 && !name.ends_with("conv.conv.weight");
    let meets = format?.meets(activations);
    Some(match activations {
        _ if !is_matrix => "widened to f32",
        Activations::Int8 if meets => "linear, int8 activations",
        Activations::Bf16 if meets => "linear, bf16 activations",
        _ => "linear, f32 activations",
    })
}

impl Shape {
    fn of(config: &Config) -> Self {
        Self {
            layers: config.layers.len(),
            conv_layers: config.count(LayerKind::Conv),
            attention_layers: config.count(LayerKind::Attention),
            hidden_size: config.hidden_size,
            heads: config.heads,
            key_value_heads: config.key_value_heads,
            head_dim: config.head_dim,
            feed_forward_width: config.feed_forward_width,
            vocabulary: config.vocabulary,
        }
    }

    fn text(&self) -> String {
        format!(
            "{}, {} of them convolution and {} attention; hidden size {}, {} with {} for keys and values, of {}; feed-forward {}; vocabulary {}",
            counted(self.layers, "layer"),
            self.conv_layers,
            self.attention_layers,
            self.hidden_size,
            counted(self.heads, "head"),
            self.key_value_heads,
            self.head_dim,
            self.feed_forward_width,
            self.vocabulary
        )
    }
}

fn text(report: &Report) -> String {
    let kernel = |kernel: Option<&str>| kernel.unwrap_or("none: cannot be loaded").to_string();
    let mut metadata = vec![["key", "type", "value"].map(String::from)];
    for Entry { key, r#type, value, length } in &report.metadata {
        metadata.push([key.clone(), r#type.clone(), shortened(value, *length)]);
    }
    let mut tensors = vec![["tensor", "type", "shape", "size"].map(String::from)];
    for tensor in &report.tensors {
        let (name, shape) = (tensor.name.clone(), format!("{:?}", tensor.shape));
        tensors.push([name, tensor.r#type.clone(), shape, bytes(tensor.bytes as u64)]);
    }
    let mut totals = vec![["type", "tensors", "size", "kernel"].map(String::from)];
    for total in &report.totals {
        totals.push([
            total.r#type.clone(),
            total.tensors.to_string(),
            bytes(total.bytes as u64),
            kernel(total.kernel),
        ]);
    }
    let all = [report.tensors.len().to_string(), bytes(report.bytes as u64)];
    let [count, size] = all;
    totals.push(["all".into(), count, size, String::new()]);
    let model = match (&report.model, &report.refused) {
        (Some(shape), _) => shape.text(),
        (None, refused) => format!("cannot be run: {}", refused.as_deref().unwrap_or_default()),
    };
    let run = format!("on {}, activations in {}", report.isa, report.activations);
    let summary = [["file", &report.path], ["model", &model], ["run", &run]];
    let summary = summary.map(|row| row.map(String::from));
    [table(&metadata), table(&tensors), table(&totals), table(&summary)].join("\n")
}

/// A value in one line.
fn shortened(value: &serde_json::Value, length: Option<usize>) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(LONGEST_VALUE) {
        text.truncate(end);
        text += "...";
    }
    match length {
        Some(length) if length > MOST_SHOWN => format!("{text} and {} more", length - MOST_SHOWN),
        _ => text,
    }
}
