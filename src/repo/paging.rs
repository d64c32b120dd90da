//! A learner takes its lists from pages (see [`crate::repo::pages`]).

use crate::format::layout::{self, ObjectKey};
use crate::repo::RepoError;
use crate::repo::learn::Learner;
use crate::repo::pages::Pages;
use crate::target::ObjectInfo;

/// Names on a page beside those that are known: what has come since.
const NEWS: usize = 64;

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
