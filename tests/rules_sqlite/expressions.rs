//! Expressions with a type, in two spellings, and rows for them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// One expression: as a rule has it, and with the same meaning for SQLite.
#[derive(Debug, Clone)]
pub struct Pair {
    pub ours: String,
    pub theirs: String,
}

/// One spelling for both.
fn both(text: impl Into<String>) -> Pair {
    let ours: String = text.into();
    Pair { theirs: ours.clone(), ours }
}

/// Puts parts into the places `{0}`, `{1}`… of a spelling for rules and one for SQLite.
fn put(ours: &str, theirs: &str, parts: &[&Pair]) -> Pair {
    let mut pair = Pair { ours: ours.to_owned(), theirs: theirs.to_owned() };
    for (at, part) in parts.iter().enumerate() {
        let place = format!("{{{at}}}");
        pair.ours = pair.ours.replace(&place, &part.ours);
        pair.theirs = pair.theirs.replace(&place, &part.theirs);
    }
    pair
}

/// The values of the columns: `i` and `j` integers, `x` and `y` floats, `s` and `t` texts, each of
/// which may be NULL.
pub fn any_row() -> impl Strategy<Value = Value> {
    let int = || option::weighted(0.85, prop_oneof![-20_i64..20, any::<i32>().prop_map(i64::from)]);
    let float = || option::weighted(0.85, (-80_i32..80).prop_map(|n| f64::from(n) / 4.0));
    let text = || option::weighted(0.85, "[a-cA-C%_ .]{0,6}");
    (int(), int(), float(), float(), text(), text())
        .prop_map(|(i, j, x, y, s, t)| json!({ "i": i, "j": j, "x": x, "y": y, "s": s, "t": t }))
}

fn whole() -> BoxedStrategy<Pair> {
    let leaf = prop_oneof![
        3 => prop_oneof![Just("i"), Just("j")].prop_map(both),
        1 => (0_i64..100).prop_map(|n| both(n.to_string())),
    ];
    let tree = leaf.prop_recursive(3, 16, 3, |inner| {
        let forms = prop_oneof![
            Just(("({0} + {1})", "({0} + {1})")),
            Just(("({0} - {1})", "({0} - {1})")),
            Just(("({0} * {1})", "({0} * {1})")),
            Just(("({0} % {1})", "({0} % {1})")),
            Just(("(-{0})", "(-{0})")),
            Just(("abs({0})", "abs({0})")),
            Just(("sign({0})", "sign({0})")),
            Just(("mod({0}, {1})", "({0} % {1})")),
            Just(("bitand({0}, {1})", "({0} & {1})")),
            Just(("bitor({0}, {1})", "({0} | {1})")),
            Just(("bitnot({0})", "(~{0})")),
            Just(("coalesce({0}, {1})", "coalesce({0}, {1})")),
            Just(("nullif({0}, {1})", "nullif({0}, {1})")),
            Just(("if({0} > {1}, {1}, {2})", "iif({0} > {1}, {1}, {2})")),
            Just(("CAST({0} AS INT)", "CAST({0} AS INTEGER)")),
            Just((
                "CASE WHEN {0} < {1} THEN {2} WHEN {0} IS NULL THEN 7 ELSE {1} END",
                "CASE WHEN {0} < {1} THEN {2} WHEN {0} IS NULL THEN 7 ELSE {1} END"
            )),
            Just((
                "CASE {0} WHEN {1} THEN 1 WHEN 3 THEN {2} END",
                "CASE {0} WHEN {1} THEN 1 WHEN 3 THEN {2} END"
            )),
        ];
        (forms, inner.clone(), inner.clone(), inner)
            .prop_map(|((ours, theirs), a, b, c)| put(ours, theirs, &[&a, &b, &c]))
    });
    tree.boxed()
}

/// Integers and floats.
pub fn number() -> BoxedStrategy<Pair> {
    let leaf = prop_oneof![
        2 => whole(),
        3 => prop_oneof![Just("x"), Just("y")].prop_map(both),
        1 => (-40_i32..40).prop_map(|n| both(format!("({:?})", f64::from(n) / 8.0))),
    ];
    let tree = leaf.prop_recursive(3, 16, 3, |inner| {
        let forms = prop_oneof![
            Just(("({0} + {1})", "({0} + {1})")),
            Just(("({0} - {1})", "({0} - {1})")),
            Just(("({0} * {1})", "({0} * {1})")),
            Just(("({0} / {1})", "(1.0 * {0} / {1})")),
            Just(("(-{0})", "(-{0})")),
            Just(("abs({0})", "abs({0})")),
            Just(("CAST({0} AS INT)", "CAST({0} AS INTEGER)")),
            Just(("CAST({0} AS FLOAT)", "CAST({0} AS REAL)")),
            Just(("round({0})", "round({0})")),
            Just(("ceil({0})", "(CAST({0} AS INTEGER) + ({0} > CAST({0} AS INTEGER)))")),
            Just(("floor({0})", "(CAST({0} AS INTEGER) - ({0} < CAST({0} AS INTEGER)))")),
            Just(("sign({0})", "sign({0})")),
            Just(("coalesce({0}, {1}, {2})", "coalesce({0}, {1}, {2})")),
            Just((
                "greatest(coalesce({0}, {1}), coalesce({1}, {0}))",
                "max(coalesce({0}, {1}), coalesce({1}, {0}))"
            )),
            Just((
                "CASE WHEN {0} >= {1} THEN {2} ELSE {1} END",
                "CASE WHEN {0} >= {1} THEN {2} ELSE {1} END"
            )),
        ];
        (forms, inner.clone(), inner.clone(), inner)
            .prop_map(|((ours, theirs), a, b, c)| put(ours, theirs, &[&a, &b, &c]))
    });
    tree.boxed()
}

pub fn text() -> BoxedStrategy<Pair> {
    let leaf = prop_oneof![
        3 => prop_oneof![Just("s"), Just("t")].prop_map(both),
        1 => "[a-cA-C%_ .]{0,4}".prop_map(|text| both(format!("'{text}'"))),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        let forms = prop_oneof![
            Just(("upper({0})", "upper({0})")),
            Just(("lower({0})", "lower({0})")),
            Just(("trim({0})", "trim({0})")),
            Just(("ltrim({0})", "ltrim({0})")),
            Just(("rtrim({0})", "rtrim({0})")),
            Just(("replace({0}, 'a', {1})", "replace({0}, 'a', {1})")),
            Just(("({0} || {1})", "({0} || {1})")),
            Just(("concat({0}, {1})", "({0} || {1})")),
            Just(("coalesce({0}, {1})", "coalesce({0}, {1})")),
            Just(("nullif({0}, {1})", "nullif({0}, {1})")),
            Just(("hex({0})", "iif({0} IS NULL, NULL, lower(hex({0})))")),
            Just((
                "CASE WHEN {0} < {1} THEN {0} ELSE {1} END",
                "CASE WHEN {0} < {1} THEN {0} ELSE {1} END"
            )),
        ];
        let plain = (forms, inner.clone(), inner.clone())
            .prop_map(|((ours, theirs), a, b)| put(ours, theirs, &[&a, &b]));
        let slices = (inner.clone(), -7_i64..8, 0_i64..8).prop_map(|(a, from, count)| {
            let (from, count) = (both(from.to_string()), both(count.to_string()));
            put("substr({0}, {1}, {2})", "substr({0}, {1}, {2})", &[&a, &from, &count])
        });
        let cuts = (inner, 0_i64..8, 0_i64..8).prop_map(|(a, from, more)| {
            let (to, begin) = (both((from + more).to_string()), both((from + 1).to_string()));
            let (from, more) = (both(from.to_string()), both(more.to_string()));
            put(
                "substring({0}, {1}, {2})",
                "substr({0}, {3}, {4})",
                &[&a, &from, &to, &begin, &more],
            )
        });
        prop_oneof![6 => plain, 1 => slices, 1 => cuts]
    });
    let of_number = whole().prop_map(|int| put("CAST({0} AS TEXT)", "CAST({0} AS TEXT)", &[&int]));
    prop_oneof![8 => tree, 1 => of_number].boxed()
}

fn comparison() -> impl Strategy<Value = Pair> {
    let sign = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let numbers = (number(), sign.clone(), number());
    let texts = (text(), sign, text());
    prop_oneof![numbers, texts].prop_map(|(a, sign, b)| {
        put(&format!("({{0}} {sign} {{1}})"), &format!("({{0}} {sign} {{1}})"), &[&a, &b])
    })
}

/// True, false and unknown.
pub fn boolean() -> BoxedStrategy<Pair> {
    let one_of = |list: &[Pair], of: &Pair, not: &str| {
        let spelled = |part: fn(&Pair) -> &String| {
            let all: Vec<&str> = list.iter().map(|pair| part(pair).as_str()).collect();
            format!("({} {not}IN ({}))", part(of), all.join(", "))
        };
        Pair { ours: spelled(|pair| &pair.ours), theirs: spelled(|pair| &pair.theirs) }
    };
    let not = || prop_oneof![Just(""), Just("NOT ")];
    let in_numbers = (vec(number(), 1..4), number(), not())
        .prop_map(move |(list, of, not)| one_of(&list, &of, not));
    let in_texts =
        (vec(text(), 1..4), text(), not()).prop_map(move |(list, of, not)| one_of(&list, &of, not));
    let between = (number(), number(), number(), not()).prop_map(|(a, b, c, not)| {
        let form = format!("({{0}} {not}BETWEEN {{1}} AND {{2}})");
        put(&form, &form, &[&a, &b, &c])
    });
    let like = (text(), "[a-cA%_.]{0,5}", not()).prop_map(|(a, pattern, not)| {
        let form = format!("({{0}} {not}LIKE '{pattern}')");
        put(&form, &form, &[&a])
    });
    let is_null = (prop_oneof![number(), text()], not()).prop_map(|(a, not)| {
        let form = format!("({{0}} IS {not}NULL)");
        put(&form, &form, &[&a])
    });
    let searched = (text(), text())
        .prop_map(|(a, b)| put("(indexof({0}, {1}) >= 0)", "(instr({0}, {1}) > 0)", &[&a, &b]));
    let lengths = (text(), 0_i64..9).prop_map(|(a, n)| {
        put("(length({0}) > {1})", "(length({0}) > {1})", &[&a, &both(n.to_string())])
    });
    let leaf = prop_oneof![3 => comparison(), 1 => in_numbers, 1 => in_texts, 1 => between,
        2 => like, 1 => is_null, 1 => searched, 1 => lengths];
    let tree = leaf.prop_recursive(3, 12, 2, |inner| {
        let forms = prop_oneof![
            Just("({0} AND {1})"),
            Just("({0} OR {1})"),
            Just("(NOT {0})"),
            Just("({0} IS NULL)"),
        ];
        (forms, inner.clone(), inner).prop_map(|(form, a, b)| put(form, form, &[&a, &b]))
    });
    tree.boxed()
}
