//! A mount without a kernel, for tests.

use crate::fs::incoming::{Incoming, IncomingOptions};
use crate::fs::nodes::Node;
use crate::fs::seam::{Access, Caller, Fh, OpenRequest, WriteOrigin, WriteRequest};
use crate::image::ImageReader;
use crate::ops::Interrupt;
use crate::ops::gc::{Options, gc};
use crate::repo::Repository;
use crate::repo::testing::{TestRepository, create, open, small};
use crate::target::DirTarget;
use crate::words::ids::Uid;
use crate::words::monitor::Silent;
use crate::words::name::{Name, TemporaryNames};
use std::sync::Arc;
use std::time::Duration;

pub const ME: Caller = Caller { uid: 0, gid: 0, pid: 0 };

/// A mount without a kernel, and another host on its target.
pub struct Scene {
    pub incoming: Arc<Incoming>,
    pub other: Arc<Repository>,
    pub world: TestRepository,
}

/// One.
pub fn scene() -> Scene {
    scene_of(create(&small()))
}

/// One of this repository.
pub fn scene_of(world: TestRepository) -> Scene {
    let options = IncomingOptions {
        temporary: TemporaryNames::default(),
        commit_timeout: Duration::from_secs(60),
        draft_expire: Duration::from_secs(3600),
        policy: Arc::default(),
        uid: 0,
        gid: 0,
    };
    let incoming = Incoming::new(Arc::clone(&world.repo), options).unwrap();
    let target = Arc::new(DirTarget::open(world.dir.path().join("target")));
    let other = open(target, &world.dir.path().join("other"), Arc::default()).unwrap();
    Scene { incoming, other, world }
}

impl Scene {
    pub fn open(&self, name: &str, truncate: bool) -> (u64, Fh) {
        let request = OpenRequest {
            access: Access::ReadWrite,
            append: false,
            truncate,
            exclusive: false,
            direct: false,
            sync: false,
            exec: false,
        };
        let caller = Caller { pid: std::process::id(), ..ME };
        let opened = self.incoming.create(caller, "", name, 0o600, &request).unwrap();
        let Node::IncomingFile(number) = opened.node else { panic!("a file") };
        (number, opened.fh)
    }

    pub fn write(&self, (number, fh): (u64, Fh), offset: u64, data: &[u8]) {
        let caller = Caller { pid: std::process::id(), ..ME };
        let ino = Node::IncomingFile(number).ino();
        let request = WriteRequest { caller, ino, fh, offset, data, append: false, origin: WriteOrigin::Call };
        self.incoming.write(number, &request).unwrap();
    }

    pub fn close(&self, (number, fh): (u64, Fh)) {
        let caller = Caller { pid: std::process::id(), ..ME };
        self.incoming.flush(caller, number, fh).unwrap();
        self.incoming.release(number, fh);
    }

    pub fn newest(&self) -> (Uid, Vec<u8>) {
        let repo = &self.world.repo;
        let uid = repo.catalog().newest(&Name::new("vm").unwrap()).unwrap().unwrap();
        let image = repo.version(uid).unwrap().record.image;
        let mut bytes = vec![0; image.size_bytes as usize];
        ImageReader::new(Arc::clone(repo), image, "test").read_at(0, &mut bytes).unwrap();
        (uid, bytes)
    }

    /// Deletes a version on the other host, and collects there.
    pub fn lose(&self, uid: Uid) {
        self.other.refresh().unwrap();
        self.other.remove_version(uid).unwrap();
        let report = gc(&self.other, &Options::default(), &Silent, &Interrupt::never()).unwrap();
        assert_eq!(report.obstacles, Vec::<String>::new());
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let step = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    step.take(len).collect()
}
