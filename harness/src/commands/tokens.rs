//! Token ids on the command line.

use std::fs;
use std::str::FromStr;

use lfm2_kernels::model::Error;

use super::Failure;

/// At least one token id: `1,2,3`, or `@FILE` for a file that holds them.
#[derive(Clone, Debug)]
pub struct Tokens(Vec<u32>);

impl FromStr for Tokens {
    type Err = Failure;

    fn from_str(argument: &str) -> Result<Self, Failure> {
        let Some(path) = argument.strip_prefix('@') else {
            return parse(argument).map_err(Into::into);
        };
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        parse(&text).map_err(|reason| format!("{path}: {reason}").into())
    }
}

fn parse(text: &str) -> Result<Tokens, String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let tokens = words
        .enumerate()
        .map(|(position, word)| {
            word.parse().map_err(|_| {
                format!("token {position} is {word:?}: expected a whole number up to {}", u32::MAX)
            })
        })
        .collect::<Result<Vec<u32>, _>>()?;
    if tokens.is_empty() {
        return Err("no tokens: expected at least one, such as 1,2,3".into());
    }
    Ok(Tokens(tokens))
}

impl Tokens {
    /// The ids, if a vocabulary of that size has all of them: so that a long run does not end at a wrong token.
    pub fn within(&self, vocabulary: usize) -> Result<&[u32], Error> {
        match self.0.iter().position(|&token| token as usize >= vocabulary) {
            Some(position) => Err(Error::Token { token: self.0[position], position, vocabulary }),
            None => Ok(&self.0),
        }
    }
}
