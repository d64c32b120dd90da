//! Against a real server. `BACKYFS_TEST_S3` says where it is; `tests/lab/ceph` starts one.

use super::*;
use crate::target::{Patience, RetryTarget, conformance};
use crate::words::clock::{Clock, SystemClock};
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
