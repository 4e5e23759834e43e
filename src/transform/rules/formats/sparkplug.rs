//! Sparkplug B (Eclipse Sparkplug 3.0, section 6.4): metrics as Protocol Buffers, named by alias.
//!
//! Comes in: a payload, and what the births of its edge node said. Goes out: JSON text in the arena,
//! whose fields are then found like those of any JSON payload:
//! `{"timestamp":…,"seq":…,"metrics":[{"name":…,"timestamp":…,"datatype":"Double","value":…}, …]}`.
//! A birth gives each metric its name, type and alias; later messages may have the alias alone, and
//! get name and type back here. Data sets are objects of columns and rows, bytes are base64;
//! templates have their metrics. Properties and metadata are left out. What no birth explains stays
//! with its alias and without a name.

use std::collections::HashMap;

use super::super::functions::json_text;
use super::super::json;
use super::super::paths::Paths;
use super::super::value::{EvalError, Scratch, Value};
use super::walk::{self, Bytes};

type Text<'a> = bumpalo::collections::String<'a>;

const FORMAT: &str = "Sparkplug B";

/// Metrics of one edge node that are remembered. A node with more gets no names for the rest.
pub const METRICS_MAX: usize = 10_000;

/// Metrics of all nodes of a shard that are remembered.
const METRICS_OF_ALL_MAX: usize = 100_000;

/// Edge nodes of a shard that are remembered.
const NODES_MAX: usize = 10_000;

/// Bytes of group and node together; longer ones have no names.
const KEY_BYTES_MAX: usize = 256;

/// Bytes of one name that are remembered.
const NAME_BYTES_MAX: usize = 1024;

/// Templates in one another that are followed.
const DEPTH_MAX: u32 = 16;

/// The data types by their numbers.
const TYPES: [&str; 22] = [
    "Unknown",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float",
    "Double",
    "Boolean",
    "String",
    "DateTime",
    "Text",
    "UUID",
    "DataSet",
    "Bytes",
    "File",
    "Template",
    "PropertySet",
    "PropertySetList",
];

/// What the births of one edge node said of its metrics, and of its devices'. Aliases are unique
/// within an edge node.
#[derive(Debug, Default)]
pub struct Births {
    by_alias: HashMap<u64, Metric>,
    types: HashMap<Box<str>, u64>,
}

#[derive(Debug)]
struct Metric {
    name: Box<str>,
    datatype: u64,
}

/// The births of all edge nodes whose messages a shard has seen, by group and node.
#[derive(Debug, Default)]
pub struct Nodes {
    births: HashMap<Box<str>, Births>,
    none: Births,
}

/// Whether a topic (`spBv1.0/group/NBIRTH/node[/device]`) is a birth: of a node, which begins its
/// metrics anew, or of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    Node,
    Device,
}

impl Birth {
    pub fn of_topic(topic: &str) -> Option<Self> {
        let mut levels = topic.split('/');
        let sparkplug = levels.next() == Some("spBv1.0") && levels.next().is_some();
        match levels.next().filter(|_| sparkplug)? {
            "NBIRTH" => Some(Self::Node),
            "DBIRTH" => Some(Self::Device),
            _ => None,
        }
    }
}

/// Group and node of a topic, as one text with the kind of message between them left out.
fn node_of(topic: &str) -> Option<(&str, &str)> {
    let (group, rest) = topic.strip_prefix("spBv1.0/")?.split_once('/')?;
    let (_, rest) = rest.split_once('/')?;
    Some((group, rest.split('/').next().unwrap_or(rest)))
}

impl Nodes {
    /// What is known of the node of a topic, after what this message says of it.
    pub fn note(&mut self, topic: &str, payload: &[u8]) -> Result<&Births, EvalError> {
        let Some((group, node)) = node_of(topic) else { return Ok(&self.none) };
        // A slash stands in neither, so the key is one node's alone.
        let mut key = [0; KEY_BYTES_MAX];
        let length = group.len() + 1 + node.len();
        let Some(room) = key.get_mut(..length) else { return Ok(&self.none) };
        room[..group.len()].copy_from_slice(group.as_bytes());
        room[group.len()] = b'/';
        room[group.len() + 1..].copy_from_slice(node.as_bytes());
        let key = std::str::from_utf8(room).unwrap_or_default();
        if let Some(birth) = Birth::of_topic(topic) {
            let known = self.births.contains_key(key);
            let all: usize = self.births.values().map(Births::len).sum();
            if !known && self.births.len() < NODES_MAX && all < METRICS_OF_ALL_MAX {
                self.births.insert(key.into(), Births::default());
            }
            if let Some(births) = self.births.get_mut(key) {
                births.note(birth, payload)?;
            }
        }
        Ok(self.births.get(key).unwrap_or(&self.none))
    }
}

impl Births {
    /// Remembers the metrics of a birth.
    pub fn note(&mut self, birth: Birth, payload: &[u8]) -> Result<(), EvalError> {
        if birth == Birth::Node {
            self.by_alias.clear();
            self.types.clear();
        }
        let mut fields = Fields::new(payload);
        while let Some((number, field)) = fields.next()? {
            if let (2, Field::Bytes(metric)) = (number, field) {
                self.note_metric(Raw::read(metric)?);
            }
        }
        Ok(())
    }

    fn note_metric(&mut self, metric: Raw<'_>) {
        let (Some(name), Some(datatype)) = (metric.name, metric.datatype) else { return };
        let full = self.types.len() >= METRICS_MAX && !self.types.contains_key(name);
        let many = self.by_alias.len() >= METRICS_MAX;
        if full || many || name.len() > NAME_BYTES_MAX {
            return;
        }
        self.types.insert(name.into(), datatype);
        if let Some(alias) = metric.alias {
            self.by_alias.insert(alias, Metric { name: name.into(), datatype });
        }
    }

    /// How many metrics have a name.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

/// Finds fields in a payload that stands alone: only metrics that carry their names have them.
pub fn extract<'a>(
    payload: &'a [u8],
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    let text = to_json(payload, &Births::default(), scratch)?;
    let fields = scratch.alloc_slice_fill_copy(paths.len(), json::Field::Missing);
    json::extract_text(text, paths, scratch, fields)?;
    for (value, field) in out.iter_mut().zip(fields) {
        if let json::Field::Json(raw) = field {
            *value = raw.value(scratch)?;
        }
    }
    Ok(())
}

/// A payload as JSON text, with the names that `births` knows.
pub fn to_json<'a>(
    payload: &'a [u8],
    births: &Births,
    scratch: &'a Scratch,
) -> Result<&'a str, EvalError> {
    let mut writer = Writer { scratch, out: Text::new_in(scratch), births };
    let mut fields = Fields::new(payload);
    let mut metrics = bumpalo::collections::Vec::new_in(scratch);
    writer.out.push('{');
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Varint(ms)) => writer.member("timestamp", walk::unsigned(ms)),
            (2, Field::Bytes(metric)) => metrics.push(metric),
            (3, Field::Varint(seq)) => writer.member("seq", walk::unsigned(seq)),
            (4, Field::Bytes(uuid)) => writer.member("uuid", text(uuid)?),
            (5, Field::Bytes(body)) => writer.member("body", Value::Bytes(body)),
            _ => {}
        }
    }
    writer.name("metrics");
    writer.metrics(&metrics, 0)?;
    writer.out.push('}');
    Ok(writer.out.into_bump_str())
}

fn text(bytes: &[u8]) -> Result<Value<'_>, EvalError> {
    let mut whole = Bytes::new(FORMAT, bytes);
    whole.text(bytes.len() as u64).map(Value::Text)
}

/// A field of Protocol Buffers, by its wire type.
#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one message, one after the other.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    bytes: Bytes<'a>,
}

impl<'a> Fields<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self { bytes: Bytes::new(FORMAT, message) }
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, EvalError> {
        if self.bytes.is_end() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            // Little-endian, unlike the other formats.
            1 => Field::Fixed64(self.bytes.uint(8)?.swap_bytes()),
            2 => {
                let count = self.varint()?;
                Field::Bytes(self.bytes.take(count)?)
            }
            5 => Field::Fixed32((self.bytes.uint(4)? as u32).swap_bytes()),
            _ => return Err(self.bytes.error("a field is of no known wire type")),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, EvalError> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.bytes.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.bytes.error("an integer is longer than 10 bytes"))
    }
}

/// A metric, with its value still in its wire type.
#[derive(Debug, Default)]
struct Raw<'a> {
    name: Option<&'a str>,
    alias: Option<u64>,
    timestamp: Option<u64>,
    datatype: Option<u64>,
    is_historical: bool,
    is_transient: bool,
    is_null: bool,
    value: Option<(u64, Field<'a>)>,
}

impl<'a> Raw<'a> {
    fn read(metric: &'a [u8]) -> Result<Self, EvalError> {
        let mut raw = Self::default();
        let mut fields = Fields::new(metric);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(name)) => {
                    raw.name = Some(Bytes::new(FORMAT, name).text(name.len() as u64)?);
                }
                (2, Field::Varint(alias)) => raw.alias = Some(alias),
                (3, Field::Varint(ms)) => raw.timestamp = Some(ms),
                (4, Field::Varint(datatype)) => raw.datatype = Some(datatype),
                (5, Field::Varint(flag)) => raw.is_historical = flag != 0,
                (6, Field::Varint(flag)) => raw.is_transient = flag != 0,
                (7, Field::Varint(flag)) => raw.is_null = flag != 0,
                // Of a oneof the last counts.
                (10..=18, _) => raw.value = Some((number - 9, field)),
                _ => {}
            }
        }
        Ok(raw)
    }
}

/// The value of an integer by its type: signed ones are sent as unsigned.
fn integer(number: u64, datatype: u64) -> Value<'static> {
    match datatype {
        1 => Value::Int((number as i8).into()),
        2 => Value::Int((number as i16).into()),
        3 => Value::Int((number as i32).into()),
        4 => Value::Int(number as i64),
        11 => Value::Bool(number != 0),
        _ => walk::unsigned(number),
    }
}

struct Writer<'a, 'b> {
    scratch: &'a Scratch,
    out: Text<'a>,
    births: &'b Births,
}

impl Writer<'_, '_> {
    /// The name of the next member of the object that is open.
    fn name(&mut self, name: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.value(Value::Text(name));
        self.out.push(':');
    }

    fn value(&mut self, value: Value<'_>) {
        // Writing to the arena does not fail.
        let _ = json_text::write_value(&mut self.out, value);
    }

    fn member(&mut self, name: &str, value: Value<'_>) {
        self.name(name);
        self.value(value);
    }

    fn metrics(&mut self, metrics: &[&[u8]], depth: u32) -> Result<(), EvalError> {
        self.out.push('[');
        for (at, metric) in metrics.iter().enumerate() {
            self.out.push_str(if at > 0 { "," } else { "" });
            self.metric(Raw::read(metric)?, depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn metric(&mut self, raw: Raw<'_>, depth: u32) -> Result<(), EvalError> {
        let births = self.births;
        let born = raw.alias.and_then(|alias| births.by_alias.get(&alias));
        let name = raw.name.or(born.map(|metric| &*metric.name));
        let by_name = || births.types.get(name?).copied();
        let born_type = born.map(|metric| metric.datatype);
        let datatype = raw.datatype.or(born_type).or_else(by_name).unwrap_or(0);
        self.out.push('{');
        if let Some(name) = name {
            self.member("name", Value::Text(name));
        }
        if let Some(alias) = raw.alias {
            self.member("alias", walk::unsigned(alias));
        }
        if let Some(ms) = raw.timestamp {
            self.member("timestamp", walk::unsigned(ms));
        }
        let known = usize::try_from(datatype).ok().and_then(|datatype| TYPES.get(datatype));
        self.member("datatype", Value::Text(known.copied().unwrap_or(TYPES[0])));
        for (flag, name) in [(raw.is_historical, "historical"), (raw.is_transient, "transient")] {
            if flag {
                self.member(name, Value::Bool(true));
            }
        }
        self.name("value");
        match raw.value.filter(|_| !raw.is_null) {
            None => self.value(Value::Null),
            Some((8, Field::Bytes(data_set))) => self.data_set(data_set)?,
            Some((9, Field::Bytes(template))) => self.template(template, depth + 1)?,
            Some((number, field)) => self.value(scalar(number, field, datatype)?),
        }
        self.out.push('}');
        Ok(())
    }

    fn data_set(&mut self, data_set: &[u8]) -> Result<(), EvalError> {
        let mut columns = bumpalo::collections::Vec::new_in(self.scratch);
        let mut types = bumpalo::collections::Vec::new_in(self.scratch);
        let mut rows = bumpalo::collections::Vec::new_in(self.scratch);
        let mut fields = Fields::new(data_set);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (2, Field::Bytes(column)) => columns.push(text(column)?),
                (3, Field::Varint(datatype)) => types.push(datatype),
                (3, Field::Bytes(packed)) => {
                    let mut packed = Fields::new(packed);
                    while !packed.bytes.is_end() {
                        types.push(packed.varint()?);
                    }
                }
                (4, Field::Bytes(row)) => rows.push(row),
                _ => {}
            }
        }
        self.values("{\"columns\":[", columns.iter().copied());
        self.out.push_str("],\"rows\":[");
        for (at, row) in rows.iter().enumerate() {
            let elements = elements(row, &types, self.scratch)?;
            self.values(if at > 0 { ",[" } else { "[" }, elements.into_iter());
            self.out.push(']');
        }
        self.out.push_str("]}");
        Ok(())
    }

    /// Values after `begin`, with commas between them.
    fn values<'v>(&mut self, begin: &str, values: impl Iterator<Item = Value<'v>>) {
        self.out.push_str(begin);
        for (at, value) in values.enumerate() {
            self.out.push_str(if at > 0 { "," } else { "" });
            self.value(value);
        }
    }

    fn template(&mut self, template: &[u8], depth: u32) -> Result<(), EvalError> {
        let mut fields = Fields::new(template);
        if depth > DEPTH_MAX {
            return Err(fields.bytes.error("templates are nested too deep"));
        }
        let mut metrics = bumpalo::collections::Vec::new_in(self.scratch);
        self.out.push('{');
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(version)) => self.member("version", text(version)?),
                (2, Field::Bytes(metric)) => metrics.push(metric),
                (4, Field::Bytes(of)) => self.member("template", text(of)?),
                _ => {}
            }
        }
        self.name("metrics");
        self.metrics(&metrics, depth)?;
        self.out.push('}');
        Ok(())
    }
}

/// The elements of a row of a data set, each by the type of its column.
fn elements<'a>(
    row: &'a [u8],
    types: &[u64],
    scratch: &'a Scratch,
) -> Result<bumpalo::collections::Vec<'a, Value<'a>>, EvalError> {
    let mut elements = bumpalo::collections::Vec::new_in(scratch);
    let mut fields = Fields::new(row);
    while let Some((number, field)) = fields.next()? {
        let (1, Field::Bytes(element)) = (number, field) else { continue };
        let datatype = types.get(elements.len()).copied().unwrap_or(0);
        elements.push(match Fields::new(element).next()? {
            Some((number, field)) => scalar(number, field, datatype)?,
            None => Value::Null,
        });
    }
    Ok(elements)
}

/// A value by the number of its field, which metrics and data sets have in common.
fn scalar<'a>(number: u64, field: Field<'a>, datatype: u64) -> Result<Value<'a>, EvalError> {
    Ok(match (number, field) {
        (1 | 2, Field::Varint(number)) => integer(number, datatype),
        (3, Field::Fixed32(bits)) => walk::float(f32::from_bits(bits).into()),
        (4, Field::Fixed64(bits)) => walk::float(f64::from_bits(bits)),
        (5, Field::Varint(flag)) => Value::Bool(flag != 0),
        (6, Field::Bytes(bytes)) => text(bytes)?,
        (7, Field::Bytes(bytes)) => Value::Bytes(bytes),
        _ => return Err(Bytes::new(FORMAT, &[]).error("a value is of another wire type")),
    })
}
