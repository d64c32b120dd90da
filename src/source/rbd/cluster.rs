//! A connection to a cluster, shared by everything of this process that talks to it, and a pool of it.

use crate::source::SourceError;
use crate::source::rbd::{Pool, sys};
use librados_sys as rados;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, LazyLock, Weak};

/// What a cluster that does not answer may cost, in seconds. What the configuration file says of these counts more. Zero would be
/// for ever: a backup that hangs is worse than one that fails and goes on later.
const TIMEOUTS: [(&str, &str); 3] =
    [("client_mount_timeout", "30"), ("rados_mon_op_timeout", "30"), ("rados_osd_op_timeout", "120")];
/// Large parallel reads and writes gain nothing from a cache, which would hold them a second time.
const NO_CACHE: (&str, &str) = ("rbd_cache", "false");

type Key = (Option<PathBuf>, Option<String>);

static CLUSTERS: LazyLock<Mutex<HashMap<Key, Weak<Cluster>>>> = LazyLock::new(Mutex::default);

/// A connection.
struct Cluster(rados::rados_t);

// SAFETY: librados handles may be used by many threads at once (rados/librados.h).
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

/// An error number as librados returns it.
pub fn check(code: i64) -> io::Result<i64> {
    if code < 0 { Err(io::Error::from_raw_os_error(i32::try_from(-code).unwrap_or(libc::EIO))) } else { Ok(code) }
}

/// A text for the library.
///
/// # Errors
/// When it holds a zero byte.
pub fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

impl Cluster {
    fn connect(key: &Key) -> io::Result<Self> {
        let user = key.1.as_deref().map(text).transpose()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written on success; the text lives longer than the call.
        check(i64::from(unsafe {
            rados::rados_create(&raw mut handle, user.as_ref().map_or(ptr::null(), |u| u.as_ptr()))
        }))?;
        let cluster = Self(handle);
        for (name, value) in TIMEOUTS.into_iter().chain([NO_CACHE]) {
            let (name, value) = (text(name)?, text(value)?);
            // SAFETY: the handle is open, the texts outlive the call.
            check(i64::from(unsafe { rados::rados_conf_set(cluster.0, name.as_ptr(), value.as_ptr()) }))?;
        }
        let conf = key.0.as_ref().map(|path| text(&path.to_string_lossy())).transpose()?;
        // SAFETY: as above; without a path the library looks in its own places.
        check(i64::from(unsafe {
            rados::rados_conf_read_file(cluster.0, conf.as_ref().map_or(ptr::null(), |c| c.as_ptr()))
        }))?;
        // SAFETY: as above.
        check(i64::from(unsafe { rados::rados_connect(cluster.0) }))?;
        Ok(cluster)
    }

    fn shared(key: Key) -> io::Result<Arc<Self>> {
        let mut clusters = CLUSTERS.lock();
        if let Some(cluster) = clusters.get(&key).and_then(Weak::upgrade) {
            return Ok(cluster);
        }
        let cluster = Arc::new(Self::connect(&key)?);
        clusters.insert(key, Arc::downgrade(&cluster));
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: made by rados_create, and nobody uses it any more.
        unsafe { rados::rados_shutdown(self.0) };
    }
}

/// An open pool, or a namespace of it.
pub struct OpenPool {
    io: rados::rados_ioctx_t,
    /// Closed after the pool.
    _cluster: Arc<Cluster>,
}

// SAFETY: an I/O context may be used by many threads at once as long as nobody changes it, which only `open` does.
unsafe impl Send for OpenPool {}
// SAFETY: as above.
unsafe impl Sync for OpenPool {}

impl OpenPool {
    /// Opens it.
    ///
    /// # Errors
    /// When the cluster cannot be reached, or there is no such pool.
    pub fn open(pool: &Pool) -> Result<Arc<Self>, SourceError> {
        let open = || {
            let cluster = Cluster::shared((pool.conf.clone(), pool.user.clone()))?;
            let (name, namespace) = (text(&pool.pool)?, text(&pool.namespace)?);
            let mut io = ptr::null_mut();
            // SAFETY: the context is written on success; the cluster is open, the texts outlive the calls.
            check(i64::from(unsafe { rados::rados_ioctx_create(cluster.0, name.as_ptr(), &raw mut io) }))?;
            // SAFETY: the context was made just now and nobody else has it.
            unsafe { sys::rados_ioctx_set_namespace(io, namespace.as_ptr()) };
            Ok(Arc::new(Self { io, _cluster: cluster }))
        };
        open().map_err(|source| SourceError::Open { what: pool.to_string(), source })
    }

    /// The handle.
    pub fn io(&self) -> rados::rados_ioctx_t {
        self.io
    }

    /// Names of images, in no order.
    ///
    /// # Errors
    /// When the cluster fails.
    pub fn images(&self) -> io::Result<Vec<String>> {
        let mut size = 64 << 10;
        loop {
            let mut names: Vec<u8> = vec![0; size];
            // SAFETY: the buffer is `size` bytes long, and the library writes no more, or says how many it needs.
            let len = unsafe { librbd_sys::rbd_list(self.io, names.as_mut_ptr().cast::<c_char>(), &raw mut size) };
            match check(i64::from(len)) {
                Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
                len => {
                    names.truncate(usize::try_from(len?).unwrap_or(0));
                    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                    return Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect());
                }
            }
        }
    }
}

impl Drop for OpenPool {
    fn drop(&mut self) {
        // SAFETY: made by rados_ioctx_create; whatever was opened through it holds an Arc of this, and is closed.
        unsafe { rados::rados_ioctx_destroy(self.io) };
    }
}
