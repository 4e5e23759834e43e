//! Functions of the bits of integers, such as the words of a Modbus register.
//!
//! Comes in: integers; of other numbers what stands before the point. Goes out: integers of 64 bits
//! in two's complement.

use super::super::value::{Scratch, Value};
use super::given::Given;
use super::{Function, Outcome, family, strict};

family! {
    "bitand" (2, 2) "int, int" -> "integer" = strict(bitand), "the bits that both have";
    "bitor" (2, 2) "int, int" -> "integer" = strict(bitor), "the bits that one of them has";
    "bitxor" (2, 2) "int, int" -> "integer" = strict(bitxor), "the bits in which they differ";
    "bitnot" (1, 1) "int" -> "integer" = strict(bitnot), "every bit the other way";
    "bitshiftleft" (2, 2) "int, count" -> "integer" = strict(bitshiftleft),
        "moved up by `count` (0 to 63); what leaves at the top is lost";
    "bitshiftright" (2, 2) "int, count" -> "integer" = strict(bitshiftright),
        "moved down by `count` (0 to 63); the sign stays";
    "getbit" (2, 2) "int, index" -> "integer" = strict(getbit),
        "the bit at `index`, 0 (lowest) to 63: 1 or 0";
    "bit_count" (1, 1) "int" -> "integer" = strict(bit_count), "how many bits are 1";
}

fn bitand<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("bitand", values, scratch);
    Ok(Value::Int(given.int(0)? & given.int(1)?))
}

fn bitor<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("bitor", values, scratch);
    Ok(Value::Int(given.int(0)? | given.int(1)?))
}

fn bitxor<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("bitxor", values, scratch);
    Ok(Value::Int(given.int(0)? ^ given.int(1)?))
}

fn bitnot<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Int(!Given::new("bitnot", values, scratch).int(0)?))
}

/// Positions of bits; others are a mistake in the rule, not a bit that is 0.
fn place(given: Given<'_, '_>) -> Result<u32, super::EvalError> {
    let place = u32::try_from(given.int(1)?).ok().filter(|place| *place < 64);
    place.ok_or(given.argument("a bit is counted from 0 to 63"))
}

fn bitshiftleft<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("bitshiftleft", values, scratch);
    Ok(Value::Int(given.int(0)? << place(given)?))
}

fn bitshiftright<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("bitshiftright", values, scratch);
    Ok(Value::Int(given.int(0)? >> place(given)?))
}

fn getbit<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("getbit", values, scratch);
    Ok(Value::Int(given.int(0)? >> place(given)? & 1))
}

fn bit_count<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let ones = Given::new("bit_count", values, scratch).int(0)?.count_ones();
    Ok(Value::Int(ones.into()))
}
