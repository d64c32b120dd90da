//! Listing: page by page, each looked at before it is believed.

use crate::format::layout::{self, ObjectKey};
use crate::target::s3::answer::Trouble;
use crate::target::s3::{Extra, S3Target};
use crate::target::{ObjectInfo, Page, Request};
use http::Method;
use s3::serde_types::ListBucketResult;

/// Names on a page; no server gives more.
const PAGE_MAX: usize = 1000;

impl S3Target {
    /// Objects of a repository whose keys start with `prefix` and sort after `after`.
    pub(super) fn objects(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, Trouble> {
        let mut found = Vec::new();
        self.pages(prefix, after, "", PAGE_MAX, &mut |page| {
            self.take(page, &mut found);
            true
        })?;
        Ok(found)
    }

    /// The first `wanted` names after `after`, of everything.
    pub(super) fn page(&self, after: &str, wanted: usize) -> Result<Page, Trouble> {
        let mut page = Page { objects: Vec::new(), rest_after: None };
        self.pages("", after, "", wanted.clamp(1, PAGE_MAX), &mut |listed| {
            if listed.is_truncated {
                let last = listed.contents.last().and_then(|object| self.address.relative(&object.key));
                page.rest_after = Some(last.unwrap_or(after).to_owned());
            }
            self.take(listed, &mut page.objects);
            false
        })?;
        Ok(page)
    }

    /// What of a page belongs to a repository.
    fn take(&self, page: ListBucketResult, found: &mut Vec<ObjectInfo>) {
        for object in page.contents {
            let Some(name) = self.address.relative(&object.key) else { continue };
            if name.starts_with(layout::TMP) {
                continue;
            }
            if let Ok(key) = ObjectKey::new(name) {
                found.push(ObjectInfo { key, size_bytes: Some(object.size) });
            }
        }
    }

    /// Names below `tmp/` that start with `prefix`.
    pub(super) fn temporary(&self, prefix: &str) -> Result<Vec<String>, Trouble> {
        let mut found = Vec::new();
        self.pages(prefix, "", "", PAGE_MAX, &mut |page| {
            let names = page.contents.iter().filter_map(|object| self.address.relative(&object.key));
            found.extend(names.map(str::to_owned));
            true
        })?;
        Ok(found)
    }

    /// Something here that no repository has.
    pub(super) fn foreign(&self) -> Result<Option<String>, Trouble> {
        let directories = layout::directories();
        let mut foreign = None;
        self.pages("", "", "/", PAGE_MAX, &mut |page| {
            let below = page.common_prefixes.iter().flatten().map(|common| common.prefix.as_str());
            let names = page.contents.iter().map(|object| object.key.as_str()).chain(below);
            // A console makes a "directory" by an object of the prefix's own name.
            let names = names.filter_map(|name| self.address.relative(name)).filter(|name| !name.is_empty());
            let odd = names
                .map(|name| name.trim_end_matches('/'))
                .find(|name| *name != layout::HEADER && !directories.iter().any(|directory| directory == name));
            foreign = odd.map(str::to_owned);
            foreign.is_none()
        })?;
        Ok(foreign)
    }

    /// Goes through a listing until `page` has had enough.
    fn pages(
        &self,
        prefix: &str,
        after: &str,
        delimiter: &str,
        max: usize,
        page: &mut dyn FnMut(ListBucketResult) -> bool,
    ) -> Result<(), Trouble> {
        let prefix = self.address.full(prefix);
        let mut reached = if after.is_empty() { String::new() } else { self.address.full(after).into_owned() };
        let mut token: Option<String> = None;
        let max = max.to_string();
        loop {
            let mut query = vec![("list-type", "2"), ("max-keys", &*max), ("prefix", &*prefix)];
            if !delimiter.is_empty() {
                query.push(("delimiter", delimiter));
            }
            match &token {
                Some(token) => query.push(("continuation-token", token)),
                None if !reached.is_empty() => query.push(("start-after", &reached)),
                None => {}
            }
            let url = self.address.query(&query);
            let answer = self.exchange(Request::List, &Method::GET, &url, Extra::default())?;
            let listed = std::str::from_utf8(&answer.body).ok().and_then(|xml| quick_xml::de::from_str(xml).ok());
            let listed: ListBucketResult =
                listed.ok_or_else(|| Trouble::Garbled("this is not a list: is it an S3 server?".into()))?;
            let here = listed.prefix.as_deref().unwrap_or_default();
            if listed.name != self.place.bucket || here != prefix {
                let problem = format!("a list of {here:?} in {:?} came where another was asked for", listed.name);
                return Err(Trouble::Garbled(problem));
            }
            for object in &listed.contents {
                if !object.key.starts_with(&*prefix) || object.key <= reached {
                    return Err(Trouble::Garbled(format!("the list goes back to {:?}", object.key)));
                }
                reached.clone_from(&object.key);
            }
            let (truncated, next) = (listed.is_truncated, listed.next_continuation_token.clone());
            let is_stuck = listed.contents.is_empty() && listed.common_prefixes.iter().flatten().next().is_none();
            if !page(listed) || !truncated {
                return Ok(());
            }
            if is_stuck || next.is_none() || next == token {
                return Err(Trouble::Garbled("the list says that it goes on, and not where".into()));
            }
            token = next;
        }
    }
}
