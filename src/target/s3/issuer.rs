//! Asking those who issue temporary keys, and what they answer.

use crate::target::s3::credentials::{Issued, Keys};
use crate::target::s3::settings::Settings;
use crate::target::s3::transport::{Failure, Question, Sink, Transport};
use crate::words::stamp::Stamp;
use http::{HeaderMap, Method};
use hyper_util::client::proxy::matcher::Matcher;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// Metadata services are on the same machine: one that does not take a connection soon is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keys as services and programs print them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    access_key_id: String,
    secret_access_key: String,
    /// As services call it, and as programs do.
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

impl Answer {
    /// Understands an answer. What was printed is not repeated.
    ///
    /// # Errors
    /// A sentence that begins with `who`.
    pub(super) fn parse(who: &str, text: &[u8]) -> Result<Issued, String> {
        let answer: Self = serde_json::from_slice(text).map_err(|_| format!("{who} did not answer with keys"))?;
        answer.issued(who)
    }

    fn issued(self, who: &str) -> Result<Issued, String> {
        if self.access_key_id.is_empty() || self.secret_access_key.is_empty() {
            return Err(format!("{who} answered with empty keys"));
        }
        let until = match &self.expiration {
            None => None,
            Some(text) => Some(moment(text).ok_or_else(|| format!("{who} does not say when its keys end"))?),
        };
        let keys = Keys {
            access_key: self.access_key_id,
            secret_key: self.secret_access_key.into(),
            session_token: self.token.map(Zeroizing::new),
        };
        Ok(Issued { keys, until })
    }
}

/// RFC 3339.
pub(super) fn moment(text: &str) -> Option<Stamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Stamp::from_millis(at.as_millisecond()))
}

/// One request to a service, which is no S3 server: without a proxy unless it is far away, and without following it anywhere.
///
/// # Errors
/// A sentence that names the service, and nothing of what was sent or answered.
pub(super) fn ask(
    who: &str,
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: &str,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |problem: String| format!("{who} gives no keys: {problem}");
    let url: Url = url.parse().map_err(|_| failed("its address is none".into()))?;
    let is_far = url.scheme() == "https";
    let connect_timeout = if is_far { TIMEOUT } else { CONNECT_TIMEOUT };
    let settings = Settings { connect_timeout, timeout: TIMEOUT, concurrency: 1, ..Settings::default() };
    let proxies = if is_far { Matcher::from_env() } else { Matcher::builder().build() };
    // A connection for this only: a daemon that forks must take none with it.
    let transport = Transport::through(proxies, &settings, Arc::default(), Arc::default()).map_err(failed)?;
    let question = Question { method, url, headers, body: &[body.as_bytes()] };
    let answer = transport.ask(question, Sink::Text).map_err(|failure| match failure {
        Failure::Silence(problem) | Failure::Cut(problem) => failed(problem),
    })?;
    let (status, text) = (answer.status, Zeroizing::new(answer.body));
    if status.is_success() { Ok(text) } else { Err(failed(format!("status {}", status.as_u16()))) }
}

/// Services for tests: each answers one request after the other with what `answer` says to its first line, headers and body.
#[cfg(test)]
pub(super) mod testing {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    /// A request: its first line, its headers in lower case, and its body.
    pub(in crate::target::s3) struct Asked {
        pub(in crate::target::s3) line: String,
        pub(in crate::target::s3) headers: String,
        pub(in crate::target::s3) body: String,
    }

    /// Starts one, and says its address. It ends with the process.
    pub(in crate::target::s3) fn serve(answer: impl Fn(&Asked) -> (u16, String) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut asked = Asked { line: String::new(), headers: String::new(), body: String::new() };
                reader.read_line(&mut asked.line).unwrap();
                let mut length = 0;
                loop {
                    let mut header = String::new();
                    reader.read_line(&mut header).unwrap();
                    if header.trim().is_empty() {
                        break;
                    }
                    if let Some(text) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap();
                    }
                    asked.headers += &header.to_ascii_lowercase();
                }
                reader.take(length).read_to_string(&mut asked.body).unwrap();
                let (status, body) = answer(&asked);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_and_never_repeated() {
        let whole = r#"{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"geheim","Token":"t","Expiration":"2026-11-23T08:00:00Z"}"#;
        let issued = Answer::parse("it", whole.as_bytes()).unwrap();
        assert_eq!((issued.keys.access_key.as_str(), issued.until), ("A", moment("2026-11-23T08:00:00.000Z")));
        let program = r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"geheim","SessionToken":"t"}"#;
        let issued = Answer::parse("it", program.as_bytes()).unwrap();
        assert_eq!((issued.keys.session_token.as_ref().map(|t| t.as_str()), issued.until), (Some("t"), None));
        for wrong in [
            "geheim",
            r#"{"AccessKeyId":"geheim"}"#,
            r#"{"AccessKeyId":"","SecretAccessKey":"geheim"}"#,
            r#"{"AccessKeyId":"A","SecretAccessKey":"geheim","Expiration":"geheim"}"#,
        ] {
            let error = Answer::parse("it", wrong.as_bytes()).unwrap_err();
            assert!(error.starts_with("it ") && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_service_that_is_not_there_is_named() {
        let ask = |url: &str| ask("the service", Method::GET, url, HeaderMap::new(), "").map(drop);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}/geheim", listener.local_addr().unwrap());
        drop(listener);
        let error = ask(&nobody).unwrap_err();
        assert!(error.starts_with("the service gives no keys: ") && !error.contains("geheim"), "{error}");
        let refusing = testing::serve(|_| (403, "geheim".into()));
        assert_eq!(ask(&refusing).unwrap_err(), "the service gives no keys: status 403");
        let moved = testing::serve(|_| (302, String::new()));
        assert!(ask(&moved).is_err());
    }
}
