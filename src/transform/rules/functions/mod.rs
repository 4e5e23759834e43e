//! The functions of rules over values: one static table, one file a family.
//!
//! Pure: the same arguments give the same result, so that a call on constants is folded when the
//! rule is planned. What asks the message or the clock (`topic()`, `clientid()`, `received_at()`)
//! is not here; the planner makes nodes of its own of it. What is random (`rand()`, `newuuid()` in
//! AWS IoT SQL) is deliberately absent: a record that is run again comes out the same.

mod bit;
mod cast;
mod conditional;
mod encoding;
mod given;
mod hash;
mod json;
mod json_array;
mod json_path;
pub mod json_text;
mod math;
mod regexp;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod time_format;

pub use cast::{cast, number_in, text_of, write_float};
pub use conditional::compare;
pub use given::{Number, RESULT_BYTES_MAX};

use super::value::{EvalError, Scratch, Value};

/// One call: arguments in, a value out, which may lie in the arena.
pub type Call = for<'a> fn(&[Value<'a>], &'a Scratch) -> Result<Value<'a>, EvalError>;

/// A call of what was prepared from constant arguments.
pub type CallPrepared =
    for<'a> fn(&'a Prepared, &[Value<'a>], &'a Scratch) -> Result<Value<'a>, EvalError>;

/// Prepares constant arguments when the rule is planned; `None` stands for an argument that is not
/// constant. The error is shown with the file, line and column of the call.
pub type Prepare = fn(&[Option<Value<'_>>]) -> Result<Prepared, String>;

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// What was made of constant arguments.
#[derive(Debug, Clone)]
pub enum Prepared {
    None,
    /// A constant argument is NULL, and so is the result.
    Null,
    Regex(Box<regexp::Pattern>),
    Time(Box<time::Plan>),
    Path(json_path::Path),
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
    /// Other names for it, as other rule languages have them.
    pub aliases: &'static [&'static str],
    /// For help and docs, such as `text, from[, count]`.
    pub parameters: &'static str,
    /// The type of what it gives, for help and docs.
    pub result: &'static str,
    /// What it gives, in a few words.
    pub meaning: &'static str,
    pub least: u8,
    /// `u8::MAX`: any number.
    pub most: u8,
    pub nulls: Nulls,
    pub body: Body,
}

/// The functions of one family, for docs.
#[derive(Debug)]
pub struct Family {
    pub title: &'static str,
    pub functions: &'static [Function],
}

/// The table.
pub const FAMILIES: [Family; 10] = [
    Family { title: "Text", functions: text::FAMILY },
    Family { title: "Regular expressions", functions: regexp::FAMILY },
    Family { title: "Mathematics", functions: math::FAMILY },
    Family { title: "Bits", functions: bit::FAMILY },
    Family { title: "Time", functions: time::FAMILY },
    Family { title: "Hashes", functions: hash::FAMILY },
    Family { title: "Encoding", functions: encoding::FAMILY },
    Family { title: "JSON", functions: json::FAMILY },
    Family { title: "JSON arrays", functions: json_array::FAMILY },
    Family { title: "Conditions and types", functions: conditional::FAMILY },
];

/// The function of that name or alias, whatever its case.
pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.names().any(|own| own.eq_ignore_ascii_case(name)))
}

/// Every function, family by family.
pub fn all() -> impl Iterator<Item = &'static Function> {
    FAMILIES.iter().flat_map(|family| family.functions.iter())
}

impl Function {
    /// Its name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Calls it by the NULL rule. `prepared` is what its `prepare` made, or `Prepared::None`.
    #[inline]
    pub fn call<'a>(
        &self,
        prepared: &'a Prepared,
        arguments: &[Value<'a>],
        scratch: &'a Scratch,
    ) -> Result<Value<'a>, EvalError> {
        if self.nulls == Nulls::Propagate && arguments.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        match self.body {
            Body::Plain(call) => call(arguments, scratch),
            Body::Prepared { call, .. } => call(prepared, arguments, scratch),
        }
    }
}

const fn strict(call: Call) -> (Nulls, Body) {
    (Nulls::Propagate, Body::Plain(call))
}

const fn seen(call: Call) -> (Nulls, Body) {
    (Nulls::Seen, Body::Plain(call))
}

const fn prepared(prepare: Prepare, call: CallPrepared) -> (Nulls, Body) {
    (Nulls::Propagate, Body::Prepared { prepare, call })
}

/// A family's table: `"name" | "alias" (least, most) "parameters" -> "result" = how, "meaning";`.
macro_rules! family {
    ($($name:literal $(| $alias:literal)* ($least:literal, $most:expr)
        $parameters:literal -> $result:literal = $how:expr, $meaning:literal;)*) => {
        pub const FAMILY: &[Function] = &[$(Function {
            name: $name,
            aliases: &[$($alias),*],
            parameters: $parameters,
            result: $result,
            meaning: $meaning,
            least: $least,
            most: $most,
            nulls: $how.0,
            body: $how.1,
        }),*];
    };
}
use family;
