//! A plan as a person reads it: what runs where, which fields are read.

use std::fmt::{self, Display, Formatter, Write};
use std::ops::Range;

use super::expr::{Constant, Expr, Fact, Node};
use super::gates::Gate;
use super::paths::{Paths, Shown, Step};
use super::plan::{From, Item, OnError, Output, Plan, Rule};
use super::tables::LookupTable;
use super::value::Kind;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (table, now) in self.tables.all.iter().zip(&*self.tables.current()) {
            show_table(f, table, now.rows(), now.bytes().len())?;
            f.write_char('\n')?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            show_rule(f, self, rule)?;
        }
        Ok(())
    }
}

impl Plan {
    /// What a rule reads, tests and writes, wherever it stands and whoever reads it.
    pub fn meaning(&self, rule: usize) -> String {
        let shown = ShownRule { plan: self, rule: &self.rules[rule] }.to_string();
        let lines = shown.lines().skip(1).filter(|line| !line.starts_with("  read by"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

struct ShownRule<'a> {
    plan: &'a Plan,
    rule: &'a Rule,
}

impl Display for ShownRule<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        show_rule(f, self.plan, self.rule)
    }
}

fn line(f: &mut Formatter<'_>, label: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {label:<10} {text}")
}

fn show_rule(f: &mut Formatter<'_>, plan: &Plan, rule: &Rule) -> fmt::Result {
    writeln!(f, "stream {} ({}:{})", rule.name, rule.file, rule.at)?;
    match &rule.from {
        From::Topics(topics) => {
            let topics: Vec<_> = topics.iter().map(|topic| format!("'{topic}'")).collect();
            line(f, "from", topics.join(", "))?;
        }
        From::Rule(parent) => {
            line(f, "from", format_args!("stream {}", plan.rules[*parent].name))?;
        }
    }
    let reads: Vec<_> = rule.paths.iter().map(|path| Shown(path).to_string()).collect();
    let reads = match reads {
        reads if reads.is_empty() => "nothing of the payload".to_owned(),
        reads => format!("{} in one pass", reads.join(", ")),
    };
    line(f, "reads", reads)?;
    let shown = |expr| ShownExpr { expr, rule };
    let once = rule.unnest.as_ref().map_or(rule.gates.len(), |unnest| unnest.gates_from);
    show_gates(f, plan, rule, 0..once)?;
    if let Some(unnest) = &rule.unnest {
        let array = shown(&unnest.array);
        line(f, "for each", format_args!("{} in {array}", unnest.alias))?;
        let element: Vec<_> =
            unnest.paths.iter().map(|path| element(&unnest.alias, path)).collect();
        if !element.is_empty() {
            line(f, "reads", format_args!("{} in one pass", element.join(", ")))?;
        }
    }
    show_gates(f, plan, rule, once..rule.gates.len())?;
    show_output(f, rule)?;
    match &rule.key {
        Some(key) => line(f, "key", shown(key))?,
        None => line(f, "key", "the client id")?,
    }
    if let Some(timestamp) = &rule.timestamp {
        line(f, "timestamp", shown(timestamp))?;
    }
    for (name, header) in &rule.headers {
        line(f, "header", format_args!("{name} = {}", shown(header)))?;
    }
    if let Some(format) = rule.format {
        line(f, "format", format.name())?;
    }
    line(
        f,
        "on error",
        match rule.on_error {
            OnError::DeadLetter => "to _deadletter",
            OnError::Drop => "drop",
            OnError::Null => "NULL",
        },
    )?;
    for setting in &rule.settings {
        line(f, "with", format_args!("{} = {}", setting.name, setting.value))?;
    }
    for reader in &rule.readers.rules {
        line(f, "read by", format_args!("stream {}", plan.rules[*reader].name))?;
    }
    Ok(())
}

/// What a record must pass, in the order in which it is asked.
fn show_gates(f: &mut Formatter<'_>, plan: &Plan, rule: &Rule, gates: Range<usize>) -> fmt::Result {
    let shown = |expr| ShownExpr { expr, rule };
    let joins_before = rule.gates[..gates.start].iter().filter(|gate| gate.join().is_some());
    let mut number = joins_before.count();
    for gate in &rule.gates[gates] {
        match gate {
            Gate::Where(filter) => line(f, "where", shown(filter))?,
            Gate::Join(join) => {
                let table = &plan.tables.all[join.table];
                let (name, key) = (&table.name, &table.columns[table.key]);
                let label = if join.left { "left join" } else { "join" };
                let by = format_args!("{name}, {}.{key} = {}", join.alias, shown(&join.key));
                line(f, label, by)?;
                let reads = columns_of(rule, number);
                let reads = if reads.is_empty() { "nothing".to_owned() } else { reads.join(", ") };
                line(f, "reads", format_args!("{reads} of the row"))?;
                number += 1;
            }
        }
    }
    Ok(())
}

/// The columns that a rule reads of the row that a join finds.
fn columns_of(rule: &Rule, number: usize) -> Vec<&str> {
    let items = match &rule.output {
        Output::Untouched => &[],
        Output::Object(items) => items.as_slice(),
    };
    let values = items.iter().filter_map(|item| match item {
        Item::Column { value, .. } => Some(value),
        Item::Payload | Item::Element => None,
    });
    let gates = rule.gates.iter().map(Gate::expr);
    let extras = rule.key.iter().chain(&rule.timestamp).chain(rule.headers.iter().map(|(_, e)| e));
    let mut columns = Vec::new();
    for expr in gates.chain(values).chain(extras) {
        expr.each(&mut |expr| match &expr.node {
            Node::Column { join, column, name } if *join == number => {
                columns.push((*column, &**name));
            }
            _ => {}
        });
    }
    columns.sort_unstable();
    columns.dedup();
    columns.into_iter().map(|(_, name)| name).collect()
}

fn show_table(f: &mut Formatter<'_>, table: &LookupTable, rows: u32, bytes: usize) -> fmt::Result {
    writeln!(f, "table {} ({}:{})", table.name, table.file, table.at)?;
    line(f, "from", format_args!("{}, {}", table.path.display(), table.format))?;
    line(f, "key", &table.columns[table.key])?;
    line(f, "columns", table.columns.join(", "))?;
    line(f, "rows", format_args!("{rows}, {bytes} bytes compiled"))
}

/// What a record is made of, a line a part.
fn show_output(f: &mut Formatter<'_>, rule: &Rule) -> fmt::Result {
    let Output::Object(items) = &rule.output else {
        return line(f, "writes", "the payload as it is");
    };
    for item in items {
        match item {
            Item::Payload => line(f, "writes", "the payload's other members")?,
            Item::Element => line(f, "writes", "the element's other members")?,
            Item::Column { name, value, .. } => {
                line(f, "writes", format_args!("{name} = {}", ShownExpr { expr: value, rule }))?;
            }
        }
    }
    Ok(())
}

fn path_of(paths: &Paths, slot: usize) -> &[Step] {
    paths.iter().nth(slot).unwrap_or_default()
}

fn element(alias: &str, path: &[Step]) -> String {
    Shown(path).to_string().replacen("payload", alias, 1)
}

/// An expression with the names of its rule.
struct ShownExpr<'a> {
    expr: &'a Expr,
    rule: &'a Rule,
}

impl Display for ShownExpr<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.rule;
        let shown = |expr| ShownExpr { expr, rule };
        let inner = |expr: &'_ Expr| Inner(ShownExpr { expr, rule }).to_string();
        let not = |negated: bool| if negated { " NOT" } else { "" };
        match &self.expr.node {
            Node::Constant(constant) => show_constant(f, constant),
            Node::Field(slot) => write!(f, "{}", Shown(path_of(&rule.paths, *slot))),
            Node::Element(slot) => match &rule.unnest {
                Some(unnest) => f.write_str(&element(&unnest.alias, path_of(&unnest.paths, *slot))),
                None => Ok(()),
            },
            Node::Column { name, .. } => f.write_str(name),
            Node::Fact(fact) => f.write_str(fact_name(*fact)),
            Node::TopicLevel(level) => write!(f, "topic({})", shown(level)),
            Node::UserProperty(name) => write!(f, "user_property({})", shown(name)),
            Node::Not(one) => write!(f, "NOT {}", inner(one)),
            Node::Negate(one) => write!(f, "-{}", inner(one)),
            Node::BitNot(one) => write!(f, "~{}", inner(one)),
            Node::And(two) => write!(f, "{} AND {}", inner(&two[0]), inner(&two[1])),
            Node::Or(two) => write!(f, "{} OR {}", inner(&two[0]), inner(&two[1])),
            Node::Compare(comparison, two) => {
                write!(f, "{} {} {}", inner(&two[0]), comparison.sign(), inner(&two[1]))
            }
            Node::Arithmetic(arithmetic, two) => {
                write!(f, "{} {} {}", inner(&two[0]), arithmetic.sign(), inner(&two[1]))
            }
            Node::Concat(two) => write!(f, "{} || {}", inner(&two[0]), inner(&two[1])),
            Node::IsNull { operand, negated } => {
                write!(f, "{} IS{} NULL", inner(operand), not(*negated))
            }
            Node::IsBool { operand, wanted, negated } => {
                let wanted = if *wanted { "TRUE" } else { "FALSE" };
                write!(f, "{} IS{} {wanted}", inner(operand), not(*negated))
            }
            Node::IsDistinct { operands, negated } => {
                let (left, right) = (inner(&operands[0]), inner(&operands[1]));
                write!(f, "{left} IS{} DISTINCT FROM {right}", not(*negated))
            }
            Node::Between { operands, negated } => {
                let [value, low, high] = [0, 1, 2].map(|at| inner(&operands[at]));
                write!(f, "{value}{} BETWEEN {low} AND {high}", not(*negated))
            }
            Node::In { operand, list, negated } => {
                let list: Vec<_> = list.iter().map(|one| shown(one).to_string()).collect();
                write!(f, "{}{} IN ({})", inner(operand), not(*negated), list.join(", "))
            }
            Node::Like { operands, fold, negated, .. } => {
                let like = if *fold { "ILIKE" } else { "LIKE" };
                let (text, pattern) = (inner(&operands[0]), inner(&operands[1]));
                write!(f, "{text}{} {like} {pattern}", not(*negated))
            }
            Node::Case { operand, whens, otherwise } => {
                f.write_str("CASE")?;
                operand.iter().try_for_each(|operand| write!(f, " {}", inner(operand)))?;
                for (when, then) in whens {
                    write!(f, " WHEN {} THEN {}", shown(when), shown(then))?;
                }
                otherwise.iter().try_for_each(|other| write!(f, " ELSE {}", shown(other)))?;
                f.write_str(" END")
            }
            Node::Cast { operand, to } => {
                write!(f, "CAST({} AS {})", shown(operand), type_name(*to))
            }
            Node::Call { function, arguments, .. } => {
                let list: Vec<_> = arguments.iter().map(|one| shown(one).to_string()).collect();
                write!(f, "{}({})", function.name, list.join(", "))
            }
        }
    }
}

/// In parentheses where it is made of parts.
struct Inner<'a>(ShownExpr<'a>);

impl Display for Inner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let whole = matches!(
            self.0.expr.node,
            Node::Constant(_)
                | Node::Field(_)
                | Node::Element(_)
                | Node::Column { .. }
                | Node::Fact(_)
                | Node::TopicLevel(_)
                | Node::UserProperty(_)
                | Node::Cast { .. }
                | Node::Call { .. }
                | Node::Case { .. }
        );
        if whole { self.0.fmt(f) } else { write!(f, "({})", self.0) }
    }
}

fn show_constant(f: &mut Formatter<'_>, constant: &Constant) -> fmt::Result {
    match constant {
        Constant::Null => f.write_str("NULL"),
        Constant::Bool(true) => f.write_str("TRUE"),
        Constant::Bool(false) => f.write_str("FALSE"),
        Constant::Int(int) => write!(f, "{int}"),
        Constant::Float(float) => write!(f, "{float:?}"),
        Constant::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
        Constant::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        Constant::Json(json) => f.write_str(json),
    }
}

fn fact_name(fact: Fact) -> &'static str {
    match fact {
        Fact::Topic => "topic()",
        Fact::ClientId => "clientid()",
        Fact::Qos => "qos()",
        Fact::Retain => "retain()",
        Fact::Username => "username()",
        Fact::ContentType => "content_type()",
        Fact::ReceivedAt => "received_at()",
    }
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "INT",
        Kind::Float => "FLOAT",
        Kind::Bool => "BOOLEAN",
        Kind::Bytes => "BYTES",
        Kind::Text | Kind::Null | Kind::Json => "TEXT",
    }
}
