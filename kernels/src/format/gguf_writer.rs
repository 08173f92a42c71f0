use std::io::{self, Write};
use std::vec;

use super::TensorType;
use crate::linear::WeightFormat;

/// Where tensors begin, within the file: the default of GGUF.
const ALIGNMENT: usize = 32;

/// A value of a GGUF file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// UINT32.
    U32(u32),
    /// FLOAT32.
    F32(f32),
    /// STRING.
    String(String),
    /// ARRAY of INT32.
    I32s(Vec<i32>),
}

/// What a GGUF file says of a tensor before all data.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Its name, as GGUF has it.
    pub name: String,
    /// In what it is stored.
    pub format: WeightFormat,
    /// Row-major: the last dimension lies together, and is whole blocks.
    pub shape: Vec<usize>,
}

impl GgufTensor {
    /// Bytes of the data.
    pub fn bytes(&self) -> usize {
        let row = self.shape.last().copied().unwrap_or(1);
        self.shape.iter().rev().skip(1).product::<usize>() * self.format.bytes(row)
    }
}

/// Writes a GGUF file, version 3, little-endian, from front to back: no more of it is in memory than a caller hands over at once.
///
/// ```
/// use lfm2_kernels::format::{GgufWriter, GgufValue, GgufTensor};
/// use lfm2_kernels::linear::WeightFormat;
///
/// let metadata = [("general.architecture".into(), GgufValue::String("lfm2".into()))];
/// let shape = vec![2, 3];
/// let tensor = GgufTensor { name: "token_embd.weight".into(), format: WeightFormat::F32, shape };
/// let mut writer = GgufWriter::new(Vec::new(), &metadata, &[tensor])?;
/// writer.write(&[0; 12])?;
/// writer.write(&[0; 12])?;
/// assert!(writer.finish()?.starts_with(b"GGUF\x03\0\0\0"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct GgufWriter<W> {
    sink: W,
    /// Bytes that are missing of the tensor that is being written, and of those that follow.
    missing: usize,
    following: vec::IntoIter<usize>,
    /// Bytes after the last multiple of the alignment.
    unaligned: usize,
}

impl<W: Write> GgufWriter<W> {
    /// Writes everything but the data.
    ///
    /// # Errors
    ///
    /// If the sink cannot be written to.
    ///
    /// # Panics
    ///
    /// If a tensor's rows are no whole blocks.
    pub fn new(
        mut sink: W,
        metadata: &[(String, GgufValue)],
        tensors: &[GgufTensor],
    ) -> io::Result<Self> {
        let mut head = b"GGUF".to_vec();
        head.extend(3_u32.to_le_bytes());
        put_length(&mut head, tensors.len());
        put_length(&mut head, metadata.len());
        for (key, value) in metadata {
            put_string(&mut head, key);
            put_value(&mut head, value);
        }
        let mut offset = 0;
        for tensor in tensors {
            put_string(&mut head, &tensor.name);
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            for dimension in tensor.shape.iter().rev() {
                put_length(&mut head, *dimension);
            }
            head.extend(TensorType::Weights(tensor.format).id().to_le_bytes());
            put_length(&mut head, offset);
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        sink.write_all(&head)?;
        let sizes: Vec<_> = tensors.iter().map(GgufTensor::bytes).collect();
        Ok(Self { sink, missing: 0, following: sizes.into_iter(), unaligned: 0 })
    }

    /// Appends `bytes` to the data of the tensor that is not whole yet: the tensors in their order, each in as many pieces as is handy.
    ///
    /// # Errors
    ///
    /// If the sink cannot be written to.
    ///
    /// # Panics
    ///
    /// If that tensor has fewer bytes to come, or all are whole.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.missing == 0 {
            self.missing = self.following.next().expect("all tensors are written");
        }
        assert!(bytes.len() <= self.missing, "more bytes than the tensor has");
        self.sink.write_all(bytes)?;
        self.missing -= bytes.len();
        self.unaligned = (self.unaligned + bytes.len()) % ALIGNMENT;
        if self.missing == 0 && self.unaligned > 0 {
            self.sink.write_all(&[0; ALIGNMENT][self.unaligned..])?;
            self.unaligned = 0;
        }
        Ok(())
    }

    /// The sink, once all data are in it.
    ///
    /// # Errors
    ///
    /// If the sink cannot be flushed.
    ///
    /// # Panics
    ///
    /// If data are missing.
    pub fn finish(mut self) -> io::Result<W> {
        assert!(self.missing == 0 && self.following.len() == 0, "data are missing");
        self.sink.flush()?;
        Ok(self.sink)
    }
}

fn put_length(head: &mut Vec<u8>, length: usize) {
    head.extend((length as u64).to_le_bytes());
}

fn put_string(head: &mut Vec<u8>, text: &str) {
    put_length(head, text.len());
    head.extend(text.as_bytes());
}

/// The type's number and the value.
fn put_value(head: &mut Vec<u8>, value: &GgufValue) {
    const ARRAY: u32 = 9;
    const INT32: u32 = 5;
    match value {
        GgufValue::U32(number) => {
            head.extend(4_u32.to_le_bytes());
            head.extend(number.to_le_bytes());
        }
        GgufValue::F32(number) => {
            head.extend(6_u32.to_le_bytes());
            head.extend(number.to_le_bytes());
        }
        GgufValue::String(text) => {
            head.extend(8_u32.to_le_bytes());
            put_string(head, text);
        }
        GgufValue::I32s(numbers) => {
            head.extend(ARRAY.to_le_bytes());
            head.extend(INT32.to_le_bytes());
            put_length(head, numbers.len());
            head.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, format: WeightFormat, shape: &[usize]) -> GgufTensor {
        GgufTensor { name: name.into(), format, shape: shape.to_vec() }
    }

    #[test]
    fn a_file_is_laid_out_as_specified() {
        let metadata =
            [("a".into(), GgufValue::I32s(vec![0, -1])), ("b".into(), GgufValue::U32(7))];
        let tensors = [info("x", WeightFormat::Q8_0, &[3, 32]), info("y", WeightFormat::F32, &[2])];
        let mut writer = GgufWriter::new(Vec::new(), &metadata, &tensors).unwrap();
        for byte in 1..=3 {
            writer.write(&[byte; 34]).unwrap();
        }
        writer.write(&[9; 8]).unwrap();
        let file = writer.finish().unwrap();
        let expected: &[&[u8]] = &[
            b"GGUF\x03\0\0\0",
            b"\x02\0\0\0\0\0\0\0",
            b"\x02\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\0\0\0a",
            b"\x09\0\0\0\x05\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF",
            b"\x01\0\0\0\0\0\0\0b",
            b"\x04\0\0\0\x07\0\0\0",
            b"\x01\0\0\0\0\0\0\0x",
            b"\x02\0\0\0\x20\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
            b"\x08\0\0\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\0\0\0y",
            b"\x01\0\0\0\x02\0\0\0\0\0\0\0",
            b"\0\0\0\0\x80\0\0\0\0\0\0\0",
        ];
        let head = expected.concat();
        assert_eq!(file[..head.len()], head);
        let data = head.len().next_multiple_of(32);
        assert!(file[head.len()..data].iter().all(|byte| *byte == 0));
        let first = [[1; 34], [2; 34], [3; 34]].concat();
        assert_eq!(file[data..][..102], first);
        assert_eq!(file[data + 102..][..26], [0; 26]);
        assert_eq!(file[data + 128..], [[9; 8].as_slice(), &[0; 24]].concat());
    }

    #[test]
    #[should_panic(expected = "more bytes")]
    fn no_byte_too_many() {
        let tensors = [info("x", WeightFormat::F16, &[3])];
        GgufWriter::new(Vec::new(), &[], &tensors).unwrap().write(&[0; 7]).unwrap();
    }

    #[test]
    #[should_panic(expected = "data are missing")]
    fn no_byte_too_few() {
        let tensors = [info("x", WeightFormat::F16, &[3]), info("y", WeightFormat::F16, &[3])];
        let mut writer = GgufWriter::new(Vec::new(), &[], &tensors).unwrap();
        writer.write(&[0; 6]).unwrap();
        drop(writer.finish());
    }
}
