//! GGUF files, right and wrong ones, written part by part. The tests of the harness include this file.

/// The types of tensors that are used here.
pub const F32: u32 = 0;
/// Half the bytes.
pub const BF16: u32 = 30;

/// Types of blocks of 32: number, and bytes of a block.
pub const BLOCKS: [(u32, u64); 5] = [(2, 18), (3, 20), (6, 22), (7, 24), (8, 34)];

/// The numbers of the types of values.
pub mod value_type {
    #![allow(missing_docs)]
    pub const U8: u32 = 0;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// A file to be written.
#[derive(Clone, Debug)]
pub struct GgufFile {
    /// `GGUF` in one that is right.
    pub magic: [u8; 4],
    /// 3 in one that is right.
    pub version: u32,
    /// How many entries it promises, if not those that it has.
    pub promised_entries: Option<u64>,
    /// How many tensors it promises, if not those that it has.
    pub promised_tensors: Option<u64>,
    /// Keys, and [values](value) with their types.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it says of tensors, and their data.
    pub tensors: Vec<GgufTensor>,
    /// To what tensors are aligned.
    pub alignment: usize,
}

/// A tensor of a [`GgufFile`].
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Its size, the innermost dimension first.
    pub sizes: Vec<u64>,
    /// The number of its type.
    pub kind: u32,
    /// Where it says that it lies, if not where it does.
    pub offset: Option<u64>,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A value with its type.
pub fn value(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), bytes].concat()
}

/// A number.
pub fn u32_value(number: u32) -> Vec<u8> {
    value(value_type::U32, &number.to_le_bytes())
}

/// A number with a point.
pub fn f32_value(number: f32) -> Vec<u8> {
    value(value_type::F32, &number.to_le_bytes())
}

/// Bytes after their number.
pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A text.
pub fn string_value(text: &str) -> Vec<u8> {
    value(value_type::STRING, &string(text.as_bytes()))
}

/// An array that says it has `length` elements.
pub fn array_value(element: u32, length: u64, elements: &[u8]) -> Vec<u8> {
    value(
        value_type::ARRAY,
        &[&element.to_le_bytes(), &length.to_le_bytes()[..], elements].concat(),
    )
}

/// An array of numbers with signs.
pub fn i32_array(numbers: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    array_value(value_type::I32, numbers.len() as u64, &bytes)
}

impl GgufFile {
    /// A file without entries and tensors.
    pub fn empty() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            promised_entries: None,
            promised_tensors: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }

    /// The smallest model that has a layer of each kind.
    pub fn model() -> Self {
        Self::model_of(16, 24, BF16)
    }

    /// A model of a layer of each kind: vocabulary 4, 2 heads of 16 with 1 for keys and values, matrices of that type.
    pub fn model_of(hidden_size: u32, feed_forward_width: u32, kind: u32) -> Self {
        let (width, inner) = (u64::from(hidden_size), u64::from(feed_forward_width));
        let mut file = Self::empty();
        for (key, value) in [
            ("general.architecture", string_value("lfm2")),
            ("lfm2.block_count", u32_value(2)),
            ("lfm2.context_length", u32_value(128)),
            ("lfm2.embedding_length", u32_value(hidden_size)),
            ("lfm2.feed_forward_length", u32_value(feed_forward_width)),
            ("lfm2.attention.head_count", u32_value(2)),
            ("lfm2.attention.head_count_kv", i32_array(&[0, 1])),
            ("lfm2.attention.key_length", u32_value(16)),
            ("lfm2.attention.layer_norm_rms_epsilon", f32_value(1e-5)),
            ("lfm2.rope.freq_base", f32_value(1e6)),
            ("lfm2.shortconv.l_cache", u32_value(3)),
            ("lfm2.vocab_size", u32_value(4)),
            (
                "tokenizer.ggml.tokens",
                array_value(value_type::STRING, 2, &[string(b"a"), string(b"bc")].concat()),
            ),
        ] {
            file.set(key, value);
        }
        for (name, sizes) in [
            ("token_embd.weight", &[width, 4][..]),
            ("token_embd_norm.weight", &[width]),
            ("blk.0.attn_norm.weight", &[width]),
            ("blk.0.ffn_norm.weight", &[width]),
            ("blk.0.ffn_gate.weight", &[width, inner]),
            ("blk.0.ffn_up.weight", &[width, inner]),
            ("blk.0.ffn_down.weight", &[inner, width]),
            ("blk.0.shortconv.in_proj.weight", &[width, 3 * width]),
            ("blk.0.shortconv.conv.weight", &[3, width]),
            ("blk.0.shortconv.out_proj.weight", &[width, width]),
            ("blk.1.attn_norm.weight", &[width]),
            ("blk.1.ffn_norm.weight", &[width]),
            ("blk.1.ffn_gate.weight", &[width, inner]),
            ("blk.1.ffn_up.weight", &[width, inner]),
            ("blk.1.ffn_down.weight", &[inner, width]),
            ("blk.1.attn_q.weight", &[width, 32]),
            ("blk.1.attn_k.weight", &[width, 16]),
            ("blk.1.attn_v.weight", &[width, 16]),
            ("blk.1.attn_output.weight", &[32, width]),
            ("blk.1.attn_q_norm.weight", &[16]),
            ("blk.1.attn_k_norm.weight", &[16]),
        ] {
            let is_matrix = sizes.len() > 1 && !name.contains("shortconv.conv");
            file.add(name, sizes, if is_matrix { kind } else { F32 });
        }
        file
    }

    /// Sets the value of a key, or adds it.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.entries.iter_mut().find(|(known, _)| known == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.into(), value)),
        }
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) {
        self.entries.retain(|(known, _)| known != key.as_bytes());
    }

    /// Adds a tensor of numbers between 0.5 and 2 or their negatives, which depend on its name; of blocks of any.
    pub fn add(&mut self, name: &str, sizes: &[u64], kind: u32) {
        let mut random =
            name.bytes().fold(1_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte));
        let mut data = Vec::new();
        let elements: u64 = sizes.iter().product();
        // Two bytes at a time; a single has two more.
        let pairs = match BLOCKS.iter().find(|(block, _)| *block == kind) {
            Some((_, bytes)) => elements / 32 * bytes / 2,
            None => elements,
        };
        for _ in 0..pairs {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (sign, fraction) = ((random >> 45) as u16 & 0x8000, (random >> 33) as u16 & 0xFF);
            let number: u16 = sign | (0x3F00 + fraction);
            if kind == F32 {
                data.extend([0, 0]);
            }
            data.extend(number.to_le_bytes());
        }
        self.tensors.push(GgufTensor {
            name: name.into(),
            sizes: sizes.into(),
            kind,
            offset: None,
            data,
        });
    }

    /// The tensor of that name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn tensor(&mut self, name: &str) -> &mut GgufTensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// All but the data of tensors.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = [&self.magic[..], &self.version.to_le_bytes()].concat();
        let tensors = self.promised_tensors.unwrap_or(self.tensors.len() as u64);
        let entries = self.promised_entries.unwrap_or(self.entries.len() as u64);
        bytes.extend([tensors.to_le_bytes(), entries.to_le_bytes()].concat());
        for (key, value) in &self.entries {
            bytes.extend(string(key));
            bytes.extend(value);
        }
        let mut end = 0;
        for GgufTensor { name, sizes, kind, offset, data } in &self.tensors {
            bytes.extend(string(name.as_bytes()));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.unwrap_or(end as u64).to_le_bytes());
            end = (end + data.len()).next_multiple_of(self.alignment);
        }
        bytes
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&tensor.data);
        }
        bytes
    }
}
