//! Creating an object that must not exist, at a server without conditional writes.
//!
//! Whoever wants to create puts a claim of its own, then lists the claims, then looks for the object, then writes it, and takes its
//! claim away last. Lists show what was put before. Of two, the one that lists later sees the claim of the other, and steps
//! back; or that claim is gone already, and then the object is there, because claims go after objects come, or the other
//! stepped back. So never do both write. Both may step back; they come again after delays of different length.
//!
//! A claim whose owner died is in everyone's way until somebody deletes it, and is named in the error.

use crate::target::Put;
use crate::target::s3::S3Target;
use crate::target::s3::answer::Trouble;
use crate::words::clock::{Clock, SystemClock};
use crate::words::hex::hex;
use http::HeaderMap;
use sha2::{Digest, Sha256};

impl S3Target {
    pub(super) fn put_claimed(&self, key: &str, parts: &[&[u8]]) -> Result<Put, Trouble> {
        let mut random = [0; 16];
        SystemClock.random(&mut random);
        let claims = format!("tmp/claim-{}-", &hex(&Sha256::digest(key))[..16]);
        let own = format!("{claims}{}", hex(&random));
        self.put_raw(&own, &[b"claim"], HeaderMap::new())?;
        let done = self.put_with_claim(key, parts, &claims, &own);
        // What happened to the object counts; a claim that stays is told of by the next who wants it.
        if let Err(trouble) = self.delete_raw(&own) {
            tracing::warn!("{}: the claim {own} stays and must be deleted by hand: {trouble:?}", self.place);
        }
        done
    }

    fn put_with_claim(&self, key: &str, parts: &[&[u8]], claims: &str, own: &str) -> Result<Put, Trouble> {
        let claimed = self.temporary(claims)?;
        if !claimed.iter().any(|name| name == own) {
            return Err(Trouble::Garbled("a list does not show what was just written".into()));
        }
        if let Some(other) = claimed.iter().find(|name| *name != own) {
            let problem = format!("somebody else creates the same object, or died doing so; then delete {other}");
            return Err(Trouble::Unreachable(problem));
        }
        match self.get_raw(key) {
            Ok(_) => Ok(Put::Exists),
            Err(Trouble::Absent) => self.put_raw(key, parts, HeaderMap::new()).map(|()| Put::Created),
            Err(trouble) => Err(trouble),
        }
    }
}
