//! Statements into plans: what each rule reads, tests and writes, all names known.
//!
//! All or nothing: either every rule of every file is right, or there is a list of problems. The
//! rules stand so that a rule comes after the one whose records it reads.

use sqlparser::ast::{self, Ident, SelectItem, SelectItemQualifiedWildcardKind};

use super::compile::{Columns, Scope};
use super::expr::{Constant, Expr, Node};
use super::formats::{self, Format};
use super::gates::{Gate, gates};
use super::group::Group;
use super::joins::{self, ReadTable};
use super::names::{own_name, place};
use super::parse::parse;
use super::paths::Paths;
use super::problem::{Fault, Position, Problem, instead};
use super::statement::{CreateStream, Select, Source, Statement};
use super::tables::{LookupTable, Tables};
use super::write::quoted;

/// The stream that takes what rules cannot evaluate.
pub const DEAD_LETTERS: &str = "_deadletter";

/// All rules.
#[derive(Debug, Default)]
pub struct Plan {
    /// A rule that reads another one's records stands behind it.
    pub rules: Vec<Rule>,
    pub tables: Tables,
}

/// One stream that rules make.
#[derive(Debug)]
pub struct Rule {
    pub name: Box<str>,
    pub file: Box<str>,
    pub at: Position,
    pub from: From,
    /// The rules that read this one's records.
    pub readers: Group,
    /// What is read of the payload, by slot.
    pub paths: Paths,
    /// WHERE and joins.
    pub gates: Vec<Gate>,
    pub unnest: Option<Unnest>,
    pub output: Output,
    /// The key of its records, which also decides on their partition.
    pub key: Option<Expr>,
    pub timestamp: Option<Expr>,
    pub headers: Vec<(Box<str>, Expr)>,
    pub on_error: OnError,
    /// How payloads are read; not said: by their content type, or else as JSON.
    pub format: Option<Format>,
    /// The options of the stream itself.
    pub settings: Vec<Setting>,
}

/// Where a rule's records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Topics(Vec<String>),
    /// The records of another rule.
    Rule(usize),
}

/// A record for each element of an array.
#[derive(Debug)]
pub struct Unnest {
    pub array: Expr,
    pub alias: Box<str>,
    /// What is read of an element, by slot.
    pub paths: Paths,
    /// From here on the gates are asked for each element, as they read it.
    pub gates_from: usize,
}

/// What a record is made of.
#[derive(Debug)]
pub enum Output {
    /// The payload as it came.
    Untouched,
    Object(Vec<Item>),
}

/// A part of an object that is written.
#[derive(Debug)]
pub enum Item {
    /// The members of the payload that no column replaces.
    Payload,
    /// The members of the element of UNNEST, likewise.
    Element,
    /// A member; its name stands quoted, with the colon behind it.
    Column { name: Box<str>, head: Box<[u8]>, value: Expr },
}

/// What becomes of a record that a rule cannot evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It goes to [`DEAD_LETTERS`].
    #[default]
    DeadLetter,
    Drop,
    /// What has no value is NULL; an invalid payload is a dead letter all the same.
    Null,
}

/// An option of the stream, not understood here.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub at: Position,
}

/// A stream of the configuration: its name and topic filters.
pub type Stream = (String, Vec<String>);

/// A file of rules: its name and text.
pub type File = (String, String);

/// The plan of all files, or all that is wrong with them.
pub fn plan(files: &[File], streams: &[Stream]) -> Result<Plan, Vec<Problem>> {
    plan_with(files, streams, &|_, _| Err("there are no files here".to_owned()))
}

/// As [`plan`], where the files of lookup tables can be read.
pub fn plan_with(
    files: &[File],
    streams: &[Stream],
    read: ReadTable<'_>,
) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for (file, text) in files {
        match parse(file, text) {
            Ok(statements) => found.extend(statements.into_iter().map(|(s, at)| (&**file, s, at))),
            Err(more) => problems.extend(more),
        }
    }
    let (mut creates, mut tables) = (Vec::new(), Vec::new());
    for (file, statement, at) in found {
        match statement {
            Statement::Stream(create) => creates.push(Create { file, at, create }),
            Statement::Table(create) => match joins::table((file, at), &create, &tables, read) {
                Ok(table) => tables.push(table),
                Err(problem) => problems.push(problem),
            },
        }
    }
    let tables = Tables::new(tables);
    joins::check_names(&tables.all, &creates, streams, &mut problems);
    // Rules that join tables which are wrong would be wrong too.
    if !problems.is_empty() {
        return Err(problems);
    }
    let order = order(&creates, streams, &mut problems);
    let mut plan = Plan::default();
    for (create, parent) in &order {
        let from = match &create.create.select.source {
            Source::Topics { filters, .. } => check_topics(filters).map(From::Topics),
            Source::Stream { name, .. } => Ok(match parent {
                Some(parent) => From::Rule(*parent),
                None => From::Topics(filters_of(&name.value, streams).unwrap_or_default()),
            }),
        };
        match from.and_then(|from| rule(create, from, &tables.all)) {
            Ok(rule) => plan.rules.push(rule),
            Err(fault) => problems.push(fault.in_file(create.file)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let groups: Vec<Group> =
        (0..plan.rules.len()).map(|rule| Group::new(&plan.rules, &plan.readers_of(rule))).collect();
    for (rule, readers) in plan.rules.iter_mut().zip(groups) {
        rule.readers = readers;
    }
    plan.tables = tables;
    Ok(plan)
}

impl Plan {
    fn readers_of(&self, rule: usize) -> Vec<usize> {
        let reads = |(_, reader): &(usize, &Rule)| reader.from == From::Rule(rule);
        self.rules.iter().enumerate().filter(reads).map(|(index, _)| index).collect()
    }

    /// The rules that read a topic, by their filters.
    pub fn filters(&self) -> impl Iterator<Item = (&str, usize)> {
        self.rules.iter().enumerate().flat_map(|(index, rule)| {
            match &rule.from {
                From::Topics(topics) => topics.as_slice(),
                From::Rule(_) => &[],
            }
            .iter()
            .map(move |topic| (topic.as_str(), index))
        })
    }
}

pub(super) struct Create<'f> {
    pub file: &'f str,
    pub at: Position,
    pub create: CreateStream,
}

fn filters_of(name: &str, streams: &[Stream]) -> Option<Vec<String>> {
    streams.iter().find(|(known, _)| known == name).map(|(_, topics)| topics.clone())
}

/// The streams so that each comes after the one that it reads, with the place of that one.
fn order<'c>(
    creates: &'c [Create<'c>],
    streams: &[Stream],
    problems: &mut Vec<Problem>,
) -> Vec<(&'c Create<'c>, Option<usize>)> {
    let mut ordered: Vec<(&Create<'_>, Option<usize>)> = Vec::new();
    let mut waiting: Vec<&Create<'_>> = Vec::new();
    for create in creates {
        let name = &create.create.name;
        let fault = if let Some(first) = waiting.iter().find(|w| w.create.name.value == name.value)
        {
            Some(format!("there is a stream {} already, in {}:{}", name, first.file, first.at))
        } else if streams.iter().any(|(known, _)| *known == name.value) {
            Some(format!("the configuration has a stream {name} already"))
        } else if name.value == DEAD_LETTERS {
            Some(format!("{DEAD_LETTERS} is the stream of what rules cannot evaluate"))
        } else {
            None
        };
        match fault {
            None => waiting.push(create),
            Some(what) => problems.push(Fault::new(name.span, what).in_file(create.file)),
        }
    }
    loop {
        let before = waiting.len();
        waiting.retain(|create| {
            let parent = match &create.create.select.source {
                Source::Topics { .. } => None,
                Source::Stream { name, .. } if filters_of(&name.value, streams).is_some() => None,
                Source::Stream { name, .. } => {
                    let parent =
                        ordered.iter().position(|(c, _)| c.create.name.value == name.value);
                    if parent.is_none() {
                        return true;
                    }
                    parent
                }
            };
            ordered.push((create, parent));
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    for create in &waiting {
        let Source::Stream { name, .. } = &create.create.select.source else { continue };
        let known: Vec<&str> = creates.iter().map(|create| &*create.create.name.value).collect();
        let what = if known.contains(&&*name.value) {
            format!("{} reads, by way of {name}, its own records", create.create.name)
        } else {
            let known = known.into_iter().chain(streams.iter().map(|(name, _)| &**name));
            format!("there is no stream {name}{}", instead(&name.value, known))
        };
        problems.push(Fault::new(name.span, what).in_file(create.file));
    }
    ordered
}

/// MQTT 5, section 4.7.1.
fn check_topics(topics: &[(String, Position)]) -> Result<Vec<String>, Fault> {
    for (topic, at) in topics {
        let mut levels = topic.split('/').peekable();
        let mut what = if topic.is_empty() { Some("a topic filter is not empty") } else { None };
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                what = Some("# is a whole level of a topic filter, and its last one");
            } else if level.contains('+') && level != "+" {
                what = Some("+ is a whole level of a topic filter");
            }
        }
        if let Some(what) = what {
            return Err(Fault::new(*at, what));
        }
    }
    Ok(topics.iter().map(|(topic, _)| topic.clone()).collect())
}

fn rule(create: &Create<'_>, from: From, tables: &[LookupTable]) -> Result<Rule, Fault> {
    let Create { file, at, create: CreateStream { name, options, select } } = create;
    let columns = columns(select)?;
    let mut scope = Scope {
        sources: sources(&select.source),
        element: select.unnest.as_ref().map(|unnest| &*unnest.alias.value),
        joins: joins::joined(select, tables)?,
        columns: columns.iter().map(|(name, expr)| (&**name, *expr)).collect(),
        paths: Paths::default(),
        element_paths: Paths::default(),
    };
    // In the order in which they are evaluated.
    let filter = select.filter.as_ref().map(|expr| scope.expr(expr, Columns::Behind));
    let gates = gates(filter.transpose()?, joins::joins(select, &mut scope)?);
    let array = match &select.unnest {
        None => None,
        Some(unnest) => {
            let array = scope.expr(&unnest.array, Columns::Unseen)?;
            if array.reads_element() {
                return Err(Fault::new(array.at, "an array cannot be inside its own elements"));
            }
            if array.reads_table() {
                return Err(Fault::new(array.at, "UNNEST comes before lookups: it reads no table"));
            }
            Some((array, &unnest.alias))
        }
    };
    let output = output(select, &mut scope)?;
    let mut rule = Rule {
        name: (&*name.value).into(),
        file: (*file).into(),
        at: *at,
        from,
        readers: Group::default(),
        paths: Paths::default(),
        gates,
        unnest: None,
        output,
        key: None,
        timestamp: None,
        headers: Vec::new(),
        on_error: OnError::default(),
        format: None,
        settings: Vec::new(),
    };
    for (name, value) in options {
        option(&mut rule, name, value, &mut scope)?;
    }
    if let Some(by) = &select.partition_by {
        if let Some(key) = &rule.key {
            return Err(Fault::new(key.at, "the key partitions: give key or PARTITION BY"));
        }
        rule.key = Some(scope.expr(by, Columns::First)?);
    }
    rule.paths = scope.paths;
    let paths = scope.element_paths;
    let gates_from = rule.gates.iter().position(|gate| gate.expr().reads_element());
    let gates_from = gates_from.unwrap_or(rule.gates.len());
    rule.unnest = array.map(|(array, alias)| Unnest {
        array,
        alias: (&*alias.value).into(),
        paths,
        gates_from,
    });
    Ok(rule)
}

pub(super) fn sources(source: &Source) -> Vec<&str> {
    match source {
        Source::Topics { alias, .. } => alias.iter().map(|alias| &*alias.value).collect(),
        Source::Stream { name, alias } => {
            std::iter::once(name).chain(alias).map(|name| &*name.value).collect()
        }
    }
}

/// The columns that have names of their own, for clauses that refer to them.
fn columns(select: &Select) -> Result<Vec<(String, &ast::Expr)>, Fault> {
    let mut columns: Vec<(String, &ast::Expr)> = Vec::new();
    for item in &select.items {
        let (name, expr) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (alias.value.clone(), expr),
            SelectItem::UnnamedExpr(expr) => (own_name(expr)?, expr),
            _ => continue,
        };
        if columns.iter().any(|(known, _)| *known == name) {
            let what = format!("there is a column {name} already; name this one with AS");
            return Err(Fault::new(place(expr), what));
        }
        columns.push((name, expr));
    }
    Ok(columns)
}

fn output(select: &Select, scope: &mut Scope<'_>) -> Result<Output, Fault> {
    if let [SelectItem::Wildcard(_)] = &*select.items {
        return Ok(Output::Untouched);
    }
    let mut items = Vec::with_capacity(select.items.len());
    for item in &select.items {
        if let Some(row) = joins::row(item, scope, &items)? {
            items.extend(row);
            continue;
        }
        items.push(match item {
            SelectItem::Wildcard(_) => {
                scope.paths.intern(&[]);
                Item::Payload
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let text = name.to_string();
                let is = |known: &str| known.eq_ignore_ascii_case(&text);
                if scope.element.is_some_and(is) {
                    scope.element_paths.intern(&[]);
                    Item::Element
                } else if is("payload") || scope.sources.iter().any(|source| is(source)) {
                    if select.items.len() == 1 {
                        return Ok(Output::Untouched);
                    }
                    scope.paths.intern(&[]);
                    Item::Payload
                } else {
                    let known = scope.sources.iter().copied().chain(scope.element);
                    let known = known.chain(scope.joins.iter().map(|join| join.alias));
                    let what = format!("there is no source {text}{}", instead(&text, known));
                    let at = name.0.first().map(sqlparser::ast::Spanned::span);
                    return Err(Fault::new(
                        at.unwrap_or(sqlparser::tokenizer::Span::empty()),
                        what,
                    ));
                }
            }
            SelectItem::ExprWithAlias { expr, alias } => column(&alias.value, expr, scope)?,
            SelectItem::UnnamedExpr(expr) => column(&own_name(expr)?, expr, scope)?,
            other => {
                let what = format!("{other} cannot be selected");
                return Err(Fault::new(sqlparser::ast::Spanned::span(other), what));
            }
        });
    }
    Ok(Output::Object(items))
}

fn column(name: &str, expr: &ast::Expr, scope: &mut Scope<'_>) -> Result<Item, Fault> {
    let mut head = quoted(name);
    head.push(b':');
    let value = scope.expr(expr, Columns::Unseen)?;
    Ok(Item::Column { name: name.into(), head: head.into(), value })
}

/// Takes an option of WITH.
fn option(
    rule: &mut Rule,
    name: &Ident,
    value: &ast::Expr,
    scope: &mut Scope<'_>,
) -> Result<(), Fault> {
    match &*name.value.to_ascii_lowercase() {
        "key" => rule.key = Some(scope.expr(value, Columns::First)?),
        "timestamp" => rule.timestamp = Some(scope.expr(value, Columns::First)?),
        "headers" => {
            let list = match value {
                ast::Expr::Tuple(list) => list.iter().collect(),
                ast::Expr::Nested(one) => vec![&**one],
                one => vec![one],
            };
            for expr in list {
                let header = own_name(expr)?;
                rule.headers.push((header.into(), scope.expr(expr, Columns::First)?));
            }
        }
        "on_error" => {
            rule.on_error = match constant_text(value, scope)?.as_deref() {
                Some("deadletter") => OnError::DeadLetter,
                Some("drop") => OnError::Drop,
                Some("null") => OnError::Null,
                _ => {
                    let what = "on_error is 'deadletter', 'drop' or 'null'";
                    return Err(Fault::new(place(value), what));
                }
            };
        }
        "format" => {
            let name = constant_text(value, scope)?.unwrap_or_default();
            rule.format = Some(Format::named(&name).ok_or_else(|| {
                let known: Vec<&str> = formats::NAMES.iter().map(|(name, _)| *name).collect();
                Fault::new(place(value), format!("format is one of {}", known.join(", ")))
            })?);
        }
        _ => {
            let Some(text) = constant_text(value, scope)? else {
                let what = format!("{name} takes a number or a text in single quotes");
                return Err(Fault::new(place(value), what));
            };
            let at = name.span.into();
            rule.settings.push(Setting { name: name.value.clone(), value: text, at });
        }
    }
    Ok(())
}

fn constant_text(expr: &ast::Expr, scope: &mut Scope<'_>) -> Result<Option<String>, Fault> {
    Ok(match scope.expr(expr, Columns::Unseen)?.node {
        Node::Constant(Constant::Text(text)) => Some(text.into()),
        Node::Constant(Constant::Int(int)) => Some(int.to_string()),
        _ => None,
    })
}
