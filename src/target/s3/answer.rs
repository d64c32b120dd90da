//! What answers mean.
//!
//! Only one answer says that an object is not there: 404 with the code `NoSuchKey`. A bucket that is missing, a server that does
//! not know us, a proxy's own 404 and anything else that is not understood are errors, so that a repository is never taken
//! for empty.

use crate::target::TargetError;
use crate::target::s3::transport::{Answer, Failure};
use crate::words::clock::{Clock, SystemClock};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::io;

/// The XML of an error. Every field is optional: servers differ.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorBody {
    code: String,
    message: String,
    region: Option<String>,
    actual_object_size: Option<u64>,
}

/// Why there is no good answer, before target and object are named.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server answers and has no such object.
    Absent,
    /// It was there already (put_new).
    Exists,
    /// The range begins past the end. The size, if the server tells.
    OutOfRange(Option<u64>),
    /// The keys are not accepted any more, or the clocks differ too much: others may be there by now, or somebody sets the clock.
    Expired(String),
    /// May pass.
    Unreachable(String),
    /// The answer is not one to what was asked.
    Garbled(String),
    /// Not allowed.
    Denied(String),
    /// Full.
    NoSpace(String),
    /// A PUT must say what its body's checksum is, in a header of its own (buckets with Object Lock).
    Unsummed(String),
    /// Set up wrongly.
    Setup(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silence(problem) => Self::Unreachable(problem),
            Failure::Cut(problem) => Self::Garbled(problem),
        }
    }
}

impl Trouble {
    /// Names what was tried. What has no meaning for the method that calls becomes a wrong answer.
    pub(super) fn named(self, target: String, action: &'static str, key: &str) -> TargetError {
        let key = key.to_owned();
        let source = |text: String| io::Error::other(text);
        match self {
            Self::Absent => match key.parse() {
                Ok(key) => TargetError::NotFound { target, key },
                Err(_) => TargetError::Garbled { target, action, key, problem: "there is no such object".into() },
            },
            Self::Denied(text) => TargetError::Denied { target, action, key, source: source(text) },
            Self::Expired(text) => TargetError::Refused { target, action, key, source: source(text) },
            Self::Unreachable(text) => TargetError::Unreachable { target, action, key, source: source(text) },
            Self::NoSpace(text) => TargetError::NoSpace { target, action, key, source: source(text) },
            Self::Setup(problem) | Self::Unsummed(problem) => TargetError::Setup { target, problem },
            Self::Garbled(problem) => TargetError::Garbled { target, action, key, problem },
            Self::Exists => {
                TargetError::Garbled { target, action, key, problem: "a condition failed that was not made".into() }
            }
            Self::OutOfRange(_) => {
                TargetError::Garbled { target, action, key, problem: "a range that was not asked for".into() }
            }
        }
    }
}

/// Passes good answers on and says what is wrong with others.
pub(super) fn judge(answer: Answer, bucket: &str, host: &str) -> Result<Answer, Trouble> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body: Option<ErrorBody> =
        std::str::from_utf8(&answer.body).ok().and_then(|xml| quick_xml::de::from_str(xml).ok());
    let known = body.as_ref().is_some_and(|body| !body.code.is_empty());
    let body = body.unwrap_or_default();
    let status = answer.status;
    let told = || match (known, body.message.trim()) {
        (true, "") => format!("{} ({})", body.code, status.as_u16()),
        (true, message) => format!("{}: {message}", body.code),
        (false, _) => format!("status {}", status.as_u16()),
    };
    let region = || {
        let header = answer.headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        body.region.as_deref().or(header).filter(|region| !region.is_empty()).map(str::to_owned)
    };
    Err(match (body.code.as_str(), status.as_u16()) {
        ("NoSuchKey", _) => Trouble::Absent,
        ("NoSuchBucket", _) => {
            Trouble::Setup(format!("there is no bucket {bucket} at {host}: make it, or name another"))
        }
        ("RequestTimeTooSkewed", _) => Trouble::Expired(skew(&answer.headers)),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
            Trouble::Expired("the credentials have expired: renew them".into())
        }
        ("InvalidToken" | "InvalidClientTokenId", _) => {
            Trouble::Expired("the session token is not valid: renew the credentials".into())
        }
        ("InvalidAccessKeyId", _) => {
            Trouble::Expired("the access key is not known there: look at the credentials and at the endpoint".into())
        }
        ("SignatureDoesNotMatch", _) => Trouble::Expired(
            "the secret key is not that of the access key, or something on the way changes requests".into(),
        ),
        ("InvalidObjectState", _) => Trouble::Denied(
            "it is in an archive: bring it back from there, and keep storage classes to those that answer at once"
                .into(),
        ),
        ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "EntityTooLarge", _) | (_, 507) => {
            Trouble::NoSpace(told())
        }
        ("PreconditionFailed", _) | (_, 412) => Trouble::Exists,
        ("InvalidRange", _) | (_, 416) => Trouble::OutOfRange(body.actual_object_size.or(total(&answer.headers))),
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 302 | 307 | 308) => Trouble::Setup(match region() {
            Some(region) => format!("the bucket {bucket} is in the region {region}: set s3-region"),
            None => format!("{host} sends us elsewhere ({}): correct s3-endpoint and s3-region", told()),
        }),
        // The connection was too slow for the server, or bytes changed on the way: the same again may do.
        ("RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch", _) => {
            Trouble::Unreachable(told())
        }
        ("OperationAborted" | "ConditionalRequestConflict", _) => Trouble::Unreachable(told()),
        (_, 401 | 403) if known => Trouble::Denied(told()),
        (_, 401 | 403) => Trouble::Denied(format!("status {}, and no reason", status.as_u16())),
        (_, 404) => Trouble::Unreachable(format!("{host} answers 404 as no S3 server would; is it one?")),
        (_, 501) => Trouble::Setup(format!("{host} cannot do that: {}", told())),
        (_, 408 | 425 | 429) | (_, 500..) => Trouble::Unreachable(told()),
        ("InvalidRequest", 400) if body.message.contains("Content-MD5") => {
            Trouble::Unsummed(format!("{host} refuses: {}", told()))
        }
        _ => Trouble::Setup(format!("{host} refuses: {}", told())),
    })
}

/// What the clocks say.
fn skew(headers: &HeaderMap) -> String {
    let advice = "set it right, for example with NTP";
    let theirs = headers.get(http::header::DATE).and_then(|value| value.to_str().ok());
    let theirs = theirs.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    match theirs {
        Some(theirs) => {
            let seconds = SystemClock.now().millis() / 1000 - theirs.timestamp().as_second();
            let side = if seconds < 0 { "behind" } else { "ahead of" };
            format!("the clock of this machine is {} minutes {side} the server's: {advice}", seconds.abs() / 60)
        }
        None => format!("the clock of this machine is too far from the server's: {advice}"),
    }
}

/// The size of an object, from `Content-Range: bytes a-b/SIZE` or `bytes */SIZE`.
pub(super) fn total(headers: &HeaderMap) -> Option<u64> {
    content_range(headers)?.rsplit_once('/')?.1.parse().ok()
}

fn content_range(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")
}

/// Looks whether a partial answer is the part that was asked for: from `offset` on, up to `wanted` bytes. Returns the size of the
/// whole object.
pub(super) fn check_range(answer: &Answer, offset: u64, wanted: u64) -> Result<u64, Trouble> {
    let range = content_range(&answer.headers).unwrap_or("(none)");
    let parsed = || {
        let (span, size) = range.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, size.parse::<u64>().ok()?))
    };
    let expected = |size: u64| (offset.saturating_add(wanted)).min(size).saturating_sub(1);
    match parsed() {
        Some((first, last, size)) if first == offset && last == expected(size) && size > offset => Ok(size),
        _ if answer.status != StatusCode::PARTIAL_CONTENT => {
            Err(Trouble::Garbled("the whole object came where a part was asked for".into()))
        }
        _ => Err(Trouble::Garbled(format!("bytes {range} came where {wanted} from {offset} were asked for"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn judged(status: u16, body: &str, headers: &[(&'static str, &str)]) -> Trouble {
        let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_str(v).unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers, body: body.as_bytes().to_vec(), filled_bytes: 0 };
        match judge(answer, "bucket", "host") {
            Err(trouble) => trouble,
            Ok(_) => panic!("a good answer"),
        }
    }

    fn coded(status: u16, code: &str) -> Trouble {
        judged(status, &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"), &[])
    }

    #[test]
    fn only_no_such_key_is_absence() {
        assert!(matches!(coded(404, "NoSuchKey"), Trouble::Absent));
        let Trouble::Setup(text) = coded(404, "NoSuchBucket") else { panic!() };
        assert_eq!(text, "there is no bucket bucket at host: make it, or name another");
        for body in ["", "<html>not found</html>", "{}", "<Error></Error>"] {
            assert!(matches!(judged(404, body, &[]), Trouble::Unreachable(_)), "{body}");
        }
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for (status, code) in
            [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError"), (400, "RequestTimeout"), (408, "x")]
        {
            assert!(matches!(coded(status, code), Trouble::Unreachable(_)), "{code}");
        }
        for status in [500, 502, 503, 504, 429] {
            assert!(matches!(judged(status, "", &[]), Trouble::Unreachable(_)));
        }
        assert!(matches!(coded(403, "AccessDenied"), Trouble::Denied(_)));
        assert!(matches!(coded(400, "ExpiredToken"), Trouble::Expired(_)));
        assert!(matches!(coded(403, "QuotaExceeded"), Trouble::NoSpace(_)));
        assert!(matches!(coded(412, "PreconditionFailed"), Trouble::Exists));
        assert!(matches!(coded(400, "InvalidArgument"), Trouble::Setup(_)));
        let text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        let body = format!("<Error><Code>InvalidRequest</Code><Message>{text}</Message></Error>");
        assert!(matches!(judged(400, &body, &[]), Trouble::Unsummed(_)));
        assert!(matches!(coded(400, "InvalidRequest"), Trouble::Setup(_)));
    }

    #[test]
    fn one_sentence_says_what_to_do() {
        let body =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-west-1</Region></Error>";
        let Trouble::Setup(text) = judged(400, body, &[]) else { panic!() };
        assert_eq!(text, "the bucket bucket is in the region eu-west-1: set s3-region");
        let Trouble::Setup(text) = judged(301, "", &[("x-amz-bucket-region", "us-west-2")]) else { panic!() };
        assert!(text.contains("us-west-2"));
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let Trouble::Expired(text) = judged(403, skewed, &[("date", "Mon, 23 Nov 2020 00:26:00 GMT")]) else {
            panic!()
        };
        assert!(text.contains("ahead of the server's") && text.contains("NTP"), "{text}");
        assert!(matches!(judged(403, skewed, &[]), Trouble::Expired(_)));
    }

    #[test]
    fn a_part_must_be_the_part_that_was_asked_for() {
        let part = |range: &str, status: u16| {
            let mut headers = HeaderMap::new();
            headers.insert("content-range", HeaderValue::from_str(range).unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            check_range(&Answer { status, headers, body: Vec::new(), filled_bytes: 0 }, 10, 5)
        };
        assert!(matches!(part("bytes 10-14/100", 206), Ok(100)));
        assert!(matches!(part("bytes 10-11/12", 206), Ok(12)));
        for wrong in ["bytes 11-15/100", "bytes 10-13/100", "bytes 0-4/100", "bytes 10-14/*", "items 10-14/100", ""] {
            assert!(matches!(part(wrong, 206), Err(Trouble::Garbled(_))), "{wrong}");
        }
        assert!(matches!(
            judged(416, "<Error><Code>InvalidRange</Code><ActualObjectSize>7</ActualObjectSize></Error>", &[]),
            Trouble::OutOfRange(Some(7))
        ));
        assert!(matches!(judged(416, "", &[("content-range", "bytes */7")]), Trouble::OutOfRange(Some(7))));
        assert!(matches!(judged(416, "", &[]), Trouble::OutOfRange(None)));
    }
}
