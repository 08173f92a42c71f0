use std::path::Path;

use super::config::{Config, Description, ExpertsConfig, LayerKind};
use super::scratch::{Buffers, Piece, Scratch};
use super::state::State;
use super::tensors::{Tensors, Weights};
use super::{Error, FeedForward, Mixer};
use crate::Isa;
use crate::fault;
use crate::format;
use crate::linear::{Activations, Matrix};
use crate::ops::{CacheElement, add, add_rms_norm, embedding, linear, rms_norm};
use crate::threads::enter;

/// A model: its shape and its packed weights. Immutable; what it remembers of a sequence is a [`State`].
pub struct Model {
    config: Config,
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    /// `None` where the embedding serves as the head.
    head: Option<Matrix>,
}

/// One layer: norm, mixer, norm, feed-forward.
pub struct Layer {
    /// The norm before the mixer, `[hidden_size]`.
    pub operator_norm: Vec<f32>,
    /// Convolution or attention.
    pub mixer: Mixer,
    /// The norm before the feed-forward, `[hidden_size]`.
    pub ffn_norm: Vec<f32>,
    /// SwiGLU, or a mixture of experts.
    pub feed_forward: FeedForward,
}

/// One sequence's part in a call.
pub struct Sequence<'a> {
    /// Its next tokens: a whole prompt, a chunk of one, or one decoded token.
    pub tokens: &'a [u32],
    /// What the model remembers of it.
    pub state: &'a mut State,
}

/// Which logits a call writes, and where.
pub enum Logits<'a> {
    /// Those of every token, `[tokens of all sequences in order, vocabulary]`.
    All(&'a mut [f32]),
    /// Those of each sequence's last token, `[sequences, vocabulary]`.
    Last(&'a mut [f32]),
}

impl Model {
    /// Loads a GGUF file, or a Hugging Face folder: `config.json` and `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    ///
    /// If a file is missing, damaged or describes another kind of model, or a weight is missing or has the wrong shape.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_reporting(path, |_, _| ())
    }

    /// As [`load`](Self::load), calling `progress` with the layers done and their number.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_reporting(path: &Path, progress: impl FnMut(usize, usize)) -> Result<Self, Error> {
        let (config, source) = format::open(path)?;
        Self::new_reporting(config, &*source, progress)
    }

    /// Takes the weights that `config` asks for from `source`.
    ///
    /// # Errors
    ///
    /// If `config` cannot be run, or a weight is missing or has the wrong shape.
    pub fn new(config: Config, source: &(impl Tensors + ?Sized)) -> Result<Self, Error> {
        Self::new_reporting(config, source, |_, _| ())
    }

    /// As [`new`](Self::new), calling `progress` with the layers done and their number.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_reporting(
        mut config: Config,
        source: &(impl Tensors + ?Sized),
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, Error> {
        config.validate()?;
        let weights = Weights { source };
        let width = config.hidden_size;
        let embedding = weights.embedding("model.embed_tokens.weight", config.vocabulary, width)?;
        config.vocabulary = embedding.outputs();
        // A head in the file is used whatever the configuration says.
        let head = weights.optional_matrix("lm_head.weight", config.vocabulary, width)?;
        if head.is_none() && !config.tied_embedding {
            return Err(Error::MissingTensor { name: "lm_head.weight".into() });
        }
        // Without reserving: that there are so many layers is a promise until their weights are found.
        let mut layers = Vec::new();
        for (i, kind) in config.layers.iter().enumerate() {
            progress(i, config.layers.len());
            layers.push(Layer::load(
                *kind,
                config.experts_of(i),
                &config,
                source,
                &format!("model.layers.{i}"),
            )?);
        }
        progress(layers.len(), layers.len());
        let final_norm = weights.values("model.embedding_norm.weight", &[width])?;
        Ok(Self { config, embedding, layers, final_norm, head })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The matrix that makes logits: the head, or the embedding where they are tied.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Chooses how weights meet activations, in every layer and in the head: as [`Matrix::set_activations`].
    pub fn set_activations(&mut self, activations: Activations) {
        let Self { embedding, layers, head, .. } = self;
        for matrix in [embedding].into_iter().chain(head) {
            matrix.set_activations(activations);
        }
        for Layer { mixer, feed_forward, .. } in layers {
            for matrix in mixer.matrices_mut().into_iter().chain(feed_forward.matrices_mut()) {
                matrix.set_activations(activations);
            }
        }
    }

    /// A state for a sequence of up to `capacity` tokens.
    pub fn new_state(&self, capacity: usize, element: CacheElement) -> State {
        State::new(&self.config, capacity, element)
    }

    /// Bytes of the packed weights, each held once.
    pub fn bytes(&self) -> usize {
        let head = self.head.as_ref().map_or(0, Matrix::bytes);
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        self.embedding.bytes() + head + layers + size_of_val(&self.final_norm[..])
    }

    /// Advances every sequence by its tokens and writes logits.
    ///
    /// The bits of a sequence's logits and state do not depend on how its tokens were split into calls, on the other sequences, on the
    /// instruction set or on the number of threads (of the current rayon pool).
    ///
    /// # Errors
    ///
    /// If a sequence has no tokens, a token is not in the vocabulary, a state has no room or belongs to another model, or `logits` has the
    /// wrong length. Nothing has changed then.
    pub fn forward(
        &self,
        isa: Isa,
        sequences: &mut [Sequence],
        scratch: &mut Scratch,
        mut logits: Logits,
    ) -> Result<(), Error> {
        let total = self.check(sequences, &logits)?;
        enter(|| self.advance(isa, sequences, total, scratch, &mut logits));
        Ok(())
    }

    /// Advances every sequence by its tokens, `total` in all.
    fn advance(
        &self,
        isa: Isa,
        sequences: &mut [Sequence],
        total: usize,
        scratch: &mut Scratch,
        logits: &mut Logits,
    ) {
        let most = Scratch::pass_rows(total);
        scratch.reserve(&self.config, most);
        let Scratch { buffers: Some(buffers), pieces } = scratch else {
            unreachable!("reserved above");
        };
        let (mut done, mut ended) = (0, 0);
        let (mut sequence, mut token) = (0, 0);
        while done < total {
            pieces.clear();
            let mut rows = 0;
            while sequence < sequences.len() && rows < most {
                let left = sequences[sequence].tokens.len() - token;
                let taken = left.min(most - rows);
                pieces.push(Piece {
                    sequence,
                    first_token: token,
                    rows: taken,
                    ends: taken == left,
                });
                rows += taken;
                (sequence, token) =
                    if taken == left { (sequence + 1, 0) } else { (sequence, token + taken) };
            }
            self.pass(isa, sequences, pieces, rows, buffers);
            match logits {
                Logits::All(logits) => {
                    let logits = &mut logits[done * self.config.vocabulary..];
                    self.all_logits(isa, rows, buffers, logits);
                }
                Logits::Last(logits) => {
                    let logits = &mut logits[ended * self.config.vocabulary..];
                    ended += self.last_logits(isa, pieces, buffers, logits);
                }
            }
            done += rows;
        }
    }

    /// Checks a call at the door; the number of its tokens.
    fn check(&self, sequences: &[Sequence], logits: &Logits) -> Result<usize, Error> {
        for (index, Sequence { tokens, state }) in sequences.iter().enumerate() {
            if tokens.is_empty() {
                return Err(Error::NoTokens { sequence: index });
            }
            if let Some(at) = tokens.iter().position(|&t| t as usize >= self.config.vocabulary) {
                return Err(Error::Token {
                    token: tokens[at],
                    position: state.position() + at,
                    vocabulary: self.config.vocabulary,
                });
            }
            let positions = state.position() + tokens.len();
            if positions > state.capacity() {
                return Err(Error::Capacity { positions, capacity: state.capacity() });
            }
            state.check(&self.config)?;
        }
        let total = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
        let (rows, found) = match logits {
            Logits::All(logits) => (total, logits.len()),
            Logits::Last(logits) => (sequences.len(), logits.len()),
        };
        let expected = rows * self.config.vocabulary;
        if found != expected {
            return Err(Error::Length { what: "logits", found, expected });
        }
        Ok(total)
    }

    /// Takes `rows` rows through every layer; the result stays in `buffers.hidden`.
    fn pass(
        &self,
        isa: Isa,
        sequences: &mut [Sequence],
        pieces: &[Piece],
        rows: usize,
        buffers: &mut Buffers,
    ) {
        let width = self.config.hidden_size;
        let mut first = 0;
        for piece in pieces {
            let tokens = &sequences[piece.sequence].tokens[piece.first_token..][..piece.rows];
            let hidden = &mut buffers.hidden[first * width..][..piece.rows * width];
            embedding(&self.embedding, tokens, hidden);
            first += piece.rows;
        }
        if self.config.layers.contains(&LayerKind::Attention) {
            buffers.block.rope.fill(pieces.iter().flat_map(|piece| {
                let position = sequences[piece.sequence].state.position();
                position..position + piece.rows
            }));
            fault!(PositionsRestart => buffers.block.rope.fill(pieces.iter().flat_map(|piece| 0..piece.rows)));
        }
        if let Some(layer) = self.layers.first() {
            let elements = rows * width;
            let Buffers { hidden, normed, .. } = &mut *buffers;
            let (hidden, normed) = (&hidden[..elements], &mut normed[..elements]);
            rms_norm(isa, hidden, &layer.operator_norm, self.config.norm_epsilon, normed);
        }
        for index in 0..self.layers.len() {
            self.layer(isa, index, sequences, pieces, rows, buffers);
        }
        for piece in pieces {
            sequences[piece.sequence].state.advance(piece.rows);
        }
    }

    /// Takes `rows` rows, normed for this layer, through it, and norms them for the next.
    fn layer(
        &self,
        isa: Isa,
        index: usize,
        sequences: &mut [Sequence],
        pieces: &[Piece],
        rows: usize,
        buffers: &mut Buffers,
    ) {
        let layer = &self.layers[index];
        let elements = rows * self.config.hidden_size;
        let epsilon = self.config.norm_epsilon;
        let Buffers { hidden, normed, output, block, .. } = buffers;
        let hidden = &mut hidden[..elements];
        let normed = &mut normed[..elements];
        let output = &mut output[..elements];

        layer.mixer.project_in(isa, normed, block);
        let mut first = 0;
        for piece in pieces {
            let state = sequences[piece.sequence].state.layer_mut(index);
            layer.mixer.mix(isa, state, first, piece.rows, block);
            first += piece.rows;
        }
        layer.mixer.project_out(isa, block, output);

        match self.config.description {
            Description::Lfm2 => {
                add_rms_norm(isa, hidden, output, &layer.ffn_norm, epsilon, normed);
            }
            // Parallel residuals: the feed-forward sees what the mixer saw.
            Description::Issue22287 { .. } => {
                rms_norm(isa, hidden, &layer.ffn_norm, epsilon, normed);
                add(isa, hidden, output);
            }
        }
        layer.feed_forward.forward(isa, normed, block, output);
        fault!(ResidualTwice => add(isa, hidden, output));
        match self.layers.get(index + 1) {
            Some(next) => add_rms_norm(isa, hidden, output, &next.operator_norm, epsilon, normed),
            None => add(isa, hidden, output),
        }
    }

    /// The logits of every row of a pass.
    fn all_logits(&self, isa: Isa, rows: usize, buffers: &mut Buffers, logits: &mut [f32]) {
        let elements = rows * self.config.hidden_size;
        let normed = &mut buffers.normed[..elements];
        let hidden = &buffers.hidden[..elements];
        rms_norm(isa, hidden, &self.final_norm, self.config.norm_epsilon, normed);
        linear(isa, normed, self.head(), None, &mut logits[..rows * self.config.vocabulary]);
    }

    /// The logits of the rows that end a sequence; their number.
    fn last_logits(
        &self,
        isa: Isa,
        pieces: &[Piece],
        buffers: &mut Buffers,
        logits: &mut [f32],
    ) -> usize {
        let width = self.config.hidden_size;
        let (mut last, mut ended) = (0, 0);
        for piece in pieces {
            last += piece.rows;
            if piece.ends {
                let row = fault!(LastLogitsOfFirstRow: last - piece.rows, else last - 1);
                let hidden = &buffers.hidden[row * width..][..width];
                let normed = &mut buffers.normed[ended * width..][..width];
                rms_norm(isa, hidden, &self.final_norm, self.config.norm_epsilon, normed);
                ended += 1;
            }
        }
        let normed = &buffers.normed[..ended * width];
        linear(isa, normed, self.head(), None, &mut logits[..ended * self.config.vocabulary]);
        ended
    }
}

impl Layer {
    fn load(
        kind: LayerKind,
        experts: Option<&ExpertsConfig>,
        config: &Config,
        source: &(impl Tensors + ?Sized),
        name: &str,
    ) -> Result<Self, Error> {
        let weights = Weights { source };
        let norm =
            |part: &str| weights.values(&format!("{name}.{part}.weight"), &[config.hidden_size]);
        Ok(Self {
            operator_norm: norm("operator_norm")?,
            mixer: Mixer::load(kind, config, source, name)?,
            ffn_norm: norm("ffn_norm")?,
            feed_forward: FeedForward::load(experts, config, source, name)?,
        })
    }

    fn bytes(&self) -> usize {
        let mut matrices = self.mixer.matrices();
        matrices.extend(self.feed_forward.matrices());
        let norms = size_of_val(&self.operator_norm[..]) + size_of_val(&self.ffn_norm[..]);
        matrices.iter().map(|matrix| matrix.bytes()).sum::<usize>()
            + norms
            + self.mixer.small_bytes()
            + self.feed_forward.small_bytes()
    }
}
