//! Profiles in the files of AWS's own tools: `credentials` with a section `[name]`, `config` with `[profile name]`.

use crate::target::s3::credentials::{Keys, WebIdentity};
use crate::target::s3::web_identity;
use std::collections::BTreeMap;
use std::path::Path;

/// How a profile says that one gets keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// They stand there.
    Keys(Keys),
    /// A program prints them.
    Process(String),
    /// A role is assumed with a token in a file.
    WebIdentity(WebIdentity),
}

type Section = BTreeMap<String, String>;

/// What speaks of keys.
const ABOUT_KEYS: [&str; 6] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "credential_process",
    "web_identity_token_file",
    "role_arn",
    "sso_account_id",
];

impl Profile {
    /// Reads a profile. What stands in `path` comes before what stands in `config`.
    ///
    /// # Errors
    /// A sentence that says what is missing where, without anything of what was read.
    pub(super) fn read(path: &Path, config: Option<&Path>, name: &str) -> Result<Self, String> {
        let at = path.display();
        let own = section(path, name);
        let beside =
            config.filter(|config| config.exists()).map(|config| section_of_config(config, name)).transpose()?;
        let beside = beside.flatten();
        let section = match (own, beside) {
            (Ok(Some(own)), _) if is_about_keys(&own) => own,
            (Ok(_), Some(beside)) if is_about_keys(&beside) => beside,
            (Err(_), Some(beside)) if is_about_keys(&beside) && !path.exists() => beside,
            (Err(problem), _) => return Err(problem),
            (Ok(Some(_)), _) => return Err(format!("{at} [{name}] has no aws_access_key_id")),
            (Ok(None), _) => return Err(format!("{at} has no section [{name}]")),
        };
        let get = |key: &str| section.get(key).filter(|value| !value.is_empty());
        if let Some(access_key) = get("aws_access_key_id") {
            let secret = get("aws_secret_access_key");
            let secret = secret.ok_or_else(|| format!("{at} [{name}] has no aws_secret_access_key"))?;
            let token = get("aws_session_token").or_else(|| get("aws_security_token"));
            return Ok(Self::Keys(Keys {
                access_key: access_key.clone(),
                secret_key: secret.clone().into(),
                session_token: token.map(|token| token.clone().into()),
            }));
        }
        if let Some(command) = get("credential_process") {
            return Ok(Self::Process(command.clone()));
        }
        if let (Some(role), Some(file)) = (get("role_arn"), get("web_identity_token_file")) {
            let session = get("role_session_name").map_or(web_identity::SESSION_DEFAULT, String::as_str);
            let region = get("region").map(String::as_str);
            return Ok(Self::WebIdentity(WebIdentity {
                role: role.clone(),
                token_file: file.into(),
                session: session.to_owned(),
                endpoint: web_identity::endpoint(region),
            }));
        }
        Err(format!(
            "the profile {name} gets its keys in a way that only AWS's own tools know: give it credential_process = aws configure \
             export-credentials --profile OTHER --format process"
        ))
    }

    /// Whether a profile says anything of keys, or cannot be understood: whoever has no other keys then wants to hear of it.
    pub(super) fn is_meant(path: &Path, config: Option<&Path>, name: &str) -> bool {
        let meant = |section: Result<Option<Section>, String>| match section {
            Ok(section) => section.is_some_and(|section| is_about_keys(&section)),
            Err(_) => true,
        };
        path.exists() && meant(section(path, name))
            || config.is_some_and(|config| config.exists() && meant(section_of_config(config, name)))
    }
}

/// What a profile of `config` says of something else than keys, as `region` or `endpoint_url`. Nothing when there is no such file or it
/// cannot be understood.
pub fn setting(config: &Path, name: &str, key: &str) -> Option<String> {
    let section = section_of_config(config, name).ok()??;
    section.get(key).filter(|value| !value.is_empty()).cloned()
}

fn is_about_keys(section: &Section) -> bool {
    ABOUT_KEYS.iter().any(|key| section.contains_key(*key))
}

fn section_of_config(path: &Path, name: &str) -> Result<Option<Section>, String> {
    match section(path, &format!("profile {name}"))? {
        None => section(path, name),
        section => Ok(section),
    }
}

/// A section: `key = value` lines below `[name]`; lines that are indented belong to a value that has parts, of which none is wanted.
fn section(path: &Path, name: &str) -> Result<Option<Section>, String> {
    let at = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{at} cannot be read: {error}"))?;
    let (mut found, mut is_here) = (None::<Section>, false);
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(title) = bare.strip_prefix('[') {
            let title = title.split(']').next().unwrap_or_default();
            is_here = title.split_whitespace().eq(name.split_whitespace());
            if is_here {
                found.get_or_insert_default();
            }
            continue;
        }
        let Some((key, value)) = bare.split_once('=') else {
            return Err(format!("{at} is not a file of credentials: it needs [{name}] and two keys below"));
        };
        if let Some(section) = found.as_mut().filter(|_| is_here) {
            section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_profiles_and_secrets_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (path, config) = (dir.path().join("credentials"), dir.path().join("config"));
        let text = "[default]\naws_access_key_id = A1\naws_secret_access_key = geheim/1+=\n\n\
                    [other]\naws_access_key_id=A2\naws_secret_access_key=geheim2\naws_session_token=token3\n[half]\n\
                    aws_access_key_id = geheim4\n# geheim\n[empty]\n";
        std::fs::write(&path, text).unwrap();
        std::fs::write(
            &config,
            "[default]\nregion = eu-west-1\ncredential_process = never\n[profile made]\ns3 =\n  max = 3\ncredential_process = printer --x 'a b'\n\
             [profile role]\nrole_arn = arn:r\nweb_identity_token_file = /t\nregion = eu-west-1\n[profile sso]\nsso_account_id = 1\n\
             [profile plain]\nregion = x\n",
        )
        .unwrap();
        let read = |profile: &str| Profile::read(&path, Some(&config), profile);
        let Profile::Keys(keys) = read("default").unwrap() else { panic!() };
        assert_eq!((keys.access_key.as_str(), keys.secret_key.as_str()), ("A1", "geheim/1+="));
        let Profile::Keys(keys) = read("other").unwrap() else { panic!() };
        assert_eq!(keys.session_token.as_ref().map(|token| token.as_str()), Some("token3"));
        assert_eq!(read("made").unwrap(), Profile::Process("printer --x 'a b'".into()));
        let Profile::WebIdentity(role) = read("role").unwrap() else { panic!() };
        assert_eq!((role.role.as_str(), role.endpoint.as_str()), ("arn:r", "https://sts.eu-west-1.amazonaws.com/"));
        for (profile, part) in [
            ("none", "no section [none]"),
            ("half", "no aws_secret_access_key"),
            ("empty", "no aws_access_key_id"),
            ("sso", "credential_process"),
        ] {
            let error = read(profile).unwrap_err();
            assert!(error.contains(part) && !error.contains("geheim"), "{error}");
        }
        for (profile, meant) in [("default", true), ("made", true), ("sso", true), ("empty", false), ("plain", false)] {
            assert_eq!(Profile::is_meant(&path, Some(&config), profile), meant, "{profile}");
        }
        std::fs::write(&path, "geheim5 geheim6\n[\n").unwrap();
        let error = read("default").unwrap_err();
        assert!(error.contains("not a file of credentials") && !error.contains("geheim"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(Profile::read(&path, None, "default").unwrap_err().contains("No such file"));
        assert_eq!(
            read("made").unwrap(),
            Profile::Process("printer --x 'a b'".into()),
            "a configuration alone will do"
        );
    }
}
