//! `status/due`, `status/sla` and `status/prune`: what the commands of these names say, one line each, as of now.

use crate::fs::nodes::StatusFile;
use crate::fs::trees::Trees;
use crate::ops::OpsError;
use crate::ops::due::list_due;
use crate::ops::listing::Filter;
use crate::ops::prune::{Options, plan};
use crate::ops::retain::Policy;
use crate::ops::sla::list_breaches;
use crate::repo::Repository;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// Lets the files be made when they are looked at.
pub fn serve(trees: &Trees, repo: &Arc<Repository>, policy: &Arc<Policy>, protect_younger: Duration) {
    let (of, by) = (Arc::clone(repo), Arc::clone(policy));
    trees.set_status(StatusFile::Due, Box::new(move || text(list_due(&of, &by, &Filter::default(), None))));
    let (of, by) = (Arc::clone(repo), Arc::clone(policy));
    let late = move || text(list_breaches(&of, &by, &Filter::default(), protect_younger));
    trees.set_status(StatusFile::Sla, Box::new(late));
    let (of, by) = (Arc::clone(repo), Arc::clone(policy));
    let pruned = move || {
        let options = Options { filter: Filter::default(), keep: None, protect_younger };
        text(plan(&of, &by, &options).map(|plan| plan.rows))
    };
    trees.set_status(StatusFile::Prune, Box::new(pruned));
}

fn text<T: Display>(rows: Result<Vec<T>, OpsError>) -> String {
    match rows {
        Ok(rows) => rows.into_iter().map(|row| format!("{row}\n")).collect(),
        Err(error) => format!("this cannot be told: {error}\n"),
    }
}
