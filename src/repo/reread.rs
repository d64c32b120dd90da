//! What comes wrong may have been changed on its way; it is asked for again before it is called damaged.

/// How often what is not authentic is read again before it counts as damaged.
pub(super) const REREADS: usize = 2;
