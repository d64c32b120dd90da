//! What `librbd-sys` and `librados-sys` do not declare of the libraries they link (rbd/librbd.h and rados/librados.h of Ceph 16).

use librados_sys::rados_ioctx_t;
use librbd_sys::rbd_image_t;
use std::ffi::{c_char, c_int, c_void};

/// Told for each extent: offset, length, whether it holds anything.
pub type DiffCallback = unsafe extern "C" fn(u64, libc::size_t, c_int, *mut c_void) -> c_int;

/// Who has an image open.
#[repr(C)]
pub struct Watcher {
    pub addr: *mut c_char,
    pub id: i64,
    pub cookie: u64,
}

unsafe extern "C" {
    pub fn rbd_diff_iterate2(
        image: rbd_image_t,
        from_snapshot: *const c_char,
        offset: u64,
        len: u64,
        include_parent: u8,
        whole_object: u8,
        callback: DiffCallback,
        argument: *mut c_void,
    ) -> c_int;
    pub fn rbd_write_zeroes(
        image: rbd_image_t,
        offset: u64,
        len: libc::size_t,
        zero_flags: c_int,
        op_flags: c_int,
    ) -> libc::ssize_t;
    pub fn rbd_get_modify_timestamp(image: rbd_image_t, timestamp: *mut libc::timespec) -> c_int;
    pub fn rbd_snap_get_timestamp(image: rbd_image_t, snapshot: u64, timestamp: *mut libc::timespec) -> c_int;
    pub fn rbd_watchers_list(image: rbd_image_t, watchers: *mut Watcher, max: *mut libc::size_t) -> c_int;
    pub fn rbd_watchers_list_cleanup(watchers: *mut Watcher, count: libc::size_t);
    pub fn rados_ioctx_set_namespace(io: rados_ioctx_t, namespace: *const c_char);
}
