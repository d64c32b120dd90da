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

use crate::format::layout::{self, ObjectKey};
use crate::repo::RepoError;
use crate::repo::learn::Learner;
use crate::target::{ObjectInfo, Page};

/// Names on a page beside those that are known: what has come since.
const NEWS: usize = 64;

/// The pages that are turned up, each with the name after which it begins.
#[derive(Debug, Default)]
pub(super) struct Pages {
    turned: Vec<(&'static str, Page)>,
    /// What is to be listed anew, whatever a page says.
    past: Option<&'static str>,
}

impl Pages {
    /// The page on which names that sort after `after` are, or not there at all.
    fn showing(&self, after: &str) -> Option<&Page> {
        let shows = |(from, page): &&(&str, Page)| {
            *from <= after && page.rest_after.as_ref().is_none_or(|rest| rest.as_str() > after)
        };
        self.turned.iter().find(shows).map(|(_, page)| page)
    }
}

impl Learner<'_> {
    /// Makes this learner take its lists from pages.
    pub(super) fn by_pages(&mut self) {
        self.pages = self.core.target.is_paged().then(Pages::default);
    }

    /// Turns to the page that begins at a family, if that is not turned up already.
    pub(super) fn turn_to(&mut self, prefix: &'static str) -> Result<(), RepoError> {
        if self.pages.as_ref().is_none_or(|pages| pages.showing(prefix).is_some()) {
            return Ok(());
        }
        let page = self.core.target.list_page(prefix, self.known_after(prefix)? + NEWS)?;
        if let Some(pages) = &mut self.pages {
            pages.turned.push((prefix, page));
        }
        Ok(())
    }

    /// How many names are known to be on the page of a family, so that it is not longer than it is of use.
    fn known_after(&self, prefix: &str) -> Result<usize, RepoError> {
        let catalog = self.catalog;
        Ok(if prefix < layout::PACKS {
            catalog.known_entries()?.len() + catalog.known_batches()?.len() + catalog.known_fragments()?.len()
        } else {
            catalog.tombstones()?.len() + catalog.known_records()?.len()
        })
    }

    /// From now on a family is listed by itself.
    pub(super) fn turn_away(&mut self, prefix: &'static str) {
        if let Some(pages) = &mut self.pages {
            pages.past = Some(prefix);
        }
    }

    /// Every object of a family that sorts after `after`, as [`crate::target::Target::list_after`] would list it now, or would have listed it when
    /// the page was asked for.
    pub(super) fn listed(&mut self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, RepoError> {
        let target = &self.core.target;
        let from = if after > prefix { after } else { prefix };
        let pages = self.pages.as_ref().filter(|pages| pages.past != Some(prefix));
        let Some(page) = pages.and_then(|pages| pages.showing(from)) else {
            return Ok(target.list_after(prefix, after)?);
        };
        let is_wanted = |key: &ObjectKey| key.as_str().starts_with(prefix) && key.as_str() > from;
        let mut found: Vec<ObjectInfo> = page.objects.iter().filter(|info| is_wanted(&info.key)).cloned().collect();
        if let Some(rest) = page.rest_after.as_ref().filter(|rest| rest.starts_with(prefix)) {
            found.extend(target.list_after(prefix, rest)?);
        }
        Ok(found)
    }
}
