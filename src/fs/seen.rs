//! What the target said of its size when it was last asked for another reason, for those who must not ask it themselves.

use crate::target::Space;
use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub struct Seen {
    space: Mutex<Option<Space>>,
}

impl Seen {
    /// Remembers an answer. One of a target without a size is none.
    pub fn note(&self, space: Space) {
        let has_size = space.total_bytes != Space::BOUNDLESS.total_bytes;
        *self.space.lock() = has_size.then_some(space);
    }

    /// The last answer.
    pub fn space(&self) -> Option<Space> {
        *self.space.lock()
    }
}
