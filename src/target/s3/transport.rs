//! Bytes there and back: one request, one answer, within time and bandwidth.
//!
//! Callers are threads; tokio lives only in here. A body goes up from the caller's own memory through a window of a few small
//! chunks, and comes down straight into the caller's buffer, so that nothing is held twice. What limits a request in time is
//! how long *nothing* moves, never how long it takes: a pack over a slow line is as good as any.

use crate::target::s3::connect::{Connector, proxy_password};
use crate::target::s3::settings::Settings;
use crate::target::{Limits, Requests, Throttle};
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use url::Url;

/// What servers write into their logs.
const USER_AGENT: &str = concat!("backyfs/", env!("CARGO_PKG_VERSION"));
/// What is handed to a connection at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks between caller and connection.
const CHUNKS_MAX: usize = 2;
/// The longest error, or page of a list, that is read.
const TEXT_MAX_BYTES: usize = 16 << 20;

/// A request.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: &'a [&'a [u8]],
}

/// Where the body of a good answer goes.
pub(super) enum Sink<'a> {
    /// Into memory, an object of any size.
    Object,
    /// Into memory, a text.
    Text,
    /// Into a buffer, if it is part of an object (206): no more than fits.
    Buffer(&'a mut [u8]),
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, unless it went into a buffer.
    pub(super) body: Vec<u8>,
    /// Bytes in the buffer.
    pub(super) filled_bytes: usize,
}

/// There is no answer, or only the beginning of one.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, or it broke before an answer began, or nothing moved for too long.
    Silence(String),
    /// An answer began and is not whole, or longer than it may be.
    Cut(String),
}

/// Connections to one server.
pub(super) struct Transport {
    client: Client<Connector, Body>,
    proxies: Arc<Matcher>,
    runtime: OnceLock<Runtime>,
    slots: Semaphore,
    limits: Arc<Limits>,
    requests: Arc<Requests>,
    idle: Duration,
}

impl Transport {
    /// Nothing is connected yet. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    ///
    /// # Errors
    /// A sentence when certificates cannot be read.
    pub(super) fn new(settings: &Settings, limits: Arc<Limits>, requests: Arc<Requests>) -> Result<Self, String> {
        Self::through(Matcher::from_env(), settings, limits, requests)
    }

    /// The same with given proxies.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub(super) fn through(
        proxies: Matcher,
        settings: &Settings,
        limits: Arc<Limits>,
        requests: Arc<Requests>,
    ) -> Result<Self, String> {
        let proxies = Arc::new(proxies);
        let slots = settings.concurrency.max(1);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(slots)
            // Below what servers keep idle connections for, so that they seldom close one that is being taken up again.
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_timer(TokioTimer::new())
            .build(Connector::new(settings, Arc::clone(&proxies))?);
        Ok(Self {
            client,
            proxies,
            runtime: OnceLock::new(),
            slots: Semaphore::new(slots),
            limits,
            requests,
            idle: settings.timeout,
        })
    }

    /// Counts, for whoever asks.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Asks and waits for the answer. Blocks; never called from the runtime's own threads.
    pub(super) fn ask(&self, question: Question<'_>, sink: Sink<'_>) -> Result<Answer, Failure> {
        // Made at the first request and not before: a daemon forks after it was set up, and threads do not survive that.
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let made = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .thread_name("s3")
                    .enable_all()
                    .build()
                    .map_err(|error| Failure::Silence(format!("threads cannot be started: {error}")))?;
                self.runtime.get_or_init(|| made)
            }
        };
        runtime.block_on(async {
            let _slot = self.slots.acquire().await;
            let response = self.send(question).await?;
            self.receive(response, sink).await
        })
    }

    async fn send(&self, question: Question<'_>) -> Result<Response<Incoming>, Failure> {
        let Question { method, url, headers, body } = question;
        let left = body.iter().map(|part| part.len() as u64).sum();
        let (chunks, rest) = mpsc::channel(CHUNKS_MAX);
        let request = self.request(method.clone(), &url, headers, Body { rest, left })?;
        let answer = self.client.request(request);
        tokio::pin!(answer);
        for chunk in body.iter().flat_map(|part| part.chunks(CHUNK_BYTES)) {
            pace(&self.limits.upload, chunk.len()).await;
            // The connection takes chunks as fast as they leave: one that it does not take in time does not move.
            let room = tokio::select! {
                early = &mut answer => return early.map_err(|error| Failure::Silence(cause(&error))),
                room = timeout(self.idle, chunks.reserve()) => room.map_err(|_| self.idled("sending"))?,
            };
            let Ok(room) = room else { break };
            room.send(Bytes::copy_from_slice(chunk));
            self.requests.note_sent(chunk.len() as u64);
        }
        drop(chunks);
        let answered = timeout(self.idle, answer).await.map_err(|_| self.idled("waiting for an answer"))?;
        answered.map_err(|error| Failure::Silence(cause(&error)))
    }

    fn request(&self, method: Method, url: &Url, headers: HeaderMap, body: Body) -> Result<Request<Body>, Failure> {
        let unusable = |error: &dyn Error| Failure::Silence(format!("the address cannot be used: {error}"));
        let uri = Uri::try_from(url.as_str()).map_err(|error| unusable(&error))?;
        let password = proxy_password(&self.proxies, &uri);
        let mut request = Request::builder().method(method).uri(uri).body(body).map_err(|error| unusable(&error))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(password) = password {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, password);
        }
        Ok(request)
    }

    async fn receive(&self, response: Response<Incoming>, mut sink: Sink<'_>) -> Result<Answer, Failure> {
        let (Parts { status, headers, .. }, mut body) = response.into_parts();
        let announced: Option<u64> =
            headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if !matches!(sink, Sink::Object) && status != StatusCode::PARTIAL_CONTENT || !status.is_success() {
            sink = Sink::Text;
        }
        let mut answer = Answer { status, headers, body: Vec::new(), filled_bytes: 0 };
        if let (Sink::Object, Some(len)) = (&sink, announced) {
            answer.body.reserve(usize::try_from(len).unwrap_or(0).min(64 << 20));
        }
        let mut received: u64 = 0;
        loop {
            let frame = timeout(self.idle, body.frame()).await.map_err(|_| self.idled("receiving"))?;
            let Some(frame) = frame else { break };
            let Ok(chunk) = frame.map_err(|error| Failure::Cut(cause(&error)))?.into_data() else { continue };
            pace(&self.limits.download, chunk.len()).await;
            received += chunk.len() as u64;
            self.requests.note_received(chunk.len() as u64);
            match &mut sink {
                Sink::Object => answer.body.extend_from_slice(&chunk),
                Sink::Text if answer.body.len() + chunk.len() > TEXT_MAX_BYTES => {
                    return Err(Failure::Cut("the answer is longer than it can be".into()));
                }
                Sink::Text => answer.body.extend_from_slice(&chunk),
                Sink::Buffer(buffer) => {
                    let end = answer.filled_bytes + chunk.len();
                    let Some(room) = buffer.get_mut(answer.filled_bytes..end) else {
                        return Err(Failure::Cut("the answer is longer than what was asked for".into()));
                    };
                    room.copy_from_slice(&chunk);
                    answer.filled_bytes = end;
                }
            }
        }
        match announced {
            Some(len) if len != received => Err(Failure::Cut(format!("{received} bytes came, {len} were announced"))),
            // Without a length nothing tells an object that is whole from one that is not.
            None if matches!(sink, Sink::Object | Sink::Buffer(_)) => {
                Err(Failure::Cut("the answer does not say how long it is".into()))
            }
            _ => Ok(answer),
        }
    }

    fn idled(&self, doing: &str) -> Failure {
        Failure::Silence(format!("nothing moved for {} s while {doing}", self.idle.as_secs()))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A look-up of a name cannot be stopped; whoever is about to fork must not wait for it either.
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn pace(throttle: &Throttle, bytes: usize) {
    while let Some(delay) = throttle.book(bytes as u64) {
        tokio::time::sleep(delay).await;
    }
}

/// A body of known length that comes in chunks.
struct Body {
    rest: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.rest.poll_recv(context).map(|chunk| {
            let chunk = chunk?;
            self.left -= chunk.len() as u64;
            Some(Ok(Frame::data(chunk)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The innermost reason in plain words. Addresses are left out: the target is named anyway.
fn cause(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
