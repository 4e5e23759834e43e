//! Expressions as they were written into expressions of a plan: names are resolved, paths interned,
//! functions found, constants folded.
//!
//! A name is, in this order: the alias of the element of UNNEST, of a lookup table, of the source,
//! `payload`, in clauses about the record that goes out the name of a column, and else a field of the
//! payload.
//! WHERE sees columns too, but not one whose expression reads a field of the column's own name:
//! `temp * 1.8 AS temp … WHERE temp > 30` means the field.

use sqlparser::ast::{self, BinaryOperator, UnaryOperator};

use super::eval::Context;
use super::expr::{Constant, Expr, Fact, Node};
use super::functions::{self, Body, Function, Prepared};
use super::input::Input;
use super::joins::Joined;
use super::names::{Named, named, place, reads};
use super::operators::{Arithmetic, Comparison};
use super::paths::{Paths, Step};
use super::problem::{Fault, Position, instead};
use super::value::{Kind, Scratch};

/// Which names an expression may use beside fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Unseen,
    /// Of WHERE.
    Behind,
    /// Of PARTITION BY and of options.
    First,
}

/// What names mean in one rule.
#[derive(Debug)]
pub struct Scope<'s> {
    /// The names of the source: the stream's and its alias.
    pub sources: Vec<&'s str>,
    /// The element of UNNEST.
    pub element: Option<&'s str>,
    /// The lookup tables that are joined.
    pub joins: Vec<Joined<'s>>,
    pub columns: Vec<(&'s str, &'s ast::Expr)>,
    pub paths: Paths,
    pub element_paths: Paths,
}

/// What a message tells, and the functions that ask it.
const FACTS: [(&str, Fact); 9] = [
    ("topic", Fact::Topic),
    ("clientid", Fact::ClientId),
    ("qos", Fact::Qos),
    ("retain", Fact::Retain),
    ("username", Fact::Username),
    ("content_type", Fact::ContentType),
    ("timestamp", Fact::ReceivedAt),
    ("received_at", Fact::ReceivedAt),
    ("now", Fact::ReceivedAt),
];
const USER_PROPERTY: &str = "user_property";

/// The functions that ask the message, for docs and for suggestions.
pub fn fact_names() -> impl Iterator<Item = &'static str> {
    FACTS.iter().map(|(name, _)| *name).chain([USER_PROPERTY])
}

impl Scope<'_> {
    /// Compiles an expression.
    pub fn expr(&mut self, expr: &ast::Expr, columns: Columns) -> Result<Expr, Fault> {
        let at = place(expr);
        if let Some(named) = named(expr)? {
            return self.name(&named, at, columns);
        }
        let node = self.node(expr, at, columns)?;
        fold(Expr { at, node })
    }

    fn boxed(&mut self, expr: &ast::Expr, columns: Columns) -> Result<Box<Expr>, Fault> {
        self.expr(expr, columns).map(Box::new)
    }

    fn pair(
        &mut self,
        left: &ast::Expr,
        right: &ast::Expr,
        columns: Columns,
    ) -> Result<Box<[Expr; 2]>, Fault> {
        Ok(Box::new([self.expr(left, columns)?, self.expr(right, columns)?]))
    }

    fn all<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e ast::Expr>,
        columns: Columns,
    ) -> Result<Box<[Expr]>, Fault> {
        exprs.into_iter().map(|expr| self.expr(expr, columns)).collect()
    }

    fn name(&mut self, named: &Named<'_>, at: Position, columns: Columns) -> Result<Expr, Fault> {
        let Named { first, steps } = named;
        let name = first.value.as_str();
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        if self.element.is_some_and(is) {
            return Ok(Expr { at, node: Node::Element(self.element_paths.intern(steps)) });
        }
        if let Some(join) = self.joins.iter().position(|join| is(join.alias)) {
            return Ok(Expr { at, node: self.joins[join].column(join, steps, at)? });
        }
        let column = self.columns.iter().find(|(column, _)| *column == name).map(|(_, e)| *e);
        let column = column.filter(|expr| match columns {
            Columns::Unseen => false,
            Columns::First => steps.is_empty(),
            Columns::Behind => steps.is_empty() && (self.is_of_row(expr) || !reads(expr, name)),
        });
        if let Some(expr) = column {
            return self.expr(expr, Columns::Unseen);
        }
        if columns == Columns::First
            && steps.is_empty()
            && let Some(node) = self.spliced(name)
        {
            return Ok(Expr { at, node });
        }
        let whole = is("payload") || (self.sources.iter().any(|s| is(s)) && !steps.is_empty());
        let mut path = Vec::with_capacity(steps.len() + 1);
        if !whole {
            path.push(Step::Key(name.into()));
        }
        path.extend(steps.iter().cloned());
        Ok(Expr { at, node: Node::Field(self.paths.intern(&path)) })
    }

    fn node(&mut self, expr: &ast::Expr, at: Position, columns: Columns) -> Result<Node, Fault> {
        use ast::Expr as E;
        Ok(match expr {
            E::Value(value) => Node::Constant(constant(value)?),
            E::Nested(inner) => self.expr(inner, columns)?.node,
            E::UnaryOp { op, expr } => {
                let operand = self.boxed(expr, columns)?;
                match op {
                    UnaryOperator::Plus => operand.node,
                    UnaryOperator::Minus => Node::Negate(operand),
                    UnaryOperator::Not | UnaryOperator::BangNot => Node::Not(operand),
                    UnaryOperator::BitwiseNot => Node::BitNot(operand),
                    other => return Err(Fault::new(at, format!("there is no operator {other}"))),
                }
            }
            E::BinaryOp { left, op, right } => {
                let sides = self.pair(left, right, columns)?;
                binary(op, sides).map_err(|what| Fault::new(at, what))?
            }
            E::Between { expr, negated, low, high } => {
                let mut bound = |expr| self.expr(expr, columns);
                let operands = Box::new([bound(expr)?, bound(low)?, bound(high)?]);
                Node::Between { operands, negated: *negated }
            }
            E::In { expr, target, negated, .. } => {
                let ast::InTarget::List(list) = target else {
                    return Err(Fault::new(at, "IN takes a list of values in parentheses"));
                };
                let operand = self.boxed(expr, columns)?;
                Node::In { operand, list: self.all(list, columns)?, negated: *negated }
            }
            E::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like((expr, pattern), escape_char.as_deref(), *negated, false, columns)?
            }
            E::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like((expr, pattern), escape_char.as_deref(), *negated, true, columns)?
            }
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), columns)?
            }
            E::Cast { expr, data_type, .. } => {
                Node::Cast { operand: self.boxed(expr, columns)?, to: kind(data_type, at)? }
            }
            _ => match self.is_node(expr, columns)? {
                Some(node) => node,
                None => self.call_node(expr, at, columns)?,
            },
        })
    }

    /// IS and its kin.
    fn is_node(&mut self, expr: &ast::Expr, columns: Columns) -> Result<Option<Node>, Fault> {
        use ast::Expr as E;
        Ok(Some(match expr {
            E::IsNull(operand) => self.is_null(operand, false, columns)?,
            E::IsNotNull(operand) => self.is_null(operand, true, columns)?,
            E::IsUnknown(operand) => self.is_null(operand, false, columns)?,
            E::IsNotUnknown(operand) => self.is_null(operand, true, columns)?,
            E::IsTrue(operand) => self.is_bool(operand, true, false, columns)?,
            E::IsNotTrue(operand) => self.is_bool(operand, true, true, columns)?,
            E::IsFalse(operand) => self.is_bool(operand, false, false, columns)?,
            E::IsNotFalse(operand) => self.is_bool(operand, false, true, columns)?,
            E::IsDistinctFrom(left, right) => {
                Node::IsDistinct { operands: self.pair(left, right, columns)?, negated: false }
            }
            E::IsNotDistinctFrom(left, right) => {
                Node::IsDistinct { operands: self.pair(left, right, columns)?, negated: true }
            }
            _ => return Ok(None),
        }))
    }

    fn is_null(&mut self, e: &ast::Expr, negated: bool, columns: Columns) -> Result<Node, Fault> {
        Ok(Node::IsNull { operand: self.boxed(e, columns)?, negated })
    }

    fn is_bool(
        &mut self,
        expr: &ast::Expr,
        wanted: bool,
        negated: bool,
        columns: Columns,
    ) -> Result<Node, Fault> {
        Ok(Node::IsBool { operand: self.boxed(expr, columns)?, wanted, negated })
    }

    fn like(
        &mut self,
        (text, pattern): (&ast::Expr, &ast::Expr),
        escape: Option<&ast::Expr>,
        negated: bool,
        fold: bool,
        columns: Columns,
    ) -> Result<Node, Fault> {
        let escape = match escape {
            None => None,
            Some(expr) => {
                let escape = self.expr(expr, Columns::Unseen)?;
                let text = match escape.constant() {
                    Some(Constant::Text(text)) => &**text,
                    _ => "",
                };
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => Some(one),
                    _ => return Err(Fault::new(place(expr), "ESCAPE takes one character")),
                }
            }
        };
        Ok(Node::Like { operands: self.pair(text, pattern, columns)?, escape, fold, negated })
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        whens: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
        columns: Columns,
    ) -> Result<Node, Fault> {
        let operand = operand.map(|expr| self.boxed(expr, columns)).transpose()?;
        let whens: Result<Box<[_]>, Fault> = whens
            .iter()
            .map(|w| Ok((self.expr(&w.condition, columns)?, self.expr(&w.result, columns)?)))
            .collect();
        let otherwise = otherwise.map(|expr| self.boxed(expr, columns)).transpose()?;
        Ok(Node::Case { operand, whens: whens?, otherwise })
    }

    /// Calls, and what SQL has a syntax of its own for.
    fn call_node(&mut self, expr: &ast::Expr, at: Position, c: Columns) -> Result<Node, Fault> {
        use ast::Expr as E;
        match expr {
            E::Function(function) => {
                let arguments = self.arguments(function, at, c)?;
                self.call(&function.name.to_string(), arguments, at)
            }
            E::Substring { expr, substring_from, substring_for, special, shorthand } => {
                let parts = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
                let arguments = self.all(parts.into_iter().flatten().map(|part| &**part), c)?;
                // SUBSTR, and SUBSTRING with FROM, count from 1 as in SQL; substring(…) from 0.
                let name = if *shorthand || !*special { "substr" } else { "substring" };
                self.call(name, arguments, at)
            }
            E::Trim { trim_where, trim_what, expr, .. } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "trim",
                };
                let parts = [Some(expr), trim_what.as_ref()];
                let arguments = self.all(parts.into_iter().flatten().map(|part| &**part), c)?;
                self.call(name, arguments, at)
            }
            E::Ceil { expr, .. } => {
                let arguments = self.all([&**expr], c)?;
                self.call("ceil", arguments, at)
            }
            E::Floor { expr, .. } => {
                let arguments = self.all([&**expr], c)?;
                self.call("floor", arguments, at)
            }
            other => Err(Fault::new(at, format!("rules know no expression like {other}"))),
        }
    }

    fn arguments(
        &mut self,
        function: &ast::Function,
        at: Position,
        columns: Columns,
    ) -> Result<Box<[Expr]>, Fault> {
        let plain = function.over.is_none() && function.filter.is_none();
        let ast::FunctionArguments::List(list) = &function.args else {
            let what = format!("{}() needs its parentheses", function.name);
            return Err(Fault::new(at, what));
        };
        if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return Err(Fault::new(at, "rules look at one message: there are no aggregates"));
        }
        let expr = |argument: &ast::FunctionArg| match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => self.expr(expr, columns),
            other => Err(Fault::new(at, format!("{other} cannot be an argument"))),
        };
        list.args.iter().map(expr).collect()
    }

    fn call(&mut self, name: &str, arguments: Box<[Expr]>, at: Position) -> Result<Node, Fault> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        let count = arguments.len();
        if let Some((_, fact)) = FACTS.iter().find(|(known, _)| is(known)) {
            let mut arguments = arguments.into_iter();
            return match (fact, arguments.next()) {
                (fact, None) => Ok(Node::Fact(*fact)),
                (Fact::Topic, Some(level)) if count == 1 => Ok(Node::TopicLevel(Box::new(level))),
                _ => {
                    let most = usize::from(*fact == Fact::Topic);
                    Err(counts(name, "", 0, most, count, at))
                }
            };
        }
        if is(USER_PROPERTY) {
            return match <[Expr; 1]>::try_from(arguments.into_vec()) {
                Ok([of]) => Ok(Node::UserProperty(Box::new(of))),
                Err(_) => Err(counts(name, "name", 1, 1, count, at)),
            };
        }
        let Some(function) = functions::find(name) else {
            let known = functions::all().map(|function| function.name).chain(fact_names());
            let what = format!("there is no function {name}{}", instead(name, known));
            return Err(Fault::new(at, what));
        };
        let (least, most) = (usize::from(function.least), usize::from(function.most));
        if count < least || (count > most && function.most != u8::MAX) {
            return Err(counts(name, function.parameters, least, most, count, at));
        }
        let prepared = prepare(function, &arguments).map_err(|what| Fault::new(at, what))?;
        Ok(Node::Call { function, arguments, prepared })
    }
}

fn counts(name: &str, of: &str, least: usize, most: usize, count: usize, at: Position) -> Fault {
    let range = match (least, most) {
        (0, 0) => "no argument".to_owned(),
        (least, most) if least == most => format!("{least}"),
        (least, 255) => format!("{least} or more"),
        (least, most) => format!("{least} to {most}"),
    };
    Fault::new(at, format!("{name}({of}) takes {range}, not {count}"))
}

fn prepare(function: &'static Function, arguments: &[Expr]) -> Result<Prepared, String> {
    let Body::Prepared { prepare, .. } = function.body else { return Ok(Prepared::None) };
    let constants: Vec<_> =
        arguments.iter().map(|argument| argument.constant().map(Constant::value)).collect();
    prepare(&constants)
}

fn constant(value: &ast::ValueWithSpan) -> Result<Constant, Fault> {
    use ast::Value as V;
    Ok(match &value.value {
        V::Null => Constant::Null,
        V::Boolean(truth) => Constant::Bool(*truth),
        V::SingleQuotedString(text) => Constant::Text(text.as_str().into()),
        V::Number(digits, _) => match digits.parse::<i64>() {
            Ok(int) => Constant::Int(int),
            Err(_) => match digits.parse::<f64>() {
                Ok(float) if float.is_finite() => Constant::Float(float),
                _ => return Err(Fault::new(value.span, format!("{digits} is out of range"))),
            },
        },
        other => {
            let what = format!("{other} is no number and no text in single quotes");
            return Err(Fault::new(value.span, what));
        }
    })
}

fn binary(op: &BinaryOperator, sides: Box<[Expr; 2]>) -> Result<Node, String> {
    use BinaryOperator as B;
    let comparison = match op {
        B::Eq => Some(Comparison::Equal),
        B::NotEq => Some(Comparison::NotEqual),
        B::Lt => Some(Comparison::Less),
        B::LtEq => Some(Comparison::LessOrEqual),
        B::Gt => Some(Comparison::Greater),
        B::GtEq => Some(Comparison::GreaterOrEqual),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let is_null = |side: &Expr| side.constant() == Some(&Constant::Null);
        if sides.iter().any(is_null) {
            return Err(format!(
                "nothing is {} NULL; write IS NULL or IS NOT NULL",
                comparison.sign()
            ));
        }
        return Ok(Node::Compare(comparison, sides));
    }
    Ok(match op {
        B::And => Node::And(sides),
        B::Or => Node::Or(sides),
        B::StringConcat => Node::Concat(sides),
        B::Plus => Node::Arithmetic(Arithmetic::Add, sides),
        B::Minus => Node::Arithmetic(Arithmetic::Subtract, sides),
        B::Multiply => Node::Arithmetic(Arithmetic::Multiply, sides),
        B::Divide => Node::Arithmetic(Arithmetic::Divide, sides),
        B::Modulo => Node::Arithmetic(Arithmetic::Modulo, sides),
        B::BitwiseAnd => Node::Arithmetic(Arithmetic::And, sides),
        B::BitwiseOr => Node::Arithmetic(Arithmetic::Or, sides),
        B::BitwiseXor => Node::Arithmetic(Arithmetic::Xor, sides),
        other => return Err(format!("there is no operator {other}")),
    })
}

fn kind(data_type: &ast::DataType, at: Position) -> Result<Kind, Fault> {
    let shown = data_type.to_string();
    let name = shown.split(['(', ' ']).next().unwrap_or_default().to_ascii_uppercase();
    Ok(match &*name {
        "TEXT" | "VARCHAR" | "CHAR" | "CHARACTER" | "STRING" => Kind::Text,
        "INT" | "INTEGER" | "BIGINT" | "SMALLINT" | "TINYINT" | "INT64" => Kind::Int,
        "FLOAT" | "DOUBLE" | "REAL" | "DECIMAL" | "NUMERIC" | "FLOAT64" => Kind::Float,
        "BOOLEAN" | "BOOL" => Kind::Bool,
        "BYTES" | "BYTEA" | "BLOB" | "VARBINARY" | "BINARY" => Kind::Bytes,
        _ => {
            let what = format!("CAST knows no {shown}; there are TEXT, INT, FLOAT, BOOLEAN, BYTES");
            return Err(Fault::new(at, what));
        }
    })
}

/// The value of an expression over constants, calculated now.
fn fold(expr: Expr) -> Result<Expr, Fault> {
    let (mut children, mut constants) = (0, 0);
    expr.each_child(&mut |child| {
        children += 1;
        constants += usize::from(child.constant().is_some());
    });
    let asks_message = matches!(expr.node, Node::TopicLevel(_) | Node::UserProperty(_));
    if children == 0 || children != constants || asks_message {
        return Ok(expr);
    }
    let scratch = Scratch::new();
    let input = Input {
        topic: "",
        client_id: "",
        payload: b"",
        qos: 0,
        retain: false,
        username: None,
        content_type: None,
        properties: &(),
        received_ms: 0,
        overhead_bytes: 0,
    };
    let (fields, element) = (&[], &[]);
    let cx = Context { input: &input, fields, slots: &[], element, rows: &[], scratch: &scratch };
    let value = expr.eval(&cx).map(Constant::of);
    let constant = value.map_err(|failure| Fault::new(failure.at, failure.error.to_string()))?;
    Ok(Expr { at: expr.at, node: Node::Constant(constant) })
}
