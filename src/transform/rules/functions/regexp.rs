//! Regular expressions, in the syntax of the crate `regex`: Perl's without look-around and back
//! references, so that the time is linear in the text.
//!
//! Comes in: text, and a pattern that is constant and so compiled with the plan. Goes out: slices
//! of the text, or text in the arena. `regex-automata` is the engine of `regex`; unlike that it
//! takes the places of groups from its caller, so that a replacement allocates nothing.

use std::ops::Range;

use regex_automata::meta::Regex;
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Input, PatternID, Span};

use super::super::value::{Scratch, Value};
use super::cast;
use super::given::{Built, Given};
use super::{Function, Outcome, Prepared, family, prepared};

family! {
    "regexp_matches" | "regexp_like" (2, 2) "text, pattern" -> "boolean"
        = prepared(prepare, regexp_matches), "whether the pattern is found in the text";
    "regexp_replace" (3, 3) "text, pattern, by" -> "text" = prepared(prepare, regexp_replace),
        "`by` in place of each match; `$1` or `${name}` in it is a group, `$$` a dollar";
    "regexp_substr" | "regexp_substring" (2, 2) "text, pattern" -> "text"
        = prepared(prepare, regexp_substr), "the first match, NULL when there is none";
}

/// A compiled pattern, with a pool of caches: a thread that uses it alone takes its own from there
/// without waiting.
pub type Pattern = Regex;

/// What a pattern may take compiled; larger ones are a mistake, or an attack on memory.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

fn prepare(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    let Some(pattern) = constants.get(1).copied().flatten() else {
        return Err("the pattern must be a constant, so that it is compiled once".into());
    };
    if pattern.is_null() {
        return Ok(Prepared::Null);
    }
    let scratch = Scratch::new();
    let pattern = cast::text_of(pattern, &scratch).ok_or("the pattern must be text")?;
    let config = Regex::config().nfa_size_limit(Some(COMPILED_BYTES_MAX));
    let regex = Regex::builder().configure(config).build(pattern);
    regex.map(|regex| Prepared::Regex(Box::new(regex))).map_err(|error| {
        let told = error.syntax_error().map_or(error.to_string(), ToString::to_string);
        // The engine draws the pattern first and says in the last line what is wrong.
        let why = told.lines().last().unwrap_or_default();
        format!("the pattern is no regular expression: {}", why.trim_start_matches("error: "))
    })
}

/// The pattern; `None` when it is NULL.
fn pattern(prepared: &Prepared) -> Option<&Regex> {
    match prepared {
        Prepared::Regex(regex) => Some(regex),
        _ => None,
    }
}

fn regexp_matches<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let text = Given::new("regexp_matches", values, scratch).text(0)?;
    Ok(pattern(prepared).map_or(Value::Null, |regex| Value::Bool(regex.is_match(text))))
}

fn regexp_substr<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let text = Given::new("regexp_substr", values, scratch).text(0)?;
    let found = pattern(prepared).and_then(|regex| regex.find(text));
    Ok(found.map_or(Value::Null, |found| Value::Text(&text[found.range()])))
}

fn regexp_replace<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("regexp_replace", values, scratch);
    let (text, by) = (given.text(0)?, given.text(2)?);
    let Some(regex) = pattern(prepared) else { return Ok(Value::Null) };
    let slots = scratch.alloc_slice_fill_copy(regex.group_info().slot_len(), None);
    let mut built = given.built();
    let (mut from, mut copied, mut last) = (0, 0, None);
    while from <= text.len() && !built.is_over() {
        let input = Input::new(text).span(Span { start: from, end: text.len() });
        if regex.search_slots(&input, slots).is_none() {
            break;
        }
        let Some(found) = place(slots, 0) else { break };
        // An empty match moves on by a character, or it would be found for ever; where another
        // match ended it does not count.
        let step = text[found.end..].chars().next().map_or(1, char::len_utf8);
        from = if found.is_empty() { found.end + step } else { found.end };
        if found.is_empty() && last == Some(found.end) {
            continue;
        }
        built.push(&text[copied..found.start]);
        expand(by, &mut built, regex, |group| place(slots, group).map(|at| &text[at]));
        copied = found.end;
        last = Some(found.end);
    }
    built.push(&text[copied..]);
    built.text()
}

/// Where a group matched.
fn place(slots: &[Option<NonMaxUsize>], group: usize) -> Option<Range<usize>> {
    let [from, to] = slots.get(2 * group..2 * group + 2)? else { return None };
    Some((*from)?.get()..(*to)?.get())
}

/// Writes a replacement with its groups put in. A group that did not match, or is not there, is
/// empty.
fn expand<'t>(
    by: &str,
    built: &mut Built<'_>,
    regex: &Regex,
    text: impl Fn(usize) -> Option<&'t str>,
) {
    let mut rest = by;
    while let Some(at) = rest.find('$') {
        built.push(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        if let Some(after) = rest.strip_prefix('$') {
            built.push("$");
            rest = after;
        } else if digits > 0 {
            let group = rest[..digits].parse().ok();
            built.push(group.and_then(&text).unwrap_or_default());
            rest = &rest[digits..];
        } else if let Some((name, after)) = braced {
            let named = || regex.group_info().to_index(PatternID::ZERO, name);
            let group = name.parse().ok().or_else(named);
            built.push(group.and_then(&text).unwrap_or_default());
            rest = after;
        } else {
            built.push("$");
        }
    }
    built.push(rest);
}
