//! Fuzz bodies: whatever reads bytes from the target, against any bytes.

use crate::format::frame::{FrameKind, NO_ID};
use crate::format::fuzz::Body;
use crate::format::slot::Argon2Costs;
use crate::seal::keys::{self, Created, Settings};
use crate::seal::recovery::RecoveryKey;
use crate::seal::secret::Secret;
use crate::words::clock::{Clock, TestClock};
use crate::words::geometry::BlockSize;
use crate::words::ids::BlockId;
use crate::words::record::BlockKind;
use crate::words::stamp::Stamp;
use std::sync::{Arc, OnceLock};

/// Every body, with its name.
pub const BODIES: [(&str, Body); 3] = [("open", open_frame), ("unlock", unlock_anything), ("recovery", recovery_key)];

/// A clock that starts at a fixed moment.
pub(super) fn clock(seed: u64) -> Arc<dyn Clock> {
    Arc::new(TestClock::new(Stamp::from_millis(1_795_372_262_123), seed))
}

/// Settings that make tests fast.
pub(super) const FAST: Settings = Settings {
    block_size: BlockSize::DEFAULT,
    zstd_level: 1,
    pack_size_bytes: 32 << 20,
    argon2: Argon2Costs::CHEAPEST,
};

/// A repository that a key file of sevens opens.
pub(super) fn repository() -> &'static Created {
    static CREATED: OnceLock<Created> = OnceLock::new();
    CREATED.get_or_init(|| keys::create(&FAST, &[Secret::key_file([7; 32])], &clock(1)).expect("the settings are good"))
}

/// Nothing that was not sealed here opens, whatever it is taken for.
pub fn open_frame(bytes: &[u8]) {
    let sealer = &repository().sealer;
    let id = bytes.get(20..52).and_then(|id| id.try_into().ok()).unwrap_or(NO_ID);
    for kind in FrameKind::ALL {
        assert!(sealer.open_object(kind, id, bytes).is_err());
    }
    let mut plain = vec![1; 10];
    for kind in [BlockKind::Data, BlockKind::Map] {
        assert!(sealer.open_block_into(kind, &BlockId::from_bytes(id), bytes, &mut plain).is_err());
        assert!(plain.is_empty());
    }
}

/// Headers, slots and rings that nobody made.
pub fn unlock_anything(bytes: &[u8]) {
    let (created, secret, clock) = (repository(), Secret::key_file([7; 32]), clock(2));
    let anything = [bytes.to_vec()];
    assert!(keys::unlock(bytes, &anything, &anything, &secret, &clock).is_err());
    assert!(keys::unlock(&created.header.1, &anything, &anything, &secret, &clock).is_err());
    let slots: Vec<_> = created.keys.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert!(keys::unlock(&created.header.1, &slots, &anything, &secret, &clock).is_err());
}

/// Recovery keys as typed.
pub fn recovery_key(bytes: &[u8]) {
    if let Some(key) = RecoveryKey::parse(bytes) {
        assert_eq!(RecoveryKey::parse(key.to_string().as_bytes()), Some(key));
    }
}
