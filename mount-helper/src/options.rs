//! The source and the options of an fstab line, as options of `backyfs mount`.

/// Sources that name nothing: the target is an option, or stands in the configuration file.
const NOTHING: [&str; 4] = ["none", "backyfs", "fuse", "-"];

/// One list for `-o` of `backyfs mount`. The source becomes the target, and what the mount table shows: `mount -a` finds by that what
/// is mounted already.
///
/// # Errors
/// When source and options name different targets.
pub fn translate(source: &str, given: &[String]) -> Result<String, String> {
    let given = given.join(",");
    let mut list: Vec<&str> = split(&given).into_iter().filter(|option| !option.is_empty()).collect();
    let named = list.iter().find_map(|option| option.strip_prefix("target=")).map(unquote);
    let is_target = !NOTHING.contains(&source);
    if let Some(named) = named.filter(|named| is_target && named != source) {
        return Err(format!(
            "two targets: {source}, and target={named}: write `none` instead of the first, or leave out the second"
        ));
    }
    let (target, name) = (format!("target={}", quote(source)), format!("fsname={}", quote(source)));
    if is_target {
        list.push(&target);
    }
    list.push(&name);
    Ok(list.join(","))
}

/// Splits at commas that neither a backslash nor double quotes protect, as mount(8) does; quotes stay.
fn split(list: &str) -> Vec<&str> {
    let (mut found, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, c) in list.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                found.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&list[start..]);
    found
}

fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('"', "\\\"")
}

fn unquote(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {}
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(source: &str, options: &str) -> Result<String, String> {
        translate(source, &[options.to_owned()])
    }

    #[test]
    fn the_source_is_the_target() {
        assert_eq!(translated("s3://b/p", "rw,_netdev").unwrap(), "rw,_netdev,target=s3://b/p,fsname=s3://b/p");
        assert_eq!(translated("dir:/a,b", "").unwrap(), r"target=dir:/a\,b,fsname=dir:/a\,b");
        assert_eq!(translated("none", "rw,target=dir:/x").unwrap(), "rw,target=dir:/x,fsname=none");
        assert_eq!(translated("backyfs", "rw").unwrap(), "rw,fsname=backyfs");
    }

    #[test]
    fn two_targets_are_one_too_many() {
        assert!(
            translated("s3://b/p", "target=dir:/x")
                .unwrap_err()
                .starts_with("two targets: s3://b/p, and target=dir:/x")
        );
        assert!(translated("dir:/a,b", "target=\"dir:/a,b\"").is_ok());
        assert!(translated("dir:/a,b", r"keep=latest3,target=dir:/a\,b").is_ok());
    }

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(split(r#"a="x,y",b\,c,d"#), [r#"a="x,y""#, r"b\,c", "d"]);
        assert_eq!(unquote(r#""a,b"\"c"#), "a,b\"c");
    }
}
