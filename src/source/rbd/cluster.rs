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
use std::time::Instant;

/// What a cluster that does not answer may cost, in seconds, unless the configuration file says something else than what the
/// library begins with. Zero would be for ever: a backup that hangs is worse than one that fails and goes on later.
const TIMEOUTS: [(&str, &str, f64); 3] =
    [("client_mount_timeout", "30", 300.0), ("rados_mon_op_timeout", "30", 0.0), ("rados_osd_op_timeout", "120", 0.0)];
/// Large parallel reads and writes gain nothing from a cache, which would hold them a second time.
const NO_CACHE: (&str, &str) = ("rbd_cache", "false");
/// A socket that another process has already, as one without `$pid` in its name is, ends the process when the connection ends.
const NO_SOCKET: (&str, &str) = ("admin_socket", "");

/// librbd 16 tells whoever opens an image that it is open, and looks at the image's state once more afterwards, on the same thread; when
/// the image was closed by then, the memory is somebody else's and the process ends. With one thread for what librbd does when
/// answers come, closing goes on after that look and not beside it.
const ONE_THREAD: (&str, &str) = ("librados_thread_count", "1");

type Key = (Option<PathBuf>, Option<String>);

static CLUSTERS: LazyLock<Mutex<HashMap<Key, Arc<Mutex<Slot>>>>> = LazyLock::new(Mutex::default);

/// The connection to one cluster. Connecting may take as long as nobody answers: who waits for that waits for this cluster alone.
#[derive(Default)]
struct Slot {
    open: Weak<Cluster>,
    /// When connecting failed last, and with which number.
    failed: Option<(Instant, i32)>,
}

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
        let conf = key.0.as_ref().map(|path| text(&path.to_string_lossy())).transpose()?;
        // SAFETY: as above; without a path the library looks in its own places.
        check(i64::from(unsafe {
            rados::rados_conf_read_file(cluster.0, conf.as_ref().map_or(ptr::null(), |c| c.as_ptr()))
        }))?;
        // What is set here counts more than the file, whenever it is read: so it is asked first what the file says.
        for (name, value, beginning) in TIMEOUTS {
            if cluster.setting(name)?.parse() == Ok(beginning) {
                cluster.set(name, value)?;
            }
        }
        cluster.set(NO_CACHE.0, NO_CACHE.1)?;
        cluster.set(NO_SOCKET.0, NO_SOCKET.1)?;
        cluster.set(ONE_THREAD.0, ONE_THREAD.1)?;
        // SAFETY: as above.
        check(i64::from(unsafe { rados::rados_connect(cluster.0) }))?;
        Ok(cluster)
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let (name, value) = (text(name)?, text(value)?);
        // SAFETY: the handle is open, the texts outlive the call.
        check(i64::from(unsafe { rados::rados_conf_set(self.0, name.as_ptr(), value.as_ptr()) })).map(drop)
    }

    fn setting(&self, name: &str) -> io::Result<String> {
        let (name, mut value) = (text(name)?, [0; 64]);
        // SAFETY: the handle is open, the text outlives the call, and the library writes no more than the buffer holds.
        check(i64::from(unsafe {
            rados::rados_conf_get(self.0, name.as_ptr(), value.as_mut_ptr().cast::<c_char>(), value.len())
        }))?;
        let len = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        Ok(String::from_utf8_lossy(&value[..len]).into_owned())
    }

    fn shared(key: Key) -> io::Result<Arc<Self>> {
        let asked = Instant::now();
        let slot = Arc::clone(CLUSTERS.lock().entry(key.clone()).or_default());
        let mut slot = slot.lock();
        if let Some(cluster) = slot.open.upgrade() {
            return Ok(cluster);
        }
        // All who waited for the same attempt fail with it, instead of waiting for one attempt each.
        if let Some((_, code)) = slot.failed.filter(|(when, _)| *when >= asked) {
            return Err(io::Error::from_raw_os_error(code));
        }
        match Self::connect(&key) {
            Ok(cluster) => {
                let cluster = Arc::new(cluster);
                slot.open = Arc::downgrade(&cluster);
                Ok(cluster)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.raw_os_error().unwrap_or(libc::EIO)));
                Err(error)
            }
        }
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
