//! A plan as a person reads it: what runs where, which fields are read.

use std::fmt::{self, Display, Formatter, Write};

use super::expr::{Constant, Expr, Fact, Node};
use super::paths::{Paths, Shown, Step};
use super::plan::{From, Item, OnError, Output, Plan, Rule};
use super::value::Kind;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
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
    let reads = match rule.reads() {
        reads if reads.is_empty() => "nothing of the payload".to_owned(),
        reads => format!("{} in one pass", reads.join(", ")),
    };
    line(f, "reads", reads)?;
    let shown = |expr| ShownExpr { expr, rule };
    let per_element = rule.unnest.as_ref().is_some_and(|unnest| unnest.filters);
    if let Some(filter) = rule.filter.as_ref().filter(|_| !per_element) {
        line(f, "where", shown(filter))?;
    }
    if let Some(unnest) = &rule.unnest {
        let array = shown(&unnest.array);
        line(f, "for each", format_args!("{} in {array}", unnest.alias))?;
        let element: Vec<_> =
            unnest.paths.iter().map(|path| element(&unnest.alias, path)).collect();
        if !element.is_empty() {
            line(f, "reads", format_args!("{} in one pass", element.join(", ")))?;
        }
    }
    if let Some(filter) = rule.filter.as_ref().filter(|_| per_element) {
        line(f, "where", shown(filter))?;
    }
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
