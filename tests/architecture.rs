//! Style as a test: who may import whom, how long a file may be, whether every document that is cited exists.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the ground up. A module imports only from groups before its own; members of one group do not know each other.
const LAYERS: &[&[&str]] = &[
    &["words"],
    &["format"],
    &["seal", "target", "source", "catalog"],
    &["repo"],
    &["image"],
    &["ops"],
    &["control"],
    &["fs"],
    &["fuse"],
    &["cli"],
];

/// Longest source file, in lines. Half of it is long already.
const FILE_LINES_MAX: usize = 600;

/// Words that only make sense on the machine where something was written.
const MACHINE_PATHS: &[&str] = &["/root/", "/work/", "/Users/"];

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory, in order; build output and hidden directories are left out.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "__pycache__" {
            found.extend(files_below(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// Rust files of the program with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let rust = |p: &PathBuf| p.extension().is_some_and(|e| e == "rs");
    files_below(&top().join("src"))
        .into_iter()
        .filter(rust)
        .map(|p| (p.clone(), fs::read_to_string(&p).unwrap()))
        .collect()
}

/// Text files of the whole project with their text.
fn texts() -> Vec<(PathBuf, String)> {
    files_below(&top()).into_iter().filter_map(|p| fs::read_to_string(&p).ok().map(|text| (p, text))).collect()
}

/// The part of a file before its tests: those may use whatever they need to set a scene.
fn without_tests(text: &str) -> &str {
    let at = text.match_indices("#[cfg(test)]").find(|(at, _)| {
        text[*at..].lines().nth(1).is_some_and(|l| l.trim_start().starts_with("mod ") && l.contains('{'))
    });
    at.map_or(text, |(at, _)| &text[..at])
}

/// The top-level module a source file belongs to; `None` for lib.rs.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(top().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    match first.strip_suffix(".rs").unwrap_or(&first) {
        "lib" => None,
        name => Some(name.to_owned()),
    }
}

/// Top-level modules named after `crate::` or `backyfs::` in code, also inside `{a::b, c}`; comments are skipped.
fn imported(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "backyfs::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(first_words_of_list(list)),
                None => drop(found.insert(word(rest))),
            }
        }
    }
    found.retain(|name| LAYERS.iter().any(|group| group.contains(&name.as_str())));
    found
}

/// The identifier at the start of a text.
fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First identifiers of the entries of `a::b, c::{d, e}, f}`.
fn first_words_of_list(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (1, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            found.push(word(list[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|group| group.contains(&module))
}

#[test]
fn modules_import_only_from_those_above() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        if module == "main" {
            continue;
        }
        let Some(own) = layer(&module) else {
            wrong.push(format!("{}: module {module} has no layer", path.display()));
            continue;
        };
        for other in imported(without_tests(&text)) {
            let theirs = layer(&other).expect("imported() keeps only modules of LAYERS");
            if other != module && theirs >= own {
                wrong.push(format!("{}: {module} imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files below `src/` that a text imports with `use crate::a::b::...`, by the path of the module. The `mod.rs` of a directory is left
/// out: it hands on the names of what lies in it, to that as well.
fn files_imported(text: &str) -> BTreeSet<String> {
    let imports = text.lines().filter_map(|line| line.trim_start().strip_prefix("use crate::"));
    let parts =
        imports.map(|path| path.split("::").take_while(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_')));
    let found = parts.filter_map(|parts| {
        let mut module = PathBuf::new();
        parts.into_iter().find_map(|part| {
            module.push(part);
            top().join("src").join(&module).with_extension("rs").is_file().then(|| module.display().to_string())
        })
    });
    found.collect()
}

#[test]
fn files_form_no_cycle() {
    let module = |path: &Path| path.strip_prefix(top().join("src")).unwrap().with_extension("").display().to_string();
    let is_face = |path: &PathBuf| path.ends_with("mod.rs") || path.ends_with("lib.rs");
    let files = sources().into_iter().filter(|(path, _)| !is_face(path));
    let mut edges: BTreeMap<String, BTreeSet<String>> =
        files.map(|(path, text)| (module(&path), files_imported(without_tests(&text)))).collect();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > edges.len(), "imports are found");
    // Kahn: take away files that import nothing that is left; what can never be taken lies on a cycle.
    while let Some(free) = edges.iter().find(|(_, i)| i.iter().all(|m| !edges.contains_key(m))).map(|(m, _)| m.clone())
    {
        edges.remove(&free);
    }
    assert!(edges.is_empty(), "these import each other in a circle: {edges:?}");
}

#[test]
fn lib_lists_modules_in_layer_order() {
    let text = fs::read_to_string(top().join("src/lib.rs")).unwrap();
    let listed: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("pub mod ")).map(word).collect();
    let layers: Vec<_> = listed.iter().map(|m| layer(m).unwrap_or_else(|| panic!("{m} has no layer"))).collect();
    assert!(layers.is_sorted(), "lib.rs lists {listed:?}");
}

#[test]
fn no_file_is_too_long() {
    let code = |p: &Path| p.extension().is_some_and(|e| e == "rs" || e == "py");
    let long: Vec<_> = texts()
        .into_iter()
        .filter(|(p, text)| code(p) && text.lines().count() > FILE_LINES_MAX)
        .map(|(p, text)| format!("{}: {} lines", p.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_document_cited_exists() {
    let mut missing = Vec::new();
    for (path, text) in texts() {
        for (at, _) in text.match_indices("docs/") {
            let cited: String =
                text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).collect();
            let cited = cited.trim_end_matches(['.', '-', '_']);
            let end = text[at + cited.len()..].chars().next();
            let pattern = end.is_some_and(|c| "*<{…".contains(c)) || text[..at].ends_with(['/', '*']);
            if !pattern && cited.len() > "docs/".len() && !top().join(cited).exists() {
                missing.push(format!("{} cites {cited}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn nothing_names_a_machine() {
    let own = Path::new(file!()).file_name().unwrap();
    let wrong: Vec<_> = texts()
        .into_iter()
        .filter(|(p, _)| p.file_name() != Some(own) && !p.ends_with("Cargo.lock"))
        .flat_map(|(p, text)| {
            let found = MACHINE_PATHS.iter().filter(move |m| text.contains(**m));
            found.map(move |m| format!("{} contains {m}", p.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
