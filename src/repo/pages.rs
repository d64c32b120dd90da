//! Lists of several families of objects out of one request.
//!
//! A server answers with the next thousand names, whatever they belong to. Where there is little new, most families of a repository
//! fit on a page together, so a look at a target that comes in pages turns them in the order of names and takes from each what is on
//! it; only what goes on behind its end costs a request of its own. So a look costs at most one request more than a list for each family, and
//! usually two in all.
//!
//! **What this may not change** is that a record is known before the index is read (docs/architecture.md, "Processes and hosts"):
//! versions and pins are on a page of their own that is turned first. Drafts share theirs with the index; a server may put a page together
//! from several places that are not of one moment, so when it shows a draft that is new, the index is listed again.
//!
//! Collections list each family for itself: what they rely on is written down, and checked, in that form.

use crate::target::Page;

/// The pages that are turned up, each with the name after which it begins.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) turned: Vec<(&'static str, Page)>,
    /// What is to be listed anew, whatever a page says.
    pub(super) past: Option<&'static str>,
}

impl Pages {
    /// The page on which names that sort after `after` are, or not there at all.
    pub(super) fn showing(&self, after: &str) -> Option<&Page> {
        let shows = |(from, page): &&(&str, Page)| {
            *from <= after && page.rest_after.as_ref().is_none_or(|rest| rest.as_str() > after)
        };
        self.turned.iter().find(shows).map(|(_, page)| page)
    }
}
