//! How versions are called below `by_name/`: by their moment, as short as it can be and still be one version.
//!
//! `2026-11-22T18:31:02Z`; a later one of the same second `2026-11-22T18:31:02.123Z`; if that is taken, the beginning of its uid
//! follows (`...02.123Z-019aaced`), and if that is taken too, all of it.

use crate::words::ids::Uid;
use crate::words::stamp::Stamp;
use std::collections::HashSet;

/// What leads to the newest complete version.
pub const LATEST: &str = "latest";

const UID_PREFIX_LEN: usize = 8;

/// Names for versions, which come oldest first. What a version is called depends on those of the same second only.
pub fn show(versions: &[(Stamp, Uid)]) -> Vec<String> {
    let mut taken = HashSet::with_capacity(versions.len());
    let shown = versions.iter().map(|(created, uid)| {
        let text = candidates(*created, *uid).find(|text| !taken.contains(text)).unwrap_or_default();
        taken.insert(text.clone());
        text
    });
    shown.collect()
}

fn candidates(created: Stamp, uid: Uid) -> impl Iterator<Item = String> {
    (0..4).map(move |attempt| match attempt {
        0 => created.to_seconds_text(),
        1 => created.to_millis_text(),
        2 => format!("{}-{}", created.to_millis_text(), &uid.to_string()[..UID_PREFIX_LEN]),
        _ => format!("{}-{uid}", created.to_millis_text()),
    })
}

/// The version called `text` among those of one second, oldest first.
pub fn find(versions: &[(Stamp, Uid)], text: &str) -> Option<(Stamp, Uid)> {
    show(versions).iter().position(|shown| shown == text).map(|at| versions[at])
}

/// The first and the last moment that could be meant by a text; `None` when it is not the name of a version.
pub fn second_of(text: &str) -> Option<(Stamp, Stamp)> {
    if !is_moment(text) {
        return None;
    }
    let first = Stamp::parse(&format!("{}Z", &text[..MOMENT.len()]), Stamp::from_millis(0)).ok()?;
    Some((first, first.plus_millis(999)))
}

const MOMENT: &[u8] = b"0000-00-00T00:00:00";

/// Whether a text has the form in which versions are shown.
fn is_moment(text: &str) -> bool {
    let Some((moment, rest)) = text.as_bytes().split_at_checked(MOMENT.len()) else { return false };
    let fits = |pattern: &[u8], bytes: &[u8]| {
        pattern.len() == bytes.len()
            && pattern.iter().zip(bytes).all(|(p, b)| if *p == b'0' { b.is_ascii_digit() } else { p == b })
    };
    if !fits(MOMENT, moment) {
        return false;
    }
    match rest.split_at_checked(b".000Z".len()) {
        None => rest == b"Z",
        Some((millis, uid)) => {
            let is_uid = |b: &u8| b.is_ascii_hexdigit() || *b == b'-';
            fits(b".000Z", millis) && (uid.is_empty() || uid[0] == b'-' && uid.iter().all(is_uid))
        }
    }
}

/// Whether a component would be taken for a link in the directory of a name.
fn is_reserved(component: &str) -> bool {
    component == LATEST || is_moment(component)
}

/// How a component is shown in a directory that is a name too: two hosts made `a` and `a/latest`. Other components, and those
/// of ordinary directories, are shown as they are.
pub fn escape(component: &str) -> String {
    let bare = component.trim_end_matches('~');
    if is_reserved(bare) { format!("{component}~") } else { component.to_owned() }
}

/// The component shown as `shown` in a directory that is a name too; `None` when that is the name of a link.
pub fn unescape(shown: &str) -> Option<&str> {
    if is_reserved(shown.trim_end_matches('~')) { shown.strip_suffix('~') } else { Some(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_795_372_262_000;

    fn version(millis: i64, last: u8) -> (Stamp, Uid) {
        let mut bytes = [0x42; 16];
        bytes[15] = last;
        (Stamp::from_millis(AT + millis), Uid::from_bytes(bytes))
    }

    #[test]
    fn each_version_has_one_name_and_leads_back() {
        let versions = [
            version(-1, 0),
            version(5, 1),
            version(5, 2),
            version(5, 3),
            version(5, 4),
            version(70, 5),
            version(1000, 6),
        ];
        let shown = show(&versions);
        assert_eq!(
            shown,
            [
                "2026-11-22T18:31:01Z",
                "2026-11-22T18:31:02Z",
                "2026-11-22T18:31:02.005Z",
                "2026-11-22T18:31:02.005Z-42424242",
                "2026-11-22T18:31:02.005Z-42424242-4242-4242-4242-424242424204",
                "2026-11-22T18:31:02.070Z",
                "2026-11-22T18:31:03Z",
            ]
        );
        for (text, version) in shown.iter().zip(versions) {
            let (first, last) = second_of(text).unwrap();
            let second: Vec<_> = versions.into_iter().filter(|(at, _)| (first..=last).contains(at)).collect();
            assert_eq!(find(&second, text), Some(version), "{text}");
        }
        assert_eq!(find(&versions, "2026-11-22T18:31:02.006Z"), None);
    }

    #[test]
    fn only_moments_are_moments() {
        for good in ["2026-11-22T18:31:02Z", "2026-11-22T18:31:02.005Z", "2026-11-22T18:31:02.005Z-42424242"] {
            assert!(second_of(good).is_some(), "{good}");
        }
        for bad in
            ["", "latest", "2026-11-22", "2026-11-22T18:31:02", "2026-13-22T18:31:02Z", "2026-11-22T18:31:02Zx", "é"]
        {
            assert_eq!(second_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_component_that_looks_like_a_link_is_shown_otherwise() {
        for (component, shown) in [
            ("vm", "vm"),
            ("vm~", "vm~"),
            ("latest", "latest~"),
            ("latest~", "latest~~"),
            ("2026-11-22T18:31:02Z", "2026-11-22T18:31:02Z~"),
            ("é~", "é~"),
        ] {
            assert_eq!(escape(component), shown);
            assert_eq!(unescape(shown), Some(component));
        }
        assert_eq!(unescape("latest"), None);
    }
}
