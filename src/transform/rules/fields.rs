//! The fields of a payload, in whatever format it is.
//!
//! Comes in: a payload, the paths that rules read, and how it is to be read. Goes out: a field a
//! path, found in one pass.

use super::formats::Format;
use super::formats::sparkplug::{self, Nodes};
use super::input::Input;
use super::json::{self, Field};
use super::paths::Paths;
use super::plan::Rule;
use super::value::{EvalError, Scratch, Value};

/// How a rule reads a payload: as it says, or as the publisher says; what a rule made is JSON.
pub fn format(rule: &Rule, payload: &[u8], input: &Input<'_>) -> Format {
    let is_made = !std::ptr::eq(payload, input.payload);
    let said = input.content_type.filter(|_| !is_made);
    rule.format.or_else(|| Format::of_content_type(said?)).unwrap_or(Format::Json)
}

/// One pass over a payload, for all paths of a group. Births of Sparkplug are remembered even where
/// nothing is read.
pub fn read<'a>(
    format: Format,
    paths: &Paths,
    payload: &'a [u8],
    input: &Input<'_>,
    scratch: &'a Scratch,
    nodes: &mut Nodes,
) -> Result<&'a [Field<'a>], EvalError> {
    let fields = scratch.alloc_slice_fill_copy(paths.len(), Field::Missing);
    if format == Format::SparkplugB {
        let births = nodes.note(input.topic, payload)?;
        let text = sparkplug::to_json(payload, births, scratch)?;
        json::extract_text(text, paths, scratch, fields)?;
        return Ok(fields);
    }
    if paths.is_empty() {
        return Ok(fields);
    }
    let Some(extract) = format.extract() else {
        json::extract(payload, paths, scratch, fields)?;
        return Ok(fields);
    };
    let values = scratch.alloc_slice_fill_copy(paths.len(), Value::Null);
    extract(payload, paths, scratch, values)?;
    for (field, value) in fields.iter_mut().zip(values) {
        *field = Field::Value(*value);
    }
    Ok(fields)
}
