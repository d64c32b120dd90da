//! Against a real server. `BACKYFS_TEST_S3` says where it is; `tests/lab/ceph` starts one.

use super::*;
use crate::target::{Patience, RetryTarget, conformance};
use crate::words::clock::{Clock, SystemClock};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// The server, and keys that may do everything there: `http://ACCESS:SECRET@HOST:PORT`.
fn server() -> (String, Keys) {
    let text = std::env::var("BACKYFS_TEST_S3").expect(
        "this test needs an S3 server: run it as `tests/lab/ceph run cargo nextest run s3`, or set BACKYFS_TEST_S3",
    );
    let url: Url = text.parse().expect("BACKYFS_TEST_S3 is http://ACCESS:SECRET@HOST:PORT");
    let keys = Keys {
        access_key: url.username().to_owned(),
        secret_key: url.password().unwrap_or_default().to_owned().into(),
        session_token: None,
    };
    (format!("{}://{}:{}", url.scheme(), url.host_str().unwrap(), url.port_or_known_default().unwrap()), keys)
}

fn settings() -> Settings {
    let (endpoint, keys) = server();
    Settings { endpoint: Some(endpoint), credentials: CredentialSource::Given(keys), ..Settings::default() }
}

/// A place of its own in the bucket of all tests.
fn place() -> Place {
    let mut random = [0; 8];
    SystemClock.random(&mut random);
    Place { bucket: "backyfs-test".into(), prefix: format!("unit/{}", hex(&random)) }
}

fn open(place: &Place, settings: &Settings) -> S3Target {
    let target = S3Target::open(place, settings, Arc::default(), Arc::default()).unwrap();
    // The bucket may be there already.
    let _ = target.exchange(Request::Put, &Method::PUT, &target.address.query(&[]), Extra::default());
    target
}

#[test]
fn it_is_a_target() {
    conformance::check(&open(&place(), &settings()));
}

#[test]
fn it_is_a_target_through_the_wrappers() {
    let target = open(&place(), &settings());
    conformance::check(&RetryTarget::new(target, Patience::new(Duration::from_secs(20))));
}

#[test]
fn claims_do_what_conditions_do() {
    let target = open(&place(), &settings());
    *target.conditions.lock() = Some(Conditions::Ignored);
    // Those who meet step back and come again.
    conformance::check(&RetryTarget::new(target, Patience::new(Duration::from_secs(60))));
}

#[test]
fn a_bucket_that_wants_checksums_gets_them() {
    let target = open(&place(), &settings());
    target.summed.store(true, Ordering::Relaxed);
    conformance::check(&target);
}

/// Heads of requests.
type Heard = Arc<Mutex<Vec<String>>>;

/// A server that says of no object that it is absent, as radosgw does to whom a policy lets list a prefix only. It has `there`, and
/// remembers what it is asked.
fn strict_server(there: &'static str) -> (Settings, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let hears = Arc::clone(&hears);
            std::thread::spawn(move || while answer_strictly(stream.as_ref().unwrap(), there, &hears).is_some() {});
        }
    });
    let keys = Keys { access_key: "a".into(), secret_key: "s".to_owned().into(), session_token: None };
    (Settings { endpoint: Some(endpoint), credentials: CredentialSource::Given(keys), ..Settings::default() }, heard)
}

fn answer_strictly(mut stream: &TcpStream, there: &str, heard: &Heard) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; len]).ok()?;
    heard.lock().push(head.clone());
    let (_, query) = head.lines().next()?.split_once('?').unwrap_or_default();
    let (status, body) = if head.starts_with("put") {
        ("200 OK\r\netag: \"1\"", String::new())
    } else if query.contains("list-type=2") {
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="))?.split(' ').next()?;
        let prefix = prefix.replace("%2f", "/");
        let contents = match there.starts_with(&prefix) {
            true => format!("<Contents><Key>{there}</Key><Size>1</Size></Contents>"),
            false => String::new(),
        };
        let told = format!("<Name>b</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>{contents}");
        ("200 OK", format!("<ListBucketResult>{told}</ListBucketResult>"))
    } else {
        ("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_owned())
    };
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}

#[test]
fn what_may_not_be_read_and_is_not_listed_is_not_there() {
    let (settings, _) = strict_server("p/ok/there");
    let place = Place { bucket: "b".into(), prefix: "p".into() };
    let target = S3Target::open(&place, &settings, Arc::default(), Arc::default()).unwrap();
    let get = |key: &str| target.get(&key.parse().unwrap());
    assert!(matches!(get("ok/gone"), Err(TargetError::NotFound { .. })));
    assert!(matches!(get("ok/there"), Err(TargetError::Denied { .. })));
}

#[test]
fn what_the_server_is_to_encrypt_with_is_said_with_every_put() {
    let (settings, heard) = strict_server("");
    let (encryption, key) = (Some("aws:kms".to_owned()), Some("alias/backups".to_owned()));
    let settings = Settings { encryption, kms_key: key, storage_class: Some("COLD".into()), ..settings };
    let place = Place { bucket: "b".into(), prefix: String::new() };
    let target = S3Target::open(&place, &settings, Arc::default(), Arc::default()).unwrap();
    target.put_raw(MARKER, &[b"1"], HeaderMap::new()).unwrap();
    target.put_raw("packs/aa/bb", &[b"2"], HeaderMap::new()).unwrap();
    let heard = heard.lock();
    assert_eq!(heard.len(), 2);
    for head in &*heard {
        assert!(head.contains("\r\nx-amz-server-side-encryption: aws:kms\r\n"), "{head}");
        assert!(head.contains("\r\nx-amz-server-side-encryption-aws-kms-key-id: alias/backups\r\n"), "{head}");
        // What is not signed could be changed on its way.
        assert!(head.contains("x-amz-server-side-encryption;"), "{head}");
        assert_eq!(head.contains("x-amz-storage-class: cold"), head.contains("/packs/"), "{head}");
    }
}

#[test]
fn an_endpoint_without_its_bucket_is_wanted() {
    let open = |endpoint: &str| {
        let settings = Settings { endpoint: Some(endpoint.to_owned()), ..strict_server("").0 };
        let place = Place { bucket: "bucket".into(), prefix: String::new() };
        S3Target::open(&place, &settings, Arc::default(), Arc::default())
    };
    let refused = open("https://account.r2.cloudflarestorage.com/bucket/").err().unwrap().to_string();
    assert!(refused.contains("leave that out"), "{refused}");
    assert!(open("https://account.r2.cloudflarestorage.com").is_ok());
    assert!(open("https://bucket").is_ok());
}
