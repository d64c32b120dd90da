//! Where things are at the server, and how requests are signed (AWS Signature Version 4, by rust-s3).

use crate::target::s3::credentials::Keys;
use crate::target::s3::settings::{Place, Settings, Style};
use crate::words::clock::{Clock, SystemClock};
use crate::words::hex::hex;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use s3::Region;
use s3::error::S3Error;
use s3::signing;
use time::OffsetDateTime;
use url::Url;

/// SHA-256 of nothing.
pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A bucket's address.
#[derive(Debug, Clone)]
pub(super) struct Address {
    region: Region,
    /// Of the bucket, with a slash at its end.
    base: Url,
    /// Before the names of all objects; empty or with a slash at its end.
    prefix: String,
}

impl Address {
    /// Works it out.
    ///
    /// # Errors
    /// A sentence when the endpoint is no address.
    pub(super) fn new(place: &Place, settings: &Settings) -> Result<Self, String> {
        // What was written is not repeated: it may hold a password.
        let wrong = "the endpoint is no address: write https://HOST or https://HOST:PORT";
        if let Some(endpoint) = &settings.endpoint {
            let url: Url = endpoint.parse().map_err(|_| wrong)?;
            let has_user = !url.username().is_empty() || url.password().is_some();
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() || has_user {
                return Err(wrong.into());
            }
        }
        if let Some(endpoint) = &settings.endpoint
            && endpoint.trim_end_matches('/').ends_with(&format!("/{}", place.bucket))
            && endpoint.parse().is_ok_and(|url: Url| url.path() != "/")
        {
            return Err(format!("the endpoint ends with the bucket, {}: leave that out there", place.bucket));
        }
        let name = settings.region.trim();
        let region = match &settings.endpoint {
            Some(endpoint) => {
                Region::Custom { region: name.to_owned(), endpoint: endpoint.trim_end_matches('/').into() }
            }
            None => match name.parse().map_err(|_| format!("{name:?} is no region"))? {
                // rust-s3 takes a name it does not know for a host; AWS forms its hosts by one rule.
                Region::Custom { .. } => {
                    let endpoint = format!("https://s3.{name}.amazonaws.com");
                    Region::Custom { region: name.to_owned(), endpoint }
                }
                known => known,
            },
        };
        let mut base = format!("{}://{}", region.scheme(), region.host());
        let path_style = match settings.style {
            Style::Path => true,
            Style::Virtual => false,
            Style::Auto => settings.endpoint.is_some() || place.bucket.contains('.'),
        };
        base = if path_style {
            format!("{base}/{}/", place.bucket)
        } else {
            format!("{}://{}.{}/", region.scheme(), place.bucket, region.host())
        };
        let base: Url = base.parse().map_err(|_| wrong)?;
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        Ok(Self { region, base, prefix })
    }

    /// Host and port, for messages.
    pub(super) fn host(&self) -> String {
        let port = self.base.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.base.host_str().unwrap_or_default())
    }

    /// The name of an object, or a prefix of names, as the server has it.
    pub(super) fn full<'a>(&self, key: &'a str) -> std::borrow::Cow<'a, str> {
        if self.prefix.is_empty() { key.into() } else { format!("{}{key}", self.prefix).into() }
    }

    /// The other way round.
    pub(super) fn relative<'a>(&self, full: &'a str) -> Option<&'a str> {
        full.strip_prefix(&self.prefix)
    }

    /// Of an object. Keys and prefixes have no character that an address would change.
    pub(super) fn object(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), self.full(key)));
        url
    }

    /// Of the bucket, with a query.
    pub(super) fn query(&self, pairs: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        url
    }

    /// Adds what shows who asks. `sha256` is that of the body, in hex: a server that gets another body refuses it.
    ///
    /// # Errors
    /// When a key has characters that no header can have.
    pub(super) fn sign(
        &self,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
        sha256: &str,
        keys: &Keys,
    ) -> Result<(), S3Error> {
        let now = now();
        headers.insert(header::HOST, self.host().parse()?);
        headers.insert("x-amz-content-sha256", sha256.parse()?);
        headers.insert("x-amz-date", long_date(now).parse()?);
        if let Some(token) = &keys.session_token {
            let mut token: HeaderValue = token.parse()?;
            token.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-amz-security-token"), token);
        }
        let canonical = signing::canonical_request(method.as_str(), url, headers, sha256)?;
        let text = signing::string_to_sign(&now, &self.region, &canonical)?;
        let key = signing::signing_key(&now, &keys.secret_key, &self.region, "s3")?;
        let signature = hmac(&key, text.as_bytes());
        let signed = signing::signed_header_string(headers);
        let line = signing::authorization_header(&keys.access_key, &now, &self.region, &signed, &signature)?;
        let mut line: HeaderValue = line.parse()?;
        line.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, line);
        Ok(())
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(SystemClock.now().millis().div_euclid(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn long_date(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn hmac(key: &[u8], text: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(endpoint: Option<&str>, region: &str, style: Style, bucket: &str) -> Result<Address, String> {
        let settings =
            Settings { endpoint: endpoint.map(str::to_owned), region: region.into(), style, ..Settings::default() };
        Address::new(&Place { bucket: bucket.into(), prefix: "host/a".into() }, &settings)
    }

    #[test]
    fn buckets_are_in_the_path_or_in_the_host() {
        let url = |endpoint, region, style, bucket| {
            address(endpoint, region, style, bucket).unwrap().object("ok/x").to_string()
        };
        assert_eq!(
            url(None, "eu-central-1", Style::Auto, "bucket"),
            "https://bucket.s3.eu-central-1.amazonaws.com/host/a/ok/x"
        );
        assert_eq!(url(None, "eu-new-9", Style::Auto, "b.c"), "https://s3.eu-new-9.amazonaws.com/b.c/host/a/ok/x");
        let here = Some("http://127.0.0.1:7480/");
        assert_eq!(url(here, "garage", Style::Auto, "bucket"), "http://127.0.0.1:7480/bucket/host/a/ok/x");
        let there = Some("https://s3.example.org");
        assert_eq!(url(there, "x", Style::Virtual, "bucket"), "https://bucket.s3.example.org/host/a/ok/x");
        for wrong in ["127.0.0.1 7480", "ftp://host", "https://user:geheim@host", "https://"] {
            let error = address(Some(wrong), "x", Style::Auto, "bucket").unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    /// The example of the documentation: "Signature Calculations for the Authorization Header", GET Bucket (List Objects), except
    /// for the moment, which is now; so the parts are compared, and the signature with one made by hand from the same parts.
    #[test]
    fn everything_that_matters_is_signed() {
        let address = address(None, "us-east-1", Style::Auto, "examplebucket").unwrap();
        let keys = Keys {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into(),
            session_token: Some("token".to_owned().into()),
        };
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", HeaderValue::from_static("*"));
        let url = address.query(&[("list-type", "2"), ("prefix", "host/a/ok/")]);
        address.sign(&Method::GET, &url, &mut headers, EMPTY_SHA256, &keys).unwrap();
        let line = headers[header::AUTHORIZATION].to_str().unwrap();
        assert!(line.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/"), "{line}");
        let signed = "SignedHeaders=host;if-none-match;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(line.contains(signed), "{line}");
        assert!(!format!("{headers:?}").contains("Signature") && !format!("{headers:?}").contains("\"token\""));
    }
}
