//! The text of rules into statements: sqlparser's tokens and expressions, and around them a grammar
//! of our own, because topic filters in FROM, PARTITION BY and KEY are not SQL's.

use sqlparser::ast::{Expr, Ident};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::problem::{Fault, Position, Problem};
use super::statement::{CreateStream, CreateTable, Join, Select, Source, Statement, Unnest};

/// Expressions in one another, at the most.
const DEPTH_MAX: usize = 64;
/// Operators in a statement, at the most: `a + b + c …` is a tree as deep as it is long, and whoever
/// walks it, a shard too, has a stack.
const OPERATORS_MAX: usize = 300;

/// What SQL joins in other ways with.
const OTHER_JOINS: [&str; 6] = ["RIGHT", "FULL", "OUTER", "NATURAL", "SEMI", "ANTI"];

/// SQL with names in double quotes or backticks.
#[derive(Debug)]
struct RuleDialect;

impl Dialect for RuleDialect {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"' || ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }
}

/// The statements of a file, or all that is wrong with them, one a statement.
pub fn parse(file: &str, text: &str) -> Result<Vec<(Statement, Position)>, Vec<Problem>> {
    let tokens = Tokenizer::new(&RuleDialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| {
        let fault = Fault::new(error.location, lower_first(&error.message));
        vec![fault.in_file(file)]
    })?;
    let (mut statements, mut problems) = (Vec::new(), Vec::new());
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        let is_text = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_));
        let Some(first) = tokens.iter().find(is_text).filter(|t| t.token != Token::EOF) else {
            continue;
        };
        if let Some(operator) = tokens.iter().filter(is_operator).nth(OPERATORS_MAX) {
            let what = format!(
                "a statement has at most {OPERATORS_MAX} operators; IN (…), a lookup table or several \
                 rules say it with fewer"
            );
            problems.push(Fault::new(operator.span, what).in_file(file));
            continue;
        }
        let end = tokens.last().map_or(first.span.end, |last| last.span.end);
        let parser = Parser::new(&RuleDialect)
            .with_recursion_limit(DEPTH_MAX)
            .with_tokens_with_locations(tokens.to_vec());
        match (StatementParser { parser, end: end.into() }).statement() {
            Ok(statement) => statements.push((statement, first.span.into())),
            Err(fault) => problems.push(fault.in_file(file)),
        }
    }
    if problems.is_empty() { Ok(statements) } else { Err(problems) }
}

/// Whether a token can make an expression one level deeper without a parenthesis.
fn is_operator(token: &&TokenWithSpan) -> bool {
    use Keyword::{AND, AT, BETWEEN, COLLATE, DIV, ILIKE, IN, IS, LIKE, NOT, OR, SIMILAR, XOR};
    match &token.token {
        Token::Word(word) => matches!(
            word.keyword,
            AND | AT | BETWEEN | COLLATE | DIV | ILIKE | IN | IS | LIKE | NOT | OR | SIMILAR | XOR
        ),
        Token::Whitespace(_) | Token::EOF | Token::Comma | Token::Period => false,
        Token::LParen | Token::RParen => false,
        Token::Number(..) | Token::SingleQuotedString(_) => false,
        _ => true,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

struct StatementParser<'a> {
    parser: Parser<'a>,
    /// Where the statement ends.
    end: Position,
}

impl StatementParser<'_> {
    fn statement(mut self) -> Result<Statement, Fault> {
        self.expect_word("CREATE", "a statement begins with CREATE STREAM or CREATE TABLE")?;
        let statement = if self.word("STREAM") {
            Statement::Stream(self.stream()?)
        } else {
            self.expect_word("TABLE", "STREAM or TABLE is expected after CREATE")?;
            Statement::Table(self.table()?)
        };
        match self.parser.peek_token_ref().token {
            Token::EOF => Ok(statement),
            _ => Err(self.unexpected("the end of the statement, or a semicolon, is expected")),
        }
    }

    fn stream(&mut self) -> Result<CreateStream, Fault> {
        let name = self.name("the name of the stream")?;
        let options = if self.word("WITH") { self.options()? } else { Vec::new() };
        self.expect_word("AS", "AS SELECT … is expected")?;
        Ok(CreateStream { name, options, select: self.select()? })
    }

    fn table(&mut self) -> Result<CreateTable, Fault> {
        let name = self.name("the name of the table")?;
        self.expect_word("FROM", "FROM 'file.csv' is expected")?;
        let Some(path) = self.string() else {
            return Err(self.unexpected("the name of a file in single quotes is expected"));
        };
        self.expect_word("KEY", "KEY and the name of a column is expected")?;
        let key = self.name("the column that is the key")?;
        let options = if self.word("WITH") { self.options()? } else { Vec::new() };
        Ok(CreateTable { name, path, key, options })
    }

    /// `(name = expression, …)`.
    fn options(&mut self) -> Result<Vec<(Ident, Expr)>, Fault> {
        self.expect(&Token::LParen, "( is expected after WITH")?;
        let mut options = Vec::new();
        loop {
            let name = self.name("the name of an option")?;
            self.expect(&Token::Eq, "= is expected after the name of an option")?;
            options.push((name, self.expression()?));
            if !self.parser.consume_token(&Token::Comma) {
                self.expect(&Token::RParen, ", or ) is expected after an option")?;
                return Ok(options);
            }
        }
    }

    fn select(&mut self) -> Result<Select, Fault> {
        self.expect_word("SELECT", "SELECT is expected")?;
        let items = self.parser.parse_projection();
        let items = items.map_err(|error| self.fault(error))?;
        self.expect_word("FROM", "FROM is expected: 'topic/filter' or the name of a stream")?;
        let (source, mut unnest) = self.sources()?;
        let mut joins = Vec::new();
        loop {
            if self.word("CROSS") {
                self.expect_word("JOIN", "JOIN UNNEST(…) is expected after CROSS")?;
                if !self.at_unnest() || unnest.is_some() {
                    return Err(self.unexpected("CROSS JOIN takes one UNNEST(array)"));
                }
                unnest = Some(self.unnest()?);
            } else if self.at_any(&["JOIN", "INNER", "LEFT"]) {
                joins.push(self.join()?);
            } else if self.at_any(&OTHER_JOINS) {
                let what = "lookup tables are joined by JOIN and LEFT JOIN";
                return Err(self.unexpected(what));
            } else {
                break;
            }
        }
        let filter = if self.word("WHERE") { Some(self.expression()?) } else { None };
        let mut partition_by = None;
        if self.word("PARTITION") {
            self.expect_word("BY", "BY is expected after PARTITION")?;
            partition_by = Some(self.expression()?);
        }
        Ok(Select { items, source, unnest, joins, filter, partition_by })
    }

    fn sources(&mut self) -> Result<(Source, Option<Unnest>), Fault> {
        let (mut filters, mut stream, mut unnest) = (Vec::new(), None, None);
        let mut topics_alias = None;
        loop {
            if let Some(topic) = self.string() {
                filters.push(topic);
                if self.word("AS") {
                    topics_alias = Some(self.name("a name after AS")?);
                }
            } else if self.at_unnest()
                && unnest.is_none()
                && (!filters.is_empty() || stream.is_some())
            {
                unnest = Some(self.unnest()?);
            } else if filters.is_empty() && stream.is_none() {
                let name = self.name("a topic filter in single quotes or the name of a stream")?;
                stream = Some((name, self.alias()?));
            } else {
                let what = "topic filters, or one stream, and one UNNEST(array) can stand in FROM";
                return Err(self.unexpected(what));
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        match stream {
            Some((name, alias)) if filters.is_empty() => {
                Ok((Source::Stream { name, alias }, unnest))
            }
            Some((name, _)) => {
                Err(Fault::new(name.span, "FROM takes topic filters or one stream, not both"))
            }
            None => Ok((Source::Topics { filters, alias: topics_alias }, unnest)),
        }
    }

    fn at_unnest(&self) -> bool {
        is_word(&self.parser.peek_token_ref().token, "UNNEST")
    }

    fn unnest(&mut self) -> Result<Unnest, Fault> {
        self.expect_word("UNNEST", "UNNEST is expected")?;
        self.expect(&Token::LParen, "( is expected after UNNEST")?;
        let array = self.expression()?;
        self.expect(&Token::RParen, ") is expected after the array")?;
        match self.alias()? {
            Some(alias) => Ok(Unnest { array, alias }),
            None => Err(self.unexpected("UNNEST(array) needs a name: AS name")),
        }
    }

    fn at_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| is_word(&self.parser.peek_token_ref().token, word))
    }

    fn join(&mut self) -> Result<Join, Fault> {
        let left = self.word("LEFT");
        let _ = if left { self.word("OUTER") } else { self.word("INNER") };
        self.expect_word("JOIN", "JOIN is expected")?;
        let table = self.name("the name of a table")?;
        let alias = self.alias()?;
        self.expect_word("ON", "ON is expected: alias.key = value")?;
        Ok(Join { table, alias, left, on: self.expression()? })
    }

    /// `AS name`, or a name alone that is no word of the grammar.
    fn alias(&mut self) -> Result<Option<Ident>, Fault> {
        if self.word("AS") {
            return self.name("a name after AS").map(Some);
        }
        const GRAMMAR: [&str; 10] = [
            "WHERE",
            "PARTITION",
            "JOIN",
            "LEFT",
            "INNER",
            "CROSS",
            "ON",
            "UNNEST",
            "WITH",
            "USING",
        ];
        let word = matches!(self.parser.peek_token_ref().token, Token::Word(_));
        let free = word && !self.at_any(&GRAMMAR) && !self.at_any(&OTHER_JOINS);
        if free { self.name("a name").map(Some) } else { Ok(None) }
    }

    fn expression(&mut self) -> Result<Expr, Fault> {
        let expression = self.parser.parse_expr();
        expression.map_err(|error| self.fault(error))
    }

    fn name(&mut self, what: &str) -> Result<Ident, Fault> {
        let token = self.parser.peek_token_ref();
        let is_name = matches!(&token.token, Token::Word(word)
            if word.quote_style.is_some() || word.keyword != Keyword::SELECT);
        if !is_name {
            return Err(self.unexpected(&format!("{what} is expected")));
        }
        let name = self.parser.parse_identifier();
        name.map_err(|error| self.fault(error))
    }

    fn string(&mut self) -> Option<(String, Position)> {
        let token = self.parser.peek_token_ref();
        let Token::SingleQuotedString(text) = &token.token else { return None };
        let found = (text.clone(), token.span.into());
        self.parser.next_token();
        Some(found)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = is_word(&self.parser.peek_token_ref().token, word);
        if found {
            self.parser.next_token();
        }
        found
    }

    fn expect_word(&mut self, word: &str, what: &str) -> Result<(), Fault> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), Fault> {
        if self.parser.consume_token(token) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    fn unexpected(&self, what: &str) -> Fault {
        let found = self.parser.peek_token_ref();
        match &found.token {
            Token::EOF => Fault::new(self.end, format!("{what}, and the statement ends here")),
            token => Fault::new(found.span, format!("{what}, not {token}")),
        }
    }

    /// sqlparser tells where it stopped at the end of its message.
    fn fault(&self, error: ParserError) -> Fault {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                let at = self.parser.peek_token_ref().span;
                let what = format!("more than {DEPTH_MAX} expressions stand in one another");
                return Fault::new(at, what);
            }
        };
        let number = |text: &str| text.trim().parse().ok();
        let place = message.rsplit_once(" at Line: ").and_then(|(what, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            Some((what, Position { line: number(line)?, column: number(column)? }))
        });
        match place {
            Some((what, at)) if at.line > 0 => Fault::new(at, lower_first(what)),
            Some((what, _)) => Fault::new(self.end, lower_first(what)),
            None => Fault::new(self.end, lower_first(&message)),
        }
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found)
        if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: &str = "CREATE STREAM hot WITH (durability='fsync', retention_bytes='10GB', key = device) AS
        SELECT clientid() AS device, topic(2) AS site, ts, temp * 1.8 + 32 AS temp_f, payload.gps.lat, a.b[0].c
        FROM 'plant/+/sensor/#', 'x/y'
        WHERE temp > 30 AND site <> 'lab'
        PARTITION BY device;
        -- a table
        CREATE TABLE devices FROM 'devices.csv' KEY id;
        CREATE STREAM tagged AS SELECT s.*, d.owner FROM hot AS s JOIN devices AS d ON d.id = s.device;
        CREATE STREAM rows AS SELECT *, r.v AS v FROM 'a', UNNEST(payload.readings) AS r WHERE r.v BETWEEN 1 AND 2";

    #[test]
    fn the_statements_of_the_issue_are_read() {
        let statements = parse("hot.sql", HOT).unwrap();
        assert_eq!(statements.len(), 4);
        let Statement::Stream(hot) = &statements[0].0 else { panic!("not a stream") };
        assert_eq!((hot.options.len(), hot.select.items.len()), (3, 6));
        assert!(matches!(&hot.select.source, Source::Topics { filters, .. } if filters.len() == 2));
        assert!(hot.select.filter.is_some() && hot.select.partition_by.is_some());
        let Statement::Table(devices) = &statements[1].0 else { panic!("not a table") };
        assert_eq!((&*devices.name.value, &*devices.key.value), ("devices", "id"));
        let Statement::Stream(tagged) = &statements[2].0 else { panic!("not a stream") };
        assert!(tagged.select.joins.len() == 1);
        let Statement::Stream(rows) = &statements[3].0 else { panic!("not a stream") };
        assert!(rows.select.unnest.is_some());
        assert_eq!(statements[2].1, Position { line: 8, column: 9 });
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, expected: &str| {
            let problems = parse("r.sql", text).unwrap_err();
            let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join("\n"), expected, "{text}");
        };
        check(
            "SELECT 1",
            "r.sql:1:1: a statement begins with CREATE STREAM or CREATE TABLE, not SELECT",
        );
        check(
            "CREATE STREAM a AS SELECT b",
            "r.sql:1:28: FROM is expected: 'topic/filter' or the name of a stream, and the statement ends here",
        );
        check(
            "CREATE STREAM a AS SELECT b FROM 'x' WHRE c > 1",
            "r.sql:1:38: the end of the statement, or a semicolon, is expected, not WHRE",
        );
        check(
            "CREATE STREAM a AS\nSELECT b FROM 'x' WHERE c >\n;CREATE TABLE t FROM x KEY y",
            "r.sql:3:1: expected: an expression, found: EOF\n\
             r.sql:3:22: the name of a file in single quotes is expected, not x",
        );
        check("CREATE STREAM a AS SELECT 'b FROM 'x'", "r.sql:1:37: unterminated string literal");
        check(
            "CREATE STREAM a AS SELECT b FROM 'x', y",
            "r.sql:1:39: topic filters, or one stream, and one UNNEST(array) can stand in FROM, not y",
        );
        let deep = format!("CREATE STREAM a AS SELECT {}1", "(".repeat(10_000));
        assert!(parse("r.sql", &deep).unwrap_err()[0].what.contains("stand in one another"));
        let long =
            |count| format!("CREATE STREAM a AS SELECT x{} AS y FROM 'x'", " + 1".repeat(count));
        assert!(parse("r.sql", &long(OPERATORS_MAX)).is_ok());
        let problem = &parse("r.sql", &long(100_000)).unwrap_err()[0];
        assert!(problem.what.contains("at most 300 operators"), "{}", problem.what);
    }
}
