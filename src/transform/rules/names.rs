//! Names as they are written: paths into a payload, places, the names of columns.

use sqlparser::ast::{self, AccessExpr, Ident, Spanned, Subscript};

use super::paths::Step;
use super::problem::{Fault, Position};

/// Where an expression was written.
pub fn place(expr: &ast::Expr) -> Position {
    expr.span().into()
}

/// The first name of a path and the steps after it.
pub struct Named<'e> {
    pub first: &'e Ident,
    pub steps: Vec<Step>,
}

fn key(ident: &Ident) -> Step {
    Step::Key(ident.value.as_str().into())
}

/// `a.b[0]['c']` as a name and steps; `None` where it is something else.
pub fn named(expr: &ast::Expr) -> Result<Option<Named<'_>>, Fault> {
    Ok(match expr {
        ast::Expr::Identifier(first) => Some(Named { first, steps: Vec::new() }),
        ast::Expr::CompoundIdentifier(idents) => idents
            .split_first()
            .map(|(first, rest)| Named { first, steps: rest.iter().map(key).collect() }),
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            let Some(mut named) = named(root)? else {
                let what = "only a field of the payload has members; json_extract takes others";
                return Err(Fault::new(place(root), what));
            };
            for access in access_chain {
                named.steps.push(step(access)?);
            }
            Some(named)
        }
        ast::Expr::Nested(inner) if matches!(**inner, ast::Expr::Identifier(_)) => named(inner)?,
        _ => None,
    })
}

fn step(access: &AccessExpr) -> Result<Step, Fault> {
    let inner = match access {
        AccessExpr::Dot(inner) | AccessExpr::Subscript(Subscript::Index { index: inner }) => inner,
        AccessExpr::Subscript(_) => {
            let what = "a part of an array cannot be taken; an index is a number from 0";
            return Err(Fault::new(Position::default(), what));
        }
    };
    match inner {
        ast::Expr::Identifier(ident) if matches!(access, AccessExpr::Dot(_)) => Ok(key(ident)),
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) if digits.parse::<u32>().is_ok() => {
                Ok(Step::Index(digits.parse().unwrap_or_default()))
            }
            ast::Value::SingleQuotedString(name) => Ok(Step::Key(name.as_str().into())),
            _ => Err(Fault::new(value.span, "an index is a whole number from 0, or 'a name'")),
        },
        other => Err(Fault::new(
            place(other),
            "an index is a whole number from 0, or 'a name'; json_extract takes what is calculated",
        )),
    }
}

/// Whether an expression reads the field `name` of the payload.
pub fn reads(expr: &ast::Expr, name: &str) -> bool {
    let shown = expr.to_string();
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    // Conservative: a name that stands anywhere in the expression counts as read.
    shown.match_indices(name).any(|(at, _)| {
        let before = shown[..at].chars().next_back();
        let after = shown[at + name.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(|c| part(c) || c == '(')
    })
}

/// The name of a column that was given none: the last step of a path, or the function's.
pub fn own_name(expr: &ast::Expr) -> Result<String, Fault> {
    let name = match expr {
        ast::Expr::Identifier(ident) => Some(ident.value.clone()),
        ast::Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()),
        ast::Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(ast::Expr::Identifier(ident))) => Some(ident.value.clone()),
            _ => None,
        },
        ast::Expr::Function(function) => Some(function.name.to_string().to_lowercase()),
        _ => None,
    };
    name.ok_or_else(|| Fault::new(place(expr), format!("{expr} needs a name: AS name")))
}
