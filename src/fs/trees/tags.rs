//! `by_tag/`: the same as `by_name/`, for the versions that carry a tag. Links are called as they are there.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::nodes::Node;
use crate::fs::seam::Answer;
use crate::fs::trees::Trees;
use crate::fs::trees::display;
use crate::fs::trees::names::join;
use crate::words::ids::Uid;
use crate::words::name::Name;
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;

/// Names with up to this many versions are looked at version by version; of others, all versions with the tag are.
const FEW_VERSIONS: usize = 64;

impl Trees {
    pub(super) fn lookup_tag(&self, tag: &str) -> Answer<Node> {
        self.newest_tagged(tag, "")?.map(|_| Node::TagDir(tag.to_owned(), String::new())).ok_or(Errno::ENOENT)
    }

    pub(super) fn list_tags(&self) -> Answer<Vec<(OsString, Node)>> {
        let tags = self.repo.catalog().tags()?.into_iter();
        Ok(tags.map(|tag| (OsString::from(&tag), Node::TagDir(tag, String::new()))).collect())
    }

    pub(super) fn lookup_tagged(&self, tag: &str, path: &str, component: &str) -> Answer<Node> {
        let (name, child) = self.split(path, component)?;
        let Some(child) = child else {
            let node = Node::TagLink(tag.to_owned(), name.ok_or(Errno::ENOENT)?, component.to_owned());
            return self.resolve_link(&node).map(|_| node);
        };
        let below = join(path, child);
        let found = self.newest_tagged(tag, &below)?;
        found.map(|_| Node::TagDir(tag.to_owned(), below)).ok_or(Errno::ENOENT)
    }

    pub(super) fn list_tagged(&self, tag: &str, path: &str) -> Answer<Vec<(OsString, Node)>> {
        let catalog = self.repo.catalog();
        let mut here = HashSet::new();
        let mut children = BTreeSet::new();
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        for uid in catalog.tagged(tag)? {
            // Another process may have deleted it since.
            let Some(version) = catalog.version_summary(uid)? else { continue };
            let name = version.attributes.name.as_str();
            if name == path {
                here.insert(uid);
            } else if let Some(rest) = name.strip_prefix(&prefix) {
                children.insert(rest.split('/').next().unwrap_or_default().to_owned());
            }
        }
        if here.is_empty() && children.is_empty() {
            return Err(Errno::ENOENT);
        }
        let name = self.name_at(path)?;
        let mut found = Vec::new();
        if let Some(name) = name.as_ref().filter(|_| !here.is_empty()) {
            let versions = catalog.versions_of(name)?;
            for (shown, (_, uid)) in display::show(&versions).into_iter().zip(&versions) {
                if here.contains(uid) {
                    found.push((shown.clone().into(), Node::TagLink(tag.to_owned(), name.clone(), shown)));
                }
            }
        }
        for child in children {
            let shown = if name.is_some() { display::escape(&child) } else { child.clone() };
            found.push((shown.into(), Node::TagDir(tag.to_owned(), join(path, &child))));
        }
        Ok(found)
    }

    /// The newest version at or below a path that carries a tag.
    pub(super) fn newest_tagged(&self, tag: &str, path: &str) -> Answer<Option<VersionSummary>> {
        let catalog = self.repo.catalog();
        if !path.is_empty() {
            let Some(place) = catalog.place(path)? else { return Ok(None) };
            if let Some(name) = (place.is_name && !place.is_dir).then(|| Name::new(path).ok()).flatten() {
                return self.newest_of_name(tag, &name);
            }
        }
        for uid in catalog.tagged(tag)?.into_iter().rev() {
            let Some(version) = catalog.version_summary(uid)? else { continue };
            let rest = version.attributes.name.as_str().strip_prefix(path);
            if path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    fn newest_of_name(&self, tag: &str, name: &Name) -> Answer<Option<VersionSummary>> {
        let catalog = self.repo.catalog();
        let versions = catalog.versions_of(name)?;
        if versions.len() <= FEW_VERSIONS {
            for (_, uid) in versions.into_iter().rev() {
                let version = catalog.version_summary(uid)?;
                if let Some(version) = version.filter(|version| version.attributes.tags.contains(tag)) {
                    return Ok(Some(version));
                }
            }
            return Ok(None);
        }
        let tagged: HashSet<Uid> = catalog.tagged(tag)?.into_iter().collect();
        let found = versions.into_iter().rev().find(|(_, uid)| tagged.contains(uid));
        Ok(found.map(|(_, uid)| catalog.version_summary(uid)).transpose()?.flatten())
    }
}
