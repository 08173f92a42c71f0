//! Into which cache weights are brought before they are read: what is fastest, differs between makers of CPUs.
#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

use crate::tuning::Knob;

/// The cache to bring weights into.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Nearness {
    /// The nearest. AMD's cores bring as many lines there at once as memory answers.
    #[default]
    FirstLevel,
    /// The next. Others, measured on Intel's, bring more lines there at once.
    SecondLevel,
}

impl Nearness {
    /// What is tuned.
    #[inline(always)]
    pub fn in_force() -> Self {
        if Knob::PrefetchLevel.get() == 1 { Self::FirstLevel } else { Self::SecondLevel }
    }

    /// Asks for what lies `bytes` after the beginning of `elements`.
    #[inline(always)]
    pub fn prefetch<L>(self, elements: &[L], bytes: usize) {
        let address = elements.as_ptr().cast::<i8>().wrapping_add(bytes);
        // SAFETY: SSE is part of x86-64; a prefetch reads nothing that the program can see, wherever it points.
        unsafe {
            match self {
                Self::FirstLevel => _mm_prefetch::<_MM_HINT_T0>(address),
                Self::SecondLevel => _mm_prefetch::<_MM_HINT_T1>(address),
            }
        }
    }
}
