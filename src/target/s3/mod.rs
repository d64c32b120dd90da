//! A bucket of an S3 server as a target: AWS, Ceph, MinIO, Garage, Cloudflare R2 and others that speak its language.
//!
//! What makes it keep the contract of [`Target`]:
//!
//! * An object is one PUT, signed together with the SHA-256 of its bytes, so the server takes the whole and unchanged object or
//!   refuses it. It counts as stored when the answer is a success *with an ETag*: a page of a captive portal is none.
//! * Objects are visible to everyone when a PUT returned, and gone when a DELETE did: AWS says so since 2020, radosgw, MinIO, R2 and
//!   Garage do the same. A cache between us and them that answers for itself breaks this.
//! * Absence is one answer only (see [`answer`]). Lists must name this bucket and this prefix, go on where the page before
//!   ended, and rise from key to key.
//! * A bucket has no directories that could be missing. What [`Target::prepare`] writes instead is the object
//!   [`MARKER`]; unless this or the header of a repository is there, nothing is written and nothing is listed.
//!
//! **put_new** needs a server that honours `If-None-Match: *` (AWS, radosgw, MinIO, R2 do). One that does not is found out with the
//! marker, which is there already: putting it must fail. There [`claim`] takes the place of the condition.

mod address;
mod answer;
mod certificates;
mod claim;
mod connect;
mod container;
mod credentials;
mod instance;
mod issuer;
mod list;
mod process;
mod profile;
mod settings;
mod transport;
mod web_identity;

#[cfg(test)]
mod tests;

pub use container::ECS as ECS_AGENT;
pub use credentials::{ContainerToken, CredentialSource, Hidden, Keys, WebIdentity};
pub use instance::ENDPOINT as METADATA_SERVICE;
pub use profile::setting as profile_setting;
pub use settings::{Place, Settings, Style};
pub use web_identity::{SESSION_DEFAULT, endpoint as token_service};

use crate::format::layout::{self, ObjectKey};
use crate::target::{Limits, ObjectInfo, Page, Put, Request, Requests, Space, Target, TargetError};
use crate::words::hex::hex;
use crate::words::ids::PackId;
use address::{Address, EMPTY_SHA256};
use answer::{Trouble, check_range, judge};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use credentials::Holder;
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use transport::{Answer, Question, Sink, Transport};
use url::Url;

/// Written by [`Target::prepare`]; says that a prefix is meant to hold a repository.
const MARKER: &str = "tmp/prepared";

/// Part of a bucket.
pub struct S3Target {
    place: Place,
    address: Address,
    transport: Transport,
    keys: Holder,
    storage_class: Option<HeaderValue>,
    /// What every PUT says.
    always: HeaderMap,
    /// Whether the marker or a header was seen.
    prepared: AtomicBool,
    conditions: Mutex<Option<Conditions>>,
    /// Whether the bucket wants a checksum beside the signature. One with Object Lock does, and says so; others need not know the
    /// header.
    summed: AtomicBool,
}

/// What a server does with `If-None-Match: *`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Honoured,
    Ignored,
}

/// What a request has beside its address.
#[derive(Default)]
struct Extra<'a> {
    headers: HeaderMap,
    body: &'a [&'a [u8]],
    buffer: Option<&'a mut [u8]>,
    /// Whether the body of the answer is an object.
    is_object: bool,
    /// Whether the checksum of the body stands in a header of its own.
    summed: bool,
    /// The SHA-256 of the body, when it is known.
    sum: Option<[u8; 32]>,
}

/// The name of a pack is the SHA-256 of its bytes: what is to be signed is known. A body that is not what its name says is refused by
/// the server.
fn sum_in_name(key: &str) -> Option<[u8; 32]> {
    let (_, id) = key.strip_prefix(layout::PACKS)?.split_once('/')?;
    id.parse().ok().map(|id: PackId| *id.as_bytes())
}

impl S3Target {
    /// The target at a place. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`TargetError::Setup`] when the settings cannot be used.
    pub fn open(
        place: &Place,
        settings: &Settings,
        limits: Arc<Limits>,
        requests: Arc<Requests>,
    ) -> Result<Self, TargetError> {
        let setup = |problem| TargetError::Setup { target: place.to_string(), problem };
        let class = settings.storage_class.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Self {
            address: Address::new(place, settings).map_err(setup)?,
            transport: Transport::new(settings, limits, requests).map_err(setup)?,
            keys: Holder::new(settings.credentials.clone()).map_err(setup)?,
            storage_class: class.map_err(|_| setup("the storage class has characters that it cannot have".into()))?,
            always: encryption(settings).map_err(setup)?,
            place: place.clone(),
            prepared: AtomicBool::new(false),
            conditions: Mutex::new(None),
            summed: AtomicBool::new(false),
        })
    }

    /// One request. Keys that are not accepted are read anew, once: whoever issues temporary keys writes a file now and then.
    fn exchange(&self, kind: Request, method: &Method, url: &Url, mut extra: Extra<'_>) -> Result<Answer, Trouble> {
        let sha256 = match extra.body.iter().all(|part| part.is_empty()) && !extra.summed {
            true => EMPTY_SHA256.to_owned(),
            false => {
                let hashed = || extra.body.iter().fold(Sha256::new(), Sha256::chain_update).finalize().into();
                let sum: [u8; 32] = extra.sum.unwrap_or_else(hashed);
                if extra.summed {
                    let text = BASE64_STANDARD.encode(sum);
                    let text =
                        HeaderValue::from_str(&text).expect("base 64 has no character that a header cannot have");
                    extra.headers.insert("x-amz-checksum-sha256", text);
                }
                hex(&sum)
            }
        };
        let (mut keys, mut is_second) = (self.keys.keys(), false);
        loop {
            let mut headers = extra.headers.clone();
            let signed = self.address.sign(method, url, &mut headers, &sha256, &keys);
            signed.map_err(|_| Trouble::Denied("the credentials have characters that no header can have".into()))?;
            let question = Question { method: method.clone(), url: url.clone(), headers, body: extra.body };
            let sink = match (&mut extra.buffer, extra.is_object) {
                (Some(buffer), _) => Sink::Buffer(buffer),
                (None, true) => Sink::Object,
                (None, false) => Sink::Text,
            };
            let requests = self.transport.requests();
            requests.note(kind);
            let began = Instant::now();
            let host = self.address.host();
            let judged = match self.transport.ask(question, sink) {
                Ok(answer) => judge(answer, &self.place.bucket, &host),
                Err(failure) => Err(match failure.into() {
                    Trouble::Unreachable(problem) => Trouble::Unreachable(format!("{host}: {problem}")),
                    trouble => trouble,
                }),
            };
            requests.note_took(kind, began.elapsed());
            if !matches!(judged, Ok(_) | Err(Trouble::Absent | Trouble::Exists | Trouble::OutOfRange(_))) {
                requests.note_failed(kind);
            }
            let Err(Trouble::Expired(text)) = judged else { return judged };
            let Some(others) = self.keys.others(&keys) else { return Err(Trouble::Expired(text)) };
            if is_second {
                return Err(Trouble::Expired(text));
            }
            (keys, is_second) = (others, true);
        }
    }

    fn put_raw(&self, key: &str, parts: &[&[u8]], headers: HeaderMap) -> Result<(), Trouble> {
        let summed = self.summed.load(Ordering::Relaxed);
        match self.put_once(key, parts, headers.clone(), summed) {
            Err(Trouble::Unsummed(_)) if !summed => {
                self.summed.store(true, Ordering::Relaxed);
                self.put_once(key, parts, headers, true)
            }
            put => put,
        }
    }

    fn put_once(&self, key: &str, parts: &[&[u8]], headers: HeaderMap, summed: bool) -> Result<(), Trouble> {
        let mut extra = Extra { headers, body: parts, summed, sum: sum_in_name(key), ..Extra::default() };
        extra.headers.extend(self.always.clone());
        let len: usize = parts.iter().map(|part| part.len()).sum();
        extra.headers.insert(header::CONTENT_LENGTH, len.into());
        extra.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // Small objects are read often and cost more than they weigh in classes made for large ones.
        if let Some(class) = self.storage_class.as_ref().filter(|_| key.starts_with(layout::PACKS)) {
            extra.headers.insert("x-amz-storage-class", class.clone());
        }
        let answer = self.exchange(Request::Put, &Method::PUT, &self.address.object(key), extra)?;
        match answer.headers.contains_key(header::ETAG) {
            true => Ok(()),
            false => Err(Trouble::Garbled("a success without an ETag: no S3 server answers so".into())),
        }
    }

    fn get_raw(&self, key: &str) -> Result<Vec<u8>, Trouble> {
        let extra = Extra { is_object: true, ..Extra::default() };
        let answer = match self.exchange(Request::Get, &Method::GET, &self.address.object(key), extra) {
            // To whom a policy lets list a prefix only, radosgw does not say of an object below it that it is not there.
            Err(Trouble::Denied(_)) if self.objects(key, "").is_ok_and(|found| found.is_empty()) => {
                Err(Trouble::Absent)
            }
            answer => answer,
        }?;
        match answer.headers.contains_key(header::ETAG) {
            true => Ok(answer.body),
            false => Err(Trouble::Garbled("an object without an ETag: no S3 server answers so".into())),
        }
    }

    /// One request for a part; `buf` is not empty. Returns how many bytes there were and the size of the object.
    fn part(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<(usize, u64), Trouble> {
        let wanted = buf.len() as u64;
        let range = format!("bytes={offset}-{}", offset.saturating_add(wanted - 1));
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().expect("digits and a dash are a header value"));
        let extra = Extra { headers, buffer: Some(buf), ..Extra::default() };
        let answer = self.exchange(Request::Get, &Method::GET, &self.address.object(key), extra)?;
        let size = check_range(&answer, offset, wanted)?;
        Ok((answer.filled_bytes, size))
    }

    fn delete_raw(&self, key: &str) -> Result<(), Trouble> {
        match self.exchange(Request::Delete, &Method::DELETE, &self.address.object(key), Extra::default()) {
            Ok(_) | Err(Trouble::Absent) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Fails unless somebody prepared this place: a prefix that is spelt wrongly looks empty, not absent.
    fn check_prepared(&self) -> Result<(), Trouble> {
        if self.prepared.load(Ordering::Relaxed) {
            return Ok(());
        }
        for key in [layout::HEADER, MARKER] {
            match self.get_raw(key) {
                Ok(_) => {
                    self.prepared.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Trouble::Absent) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Setup("there is no repository under this bucket and prefix".into()))
    }

    /// Finds out what the server does with conditions, by putting what is there already. Of a repository that was copied here
    /// without its marker the first put may create it, and only a second one tells: hosts that came to different answers would not
    /// respect each other.
    fn conditions(&self) -> Result<Conditions, Trouble> {
        let mut known = self.conditions.lock();
        if let Some(known) = *known {
            return Ok(known);
        }
        let put = || self.put_raw(MARKER, &[b"backyfs"], if_absent());
        let found = match put().and_then(|()| put()) {
            Err(Trouble::Exists) => Conditions::Honoured,
            Ok(()) | Err(Trouble::Setup(_)) => Conditions::Ignored,
            Err(trouble) => return Err(trouble),
        };
        if found == Conditions::Ignored {
            tracing::warn!("{} has no conditional writes: claims are used instead", self.place);
        }
        Ok(*known.insert(found))
    }

    fn prepare_raw(&self) -> Result<(), Trouble> {
        self.put_raw(MARKER, &[b"backyfs"], HeaderMap::new())?;
        self.prepared.store(true, Ordering::Relaxed);
        self.conditions().map(drop)
    }

    fn named(&self, action: &'static str, key: &str) -> impl FnOnce(Trouble) -> TargetError {
        let target = self.place.to_string();
        move |trouble| trouble.named(target, action, key)
    }
}

/// The headers that tell the server what to encrypt with.
fn encryption(settings: &Settings) -> Result<HeaderMap, String> {
    let said = [
        ("x-amz-server-side-encryption", &settings.encryption),
        ("x-amz-server-side-encryption-aws-kms-key-id", &settings.kms_key),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in said {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|_| format!("{value:?} cannot be sent in {name}"))?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

fn if_absent() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    headers
}

impl Target for S3Target {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    fn prepare(&self) -> Result<(), TargetError> {
        match self.foreign().map_err(self.named("preparing", "it"))? {
            Some(found) => Err(TargetError::Occupied { target: self.describe(), found }),
            None => self.prepare_raw().map_err(self.named("preparing", "it")),
        }
    }

    fn put(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<(), TargetError> {
        let put = self.check_prepared().and_then(|()| self.put_raw(key.as_str(), parts, HeaderMap::new()));
        put.map_err(self.named("writing", key.as_str()))
    }

    fn put_new(&self, key: &ObjectKey, parts: &[&[u8]]) -> Result<Put, TargetError> {
        let put = || {
            self.check_prepared()?;
            match self.conditions()? {
                Conditions::Honoured => match self.put_raw(key.as_str(), parts, if_absent()) {
                    Ok(()) => Ok(Put::Created),
                    Err(Trouble::Exists) => Ok(Put::Exists),
                    Err(trouble) => Err(trouble),
                },
                Conditions::Ignored => self.put_claimed(key.as_str(), parts),
            }
        };
        put().map_err(self.named("writing", key.as_str()))
    }

    fn get(&self, key: &ObjectKey) -> Result<Vec<u8>, TargetError> {
        let bytes = self.get_raw(key.as_str()).map_err(self.named("reading", key.as_str()))?;
        if key.as_str() == layout::HEADER {
            self.prepared.store(true, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), TargetError> {
        if buf.is_empty() {
            return Ok(());
        }
        let wanted = buf.len();
        let short = |size_bytes| TargetError::Truncated {
            target: self.describe(),
            key: key.clone(),
            offset,
            wanted_bytes: wanted as u64,
            size_bytes,
        };
        let size_of_it = || match self.part(key.as_str(), 0, &mut [0]) {
            Ok((_, size)) => Ok(size),
            Err(Trouble::OutOfRange(_)) => Ok(0),
            Err(trouble) => Err(trouble),
        };
        match self.part(key.as_str(), offset, buf) {
            Ok((filled, _)) if filled == wanted => Ok(()),
            Ok((_, size)) => Err(short(size)),
            Err(Trouble::OutOfRange(Some(size))) => Err(short(size)),
            Err(Trouble::OutOfRange(None)) => Err(short(size_of_it().map_err(self.named("reading", key.as_str()))?)),
            Err(trouble) => Err(self.named("reading", key.as_str())(trouble)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        self.list_after(prefix, "")
    }

    fn is_paged(&self) -> bool {
        true
    }

    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, TargetError> {
        let listed = self.check_prepared().and_then(|()| self.objects(prefix, after));
        listed.map_err(self.named("listing", prefix))
    }

    fn list_page(&self, after: &str, wanted: usize) -> Result<Page, TargetError> {
        let listed = self.check_prepared().and_then(|()| self.page(after, wanted));
        listed.map_err(self.named("listing", after))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.delete_raw(key.as_str()).map_err(self.named("deleting", key.as_str()))
    }

    fn space(&self) -> Result<Space, TargetError> {
        // No S3 server tells; `df` shows what the catalog knows to be there.
        Ok(Space::BOUNDLESS)
    }
}
