//! How expressions are evaluated: on borrowed values, with SQL's NULL.
//!
//! AND and OR do not evaluate the right side when the left one decides.

use super::expr::{Expr, Fact, Node};
use super::functions::{self, Body, Function, Nulls, Prepared};
use super::input::Input;
use super::json::Field;
use super::operators::{Arithmetic, Comparison, like};
use super::problem::Position;
use super::tables::Row;
use super::value::{EvalError, Kind, Scratch, Value};

/// What expressions are evaluated on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub input: &'a Input<'a>,
    /// What the pass over the payload found, for every path of the group.
    pub fields: &'a [Field<'a>],
    /// For each path of the rule its place in `fields`.
    pub slots: &'a [u32],
    /// What was found in the element of UNNEST.
    pub element: &'a [Field<'a>],
    /// The row of each join so far, where there is one.
    pub rows: &'a [Option<Row<'a>>],
    pub scratch: &'a Scratch,
}

/// Why an expression has no value, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    pub at: Position,
    pub error: EvalError,
}

type Evaluated<'a> = Result<Value<'a>, Failure>;

impl From<EvalError> for Failure {
    /// Of the payload as a whole, which stands in no place of a rule.
    fn from(error: EvalError) -> Self {
        Self { at: Position::default(), error }
    }
}

impl<'a> Context<'a> {
    /// A field as it was found, for who only copies it.
    #[inline]
    pub fn field(&self, slot: usize) -> Field<'a> {
        self.fields[self.slots[slot] as usize]
    }

    /// A column of a row that was looked up; without a row there is nothing in it.
    fn column(&self, join: usize, column: usize) -> Field<'a> {
        self.rows.get(join).copied().flatten().map_or(Field::Missing, |row| row.field(column))
    }

    fn fact(&self, fact: Fact) -> Value<'a> {
        let text = |text: Option<&'a str>| text.map_or(Value::Null, Value::Text);
        match fact {
            Fact::Topic => Value::Text(self.input.topic),
            Fact::ClientId => Value::Text(self.input.client_id),
            Fact::Qos => Value::Int(i64::from(self.input.qos)),
            Fact::Retain => Value::Bool(self.input.retain),
            Fact::Username => text(self.input.username),
            Fact::ContentType => text(self.input.content_type),
            Fact::ReceivedAt => Value::Int(self.input.received_ms),
        }
    }
}

/// What a field says.
pub fn value_of<'a>(field: Field<'a>, scratch: &'a Scratch) -> Result<Value<'a>, EvalError> {
    match field {
        Field::Missing => Ok(Value::Null),
        Field::Json(raw) => raw.value(scratch),
        Field::Value(value) => Ok(value),
    }
}

impl Expr {
    #[inline]
    fn located<'a>(&self, result: Result<Value<'a>, EvalError>) -> Evaluated<'a> {
        result.map_err(|error| Failure { at: self.at, error })
    }

    fn wrong<'a>(&self, of: &'static str, wanted: &'static str, found: Value<'_>) -> Evaluated<'a> {
        self.located(Err(EvalError::Type { of, wanted, found: found.kind() }))
    }

    /// The value of the expression.
    pub fn eval<'a>(&'a self, cx: &Context<'a>) -> Evaluated<'a> {
        match &self.node {
            Node::Constant(constant) => Ok(constant.value()),
            Node::Field(slot) => self.located(value_of(cx.field(*slot), cx.scratch)),
            Node::Element(slot) => self.located(value_of(cx.element[*slot], cx.scratch)),
            Node::Column { join, column, .. } => {
                self.located(value_of(cx.column(*join, *column), cx.scratch))
            }
            Node::Fact(fact) => Ok(cx.fact(*fact)),
            Node::Compare(comparison, sides) => {
                let (left, right) = (sides[0].eval(cx)?, sides[1].eval(cx)?);
                if left.is_null() || right.is_null() {
                    return Ok(Value::Null);
                }
                self.located(comparison.holds(&left, &right).map(Value::Bool))
            }
            Node::Arithmetic(arithmetic, sides) => {
                let (left, right) = (sides[0].eval(cx)?, sides[1].eval(cx)?);
                if left.is_null() || right.is_null() {
                    return Ok(Value::Null);
                }
                self.located(arithmetic.of(left, right))
            }
            Node::And(sides) => self.both(cx, sides, false, "AND"),
            Node::Or(sides) => self.both(cx, sides, true, "OR"),
            Node::Call { function, arguments, prepared } => {
                self.call(cx, function, arguments, prepared)
            }
            _ => self.eval_rare(cx),
        }
    }

    /// What stands in few rules; apart, so that the common part stays small.
    fn eval_rare<'a>(&'a self, cx: &Context<'a>) -> Evaluated<'a> {
        match &self.node {
            Node::TopicLevel(level) => self.topic_level(cx, level),
            Node::UserProperty(name) => match name.eval(cx)? {
                Value::Text(name) => {
                    Ok(cx.input.properties.first(name).map_or(Value::Null, Value::Text))
                }
                Value::Null => Ok(Value::Null),
                other => self.wrong("user_property", "the name as text", other),
            },
            Node::Not(operand) => {
                Ok(operand.truth(cx, "NOT")?.map_or(Value::Null, |truth| Value::Bool(!truth)))
            }
            Node::Negate(operand) => match operand.eval(cx)? {
                Value::Null => Ok(Value::Null),
                Value::Float(float) => Ok(Value::Float(-float)),
                other => self.located(Arithmetic::Subtract.of(Value::Int(0), other)),
            },
            Node::BitNot(operand) => match operand.eval(cx)? {
                Value::Null => Ok(Value::Null),
                Value::Int(int) => Ok(Value::Int(!int)),
                other => self.wrong("~", "an integer", other),
            },
            Node::Concat(sides) => self.concat(cx, sides),
            Node::IsNull { operand, negated } => {
                Ok(Value::Bool(operand.eval(cx)?.is_null() != *negated))
            }
            Node::IsBool { operand, wanted, negated } => {
                let truth = operand.truth(cx, "IS")?;
                Ok(Value::Bool((truth == Some(*wanted)) != *negated))
            }
            Node::IsDistinct { operands, negated } => {
                let (left, right) = (operands[0].eval(cx)?, operands[1].eval(cx)?);
                let distinct = if left.is_null() || right.is_null() {
                    left.is_null() != right.is_null()
                } else {
                    let differ = Comparison::NotEqual.holds(&left, &right);
                    differ.map_err(|error| Failure { at: self.at, error })?
                };
                Ok(Value::Bool(distinct != *negated))
            }
            Node::Between { operands, negated } => self.between(cx, operands, *negated),
            Node::In { operand, list, negated } => self.is_in(cx, operand, list, *negated),
            Node::Like { operands, escape, fold, negated } => {
                match (operands[0].eval(cx)?, operands[1].eval(cx)?) {
                    (Value::Text(text), Value::Text(pattern)) => {
                        Ok(Value::Bool(like(text, pattern, *escape, *fold) != *negated))
                    }
                    (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
                    (Value::Text(_), other) | (other, _) => self.wrong("LIKE", "text", other),
                }
            }
            Node::Case { operand, whens, otherwise } => {
                self.case(cx, operand.as_deref(), whens, otherwise.as_deref())
            }
            Node::Cast { operand, to } => {
                let value = operand.eval(cx)?;
                self.located(functions::cast(value, *to, cx.scratch))
            }
            // All others are in `eval`.
            _ => Ok(Value::Null),
        }
    }

    /// TRUE, FALSE, or `None` for NULL.
    pub fn truth<'a>(
        &'a self,
        cx: &Context<'a>,
        of: &'static str,
    ) -> Result<Option<bool>, Failure> {
        match self.eval(cx)? {
            Value::Bool(truth) => Ok(Some(truth)),
            Value::Null => Ok(None),
            other => {
                let error = EvalError::Type { of, wanted: "a boolean", found: other.kind() };
                Err(Failure { at: self.at, error })
            }
        }
    }

    /// AND and OR: a side that is `decisive` decides, whatever the other one is.
    fn both<'a>(
        &'a self,
        cx: &Context<'a>,
        sides: &'a [Expr; 2],
        decisive: bool,
        of: &'static str,
    ) -> Evaluated<'a> {
        let left = sides[0].truth(cx, of)?;
        if left == Some(decisive) {
            return Ok(Value::Bool(decisive));
        }
        let right = sides[1].truth(cx, of)?;
        Ok(match (left, right) {
            (_, Some(right)) if right == decisive => Value::Bool(decisive),
            (Some(_), Some(_)) => Value::Bool(!decisive),
            _ => Value::Null,
        })
    }

    fn topic_level<'a>(&'a self, cx: &Context<'a>, level: &'a Expr) -> Evaluated<'a> {
        match level.eval(cx)? {
            Value::Int(level) => {
                let index = usize::try_from(level).ok().and_then(|level| level.checked_sub(1));
                let found = index.and_then(|index| cx.input.topic.split('/').nth(index));
                Ok(found.map_or(Value::Null, Value::Text))
            }
            Value::Null => Ok(Value::Null),
            other => self.wrong("topic", "the number of a level", other),
        }
    }

    fn concat<'a>(&'a self, cx: &Context<'a>, sides: &'a [Expr; 2]) -> Evaluated<'a> {
        let (left, right) = (sides[0].eval(cx)?, sides[1].eval(cx)?);
        if left.is_null() || right.is_null() {
            return Ok(Value::Null);
        }
        let text = |value| match functions::cast(value, Kind::Text, cx.scratch) {
            Ok(Value::Text(text)) => Ok(text),
            _ => Err(EvalError::Type { of: "||", wanted: "text", found: value.kind() }),
        };
        let joined = text(left).and_then(|left| {
            let right = text(right)?;
            let mut joined = bumpalo::collections::String::with_capacity_in(
                left.len() + right.len(),
                cx.scratch,
            );
            joined.push_str(left);
            joined.push_str(right);
            Ok(Value::Text(joined.into_bump_str()))
        });
        self.located(joined)
    }

    fn between<'a>(
        &'a self,
        cx: &Context<'a>,
        operands: &'a [Expr; 3],
        negated: bool,
    ) -> Evaluated<'a> {
        let value = operands[0].eval(cx)?;
        let mut truth = Some(true);
        for (bound, comparison) in
            [(&operands[1], Comparison::GreaterOrEqual), (&operands[2], Comparison::LessOrEqual)]
        {
            let bound = bound.eval(cx)?;
            if value.is_null() || bound.is_null() {
                truth = truth.filter(|truth| !truth);
                continue;
            }
            let holds = comparison.holds(&value, &bound);
            if !holds.map_err(|error| Failure { at: self.at, error })? {
                truth = Some(false);
            }
        }
        Ok(truth.map_or(Value::Null, |truth| Value::Bool(truth != negated)))
    }

    fn is_in<'a>(
        &'a self,
        cx: &Context<'a>,
        operand: &'a Expr,
        list: &'a [Expr],
        negated: bool,
    ) -> Evaluated<'a> {
        let value = operand.eval(cx)?;
        let mut unknown = value.is_null();
        for one in list {
            let one = one.eval(cx)?;
            if value.is_null() || one.is_null() {
                unknown = true;
                continue;
            }
            let equal = Comparison::Equal.holds(&value, &one);
            if equal.map_err(|error| Failure { at: self.at, error })? {
                return Ok(Value::Bool(!negated));
            }
        }
        Ok(if unknown && !list.is_empty() { Value::Null } else { Value::Bool(negated) })
    }

    fn case<'a>(
        &'a self,
        cx: &Context<'a>,
        operand: Option<&'a Expr>,
        whens: &'a [(Expr, Expr)],
        otherwise: Option<&'a Expr>,
    ) -> Evaluated<'a> {
        let operand = operand.map(|operand| operand.eval(cx)).transpose()?;
        for (when, then) in whens {
            let chosen = match operand {
                None => when.truth(cx, "WHEN")? == Some(true),
                Some(operand) => {
                    let value = when.eval(cx)?;
                    let equal = Comparison::Equal.holds(&operand, &value);
                    let equal = equal.map_err(|error| Failure { at: when.at, error })?;
                    equal && !operand.is_null() && !value.is_null()
                }
            };
            if chosen {
                return then.eval(cx);
            }
        }
        otherwise.map_or(Ok(Value::Null), |otherwise| otherwise.eval(cx))
    }

    fn call<'a>(
        &'a self,
        cx: &Context<'a>,
        function: &'static Function,
        arguments: &'a [Expr],
        prepared: &'a Prepared,
    ) -> Evaluated<'a> {
        const FEW: usize = 4;
        let mut few = [Value::Null; FEW];
        let values: &mut [Value<'a>] = match few.get_mut(..arguments.len()) {
            Some(few) => few,
            None => cx.scratch.alloc_slice_fill_copy(arguments.len(), Value::Null),
        };
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = argument.eval(cx)?;
            if value.is_null() && function.nulls == Nulls::Propagate {
                return Ok(Value::Null);
            }
        }
        self.located(match function.body {
            Body::Plain(call) => call(values, cx.scratch),
            Body::Prepared { call, .. } => call(prepared, values, cx.scratch),
        })
    }

    /// The field that the expression is, as it was found.
    #[inline]
    pub fn found<'a>(&self, cx: &Context<'a>) -> Option<Field<'a>> {
        match self.node {
            Node::Field(slot) => Some(cx.field(slot)),
            Node::Element(slot) => Some(cx.element[slot]),
            Node::Column { join, column, .. } => Some(cx.column(join, column)),
            _ => None,
        }
    }
}
