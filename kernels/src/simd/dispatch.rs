//! From the value of an [`Isa`](super::Isa) to code for it: a kernel is compiled once for each instruction set, and the value chooses.

/// Evaluates `$body` with `$simd` bound to `$wrap` of the token inside `$isa`.
macro_rules! dispatch_wrapped {
    (
        ($isa:expr, $wrap:path, $simd:ident => $body:expr)
        $(
            #[doc = $about:literal]
            #[cfg($condition:meta)]
            $variant:ident = $name:literal $(or $without_dots:literal)?
            $(, dots $dots:ident)? $(, brain_dots $brain_dots:ident)?;
        )*
    ) => {
        match $crate::simd::Isa::tuned($isa) {
            $(
                #[cfg($condition)]
                $crate::simd::Isa::$variant(token) => {
                    let $simd = $wrap(token);
                    $crate::simd::Simd::vectorize($simd, $crate::simd::slices::inlined!(|| $body))
                }
            )*
        }
    };
}
pub(crate) use dispatch_wrapped;

/// Evaluates `$body` with `$dots` bound to `$wrap` of the best [`Dots`](super::Dots) of `$isa`.
macro_rules! dispatch_dots_wrapped {
    (
        ($isa:expr, $wrap:path, $dots:ident => $body:expr)
        $(
            #[doc = $about:literal]
            #[cfg($condition:meta)]
            $variant:ident = $name:literal $(or $without_dots:literal)?
            $(, dots $instructions:ident)? $(, brain_dots $brain_dots:ident)?;
        )*
    ) => {
        match $crate::simd::Isa::tuned($isa) {
            $(
                $(
                    #[cfg($condition)]
                    $crate::simd::Isa::$variant(token) if let Some(instructions) = token.$instructions() => {
                        let $dots = $wrap(instructions);
                        $crate::simd::Dots::vectorize($dots, $crate::simd::slices::inlined!(|| $body))
                    }
                )?
                #[cfg($condition)]
                $crate::simd::Isa::$variant(token) => {
                    let $dots = $wrap(token);
                    $crate::simd::Dots::vectorize($dots, $crate::simd::slices::inlined!(|| $body))
                }
            )*
        }
    };
}
pub(crate) use dispatch_dots_wrapped;

/// Evaluates `$body` with `$dots` bound to `$wrap` of the [`BrainDots`](super::BrainDots) of `$isa`, which
/// [has](super::Isa::has_brain_dots) some.
macro_rules! dispatch_brain_dots_wrapped {
    (
        ($isa:expr, $wrap:path, $dots:ident => $body:expr)
        $(
            #[doc = $about:literal]
            #[cfg($condition:meta)]
            $variant:ident = $name:literal $(or $without_dots:literal)?
            $(, dots $instructions:ident)? $(, brain_dots $brain_dots:ident)?;
        )*
    ) => {
        match $crate::simd::Isa::tuned($isa) {
            $($(
                #[cfg($condition)]
                $crate::simd::Isa::$variant(token) if let Some(instructions) = token.$brain_dots() => {
                    let $dots = $wrap(instructions);
                    $crate::simd::BrainDots::vectorize($dots, $crate::simd::slices::inlined!(|| $body))
                }
            )?)*
            isa => unreachable!("{isa} has no products of brain floats"),
        }
    };
}
pub(crate) use dispatch_brain_dots_wrapped;

/// Evaluates `$body` with `$token` bound as `$dispatch!` says. With the feature `faults`, on the instruction set whose lanes are wrong on
/// purpose, it is bound to those.
#[cfg(not(feature = "faults"))]
macro_rules! dispatch_as {
    ($dispatch:ident!($isa:expr, $token:ident => $body:expr)) => {
        $crate::simd::each_isa!($dispatch!($isa, std::convert::identity, $token => $body))
    };
}
#[cfg(feature = "faults")]
macro_rules! dispatch_as {
    ($dispatch:ident!($isa:expr, $token:ident => $body:expr)) => {
        if $crate::faults::has_wrong_lanes($isa) {
            $crate::simd::each_isa!($dispatch!($isa, $crate::faults::Faulty, $token => $body))
        } else {
            $crate::simd::each_isa!($dispatch!($isa, std::convert::identity, $token => $body))
        }
    };
}
pub(crate) use dispatch_as;

/// Evaluates `$body` with `$simd` bound to the token inside `$isa`.
macro_rules! dispatch {
    ($isa:expr, $simd:ident => $body:expr) => {
        $crate::simd::dispatch_as!(dispatch_wrapped!($isa, $simd => $body))
    };
}
pub(crate) use dispatch;

/// Evaluates `$body` with `$dots` bound to the best [`Dots`](super::Dots) of `$isa`.
macro_rules! dispatch_dots {
    ($isa:expr, $dots:ident => $body:expr) => {
        $crate::simd::dispatch_as!(dispatch_dots_wrapped!($isa, $dots => $body))
    };
}
pub(crate) use dispatch_dots;

/// Evaluates `$body` with `$dots` bound to the [`BrainDots`](super::BrainDots) of `$isa`, which [has](super::Isa::has_brain_dots) some.
macro_rules! dispatch_brain_dots {
    ($isa:expr, $dots:ident => $body:expr) => {
        $crate::simd::dispatch_as!(dispatch_brain_dots_wrapped!($isa, $dots => $body))
    };
}
pub(crate) use dispatch_brain_dots;
