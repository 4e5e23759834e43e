//! Payload formats other than JSON: the fields that a plan wants, found in the payload.
//!
//! Each format has a function of the type [`Extract`], which goes through the payload once, never
//! panics whatever the bytes, and allocates nothing but in the arena.

use super::paths::Paths;
use super::value::{EvalError, Scratch, Value};

/// Finds the values of all `paths` in `payload`; `out` has one place a path, filled with NULL
/// before. A path that is not there stays NULL; of a key that is there twice the last one counts.
/// The path that is empty is the whole payload.
pub type Extract =
    for<'a> fn(&'a [u8], &Paths, &'a Scratch, &mut [Value<'a>]) -> Result<(), EvalError>;
