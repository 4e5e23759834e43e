//! Expressions of a plan: what there is to evaluate. An expression knows where it stands in its file,
//! so that a record that cannot be evaluated can say where.

use super::functions::{Function, Prepared};
use super::operators::{Arithmetic, Comparison};
use super::problem::Position;
use super::value::{Kind, Value};

/// An expression and its place.
#[derive(Debug)]
pub struct Expr {
    pub at: Position,
    pub node: Node,
}

/// A value of the plan itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Json(Box<str>),
}

/// What a message tells beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Topic,
    ClientId,
    Qos,
    Retain,
    Username,
    ContentType,
    ReceivedAt,
}

#[derive(Debug)]
pub enum Node {
    Constant(Constant),
    /// A field of the payload, by its slot.
    Field(usize),
    /// A field of the element that UNNEST is at.
    Element(usize),
    /// A column of the row that a join of the rule has found; and what it is called.
    Column {
        join: usize,
        column: usize,
        name: Box<str>,
    },
    Fact(Fact),
    /// A level of the topic, counted from 1.
    TopicLevel(Box<Expr>),
    UserProperty(Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    BitNot(Box<Expr>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Compare(Comparison, Box<[Expr; 2]>),
    Arithmetic(Arithmetic, Box<[Expr; 2]>),
    Concat(Box<[Expr; 2]>),
    IsNull {
        operand: Box<Expr>,
        negated: bool,
    },
    /// IS [NOT] TRUE and IS [NOT] FALSE.
    IsBool {
        operand: Box<Expr>,
        wanted: bool,
        negated: bool,
    },
    /// IS [NOT] DISTINCT FROM.
    IsDistinct {
        operands: Box<[Expr; 2]>,
        negated: bool,
    },
    Between {
        operands: Box<[Expr; 3]>,
        negated: bool,
    },
    In {
        operand: Box<Expr>,
        list: Box<[Expr]>,
        negated: bool,
    },
    Like {
        operands: Box<[Expr; 2]>,
        escape: Option<char>,
        fold: bool,
        negated: bool,
    },
    Case {
        operand: Option<Box<Expr>>,
        whens: Box<[(Expr, Expr)]>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        operand: Box<Expr>,
        to: Kind,
    },
    Call {
        function: &'static Function,
        arguments: Box<[Expr]>,
        prepared: Prepared,
    },
}

impl Constant {
    #[inline]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Json(value) => Value::Json(value),
        }
    }

    pub fn of(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Text(value) => Self::Text(value.into()),
            Value::Bytes(value) => Self::Bytes(value.into()),
            Value::Json(value) => Self::Json(value.into()),
        }
    }
}

impl Expr {
    pub fn constant(&self) -> Option<&Constant> {
        match &self.node {
            Node::Constant(constant) => Some(constant),
            _ => None,
        }
    }

    /// Calls `each` with the expressions that this one is made of.
    pub fn each_child<'e>(&'e self, each: &mut dyn FnMut(&'e Expr)) {
        match &self.node {
            Node::Constant(_)
            | Node::Field(_)
            | Node::Element(_)
            | Node::Column { .. }
            | Node::Fact(_) => {}
            Node::TopicLevel(one)
            | Node::UserProperty(one)
            | Node::Not(one)
            | Node::Negate(one)
            | Node::BitNot(one)
            | Node::IsNull { operand: one, .. }
            | Node::IsBool { operand: one, .. }
            | Node::Cast { operand: one, .. } => each(one),
            Node::And(two)
            | Node::Or(two)
            | Node::Compare(_, two)
            | Node::Arithmetic(_, two)
            | Node::Concat(two)
            | Node::IsDistinct { operands: two, .. }
            | Node::Like { operands: two, .. } => two.iter().for_each(each),
            Node::Between { operands, .. } => operands.iter().for_each(each),
            Node::In { operand, list, .. } => {
                each(operand);
                list.iter().for_each(each);
            }
            Node::Case { operand, whens, otherwise } => {
                operand.iter().for_each(|operand| each(operand));
                for (when, then) in whens {
                    each(when);
                    each(then);
                }
                otherwise.iter().for_each(|otherwise| each(otherwise));
            }
            Node::Call { arguments, .. } => arguments.iter().for_each(each),
        }
    }

    /// Calls `each` with the expression and all that it is made of.
    pub fn each<'e>(&'e self, each: &mut dyn FnMut(&'e Expr)) {
        each(self);
        self.each_child(&mut |child| child.each(each));
    }

    /// Whether the element of UNNEST is read.
    pub fn reads_element(&self) -> bool {
        let mut reads = false;
        self.each(&mut |expr| reads |= matches!(expr.node, Node::Element(_)));
        reads
    }

    /// Whether a row of a lookup table is read.
    pub fn reads_table(&self) -> bool {
        let mut reads = false;
        self.each(&mut |expr| reads |= matches!(expr.node, Node::Column { .. }));
        reads
    }
}
