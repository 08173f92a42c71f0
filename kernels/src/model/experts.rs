use super::config::ExpertsConfig;
use super::scratch::BlockBuffers;
use super::tensors::{Tensors, Weights};
use super::{Error, SwiGlu};
use crate::Isa;
use crate::fault;
use crate::linear::Matrix;
use crate::ops::{Routing, add_scaled, linear, route, sigmoid};

/// A mixture of experts: `sum over the chosen e of weight[e] * expert[e](x)`, where a router chooses and weighs a few experts for each row by
/// `sigmoid(router x)` (see [`route`]). Source: `Lfm2MoeSparseMoeBlock` of Hugging Face transformers.
pub struct Experts {
    router: Matrix,
    /// What is added to scores before they are compared, `[experts]`; zeros where the model has none.
    bias: Vec<f32>,
    routing: Routing,
    networks: Vec<SwiGlu>,
}

impl Experts {
    /// Takes `gate`, `expert_bias` and `experts.{index}` under `prefix`.
    pub(super) fn load(
        config: &ExpertsConfig,
        weights: &Weights<impl Tensors + ?Sized>,
        prefix: &str,
        hidden_size: usize,
    ) -> Result<Self, Error> {
        let ExpertsConfig { count, used, width, use_bias, normalise, scale, .. } = *config;
        let router = weights.matrix(&format!("{prefix}.gate.weight"), count, hidden_size)?;
        let bias = weights.bias(use_bias, &format!("{prefix}.expert_bias"), count)?;
        // Without reserving: that there are so many is a promise until their weights are found.
        let mut networks = Vec::new();
        for expert in 0..count {
            let prefix = format!("{prefix}.experts.{expert}");
            networks.push(SwiGlu::load(weights, &prefix, width, hidden_size)?);
        }
        Ok(Self {
            router,
            bias: bias.unwrap_or_else(|| vec![0.0; count]),
            routing: Routing { used, normalise, scale },
            networks,
        })
    }

    /// Feeds rows `x` forward to `output`, both `[rows, hidden_size]`. The weights of an expert are read once for all rows that chose it, and
    /// those of one that no row chose are not read.
    pub(super) fn forward(
        &self,
        isa: Isa,
        x: &[f32],
        buffers: &mut BlockBuffers,
        output: &mut [f32],
    ) {
        let width = self.router.inputs();
        let (rows, used) = (x.len() / width, self.routing.used);
        let BlockBuffers { wide, mixed, scores, choice, weights, chosen_by, gathered, .. } =
            buffers;
        let scores = &mut scores[..rows * self.bias.len()];
        let choice = &mut choice[..rows * used];
        let weights = &mut weights[..rows * used];
        linear(isa, x, &self.router, None, scores);
        fault!(RouterSoftmax: crate::ops::softmax(isa, scores, self.bias.len()), else sigmoid(isa, scores));
        route(isa, scores, &self.bias, self.routing, choice, weights);

        // In ascending order of experts, so that a row's sum does not depend on the rows beside it.
        output.fill(0.0);
        for (expert, network) in self.networks.iter().enumerate() {
            chosen_by.clear();
            chosen_by.extend((0..choice.len()).filter(|&i| choice[i] as usize == expert));
            if chosen_by.is_empty() {
                continue;
            }
            let gathered = &mut gathered[..chosen_by.len() * width];
            for (gathered, i) in gathered.chunks_exact_mut(width).zip(&*chosen_by) {
                gathered.copy_from_slice(&x[i / used * width..][..width]);
            }
            let results = &mut mixed[..gathered.len()];
            network.forward(isa, gathered, wide, results);
            fault!(ExpertRowsRotated => chosen_by.rotate_left(1));
            for (result, &i) in results.chunks_exact(width).zip(&*chosen_by) {
                let output = &mut output[i / used * width..][..width];
                fault!(ExpertOverwrites => output.fill(0.0));
                add_scaled(isa, output, result, weights[i]);
            }
        }
    }

    /// The weights, for a reader of sizes: the router's, then those of each expert.
    pub fn matrices(&self) -> Vec<&Matrix> {
        let networks = self.networks.iter().flat_map(SwiGlu::matrices);
        [&self.router].into_iter().chain(networks).collect()
    }

    pub(super) fn matrices_mut(&mut self) -> Vec<&mut Matrix> {
        let networks = self.networks.iter_mut().flat_map(SwiGlu::matrices_mut);
        [&mut self.router].into_iter().chain(networks).collect()
    }

    /// Bytes of the bias.
    pub(super) fn small_bytes(&self) -> usize {
        size_of_val(&self.bias[..])
    }
}
