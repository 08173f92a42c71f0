//! GGUF files of LFM2 from other checkpoints: what such a file holds, in what each tensor is stored, and the writing of it.

mod metadata;
mod plan;
mod recipe;

use std::io::{self, Write};

use lfm2_kernels::format::{GgufTensor, GgufWriter};
use lfm2_kernels::linear::{WeightFormat, blocks};
use lfm2_kernels::model::{self, Config, Tensor, Tensors};
use rayon::prelude::*;

pub use metadata::Origin;
use plan::{PlannedTensor, planned_tensors};
pub use recipe::{Recipe, UnknownRecipe};

/// Why a GGUF file could not be made. Each message says what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// GGUF has no place for something that the model needs.
    #[error("{0}")]
    NoPlace(&'static str),
    /// The model is not as its configuration says.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A weight is infinite or not a number.
    #[error("tensor {name} has weights that are infinite or NaN: expected finite numbers")]
    NotFinite {
        /// The tensor, as the source names it.
        name: String,
    },
    /// A weight, or the scale of a block, exceeds the largest half.
    #[error("tensor {name} has weights that are too large for {format}: expected bf16 or f32")]
    TooLarge {
        /// The tensor, as the source names it.
        name: String,
        /// The format.
        format: WeightFormat,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Weights that one thread converts at a time: whole rows, but at least one.
const STRIP: usize = 1 << 16;

/// Strips that are converted before they are written.
const STRIPS: usize = 64;

/// A GGUF file of a model, before it is written.
pub struct GgufFile<'a> {
    source: &'a dyn Tensors,
    config: Config,
    recipe: Recipe,
    tensors: Vec<PlannedTensor>,
}

impl<'a> GgufFile<'a> {
    /// Plans the file of the model that `config` describes, with the weights of `source`.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be run, GGUF has no place for such a model, or its embedding or head is missing or has the wrong shape.
    pub fn new(mut config: Config, source: &'a dyn Tensors, recipe: Recipe) -> Result<Self, Error> {
        config.validate()?;
        if config.description != model::Description::Lfm2 {
            return Err(Error::NoPlace(
                "GGUF has no place for a model after issue #22287: expected a published one",
            ));
        }
        if config.conv_bias {
            return Err(Error::NoPlace(
                "GGUF has no place for the biases of conv blocks: expected conv_bias to be false",
            ));
        }
        if config
            .experts
            .is_some_and(|experts| !experts.use_bias || !experts.normalise || experts.scale != 1.0)
        {
            return Err(Error::NoPlace(
                "GGUF has no place for another router than the published one: expected use_expert_bias and norm_topk_prob to be true, routed_scaling_factor to be 1",
            ));
        }
        let expected = [config.vocabulary, config.hidden_size];
        let embedding = tensor(source, "model.embed_tokens.weight", &expected)?;
        // A checkpoint's vocabulary and head are right, whatever the configuration says.
        config.vocabulary = match embedding.shape[..] {
            [rows, columns] if rows > 0 && columns == config.hidden_size => rows,
            _ => return Err(wrong_shape("model.embed_tokens.weight", &embedding, &expected)),
        };
        let expected = [config.vocabulary, config.hidden_size];
        if config.tied_embedding {
            config.tied_embedding = source.tensor("lm_head.weight", &expected)?.is_none();
        }
        let tensors = planned_tensors(&config, recipe);
        Ok(Self { source, config, recipe, tensors })
    }

    /// The tensors, in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = &GgufTensor> {
        self.tensors.iter().map(|tensor| &tensor.stored)
    }

    /// Writes the file to `sink`, calling `progress` with each number of weights that are converted. A few strips of one tensor are
    /// in memory at a time, beside what the source holds.
    ///
    /// # Errors
    ///
    /// If a tensor is missing, has the wrong shape or cannot be stored, or `sink` cannot be written to.
    pub fn write<W: Write>(
        &self,
        sink: W,
        origin: Origin,
        mut progress: impl FnMut(usize),
    ) -> Result<W, Error> {
        let metadata = metadata::metadata(&self.config, self.recipe, origin);
        let stored: Vec<_> = self.tensors().cloned().collect();
        let mut writer = GgufWriter::new(sink, &metadata, &stored)?;
        for PlannedTensor { stored, parts, part_shape } in &self.tensors {
            for name in parts {
                let part = tensor(self.source, name, part_shape)?;
                if part.shape != *part_shape {
                    return Err(wrong_shape(name, &part, part_shape));
                }
                self.write_part(name, &part, stored, &mut writer, &mut progress)?;
            }
        }
        Ok(writer.finish()?)
    }

    fn write_part<W: Write>(
        &self,
        name: &str,
        part: &Tensor,
        stored: &GgufTensor,
        writer: &mut GgufWriter<W>,
        progress: &mut impl FnMut(usize),
    ) -> Result<(), Error> {
        let row = stored.shape.last().copied().unwrap_or(1);
        let rows = (STRIP / row).max(1);
        let strip = rows * part.format.bytes(row);
        for strips in part.bytes.chunks(strip * STRIPS) {
            let converted: Vec<_> = strips
                .par_chunks(strip)
                .map(|strip| convert(name, part.format, stored.format, strip))
                .collect::<Result<_, _>>()?;
            for bytes in converted {
                writer.write(&bytes)?;
            }
            progress(strips.len() / part.format.block_bytes() * part.format.block());
        }
        Ok(())
    }
}

/// Weights in another format; all of them are finite, before as after.
fn convert(
    name: &str,
    from: WeightFormat,
    to: WeightFormat,
    bytes: &[u8],
) -> Result<Vec<u8>, Error> {
    let are_finite = |weights: &[f32]| weights.iter().all(|weight| weight.is_finite());
    let weights = blocks::decode(from, bytes);
    if !are_finite(&weights) {
        return Err(Error::NotFinite { name: name.into() });
    }
    let encoded = blocks::encode(to, &weights);
    if !are_finite(&blocks::decode(to, &encoded)) {
        return Err(Error::TooLarge { name: name.into(), format: to });
    }
    Ok(encoded)
}

fn tensor<'a>(source: &'a dyn Tensors, name: &str, shape: &[usize]) -> Result<Tensor<'a>, Error> {
    let tensor = source.tensor(name, shape)?;
    Ok(tensor.ok_or_else(|| model::Error::MissingTensor { name: name.into() })?)
}

fn wrong_shape(name: &str, found: &Tensor, expected: &[usize]) -> Error {
    let (name, found, expected) = (name.to_string(), found.shape.clone(), expected.to_vec());
    Error::Model(model::Error::Shape { name, found, expected })
}

#[cfg(test)]
mod tests;
