//! Operators over values: comparison, arithmetic, LIKE. NULL never comes here.
//!
//! Integers are of 64 bits and do not wrap; `/` always gives a float, as JSON does not tell 3 from
//! 3.0 and a sensor that happens to send 3 must not change the result; `%` of integers is an
//! integer. A float that is not finite is an error, because JSON has no word for it.

use std::cmp::Ordering;

use super::value::{EvalError, Value};

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is calculated with two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
}

impl Comparison {
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Values of different kinds are not equal, and have no order.
    #[inline]
    pub fn holds(self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, EvalError> {
        let Some(order) = order(left, right) else {
            let objects = matches!((left, right), (Value::Json(_), Value::Json(_)));
            return match self {
                Self::Equal if !objects => Ok(false),
                Self::NotEqual if !objects => Ok(true),
                _ => Err(EvalError::Type {
                    of: self.sign(),
                    wanted: "two numbers, two texts, two booleans or two byte strings",
                    found: right.kind(),
                }),
            };
        };
        Ok(match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        })
    }
}

/// How two values stand to one another; numbers exactly, whatever their type.
#[inline]
pub fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Float(right)) => order_mixed(*left, *right),
        (Value::Float(left), Value::Int(right)) => {
            order_mixed(*right, *left).map(Ordering::reverse)
        }
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// A float above 2^53 would swallow the last digits of an integer.
fn order_mixed(int: i64, float: f64) -> Option<Ordering> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= BEYOND {
        return Some(Ordering::Less);
    }
    if float < -BEYOND {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i64)).then_with(|| 0.0_f64.total_cmp(&(float - whole + 0.0))))
}

impl Arithmetic {
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "^",
        }
    }

    #[inline]
    pub fn of<'a>(self, left: Value<'_>, right: Value<'_>) -> Result<Value<'a>, EvalError> {
        match (left, right) {
            (Value::Int(left), Value::Int(right)) => self.of_ints(left, right),
            (Value::Int(left), Value::Float(right)) => self.of_floats(left as f64, right),
            (Value::Float(left), Value::Int(right)) => self.of_floats(left, right as f64),
            (Value::Float(left), Value::Float(right)) => self.of_floats(left, right),
            (Value::Int(_) | Value::Float(_), other) | (other, _) => Err(self.wants(other)),
        }
    }

    fn wants(self, found: Value<'_>) -> EvalError {
        let bits = matches!(self, Self::And | Self::Or | Self::Xor);
        let wanted = if bits { "integers" } else { "numbers" };
        EvalError::Type { of: self.sign(), wanted, found: found.kind() }
    }

    fn of_ints<'a>(self, left: i64, right: i64) -> Result<Value<'a>, EvalError> {
        let of = self.sign();
        let whole = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => return self.of_floats(left as f64, right as f64),
            Self::Modulo if right == 0 => return Err(EvalError::DivisionByZero { of }),
            Self::Modulo => Some(left.wrapping_rem(right)),
            Self::And => Some(left & right),
            Self::Or => Some(left | right),
            Self::Xor => Some(left ^ right),
        };
        whole.map(Value::Int).ok_or(EvalError::OutOfRange { of })
    }

    fn of_floats<'a>(self, left: f64, right: f64) -> Result<Value<'a>, EvalError> {
        let of = self.sign();
        let float = match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide | Self::Modulo if right == 0.0 => {
                return Err(EvalError::DivisionByZero { of });
            }
            Self::Divide => left / right,
            Self::Modulo => left % right,
            Self::And | Self::Or | Self::Xor => return Err(self.wants(Value::Float(left))),
        };
        if float.is_finite() { Ok(Value::Float(float)) } else { Err(EvalError::OutOfRange { of }) }
    }
}

/// LIKE: `%` stands for any text, `_` for one character; `escape` takes their meaning from what
/// follows it.
pub fn like(text: &str, pattern: &str, escape: Option<char>, fold: bool) -> bool {
    let same = |a: char, b: char| a == b || (fold && a.to_lowercase().eq(b.to_lowercase()));
    let (mut text, mut pattern) = (text.chars(), pattern.chars());
    // Where to go on when what follows the last % does not match here.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let wanted = pattern.next();
        let escaped = wanted.is_some() && wanted == escape;
        let wanted = if escaped { pattern.next() } else { wanted };
        let matched = match wanted {
            Some('%') if !escaped => {
                again = Some((text.clone(), pattern.clone()));
                continue;
            }
            Some('_') if !escaped => text.next().is_some(),
            Some(wanted) => text.next().is_some_and(|found| same(found, wanted)),
            None => text.as_str().is_empty(),
        };
        if matched {
            if wanted.is_none() {
                return true;
            }
            continue;
        }
        let Some((mut rest, after)) = again.clone() else { return false };
        if rest.next().is_none() {
            return false;
        }
        again = Some((rest.clone(), after.clone()));
        (text, pattern) = (rest, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_exactly() {
        let check = |left: Value<'_>, right: Value<'_>, expected: Ordering| {
            assert_eq!(order(&left, &right), Some(expected), "{left:?} {right:?}");
            assert_eq!(order(&right, &left), Some(expected.reverse()), "{right:?} {left:?}");
        };
        check(Value::Int(3), Value::Float(3.0), Ordering::Equal);
        check(Value::Int(0), Value::Float(-0.0), Ordering::Equal);
        check(Value::Int(3), Value::Float(3.5), Ordering::Less);
        check(Value::Int(-3), Value::Float(-3.5), Ordering::Greater);
        let beyond = 9_007_199_254_740_993;
        check(Value::Int(beyond), Value::Float(9_007_199_254_740_992.0), Ordering::Greater);
        check(Value::Int(i64::MAX), Value::Float(9.3e18), Ordering::Less);
        check(Value::Int(i64::MIN), Value::Float(-9.3e18), Ordering::Greater);
        check(Value::Int(i64::MIN), Value::Float(-9_223_372_036_854_775_808.0), Ordering::Equal);
        check(Value::Text("a"), Value::Text("b"), Ordering::Less);
        check(Value::Bool(false), Value::Bool(true), Ordering::Less);
        let (one, text) = (Value::Int(1), Value::Text("1"));
        assert_eq!(Comparison::Equal.holds(&one, &text), Ok(false));
        assert_eq!(Comparison::NotEqual.holds(&one, &text), Ok(true));
        assert!(Comparison::Less.holds(&one, &text).is_err());
        assert!(Comparison::Equal.holds(&Value::Json("{}"), &Value::Json("{}")).is_err());
    }

    #[test]
    fn arithmetic_does_not_wrap_and_knows_no_infinity() {
        use Arithmetic::{Add, And, Divide, Modulo, Multiply, Subtract};
        let (int, float) = (Value::Int, Value::Float);
        let check = |op: Arithmetic, left, right, expected: Result<Value<'_>, EvalError>| {
            assert_eq!(op.of(left, right), expected, "{left:?} {} {right:?}", op.sign());
        };
        check(Add, int(2), int(3), Ok(int(5)));
        check(Multiply, int(2), float(1.5), Ok(float(3.0)));
        check(Divide, int(7), int(2), Ok(float(3.5)));
        check(Divide, int(4), int(2), Ok(float(2.0)));
        check(Modulo, int(-7), int(2), Ok(int(-1)));
        check(Modulo, int(i64::MIN), int(-1), Ok(int(0)));
        check(Modulo, float(7.5), int(2), Ok(float(1.5)));
        check(And, int(6), int(3), Ok(int(2)));
        check(Add, int(i64::MAX), int(1), Err(EvalError::OutOfRange { of: "+" }));
        check(Subtract, int(i64::MIN), int(1), Err(EvalError::OutOfRange { of: "-" }));
        check(Multiply, float(1e300), float(1e300), Err(EvalError::OutOfRange { of: "*" }));
        check(Divide, int(1), int(0), Err(EvalError::DivisionByZero { of: "/" }));
        check(Modulo, int(1), int(0), Err(EvalError::DivisionByZero { of: "%" }));
        assert!(Add.of(int(1), Value::Text("1")).is_err());
        assert!(And.of(float(1.0), int(1)).is_err());
    }

    #[test]
    fn like_matches_as_sql_says() {
        let check = |text: &str, pattern: &str, expected: bool| {
            assert_eq!(like(text, pattern, Some('\\'), false), expected, "{text} {pattern}");
        };
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "_b_", true),
            ("abc", "__", false),
            ("", "%", true),
            ("", "", true),
            ("", "_", false),
            ("äöü", "_ö_", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("aab", "%ab", true),
            ("abab", "%ab", true),
            ("mississippi", "m%iss%pi", true),
            ("mississippi", "m%iss%x", false),
            ("abc", "%%%", true),
            ("ABC", "abc", false),
        ] {
            check(text, pattern, expected);
        }
        assert!(like("ÄBC", "ä%", None, true));
        let long = "a".repeat(2000);
        assert!(!like(&long, &"a%".repeat(50).replace("a%a%", "a%a%b%"), None, false));
    }
}
