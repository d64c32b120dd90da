//! Connections to a server: through a proxy where the environment names one, with TLS where the address wants it, and acknowledged
//! at once.
//!
//! **Acknowledged at once.** A server that sends the head of an answer and its body in two writes, and leaves Nagle's algorithm on
//! (radosgw does, unless `tcp_nodelay=1` is in its settings), holds the body back until the head is acknowledged; and Linux delays
//! acknowledgements by 40 ms on a connection where questions and answers take turns. Every small request then takes 44 ms instead
//! of 3. `TCP_QUICKACK` ends that; the kernel forgets it with every write, so it is set whenever a reader has nothing more to read.

use crate::target::s3::certificates::Verifier;
use crate::target::s3::settings::Settings;
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes connections to where addresses point; cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    secured: HttpsConnector<Plain>,
    patience: Duration,
}

impl Connector {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A sentence when certificates cannot be read.
    pub(super) fn new(settings: &Settings, proxies: Arc<Matcher>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(settings.ca_file.as_deref(), &provider)?)
            .with_no_client_auth();
        let plain = Plain { tcp, proxies };
        let secured =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(plain);
        Ok(Self { secured, patience: settings.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Prompt>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.secured.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, patience) = (self.secured.call(to), self.patience);
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
            tokio::time::timeout(patience, connecting).await.map_err(late)?
        })
    }
}

/// Connections without TLS.
#[derive(Clone)]
struct Plain {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Plain {
    type Response = TokioIo<Prompt>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let proxy = self.proxies.intercept(&to);
        Box::pin(async move {
            let is_secured = to.scheme() == Some(&http::uri::Scheme::HTTPS);
            let (stream, is_proxied) = match proxy {
                None => (tcp.call(to).await?, false),
                Some(proxy) if is_secured => {
                    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                    if let Some(password) = proxy.basic_auth() {
                        tunnel = tunnel.with_auth(password.clone());
                    }
                    (tunnel.call(to).await?, false)
                }
                Some(proxy) => (tcp.call(proxy.uri().clone()).await?, true),
            };
            Ok(TokioIo::new(Prompt { stream: stream.into_inner(), is_proxied, is_stirred: true }))
        })
    }
}

/// What a request through a proxy without TLS shows to the proxy. Through a tunnel it is shown when the tunnel is made.
pub(super) fn proxy_password(proxies: &Matcher, to: &Uri) -> Option<HeaderValue> {
    let is_plain = to.scheme() == Some(&http::uri::Scheme::HTTP);
    is_plain.then(|| proxies.intercept(to)?.basic_auth().cloned()).flatten()
}

/// A stream that acknowledges what it was sent before it waits for more.
pub(super) struct Prompt {
    stream: TcpStream,
    is_proxied: bool,
    /// Whether anything was read or written since the kernel was told last.
    is_stirred: bool,
}

impl Prompt {
    fn stirred(&mut self) -> Pin<&mut TcpStream> {
        self.is_stirred = true;
        Pin::new(&mut self.stream)
    }
}

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buf);
        if read.is_ready() {
            self.is_stirred = true;
        } else if std::mem::take(&mut self.is_stirred) {
            // A kernel that refuses is slower, and no worse.
            let _ = self.stream.set_quickack(true);
        }
        read
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stirred().poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stirred().poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for Prompt {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::s3::transport::{Question, Sink, Transport};
    use http::{HeaderMap, Method};
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream as Socket};
    use std::time::Instant;

    /// Answers as long as somebody asks, head and body apart, and leaves it to the kernel when they leave.
    fn answer_in_two_parts(mut stream: Socket) {
        let (mut buffer, mut head) = ([0; 4096], Vec::new());
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            head.extend_from_slice(&buffer[..read]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").unwrap();
                stream.write_all(b"body").unwrap();
            }
        }
    }

    /// Without `TCP_QUICKACK` the first answers of a connection are as fast, and then every one waits for 40 ms. A machine that stalls may
    /// be late with some.
    #[test]
    fn a_server_that_sends_in_two_parts_does_not_wait_for_late_acknowledgements() {
        const QUESTIONS: usize = 60;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: url::Url = format!("http://{}/object", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || answer_in_two_parts(stream.unwrap()));
            }
        });
        let transport = Transport::new(&Settings::default(), Arc::default(), Arc::default()).unwrap();
        let late = (0..QUESTIONS).filter(|_| {
            let question = Question { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: &[] };
            let asked = Instant::now();
            let answer = transport.ask(question, Sink::Object).unwrap();
            assert_eq!(answer.body, b"body");
            asked.elapsed() >= Duration::from_millis(30)
        });
        assert!(late.count() < QUESTIONS / 2, "answers wait for acknowledgements that are delayed");
    }

    /// Asks for an address through a proxy that says 200 to everything; returns what the proxy was asked.
    fn asked_of_a_proxy(address: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://anna:secret@{}", listener.local_addr().unwrap());
        let heard = std::thread::spawn(move || {
            let (mut stream, mut head) = (listener.accept().unwrap().0, Vec::new());
            let mut buffer = [0; 4096];
            while !head.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                head.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8(head).unwrap()
        });
        let proxies = Matcher::builder().all(proxy).build();
        let transport = Transport::through(proxies, &Settings::default(), Arc::default(), Arc::default()).unwrap();
        let url = address.parse().unwrap();
        let answer =
            transport.ask(Question { method: Method::GET, url, headers: HeaderMap::new(), body: &[] }, Sink::Object);
        // Behind the tunnel there is no server that speaks TLS.
        assert_eq!(answer.is_ok(), address.starts_with("http:"));
        heard.join().unwrap().to_lowercase()
    }

    #[test]
    fn a_proxy_is_asked_in_its_own_way() {
        let password = "proxy-authorization: basic yw5uytpzzwnyzxq=";
        let plain = asked_of_a_proxy("http://s3.example.org/bucket/key");
        assert!(plain.starts_with("get http://s3.example.org/bucket/key http/1.1\r\n"), "{plain}");
        assert!(plain.contains(password), "{plain}");
        let tunnel = asked_of_a_proxy("https://s3.example.org/bucket/key");
        assert!(tunnel.starts_with("connect s3.example.org:443 http/1.1\r\n"), "{tunnel}");
        assert!(tunnel.contains(password), "{tunnel}");
    }
}
