//! What a record passes before it is written: WHERE and lookups, in the order in which they are asked.

use std::sync::Arc;

use super::eval::{Context, Failure};
use super::expr::{Expr, Node};
use super::plan::OnError;
use super::run::RuleRun;
use super::tables::{Row, Table};

/// Something that a record passes, or not.
#[derive(Debug)]
pub enum Gate {
    /// What is not true does not pass.
    Where(Expr),
    Join(Join),
}

/// A lookup. A record without a row passes where it is a LEFT JOIN.
#[derive(Debug)]
pub struct Join {
    pub alias: Box<str>,
    /// By its place in the plan.
    pub table: usize,
    pub key: Expr,
    pub left: bool,
}

impl Gate {
    pub fn join(&self) -> Option<&Join> {
        match self {
            Self::Where(_) => None,
            Self::Join(join) => Some(join),
        }
    }

    /// What it evaluates.
    pub fn expr(&self) -> &Expr {
        match self {
            Self::Where(expr) => expr,
            Self::Join(join) => &join.key,
        }
    }
}

/// WHERE as what it asks without looking into tables, which comes before the joins, and the rest.
pub fn gates(filter: Option<Expr>, joins: Vec<Join>) -> Vec<Gate> {
    let (mut before, mut behind) = (None, None);
    let mut waiting: Vec<Expr> = filter.into_iter().collect();
    while let Some(expr) = waiting.pop() {
        if !expr.reads_table() {
            both(&mut before, expr);
            continue;
        }
        match expr.node {
            // The left one first.
            Node::And(sides) => waiting.extend(sides.into_iter().rev()),
            node => both(&mut behind, Expr { at: expr.at, node }),
        }
    }
    let joins = joins.into_iter().map(Gate::Join);
    before.map(Gate::Where).into_iter().chain(joins).chain(behind.map(Gate::Where)).collect()
}

fn both(filter: &mut Option<Expr>, expr: Expr) {
    *filter = Some(match filter.take() {
        None => expr,
        Some(first) => Expr { at: first.at, node: Node::And(Box::new([first, expr])) },
    });
}

impl<'a> RuleRun<'a> {
    /// Whether a record passes; the rows that are found on the way are in `cx` then.
    pub(super) fn passes(
        &mut self,
        gates: &'a [Gate],
        tables: &'a [Arc<Table>],
        cx: &mut Context<'a>,
    ) -> Result<bool, Failure> {
        for gate in gates {
            let passes = match gate {
                Gate::Where(filter) => match filter.truth(cx, "WHERE") {
                    Ok(truth) => truth == Some(true),
                    Err(_) if self.rule.on_error == OnError::Null => {
                        self.failed += 1;
                        false
                    }
                    Err(failure) => return Err(failure),
                },
                Gate::Join(join) => {
                    let row = self.find(join, tables, cx)?;
                    cx.rows = cx.scratch.alloc_slice_fill_with(cx.rows.len() + 1, |at| {
                        cx.rows.get(at).copied().unwrap_or(row)
                    });
                    row.is_some() || join.left
                }
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The row that a join finds; NULL finds none.
    fn find(
        &mut self,
        join: &'a Join,
        tables: &'a [Arc<Table>],
        cx: &Context<'a>,
    ) -> Result<Option<Row<'a>>, Failure> {
        let key = self.eval(&join.key, cx)?;
        if key.is_null() {
            return Ok(None);
        }
        Ok(tables.get(join.table).and_then(|table| table.find(&key)))
    }
}
