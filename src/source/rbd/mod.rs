//! Images of a Ceph cluster, through librbd.
//!
//! Opening one takes a snapshot and reads that. A backup keeps it: the next one asks the cluster what has changed since, by exact
//! extents and not by whole objects, whose difference has been wrong in released versions (Ceph tracker 42248, 50787, 54970).
//! Without the cargo feature `rbd` there is this file alone, which says how to get the rest.

#[cfg(feature = "rbd")]
mod cluster;
#[cfg(feature = "rbd")]
mod destination;
#[cfg(feature = "rbd")]
mod image;
#[cfg(feature = "rbd")]
mod opened;
#[cfg(feature = "rbd")]
mod sys;
#[cfg(test)]
#[cfg(feature = "rbd")]
mod tests;
#[cfg(feature = "rbd")]
mod volume;

use crate::source::SourceError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is said without the feature.
#[cfg(any(test, not(feature = "rbd")))]
const HOW_TO_GET_IT: &str =
    "this backyfs was built without rbd: install librbd-dev and build it with `cargo build --release --features rbd`";

/// A pool, or a namespace in it, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// The configuration file of the cluster; without one, where librados looks.
    pub conf: Option<PathBuf>,
    /// As whom, without `client.`; without one, `admin`.
    pub user: Option<String>,
    /// The pool.
    pub pool: String,
    /// The namespace; empty for the default one.
    pub namespace: String,
    /// What names of snapshots begin with; empty unless set.
    #[serde(default)]
    pub snapshot_prefix: String,
}

impl Pool {
    /// A pool, or a namespace of one, with nothing configured.
    pub fn new(pool: &str, namespace: &str) -> Self {
        let (pool, namespace) = (pool.to_owned(), namespace.to_owned());
        Self { conf: None, user: None, pool, namespace, snapshot_prefix: String::new() }
    }
}

/// An image in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RbdImage {
    /// Where.
    #[serde(flatten)]
    pub pool: Pool,
    /// Its name.
    pub image: String,
    /// A snapshot of somebody else's, to read instead of a new one.
    pub snapshot: Option<String>,
}

impl RbdImage {
    /// Reads `POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`.
    ///
    /// # Errors
    /// When it has other parts.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let refused = || {
            SourceError::Refused(format!(
                "rbd:{text}: write rbd:POOL/IMAGE, rbd:POOL/NAMESPACE/IMAGE, or either with @SNAPSHOT"
            ))
        };
        let (path, snapshot) = match text.split_once('@') {
            Some((path, snapshot)) => (path, Some(snapshot.to_owned())),
            None => (text, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (pool, namespace, image) = match parts[..] {
            [pool, image] => (pool, "", image),
            [pool, namespace, image] => (pool, namespace, image),
            _ => return Err(refused()),
        };
        if pool.is_empty() || image.is_empty() || snapshot.as_deref() == Some("") {
            return Err(refused());
        }
        let pool = Pool::new(pool, namespace);
        Ok(Self { pool, image: image.to_owned(), snapshot })
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rbd:{}", self.pool)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, "/{}", self.namespace) }
    }
}

impl std::fmt::Display for RbdImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.image)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

#[cfg(feature = "rbd")]
pub use volume::{find, list, look, volume};

#[cfg(any(test, not(feature = "rbd")))]
mod absent {
    use super::{Pool, RbdImage, SourceError};
    use crate::source::Volume;
    use crate::source::collection::ItemKind;
    use crate::source::file::Looked;
    use std::sync::Arc;

    fn absent<T>() -> Result<T, SourceError> {
        Err(SourceError::Refused(super::HOW_TO_GET_IT.into()))
    }

    /// The volume of an image.
    ///
    /// # Errors
    /// Always.
    pub fn volume(_: &RbdImage) -> Result<Arc<dyn Volume>, SourceError> {
        absent()
    }

    /// The images of a pool.
    ///
    /// # Errors
    /// Always.
    pub fn list(_: &Pool) -> Result<Vec<String>, SourceError> {
        absent()
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// Always.
    pub fn find(_: &RbdImage) -> Result<Option<ItemKind>, SourceError> {
        absent()
    }

    /// Size and attributes.
    ///
    /// # Errors
    /// Always.
    pub fn look(_: &RbdImage) -> Result<Looked, SourceError> {
        absent()
    }
}

#[cfg(not(feature = "rbd"))]
pub use absent::{find, list, look, volume};

#[cfg(test)]
mod parse_tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let plain = RbdImage::parse("rbd/vm").unwrap();
        assert_eq!((plain.pool.pool.as_str(), plain.image.as_str(), plain.snapshot.as_deref()), ("rbd", "vm", None));
        let all = RbdImage::parse("p/n/i@s").unwrap();
        assert_eq!(
            (all.pool.namespace.as_str(), all.snapshot.as_deref(), all.to_string().as_str()),
            ("n", Some("s"), "rbd:p/n/i@s")
        );
        for bad in ["", "pool", "/i", "p/", "a/b/c/d", "p/i@"] {
            assert!(matches!(RbdImage::parse(bad), Err(SourceError::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn without_the_feature_the_error_says_how_to_get_it() {
        let image = RbdImage::parse("rbd/vm").unwrap();
        let refusals = [
            absent::volume(&image).err(),
            absent::list(&image.pool).err(),
            absent::find(&image).err(),
            absent::look(&image).err(),
        ];
        for refused in refusals.into_iter().map(Option::unwrap) {
            let said = refused.to_string();
            assert!(said.contains("--features rbd") && said.contains("librbd-dev"), "{said}");
        }
        assert_eq!(volume(&image).is_ok(), cfg!(feature = "rbd"));
    }
}
