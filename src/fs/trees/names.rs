//! `by_name/`: the versions of each name, by their moments.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::nodes::Node;
use crate::fs::seam::Answer;
use crate::fs::trees::Trees;
use crate::fs::trees::display::{self, LATEST};
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::stamp::Stamp;
use std::ffi::OsString;

/// Puts a component below a path, which is empty at the top.
pub(super) fn join(path: &str, component: &str) -> String {
    if path.is_empty() { component.to_owned() } else { format!("{path}/{component}") }
}

impl Trees {
    pub(super) fn lookup_name(&self, path: &str, component: &str) -> Answer<Node> {
        let (name, child) = self.split(path, component)?;
        let Some(child) = child else {
            let node = Node::NameLink(name.ok_or(Errno::ENOENT)?, component.to_owned());
            return self.resolve_link(&node).map(|_| node);
        };
        let below = join(path, child);
        if self.repo.catalog().place(&below)?.is_some() { Ok(Node::NameDir(below)) } else { Err(Errno::ENOENT) }
    }

    /// The name that ends at a directory, if one does, and the component meant by what is asked for below it; no component
    /// when that is a link.
    pub(super) fn split<'a>(&self, path: &str, component: &'a str) -> Answer<(Option<Name>, Option<&'a str>)> {
        let name = self.name_at(path)?;
        let child = if name.is_some() { display::unescape(component) } else { Some(component) };
        Ok((name, child))
    }

    /// The name that ends at a directory.
    pub(super) fn name_at(&self, path: &str) -> Answer<Option<Name>> {
        let place = self.repo.catalog().place(path)?;
        Ok(place.filter(|place| place.is_name).and_then(|_| Name::new(path).ok()))
    }

    pub(super) fn list_names(&self, path: &str) -> Answer<Vec<(OsString, Node)>> {
        let catalog = self.repo.catalog();
        if !path.is_empty() && catalog.place(path)?.is_none() {
            return Err(Errno::ENOENT);
        }
        let name = self.name_at(path)?;
        let mut found = Vec::new();
        if let Some(name) = &name {
            for shown in display::show(&catalog.versions_of(name)?) {
                found.push((shown.clone().into(), Node::NameLink(name.clone(), shown)));
            }
            if catalog.newest_complete(name)?.is_some() {
                found.push((LATEST.into(), Node::NameLink(name.clone(), LATEST.to_owned())));
            }
        }
        for child in catalog.children((!path.is_empty()).then_some(path))? {
            let shown = if name.is_some() { display::escape(&child.component) } else { child.component.clone() };
            found.push((shown.into(), Node::NameDir(join(path, &child.component))));
        }
        Ok(found)
    }

    /// The version a link stands for now.
    pub(super) fn resolve_link(&self, link: &Node) -> Answer<VersionSummary> {
        let found = match link {
            Node::NameLink(name, text) if text == LATEST => self.repo.catalog().newest_complete(name)?,
            Node::NameLink(name, text) | Node::TagLink(_, name, text) => self.shown_as(name, text)?.map(|(_, uid)| uid),
            _ => None,
        };
        let version = self.version(found.ok_or(Errno::ENOENT)?)?;
        match link {
            Node::TagLink(tag, ..) if !version.attributes.tags.contains(tag) => Err(Errno::ENOENT),
            _ => Ok(version),
        }
    }

    /// The version of a name that is shown as `text`. Looks at the versions of one second only.
    fn shown_as(&self, name: &Name, text: &str) -> Answer<Option<(Stamp, Uid)>> {
        let Some((first, last)) = display::second_of(text) else { return Ok(None) };
        let versions = self.repo.catalog().versions_between(name, first, last)?;
        Ok(display::find(&versions, text))
    }

    /// The moment of the newest version at or below a path; `None` when there is none.
    pub(super) fn newest_below(&self, path: &str) -> Answer<Option<Stamp>> {
        let catalog = self.repo.catalog();
        if path.is_empty() {
            return Ok(catalog.newest_version()?.map(|(created, _)| created));
        }
        let Some(place) = catalog.place(path)? else { return Ok(None) };
        let mut newest = None;
        let mut pending = vec![(path.to_owned(), place)];
        while let Some((path, place)) = pending.pop() {
            if let Some(name) = place.is_name.then(|| Name::new(&path).ok()).flatten() {
                if let Some(version) = catalog.newest(&name)?.map(|uid| self.version(uid)).transpose()? {
                    newest = newest.max(Some(version.created));
                }
            }
            if place.is_dir {
                let below = catalog.children(Some(&path))?.into_iter();
                pending.extend(below.map(|child| (join(&path, &child.component), child)));
            }
        }
        Ok(newest)
    }
}
