use std::borrow::Cow;

use super::Error;
use crate::linear::{Matrix, WeightFormat, blocks};

/// A weight as a checkpoint stores it.
pub struct Tensor<'a> {
    /// In what it is stored.
    pub format: WeightFormat,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Little-endian, unaligned.
    pub bytes: Cow<'a, [u8]>,
}

/// Where a model's weights come from: a checkpoint or a seed.
pub trait Tensors {
    /// The tensor of that name, in Hugging Face's naming; `shape` is what the model needs, for a source that makes its tensors up.
    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be used.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error>;

    /// Tells the source that a tensor was copied and will hardly be asked for again, so that it may give back the memory that it takes.
    fn release(&self, _tensor: &Tensor) {}
}

/// The weights of a model as the model asks for them.
pub(super) struct Weights<'a, T: ?Sized> {
    pub source: &'a T,
}

impl<T: Tensors + ?Sized> Weights<'_, T> {
    /// A tensor, if there is one, of the right shape.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>, Error> {
        let Some(tensor) = self.source.tensor(name, shape)? else {
            return Ok(None);
        };
        if tensor.shape != shape {
            return Err(Error::Shape {
                name: name.to_string(),
                found: tensor.shape,
                expected: shape.to_vec(),
            });
        }
        Ok(Some(tensor))
    }

    fn need(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, Error> {
        self.find(name, shape)?.ok_or_else(|| Error::MissingTensor { name: name.to_string() })
    }

    /// A linear layer's weight.
    pub fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, Error> {
        let tensor = self.need(name, &[outputs, inputs])?;
        Ok(self.pack(&tensor, outputs, inputs))
    }

    fn pack(&self, tensor: &Tensor, outputs: usize, inputs: usize) -> Matrix {
        let matrix = Matrix::from_le_bytes(tensor.format, outputs, inputs, &tensor.bytes);
        self.source.release(tensor);
        matrix
    }

    /// A linear layer's weight, or `None` if the checkpoint has none.
    pub fn optional_matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<Matrix>, Error> {
        let tensor = self.find(name, &[outputs, inputs])?;
        Ok(tensor.map(|tensor| self.pack(&tensor, outputs, inputs)))
    }

    /// A small tensor, widened.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let tensor = self.need(name, shape)?;
        Ok(blocks::decode(tensor.format, &tensor.bytes))
    }

    /// A bias, if the model has biases.
    pub fn bias(
        &self,
        present: bool,
        name: &str,
        length: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        present.then(|| self.values(name, &[length])).transpose()
    }

    /// The embedding, with as many rows as the checkpoint has, whatever the configuration says.
    pub fn embedding(
        &self,
        name: &str,
        vocabulary: usize,
        hidden_size: usize,
    ) -> Result<Matrix, Error> {
        let expected = [vocabulary, hidden_size];
        let tensor = self
            .source
            .tensor(name, &expected)?
            .ok_or_else(|| Error::MissingTensor { name: name.to_string() })?;
        match tensor.shape[..] {
            [rows, columns] if rows > 0 && columns == hidden_size => {
                Ok(self.pack(&tensor, rows, hidden_size))
            }
            _ => Err(Error::Shape {
                name: name.to_string(),
                found: tensor.shape,
                expected: expected.to_vec(),
            }),
        }
    }
}
