use arrayvec::ArrayVec;

use super::TensorType;

/// Most arrays within one another: nothing that is known nests them at all.
const MOST_NESTED: usize = 8;

/// Most bytes of a key. Source: the GGUF specification, as for the next two.
const LONGEST_KEY: usize = (1 << 16) - 1;

/// Most bytes of a tensor's name.
const LONGEST_NAME: usize = 64;

/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 4;

/// What the values of the metadata may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// `UINT8`.
    U8,
    /// `INT8`.
    I8,
    /// `UINT16`.
    U16,
    /// `INT16`.
    I16,
    /// `UINT32`.
    U32,
    /// `INT32`.
    I32,
    /// `FLOAT32`.
    F32,
    /// `BOOL`.
    Bool,
    /// `STRING`.
    String,
    /// `ARRAY`.
    Array,
    /// `UINT64`.
    U64,
    /// `INT64`.
    I64,
    /// `FLOAT64`.
    F64,
}

/// A value of the metadata. Numbers of all sizes are widened exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number without a sign.
    Unsigned(u64),
    /// A number with a sign.
    Signed(i64),
    /// A number with a point.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    String(&'a str),
    /// Values of one type.
    Array(Array<'a>),
}

/// Values of one type, left in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    length: usize,
    bytes: &'a [u8],
}

/// An entry of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Its name, such as `general.architecture`.
    pub key: &'a str,
    /// In what its value is stored.
    pub kind: ValueType,
    /// Its value.
    pub value: Value<'a>,
}

/// What a file says of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo<'a> {
    /// Its name, such as `blk.0.attn_norm.weight`.
    pub name: &'a str,
    /// In what it is stored.
    pub kind: TensorType,
    /// Row-major: the outermost dimension first, which is GGUF's last.
    pub shape: ArrayVec<usize, MOST_DIMENSIONS>,
    /// Where it begins, counted from the first byte of all tensors' data.
    pub offset: u64,
    /// How long it is.
    pub bytes: usize,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The name in lower case, such as `u32` or `string`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

impl<'a> Array<'a> {
    /// The type of every value.
    pub fn element(self) -> ValueType {
        self.element
    }

    /// How many values there are.
    pub fn length(self) -> usize {
        self.length
    }

    /// The values, in order.
    pub fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader { bytes: self.bytes, at: 0 };
        (0..self.length).map(move |_| {
            reader.value(self.element, MOST_NESTED).expect("read when the file was opened")
        })
    }
}

/// Reads a header from its front. Every error says at which byte of the file.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from byte `at` on.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        assert!(at <= bytes.len(), "reader: byte {at} of {}", bytes.len());
        Self { bytes, at }
    }

    /// The byte that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| {
            format!(
                "ends at byte {}: expected {count} bytes from byte {} on",
                self.bytes.len(),
                self.at
            )
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N as u64)?.try_into().expect("so many were taken"))
    }

    pub fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let length = self.u64()?;
        let start = self.at;
        std::str::from_utf8(self.take(length)?)
            .map_err(|error| format!("is not UTF-8 at byte {}", start + error.valid_up_to()))
    }

    /// A string that is a name.
    fn name(&mut self, what: &str, longest: usize) -> Result<&'a str, String> {
        let name = self.string()?;
        match name.len() {
            length if (1..=longest).contains(&length) => Ok(name),
            length => Err(format!("its {what} has {length} bytes: expected 1 to {longest}")),
        }
    }

    fn value_type(&mut self) -> Result<ValueType, String> {
        let id = self.u32()?;
        ValueType::ALL.get(id as usize).copied().ok_or_else(|| {
            format!("has a value of type {id}: expected 0 to {}", ValueType::ALL.len() - 1)
        })
    }

    /// A value in which there may be `nested` arrays within one another.
    fn value(&mut self, kind: ValueType, nested: usize) -> Result<Value<'a>, String> {
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            ValueType::U32 => Value::Unsigned(self.u32()?.into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            ValueType::U64 => Value::Unsigned(self.u64()?),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            ValueType::Bool => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("has a bool of {other}: expected 0 or 1")),
            },
            ValueType::String => Value::String(self.string()?),
            ValueType::Array => {
                let Some(nested) = nested.checked_sub(1) else {
                    return Err(format!("has more than {MOST_NESTED} arrays within one another"));
                };
                let element = self.value_type()?;
                let length = self.u64()?;
                let start = self.at;
                // Each takes a byte at least, so that this ends with the file.
                for _ in 0..length {
                    self.value(element, nested)?;
                }
                Value::Array(Array {
                    element,
                    length: length as usize,
                    bytes: &self.bytes[start..self.at],
                })
            }
        })
    }

    pub fn key(&mut self) -> Result<&'a str, String> {
        self.name("key", LONGEST_KEY)
    }

    pub fn entry(&mut self) -> Result<Entry<'a>, String> {
        let key = self.key()?;
        let kind = self.value_type()?;
        Ok(Entry { key, kind, value: self.value(kind, MOST_NESTED)? })
    }

    pub fn tensor_info(&mut self) -> Result<TensorInfo<'a>, String> {
        let name = self.name("name", LONGEST_NAME)?;
        let dimensions = self.u32()? as usize;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(format!(
                "tensor {name} has {dimensions} dimensions: expected 1 to {MOST_DIMENSIONS}"
            ));
        }
        let mut sizes = ArrayVec::<u64, MOST_DIMENSIONS>::new();
        for _ in 0..dimensions {
            sizes.push(self.u64()?);
        }
        let id = self.u32()?;
        let kind = TensorType::from_id(id)
            .ok_or_else(|| format!("tensor {name} is of type {id}, which is unknown"))?;
        let offset = self.u64()?;
        if sizes.contains(&0) {
            return Err(format!("tensor {name} has size {sizes:?}: expected no 0"));
        }
        if !sizes[0].is_multiple_of(kind.block() as u64) {
            return Err(format!(
                "tensor {name} has rows of {}: expected a multiple of {}, a block of {kind}",
                sizes[0],
                kind.block()
            ));
        }
        let bytes = sizes
            .iter()
            .try_fold(1_u64, |product, size| product.checked_mul(*size))
            .and_then(|elements| {
                (elements / kind.block() as u64).checked_mul(kind.block_bytes() as u64)
            })
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or_else(|| {
                format!("tensor {name} has size {sizes:?}: expected less than 2^64 bytes")
            })?;
        let shape = sizes.iter().rev().map(|size| *size as usize).collect();
        Ok(TensorInfo { name, kind, shape, offset, bytes })
    }
}
