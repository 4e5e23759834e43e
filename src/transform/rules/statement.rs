//! The statements of rules as they were written, before names mean anything.

use sqlparser::ast::{Expr, Ident, SelectItem};

use super::problem::Position;

/// `CREATE STREAM` or `CREATE TABLE`.
#[derive(Debug)]
pub enum Statement {
    Stream(CreateStream),
    Table(CreateTable),
}

/// `CREATE STREAM name WITH (…) AS SELECT …`.
#[derive(Debug)]
pub struct CreateStream {
    pub name: Ident,
    pub options: Vec<(Ident, Expr)>,
    pub select: Select,
}

/// `CREATE TABLE name FROM 'file' KEY column WITH (…)`.
#[derive(Debug)]
pub struct CreateTable {
    pub name: Ident,
    pub path: (String, Position),
    pub key: Ident,
    pub options: Vec<(Ident, Expr)>,
}

#[derive(Debug)]
pub struct Select {
    pub items: Vec<SelectItem>,
    pub source: Source,
    pub unnest: Option<Unnest>,
    pub joins: Vec<Join>,
    pub filter: Option<Expr>,
    pub partition_by: Option<Expr>,
}

/// Where records come from.
#[derive(Debug)]
pub enum Source {
    /// MQTT topic filters.
    Topics { filters: Vec<(String, Position)>, alias: Option<Ident> },
    /// Another stream.
    Stream { name: Ident, alias: Option<Ident> },
}

/// `UNNEST(array) AS alias`: a record for each element.
#[derive(Debug)]
pub struct Unnest {
    pub array: Expr,
    pub alias: Ident,
}

/// `[LEFT] JOIN table AS alias ON condition`.
#[derive(Debug)]
pub struct Join {
    pub table: Ident,
    pub alias: Option<Ident>,
    /// A record without a row stays.
    pub left: bool,
    pub on: Expr,
}
