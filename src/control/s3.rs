//! The settings of S3, and what the tools of AWS read from the environment.

use crate::control::given::{Key, SettingsError};
use crate::control::values::{
    Surroundings, Values, home, parse_concurrency, parse_encryption, parse_style, parse_timeout,
};
use crate::target::s3::{
    ContainerToken, CredentialSource, ECS_AGENT, Hidden, Keys, METADATA_SERVICE, SESSION_DEFAULT, Settings, Style,
    WebIdentity, profile_setting, token_service,
};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Finds out what is in force. Ours come first; where they say nothing, the variables of AWS's own tools do.
pub(super) fn settings(values: &Values<'_>, surroundings: &Surroundings) -> Result<Settings, SettingsError> {
    let variable = |names: &[&str]| {
        let texts = names.iter().filter_map(|name| (surroundings.variable)(name));
        texts.map(|text| text.to_string_lossy().into_owned()).find(|text| !text.is_empty())
    };
    let default = Settings::default();
    let profile = profile_name(values, &variable)?;
    let config = aws_file(surroundings, &variable, "AWS_CONFIG_FILE", ".aws/config");
    let of_profile = |key| profile_setting(config.as_deref()?, &profile, key);
    let endpoint = values.text(Key::S3Endpoint)?.or_else(|| variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
    let region = values.text(Key::S3Region)?.or_else(|| variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    Ok(Settings {
        endpoint: endpoint.or_else(|| of_profile("endpoint_url")),
        region: region.or_else(|| of_profile("region")).unwrap_or(default.region),
        style: values.get(Key::S3Style, parse_style)?.unwrap_or_default(),
        credentials: credentials(values, surroundings, &variable)?,
        ca_file: values.path(Key::S3CaFile)?.or_else(|| variable(&["AWS_CA_BUNDLE"]).map(PathBuf::from)),
        storage_class: values.text(Key::S3StorageClass)?,
        encryption: values.get(Key::S3Encryption, parse_encryption)?,
        kms_key: values.text(Key::S3KmsKey)?,
        concurrency: values.get(Key::S3Concurrency, parse_concurrency)?.unwrap_or(default.concurrency),
        connect_timeout: values.get(Key::S3ConnectTimeout, parse_timeout)?.unwrap_or(default.connect_timeout),
        timeout: values.get(Key::S3Timeout, parse_timeout)?.unwrap_or(default.timeout),
    })
}

/// Which section of the files of AWS's own tools is meant.
fn profile_name(values: &Values<'_>, variable: &dyn Fn(&[&str]) -> Option<String>) -> Result<String, SettingsError> {
    let named = values.text(Key::S3Profile)?.or_else(|| variable(&["AWS_PROFILE"]));
    Ok(named.unwrap_or_else(|| "default".into()))
}

/// Where a file of AWS's own tools is.
fn aws_file(
    surroundings: &Surroundings,
    variable: &dyn Fn(&[&str]) -> Option<String>,
    name: &str,
    below: &str,
) -> Option<PathBuf> {
    variable(&[name]).map(PathBuf::from).or_else(|| home(surroundings, "", below))
}

/// Keys that were set, a file that was set, then where AWS's own tools look, in their order: keys in the environment, a token in a file,
/// the files of profiles, the agent of a container, the metadata service of the machine.
fn credentials(
    values: &Values<'_>,
    surroundings: &Surroundings,
    variable: &dyn Fn(&[&str]) -> Option<String>,
) -> Result<CredentialSource, SettingsError> {
    let secret = |key| values.text(key).map(|text| text.map(Zeroizing::new));
    match (values.text(Key::S3AccessKey)?, secret(Key::S3SecretKey)?) {
        (Some(access_key), Some(secret_key)) => {
            let session_token = secret(Key::S3SessionToken)?;
            return Ok(CredentialSource::Given(Keys { access_key, secret_key, session_token }));
        }
        (None, None) => {}
        (given, _) => return Ok(half([Key::S3AccessKey.name(), Key::S3SecretKey.name()], given.is_some())),
    }
    let named = values.text(Key::S3Profile)?;
    let profile = profile_name(values, variable)?;
    if let Some(path) = values.path(Key::S3CredentialsFile)? {
        return Ok(CredentialSource::File { path, config: None, profile });
    }
    let [public, private] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    match (variable(&[public]), variable(&[private])) {
        _ if named.is_some() => {}
        (Some(access_key), Some(secret_key)) => {
            let session_token = variable(&["AWS_SESSION_TOKEN"]).map(Zeroizing::new);
            return Ok(CredentialSource::Given(Keys { access_key, secret_key: secret_key.into(), session_token }));
        }
        (None, None) => {}
        (given, _) => return Ok(half([public, private], given.is_some())),
    }
    if named.is_none()
        && let (Some(role), Some(file)) = (variable(&["AWS_ROLE_ARN"]), variable(&["AWS_WEB_IDENTITY_TOKEN_FILE"]))
    {
        let region = values.text(Key::S3Region)?.or_else(|| variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        return Ok(CredentialSource::WebIdentity(WebIdentity {
            role,
            token_file: file.into(),
            session: variable(&["AWS_ROLE_SESSION_NAME"]).unwrap_or_else(|| SESSION_DEFAULT.into()),
            endpoint: variable(&["AWS_ENDPOINT_URL_STS"]).unwrap_or_else(|| token_service(region.as_deref())),
        }));
    }
    let config = aws_file(surroundings, variable, "AWS_CONFIG_FILE", ".aws/config");
    if let Some(path) = aws_file(surroundings, variable, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials") {
        let is_named = named.is_some() || variable(&["AWS_PROFILE"]).is_some();
        if is_named || CredentialSource::is_meant(&path, config.as_deref(), &profile) {
            return Ok(CredentialSource::File { path, config, profile });
        }
    }
    let agent = variable(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]).map(|path| format!("{ECS_AGENT}{path}"));
    if let Some(url) = agent.or_else(|| variable(&["AWS_CONTAINER_CREDENTIALS_FULL_URI"])) {
        let file = variable(&["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]);
        let given =
            || variable(&["AWS_CONTAINER_AUTHORIZATION_TOKEN"]).map(|token| ContainerToken::Given(Hidden::new(token)));
        let token = file.map(|file| ContainerToken::File(file.into())).or_else(given);
        return Ok(CredentialSource::Container { url, token });
    }
    if variable(&["AWS_EC2_METADATA_DISABLED"]).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(CredentialSource::None);
    }
    let endpoint = variable(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"]).unwrap_or_else(|| METADATA_SERVICE.into());
    Ok(CredentialSource::Instance { endpoint })
}

/// A pair of keys of which one is missing.
const fn half([public, private]: [&'static str; 2], is_public: bool) -> CredentialSource {
    match is_public {
        true => CredentialSource::Half { set: public, missing: private },
        false => CredentialSource::Half { set: private, missing: public },
    }
}

pub(super) const fn style_name(style: Style) -> &'static str {
    match style {
        Style::Auto => "auto",
        Style::Path => "path",
        Style::Virtual => "virtual",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Settings as All;
    use std::ffi::OsString;

    fn resolve(flags: &[(Key, &str)], options: &[&str], variables: &[(&str, &str)]) -> Result<All, SettingsError> {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let options: Vec<_> = options.iter().map(|text| (*text).to_owned()).collect();
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, text)| OsString::from(text));
        All::resolve(&flags, &options, &Surroundings { variable: &variable, is_root: true })
    }

    fn secret(settings: &All) -> String {
        match &settings.s3.credentials {
            CredentialSource::Given(keys) => keys.secret_key.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn keys_come_from_settings_files_environment_and_profiles_in_this_order() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.toml");
        let text = "[s3]\nendpoint = 'https://h'\naccess-key = 'A'\nsecret-key = 'geheim'\ncredentials-file = 'x'\n";
        std::fs::write(&config, text).unwrap();
        let named = (Key::Config, config.to_str().unwrap());
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&config, mode).unwrap();
        };
        mode(0o640);
        let open = resolve(&[named], &[], &[]).unwrap_err().to_string();
        assert!(open.contains("chmod 600") && !open.contains("geheim"), "{open}");
        mode(0o600);
        let env = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "aus der Umgebung"), ("HOME", "/none")];
        let found = resolve(&[named], &[], &env).unwrap();
        assert_eq!((secret(&found).as_str(), found.s3.endpoint.as_deref()), ("geheim", Some("https://h")));
        assert!(!format!("{found:?}").contains("geheim") && !found.describe().contains("geheim"));
        std::fs::write(&config, "[s3]\ncredentials-file = 'x'\nprofile = 'p'\n").unwrap();
        let file = CredentialSource::File { path: dir.path().join("x"), config: None, profile: "p".into() };
        assert_eq!(resolve(&[named], &[], &env).unwrap().s3.credentials, file);
        let found = resolve(&[], &[], &env).unwrap();
        assert_eq!(secret(&found), "aus der Umgebung");
        assert!(!format!("{found:?}").contains("Umgebung"));
        // Half a pair is a mistake, and nobody else's keys.
        std::fs::write(&config, "[s3]\naccess-key = 'A'\n").unwrap();
        let half = CredentialSource::Half { set: "s3-access-key", missing: "s3-secret-key" };
        assert_eq!(resolve(&[named], &[], &env).unwrap().s3.credentials, half);
        let half = CredentialSource::Half { set: "AWS_SECRET_ACCESS_KEY", missing: "AWS_ACCESS_KEY_ID" };
        assert_eq!(resolve(&[], &[], &env[1..]).unwrap().s3.credentials, half);
        let usual = dir.path().join("credentials");
        std::fs::write(&usual, "").unwrap();
        let env = [("AWS_SHARED_CREDENTIALS_FILE", usual.to_str().unwrap()), ("AWS_PROFILE", "q")];
        let file = CredentialSource::File { path: usual.clone(), config: None, profile: "q".into() };
        assert_eq!(resolve(&[], &[], &env).unwrap().s3.credentials, file);
    }

    #[test]
    fn roles_are_asked_for_where_the_tools_of_aws_ask() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, config) = (dir.path().join("credentials"), dir.path().join("config"));
        let files = [
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ];
        let found = |more: &[(&str, &str)]| resolve(&[], &[], &[&files[..], more].concat()).unwrap().s3.credentials;
        let instance = |endpoint: &str| CredentialSource::Instance { endpoint: endpoint.into() };
        assert_eq!(found(&[]), instance("http://169.254.169.254"));
        assert_eq!(
            found(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]")]),
            instance("http://[fd00:ec2::254]")
        );
        assert_eq!(found(&[("AWS_EC2_METADATA_DISABLED", "true")]), CredentialSource::None);
        let CredentialSource::Container { url, token: None } =
            found(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")])
        else {
            panic!()
        };
        assert_eq!(url, "http://169.254.170.2/v2/x");
        let eks = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "geheim"),
        ];
        assert!(matches!(found(&eks), CredentialSource::Container { token: Some(ContainerToken::Given(_)), .. }));
        assert!(!format!("{:?}", found(&eks)).contains("geheim"));
        // A configuration that says nothing of keys is passed over, one that does is not.
        std::fs::write(&config, "[default]\nregion = eu-west-1\n").unwrap();
        assert!(matches!(found(&eks), CredentialSource::Container { .. }));
        std::fs::write(&config, "[default]\ncredential_process = x\n").unwrap();
        assert!(matches!(found(&eks), CredentialSource::File { config: Some(_), .. }));
        let role = [("AWS_ROLE_ARN", "arn:r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_REGION", "eu-west-1")];
        let CredentialSource::WebIdentity(found) = found(&role) else { panic!() };
        assert_eq!(
            (found.endpoint.as_str(), found.session.as_str()),
            ("https://sts.eu-west-1.amazonaws.com/", "backyfs")
        );
    }

    #[test]
    fn secrets_are_not_taken_where_everyone_sees_them() {
        for refused in
            [resolve(&[], &["s3-secret-key=geheim"], &[]), resolve(&[(Key::S3SessionToken, "geheim")], &[], &[])]
        {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("a secret would be seen") && !text.contains("geheim"), "{text}");
        }
        let env = [("BACKYFS_S3_SECRET_KEY", "geheim"), ("BACKYFS_S3_ACCESS_KEY", "A")];
        assert_eq!(secret(&resolve(&[], &[], &env).unwrap()), "geheim");
    }

    #[test]
    fn values_are_checked() {
        for (key, text, part) in [
            (Key::S3Style, "dns", "neither auto"),
            (Key::S3Concurrency, "0", "1 to 64"),
            (Key::S3Timeout, "0s", "no time at all"),
            (Key::UploadLimit, "12", "too little"),
            (Key::DownloadLimit, "fast", "fast"),
            (Key::S3Endpoint, "", "empty"),
        ] {
            let error = resolve(&[(key, text)], &[], &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let set = resolve(&[(Key::UploadLimit, "2M/s"), (Key::DownloadLimit, "none")], &["s3_region=eu"], &[]).unwrap();
        assert_eq!((set.limits.upload.rate(), set.limits.download.rate()), (Some(2 << 20), None));
        assert_eq!(set.s3.region, "eu");
        let aws = resolve(&[], &[], &[("AWS_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", "http://e")]).unwrap();
        assert_eq!((aws.s3.region.as_str(), aws.s3.endpoint.as_deref()), ("eu-west-1", Some("http://e")));
    }

    #[test]
    fn a_profile_says_where_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let text = "[default]\nregion = eu-west-1\n[profile lab]\nregion = lab-1\nendpoint_url = http://h:1\n";
        std::fs::write(&config, text).unwrap();
        let file = ("AWS_CONFIG_FILE", config.to_str().unwrap());
        let found = |flags: &[(Key, &str)], more: &[(&str, &str)]| {
            let s3 = resolve(flags, &[], &[&[file], more].concat()).unwrap().s3;
            (s3.region, s3.endpoint)
        };
        let lab = ("lab-1".to_owned(), Some("http://h:1".to_owned()));
        assert_eq!(found(&[], &[]), ("eu-west-1".to_owned(), None));
        assert_eq!(found(&[], &[("AWS_PROFILE", "lab")]), lab);
        assert_eq!(found(&[(Key::S3Profile, "lab")], &[]), lab);
        let other = found(&[], &[("AWS_PROFILE", "lab"), ("AWS_REGION", "r"), ("AWS_ENDPOINT_URL", "http://e")]);
        assert_eq!(other, ("r".to_owned(), Some("http://e".to_owned())));
        assert_eq!(found(&[], &[("AWS_PROFILE", "none")]), (Settings::default().region, None));
    }
}
