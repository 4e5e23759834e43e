//! The control plane: HTTP for people and machines that watch the engine.
//!
//! In: scrapes, health checks, and the wish that rules be read again. Out: what the shards last
//! published. Runs on one ordinary thread with a tokio runtime of its own, off the shards' cores where
//! there is room. It reads the cells of `observe` and sends the shards nothing itself, so nothing that
//! it does or suffers can delay one.
//!
//! Bounded: connections at once, and how long one may be idle. Absent on purpose: authentication, TLS,
//! and whatever a request could say of the engine that is not in files on its own machine.

mod listener;
mod metrics;
mod process;
mod rules;
mod text;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::oneshot;

use crate::driver::cores::{self, CoreSet};
use crate::observe::Registry;

pub use metrics::metric_names;
pub use rules::{Refused, Reload, Reloaded, Reloading, Wrong};

/// How long answers under way may take once the engine stops.
const STOP_MAX: Duration = Duration::from_secs(1);

/// The running control plane; `stop` or dropping it ends it.
#[derive(Debug)]
pub struct ControlHandle {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Listens on `listen` and answers from `registry`, on `cores` if given; `reloading` reads rules again.
///
/// The port is bound when this returns, so a port that is taken is this function's error.
pub fn start(
    listen: SocketAddr,
    registry: Arc<Registry>,
    reloading: Reloading,
    cores: Option<CoreSet>,
) -> io::Result<ControlHandle> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let sources = Sources { registry, reloading };
    let run = move || {
        if let Some(Err(error)) = cores.as_ref().map(cores::confine) {
            tracing::warn!("the control thread may run on any core: {error}");
        }
        if let Err(error) = runtime.block_on(serve(listener, sources, stopped)) {
            tracing::error!("the control plane ended: {error}");
        }
    };
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(run)?;
    Ok(ControlHandle { address, stop: Some(stop), thread: Some(thread) })
}

impl ControlHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes the answers under way, for a second at most, and ends the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It is gone already if serving failed.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    sources: Sources,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = listener::Bounded::new(tokio::net::TcpListener::from_std(listener)?);
    let (closing, closed) = oneshot::channel();
    let stop = async {
        // An error means that the handle is gone, which stops as well.
        let _ = stopped.await;
        let _ = closing.send(());
    };
    let server = axum::serve(listener, routes(sources)).with_graceful_shutdown(stop);
    let cut_off = async {
        let _ = closed.await;
        tokio::time::sleep(STOP_MAX).await;
    };
    tokio::select! {
        result = server => result,
        () = cut_off => Ok(()),
    }
}

/// What answers come from.
#[derive(Clone)]
struct Sources {
    registry: Arc<Registry>,
    reloading: Reloading,
}

impl FromRef<Sources> for Arc<Registry> {
    fn from_ref(sources: &Sources) -> Self {
        Arc::clone(&sources.registry)
    }
}

fn routes(sources: Sources) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/rules/reload", post(reload))
        .with_state(sources)
}

async fn index(State(registry): State<Arc<Registry>>) -> Html<String> {
    let info = registry.info();
    Html(format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tidegate</title>\
         </head><body><h1>Tidegate {}</h1><p>{} shards, {} partitions a stream, {} streams</p><ul>\
         <li><a href=\"/healthz\">/healthz</a>: 200 unless a shard cannot commit</li>\
         <li><a href=\"/readyz\">/readyz</a>: 200 once every shard accepts connections</li>\
         <li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\
         <li>POST /api/rules/reload: reads the files of rules again</li></ul></body></html>\n",
        info.version,
        info.shards,
        info.partitions,
        registry.streams().len()
    ))
}

async fn healthz(State(registry): State<Arc<Registry>>) -> Response {
    verdict(registry.health())
}

async fn readyz(State(registry): State<Arc<Registry>>) -> Response {
    verdict(registry.readiness())
}

async fn reload(State(sources): State<Sources>, headers: HeaderMap) -> Response {
    rules::reload(&sources.registry, &sources.reloading, headers).await
}

fn verdict(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::render(&registry)).into_response()
}

#[cfg(test)]
mod tests;
