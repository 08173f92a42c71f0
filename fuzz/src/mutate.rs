//! Mutations of JSON, valid or not. Flipped bytes hardly get past a parser; edited tokens do, and find what a number or a repetition breaks.

use std::ops::Range;

/// Numbers around which something may overflow, be cut or be reserved.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "16",
    "17",
    "128",
    "256",
    "65535",
    "65536",
    "65537",
    "16777216",
    "16777217",
    "1073741824",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "2305843009213693952",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551608",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-0",
    "-9223372036854775808",
    "0.5",
    "1e-5",
    "1e6",
    "1e308",
    "1e400",
    "-1e400",
    "1e-400",
    "1.5e1",
    "340282350000000000000000000000000000000000000",
    "00",
    "0x10",
    "NaN",
    "1e",
];

/// Values of other kinds than the one expected, and none.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "\"\"",
    "[0]",
    "[[0]]",
    "{\"a\":0}",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"..\"",
    "\"/\"",
    "\"\u{7f}\"",
    "",
];

/// Edits `data[..size]` in place; the new size.
pub struct Mutator<'a> {
    random: u64,
    /// Strings that the format gives a meaning.
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    /// A mutator whose choices depend on the seed alone.
    pub fn new(seed: u32, words: &'a [&'a str]) -> Self {
        Self { random: u64::from(seed) << 1 | 1, words }
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) % end.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A good file, or the one that was kept, after an [edit](Self::json): most of what is kept is wrong in some way, so that a good one gets
    /// further.
    pub fn edited(&mut self, good: &[Vec<u8>], kept: &[u8], most: usize) -> Vec<u8> {
        let mut text = match self.below(2) {
            0 => good[self.below(good.len())].clone(),
            _ => kept.to_vec(),
        };
        self.json(&mut text, most);
        text
    }

    /// Makes one to four edits, most often one. The text may get up to `most` bytes long, but seldom much longer than it is: long texts are slow.
    pub fn json(&mut self, text: &mut Vec<u8>, most: usize) {
        let longer = if self.below(32) == 0 { most } else { text.len() + 512 };
        let most = longer.min(most);
        let edits = self.one_of(&[1, 1, 1, 1, 2, 2, 3, 4]);
        for _ in 0..edits {
            self.edit(text, most);
        }
    }

    fn edit(&mut self, text: &mut Vec<u8>, most: usize) {
        let tokens = tokens(text);
        if tokens.is_empty() {
            *text = self.one_of(VALUES).into();
            return;
        }
        let starts = |wanted: fn(u8) -> bool| -> Vec<usize> {
            (0..tokens.len()).filter(|&i| wanted(text[tokens[i].start])).collect()
        };
        let any = self.below(tokens.len());
        match self.below(15) {
            0..5 => {
                let numbers = starts(|byte| byte == b'-' || byte.is_ascii_digit());
                if !numbers.is_empty() {
                    let token = tokens[self.one_of(&numbers)].clone();
                    let number = self.number(&text[token.clone()]);
                    text.splice(token, number);
                }
            }
            5 | 6 => {
                let strings = starts(|byte| byte == b'"');
                if !strings.is_empty() {
                    let token = tokens[self.one_of(&strings)].clone();
                    let string = match self.below(4) {
                        0 => text[tokens[self.one_of(&strings)].clone()].to_vec(),
                        1 => {
                            let mut string = text[token.clone()].to_vec();
                            let at = 1 + self.below(string.len().saturating_sub(1));
                            let byte = self.below(256) as u8;
                            string.insert(at.min(string.len()), byte);
                            string
                        }
                        _ => self.word(),
                    };
                    text.splice(token, string);
                }
            }
            // A whole value becomes another one, or one of this text.
            7 => {
                let value = value(text, &tokens, any);
                let new: Vec<u8> = match self.below(3) {
                    0 => {
                        let other = self.below(tokens.len());
                        text[self::value(text, &tokens, other)].to_vec()
                    }
                    1 => self.one_of(NUMBERS).into(),
                    _ => self.one_of(VALUES).into(),
                };
                text.splice(value, new);
            }
            // A member or an element again, once or as often as fits.
            8 | 9 => {
                let mut entry = entry(text, &tokens, any);
                let mut copy = text[entry.clone()].to_vec();
                if copy.last() != Some(&b',') {
                    copy.insert(0, b',');
                    entry.start = entry.end;
                }
                let fits = most.saturating_sub(text.len()) / copy.len();
                let times = match self.below(4) {
                    0 => fits,
                    1 => self.below(fits + 1),
                    _ => 1,
                };
                let at = entry.start;
                text.splice(at..at, copy.repeat(times.min(fits)));
            }
            10 => {
                text.drain(entry(text, &tokens, any));
            }
            // A new member where one begins.
            11 => {
                let strings = starts(|byte| byte == b'"');
                if !strings.is_empty() {
                    let at = tokens[self.one_of(&strings)].start;
                    let mut member = self.word();
                    member.push(b':');
                    let value = match self.below(2) {
                        0 => self.one_of(NUMBERS).as_bytes().to_vec(),
                        _ => text[self::value(text, &tokens, any)].to_vec(),
                    };
                    member.extend(value);
                    member.push(b',');
                    text.splice(at..at, member);
                }
            }
            // Deep: brackets around a value, or opened and never closed.
            12 => {
                let value = value(text, &tokens, any);
                let depth = 1
                    << self
                        .below(17)
                        .min(most.saturating_sub(text.len()).checked_ilog2().unwrap_or(0) as usize);
                let (open, close) = self.one_of(&[(&b"["[..], &b"]"[..]), (b"{\"a\":", b"}")]);
                let inner = text[value.clone()].to_vec();
                let mut deep = open.repeat(depth);
                deep.extend(inner);
                if self.below(4) > 0 {
                    deep.extend(close.repeat(depth));
                }
                text.splice(value, deep);
            }
            // The end is cut off, or a part between two tokens.
            13 => {
                let other = tokens[self.below(tokens.len())].clone();
                let (from, to) =
                    (tokens[any].start.min(other.start), tokens[any].end.max(other.end));
                match self.below(4) {
                    0 => text.truncate(from),
                    _ => drop(text.drain(from..to)),
                }
            }
            // Two values change places.
            _ => {
                let (one, other) = (any.min(self.below(tokens.len())), any);
                let (one, other) = (value(text, &tokens, one), value(text, &tokens, other));
                if one.end <= other.start {
                    let (first, second) =
                        (text[one.clone()].to_vec(), text[other.clone()].to_vec());
                    text.splice(other, first);
                    text.splice(one, second);
                }
            }
        }
        text.truncate(most);
    }

    fn number(&mut self, old: &[u8]) -> Vec<u8> {
        let old = std::str::from_utf8(old).ok().and_then(|old| old.parse::<u64>().ok());
        match (self.below(8), old) {
            (0, Some(old)) => old.wrapping_add(1).to_string().into(),
            (1, Some(old)) => old.wrapping_sub(1).to_string().into(),
            (2, Some(old)) => old.wrapping_mul(2).to_string().into(),
            (3, _) => {
                (1_u64 << self.below(64)).wrapping_sub(self.below(2) as u64).to_string().into()
            }
            _ => self.one_of(NUMBERS).into(),
        }
    }

    fn word(&mut self) -> Vec<u8> {
        format!("\"{}\"", self.one_of(self.words)).into()
    }

    /// Replaces a value of `text` by one of `other`.
    pub fn cross(&mut self, text: &[u8], other: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        let (tokens, others) = (tokens(&text), tokens(other));
        if !tokens.is_empty() && !others.is_empty() {
            let (at, from) = (self.below(tokens.len()), self.below(others.len()));
            text.splice(value(&text, &tokens, at), other[value(other, &others, from)].to_vec());
        }
        text
    }
}

/// The tokens of a text that need not be JSON.
fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let length = match text[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'"' => {
                let mut end = at + 1;
                while end < text.len() && text[end] != b'"' {
                    end += if text[end] == b'\\' { 2 } else { 1 };
                }
                (end + 1).min(text.len()) - at
            }
            b'{' | b'}' | b'[' | b']' | b':' | b',' => 1,
            _ => {
                let ends = |byte: &u8| b"{}[]:,\" \n\r\t".contains(byte);
                text[at..].iter().position(ends).unwrap_or(text.len() - at).max(1)
            }
        };
        tokens.push(at..at + length);
        at += length;
    }
    tokens
}

/// The value that begins with token `first`: up to the bracket that closes it.
fn value(text: &[u8], tokens: &[Range<usize>], first: usize) -> Range<usize> {
    let start = tokens[first].start;
    let mut depth = 0_usize;
    for token in &tokens[first..] {
        match text[token.start] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return start..token.end;
        }
    }
    start..text.len()
}

/// The value, with its key where it has one, and with the comma after it.
fn entry(text: &[u8], tokens: &[Range<usize>], first: usize) -> Range<usize> {
    let after = |end: usize| tokens.partition_point(|token| token.start < end);
    let is =
        |index: usize, byte: u8| tokens.get(index).is_some_and(|token| text[token.start] == byte);
    let mut range = value(text, tokens, first);
    let next = after(range.end);
    if is(next, b':') && next + 1 < tokens.len() {
        range.end = value(text, tokens, next + 1).end;
    }
    let next = after(range.end);
    if is(next, b',') {
        range.end = tokens[next].end;
    }
    range
}

/// Puts the result of a mutation where libFuzzer wants it.
pub fn store(data: &mut [u8], new: &[u8], most: usize) -> usize {
    let size = new.len().min(most).min(data.len());
    data[..size].copy_from_slice(&new[..size]);
    size
}
