//! The functions of rules over values: one static table, one file a family.
//!
//! Pure: the same arguments give the same result, so that a call on constants is folded when the
//! rule is planned. What asks the message or the clock (`topic()`, `clientid()`, `received_at()`)
//! is not here; the planner makes nodes of its own of it.

use super::value::{EvalError, Kind, Scratch, Value};

/// One call: arguments in, a value out, which may lie in the arena.
pub type Call = for<'a> fn(&[Value<'a>], &'a Scratch) -> Result<Value<'a>, EvalError>;

/// A call of what was prepared from constant arguments.
pub type CallPrepared =
    for<'a> fn(&'a Prepared, &[Value<'a>], &'a Scratch) -> Result<Value<'a>, EvalError>;

/// Prepares constant arguments when the rule is planned; `None` stands for an argument that is not
/// constant. The error is shown with the file, line and column of the call.
pub type Prepare = fn(&[Option<Value<'_>>]) -> Result<Prepared, String>;

/// What was made of constant arguments.
#[derive(Debug, Clone)]
pub enum Prepared {
    None,
}

/// How a function is called.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    Plain(Call),
    Prepared { prepare: Prepare, call: CallPrepared },
}

/// What becomes of NULL arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// The caller gives NULL without calling.
    Propagate,
    /// The function sees them.
    Seen,
}

/// A function of the table.
#[derive(Debug)]
pub struct Function {
    /// In lower case.
    pub name: &'static str,
    /// For help and docs, such as `text, from[, count]`.
    pub parameters: &'static str,
    /// What it gives, in a few words.
    pub meaning: &'static str,
    pub least: u8,
    /// `u8::MAX`: any number.
    pub most: u8,
    pub nulls: Nulls,
    pub body: Body,
}

/// The tables, one a family.
const FAMILIES: [&[Function]; 0] = [];

/// The function of that name, whatever its case.
pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// Every function, family by family.
pub fn all() -> impl Iterator<Item = &'static Function> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// CAST: `value` as `to`. NULL stays NULL.
pub fn cast<'a>(value: Value<'a>, to: Kind, _: &'a Scratch) -> Result<Value<'a>, EvalError> {
    let from = value.kind();
    if from == to || value.is_null() {
        return Ok(value);
    }
    Err(EvalError::Cast { from, to, why: "there is no way between them" })
}
