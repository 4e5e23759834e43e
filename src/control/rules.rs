//! Rules over HTTP: `POST /api/rules/reload` reads their files again.
//!
//! In: the request. Out: what the engine says of it, as JSON, or as lines where the client prefers
//! `text/plain`. Reading, checking and waiting block, and happen on a thread of their own.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::observe::Registry;

/// Who reads rules again; it is there once every shard accepts.
pub type Reloading = Arc<OnceLock<Arc<dyn Reload>>>;

/// Reads rules again.
pub trait Reload: Send + Sync {
    /// Blocks until every shard runs the new rules, or nothing has changed.
    ///
    /// # Errors
    /// [`Refused`].
    fn reload(&self) -> Result<Reloaded, Refused>;
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// 1 for the rules of the start, one more at each reload.
    pub version: u64,
    /// Rules that run now.
    pub rules: usize,
    /// Names of those that are new.
    pub added: Vec<String>,
    /// Names of those that run no more.
    pub removed: Vec<String>,
    /// Names of those that read, test or write something else.
    pub changed: Vec<String>,
}

/// Why the old rules stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The files are wrong, all that is.
    Rules(Vec<Wrong>),
    /// They are right, and cannot be taken now.
    Unavailable(String),
}

/// Something that is wrong with rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Where, as far as it is in a file; both numbers count from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    pub message: String,
    /// All of it as a line for a person.
    #[serde(skip)]
    pub text: String,
}

impl Refused {
    /// A line for each problem.
    pub fn lines(&self) -> Vec<&str> {
        match self {
            Self::Rules(wrong) => wrong.iter().map(|wrong| &*wrong.text).collect(),
            Self::Unavailable(why) => vec![why],
        }
    }
}

/// Names, or that there are none.
fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl std::fmt::Display for Reloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, rules, added, removed, changed } = self;
        let (added, removed, changed) = (listed(added), listed(removed), listed(changed));
        write!(
            f,
            "version {version}: {rules} rule(s); added: {added}; removed: {removed}; \
             changed: {changed}"
        )
    }
}

/// How long after the last shard accepts whoever reloads may take to be there, and how often it is
/// looked for.
const STARTS_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Answers `POST /api/rules/reload`.
pub(super) async fn reload(
    registry: &Registry,
    reloading: &Reloading,
    headers: HeaderMap,
) -> Response {
    let until = Instant::now() + STARTS_MAX;
    // Who has seen that every shard accepts is not told that the engine starts.
    while reloading.get().is_none() && registry.readiness().is_ok() && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let Some(engine) = reloading.get().map(Arc::clone) else {
        let why = "the engine is still starting".to_owned();
        return answer(&headers, Err(Refused::Unavailable(why)));
    };
    let result = tokio::task::spawn_blocking(move || engine.reload()).await;
    let failed = |_| Err(Refused::Unavailable("the reload ended in the middle".to_owned()));
    answer(&headers, result.unwrap_or_else(failed))
}

fn answer(headers: &HeaderMap, result: Result<Reloaded, Refused>) -> Response {
    let status = match &result {
        Ok(_) => StatusCode::OK,
        Err(Refused::Rules(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(Refused::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
    };
    if wants_text(headers) {
        let mut text = String::new();
        match &result {
            Ok(reloaded) => writeln!(text, "{reloaded}"),
            Err(refused) => writeln!(text, "{}", refused.lines().join("\n")),
        }
        // Writing to a String cannot fail.
        .unwrap_or_default();
        return (status, text).into_response();
    }
    let json = match &result {
        Ok(reloaded) => serde_json::to_string(reloaded),
        Err(Refused::Rules(wrong)) => {
            serde_json::to_string(&serde_json::json!({ "errors": wrong }))
        }
        Err(Refused::Unavailable(why)) => {
            serde_json::to_string(&serde_json::json!({ "errors": [{ "message": why }] }))
        }
    };
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, json.unwrap_or_default() + "\n").into_response()
}

fn wants_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.trim_start().starts_with("text/plain"))
}
