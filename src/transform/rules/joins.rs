//! Lookup tables in a plan: their statements, what their names mean, and what a join looks up.

use std::path::Path;

use sqlparser::ast::{self, Ident, SelectItem, SelectItemQualifiedWildcardKind, Spanned};

use super::compile::{Columns, Scope};
use super::expr::{Expr, Node};
use super::gates::Join;
use super::names::{named, place};
use super::paths::Step;
use super::plan::{Create, Item, Stream, sources};
use super::problem::{Fault, Position, Problem, instead};
use super::statement::{self, CreateTable, Select};
use super::tables::{self, BYTES_MAX, BYTES_MAX_MAX, Format, LookupTable, Table, Text};
use super::write::quoted;

/// Reads a file of at most so many bytes, or says why it cannot.
pub type ReadTable<'r> = &'r dyn Fn(&Path, usize) -> Result<Text, String>;

/// A table under its name in a rule.
#[derive(Debug)]
pub struct Joined<'s> {
    pub alias: &'s str,
    /// By its place in the plan.
    index: usize,
    table: &'s LookupTable,
    /// All of its columns are selected, as `alias.*`.
    is_spliced: bool,
}

impl Joined<'_> {
    /// What a name behind the alias means.
    pub fn column(&self, join: usize, steps: &[Step], at: Position) -> Result<Node, Fault> {
        let (alias, table) = (self.alias, self.table);
        let name = match steps {
            [Step::Key(name)] => name,
            [] => {
                let what = format!("{alias} is a row; name a column of it, or select {alias}.*");
                return Err(Fault::new(at, what));
            }
            [Step::Key(name), ..] => {
                let what = format!("{alias}.{name} is a column; json_extract takes a part of it");
                return Err(Fault::new(at, what));
            }
            [Step::Index(_), ..] => {
                return Err(Fault::new(at, format!("{alias} is a row and no array")));
            }
        };
        let column = table.columns.iter().position(|column| column == name).ok_or_else(|| {
            let known = table.columns.iter().map(|column| &**column);
            let what = format!("{} has no column {name}{}", table.name, instead(name, known));
            Fault::new(at, what)
        })?;
        Ok(self.node(join, column))
    }

    fn node(&self, join: usize, column: usize) -> Node {
        let name = format!("{}.{}", self.alias, self.table.columns[column]).into();
        Node::Column { join, column, name }
    }
}

impl Scope<'_> {
    /// The column of a row that all columns are selected of.
    pub fn spliced(&self, name: &str) -> Option<Node> {
        let mut joins = self.joins.iter().enumerate().filter(|(_, join)| join.is_spliced);
        joins.find_map(|(number, join)| {
            let column = join.table.columns.iter().position(|column| **column == *name)?;
            Some(join.node(number, column))
        })
    }

    /// Whether an expression is a column of a row, and so none of a field.
    pub fn is_of_row(&self, expr: &ast::Expr) -> bool {
        let first = named(expr).ok().flatten().map(|named| named.first);
        first.is_some_and(|first| {
            self.joins.iter().any(|join| join.alias.eq_ignore_ascii_case(&first.value))
        })
    }
}

/// Reads and compiles the file of a table.
pub fn table(
    (file, at): (&str, Position),
    create: &CreateTable,
    others: &[(LookupTable, Table)],
    read: ReadTable<'_>,
) -> Result<(LookupTable, Table), Problem> {
    let CreateTable { name, path: (name_of_file, path_at), key, options } = create;
    let here = |at: Position, what: String| Fault::new(at, what).in_file(file);
    if let Some((first, _)) = others.iter().find(|(known, _)| *known.name == *name.value) {
        let what = format!("there is a table {name} already, in {}:{}", first.file, first.at);
        return Err(here(name.span.into(), what));
    }
    let path = Path::new(file).parent().unwrap_or(Path::new("")).join(name_of_file);
    let shown = path.display().to_string();
    let (format, bytes_max) =
        settings(&path, *path_at, options).map_err(|fault| fault.in_file(file))?;
    let Text { bytes, stamp } = read(&path, bytes_max)
        .map_err(|why| here(*path_at, format!("{shown} cannot be read: {why}")))?;
    let of_file = |fault: Fault| fault.in_file(&shown);
    let columns = tables::utf8(&bytes).and_then(|text| tables::columns(format, text));
    let columns = columns.map_err(of_file)?;
    let known = || columns.iter().map(|column| &**column);
    let Some(key) = known().position(|column| *column == key.value) else {
        let what = format!("{shown} has no column {key}{}", instead(&key.value, known()));
        return Err(here(key.span.into(), what));
    };
    let (name, file) = (name.value.as_str().into(), file.into());
    let about = LookupTable { name, file, at, path, format, bytes_max, columns, key, stamp };
    let table = about.compile(&bytes)?;
    Ok((about, table))
}

/// The format, by extension or option, and how large the table may be.
fn settings(
    path: &Path,
    path_at: Position,
    options: &[(Ident, ast::Expr)],
) -> Result<(Format, usize), Fault> {
    let extension = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
    let mut name = extension.unwrap_or_default();
    let (mut name_at, mut delimiter, mut bytes_max) = (path_at, None, BYTES_MAX);
    for (option, value) in options {
        let at = place(value);
        let text = match value {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::SingleQuotedString(text) | ast::Value::Number(text, _) => &**text,
                _ => "",
            },
            _ => "",
        };
        match &*option.value.to_ascii_lowercase() {
            "format" => (name, name_at) = (text.to_ascii_lowercase(), at),
            "delimiter" => match text.as_bytes() {
                [one] if !b"\"\r\n".contains(one) && one.is_ascii() => delimiter = Some((*one, at)),
                _ => return Err(Fault::new(at, "delimiter is one character, such as ';'")),
            },
            "max_bytes" => {
                let within = text.parse().ok().filter(|bytes| (1..=BYTES_MAX_MAX).contains(bytes));
                let what = || format!("max_bytes is a number of bytes from 1 to {BYTES_MAX_MAX}");
                bytes_max = within.ok_or_else(|| Fault::new(at, what()))?;
            }
            other => {
                let known = ["format", "delimiter", "max_bytes"].into_iter();
                let what = format!("a table has no option {option}{}", instead(other, known));
                return Err(Fault::new(option.span, what));
            }
        }
    }
    let format = match &*name {
        "csv" => Format::Csv { delimiter: delimiter.map_or(b',', |(byte, _)| byte) },
        "jsonl" | "ndjson" => Format::JsonLines,
        _ => {
            let what = "a table's file is .csv, .jsonl or .ndjson, or WITH (format = …) says so";
            return Err(Fault::new(name_at, what));
        }
    };
    match delimiter {
        Some((_, at)) if format == Format::JsonLines => {
            Err(Fault::new(at, "JSON lines have no delimiter; only CSV has"))
        }
        _ => Ok((format, bytes_max)),
    }
}

/// Tables and streams have names of their own.
pub fn check_names(
    tables: &[LookupTable],
    creates: &[Create<'_>],
    streams: &[Stream],
    problems: &mut Vec<Problem>,
) {
    let is_stream = |name: &str| {
        creates.iter().any(|create| create.create.name.value == name)
            || streams.iter().any(|(known, _)| known == name)
    };
    for table in tables.iter().filter(|table| is_stream(&table.name)) {
        let what = format!("there is a stream {} already; a table needs another name", table.name);
        problems.push(Fault::new(table.at, what).in_file(&table.file));
    }
    let is_table = |name: &Ident| tables.iter().any(|table| *table.name == *name.value);
    for Create { file, create, .. } in creates {
        if let statement::Source::Stream { name, .. } = &create.select.source
            && is_table(name)
        {
            let what = format!("{name} is a table: FROM takes topics or a stream, JOIN takes it");
            problems.push(Fault::new(name.span, what).in_file(file));
        }
    }
}

/// The tables that a statement joins, by their aliases.
pub fn joined<'s>(select: &'s Select, tables: &'s [LookupTable]) -> Result<Vec<Joined<'s>>, Fault> {
    let mut joined: Vec<Joined<'s>> = Vec::new();
    for statement::Join { table, alias, .. } in &select.joins {
        let Some(index) = tables.iter().position(|known| *known.name == *table.value) else {
            let known = tables.iter().map(|table| &*table.name);
            let what = format!("there is no table {table}{}", instead(&table.value, known));
            return Err(Fault::new(table.span, what));
        };
        let name = alias.as_ref().unwrap_or(table);
        let element = select.unnest.as_ref().map(|unnest| &*unnest.alias.value);
        let taken = sources(&select.source).into_iter().chain(element).chain(["payload"]);
        let mut taken = taken.chain(joined.iter().map(|join| join.alias));
        if taken.any(|known| known.eq_ignore_ascii_case(&name.value)) {
            let what = format!("there is a {name} already; name the table with AS");
            return Err(Fault::new(name.span, what));
        }
        let is_spliced = select.items.iter().any(|item| {
            row_alias(item).is_some_and(|alias| alias.eq_ignore_ascii_case(&name.value))
        });
        joined.push(Joined { alias: &name.value, index, table: &tables[index], is_spliced });
    }
    Ok(joined)
}

/// What each join looks up.
pub fn joins(select: &Select, scope: &mut Scope<'_>) -> Result<Vec<Join>, Fault> {
    let joins = select.joins.iter().enumerate();
    joins.map(|(number, join)| lookup(number, join, scope)).collect()
}

fn lookup(number: usize, join: &statement::Join, scope: &mut Scope<'_>) -> Result<Join, Fault> {
    let Joined { alias, index, table, .. } = scope.joins[number];
    let key_name = &table.columns[table.key];
    let shape = || {
        let what = format!(
            "a table is looked up by its key: ON {alias}.{key_name} = …, and further conditions go \
             into WHERE"
        );
        Fault::new(place(&join.on), what)
    };
    let mut on = &join.on;
    while let ast::Expr::Nested(inner) = on {
        on = inner;
    }
    let ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } = on else {
        return Err(shape());
    };
    let is_key = |side: &ast::Expr| {
        named(side).ok().flatten().is_some_and(|named| {
            named.first.value.eq_ignore_ascii_case(alias)
                && matches!(&*named.steps, [Step::Key(name)] if name == key_name)
        })
    };
    let other = match (is_key(left), is_key(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return Err(shape()),
    };
    let key = scope.expr(other, Columns::Unseen)?;
    let mut later = None;
    key.each(&mut |expr| match &expr.node {
        Node::Column { join, name, .. } if *join >= number => later = Some((expr.at, name)),
        _ => {}
    });
    if let Some((at, name)) = later {
        let what = format!("{name} is not known before {alias} is joined");
        return Err(Fault::new(at, what));
    }
    Ok(Join { alias: alias.into(), table: index, key, left: join.left })
}

/// The alias of an `alias.*`.
fn row_alias(item: &SelectItem) -> Option<&str> {
    match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            match &*name.0 {
                [part] => part.as_ident().map(|ident| &*ident.value),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `alias.*` of a table as its columns, but for those that are selected by themselves.
pub fn row(
    item: &SelectItem,
    scope: &Scope<'_>,
    before: &[Item],
) -> Result<Option<Vec<Item>>, Fault> {
    let Some(text) = row_alias(item) else { return Ok(None) };
    let join = scope.joins.iter().position(|join| join.alias.eq_ignore_ascii_case(text));
    let Some(number) = join else { return Ok(None) };
    let join = &scope.joins[number];
    let at: Position = item.span().into();
    let mut items = Vec::new();
    for (column, name) in join.table.columns.iter().enumerate() {
        if scope.columns.iter().any(|(known, _)| **known == **name) {
            continue;
        }
        let twice = |item: &Item| matches!(item, Item::Column { name: known, .. } if known == name);
        if before.iter().any(twice) {
            let what = format!("there is a column {name} already; name the columns of {text}");
            return Err(Fault::new(at, what));
        }
        let mut head = quoted(name);
        head.push(b':');
        let value = Expr { at, node: join.node(number, column) };
        items.push(Item::Column { name: name.clone(), head: head.into(), value });
    }
    Ok(Some(items))
}
