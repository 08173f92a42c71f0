//! How the speed of a model grows with threads, on a machine that is not at hand: its work, cut by the functions that the kernels are cut by, is
//! played in virtual time.
//!
//! [`step()`] turns a call of the model into [`Work`], [`play()`] lets threads that take tasks from each other do it, and [`Hardware`] says how fast they
//! are. The same question gives the same answer. `kernels/docs/scaling.md` has what it says, and how that compares with what was measured.

mod flow;
mod hardware;
mod play;
mod step;
mod work;

#[cfg(test)]
mod tests;

pub use hardware::{Hardware, Placement, Rates};
pub use play::{Outcome, Spent, play};
pub use step::{Call, Stage, Step, UnknownCall, step};
pub use work::{Task, Work};
