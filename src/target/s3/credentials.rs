//! Access keys: where they come from, and that they are never shown.

use s3::creds::Credentials;
use s3::creds::error::CredentialsError;
use std::fmt;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Names the user; not a secret.
    pub access_key: String,
    /// Signs requests.
    pub secret_key: Zeroizing<String>,
    /// Comes with temporary keys.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.session_token.as_ref().map(|_| "...");
        f.debug_struct("Keys")
            .field("access_key", &self.access_key)
            .field("secret_key", &"...")
            .field("session_token", &token)
            .finish()
    }
}

/// Where the keys are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// Nowhere.
    #[default]
    None,
    /// In the configuration or in the environment of this process.
    Given(Keys),
    /// In a file as the tools of AWS have it. It is read again when the keys in it are not accepted any more, so that whoever
    /// renews temporary keys only has to write the file.
    File {
        /// Which.
        path: PathBuf,
        /// The section of it.
        profile: String,
    },
}

impl CredentialSource {
    /// Gets the keys.
    ///
    /// # Errors
    /// A sentence that says what is missing where; it never holds what was read.
    pub fn load(&self) -> Result<Keys, String> {
        match self {
            Self::None => Err("there are no keys: set s3-credentials-file, or AWS_ACCESS_KEY_ID and \
                               AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials"
                .into()),
            Self::Given(keys) => Ok(keys.clone()),
            Self::File { path, profile } => {
                let at = path.display();
                let read = Credentials::from_credentials_file(path, Some(profile)).map_err(|error| match error {
                    CredentialsError::ConfigNotFound => format!("{at} has no section [{profile}]"),
                    CredentialsError::ConfigMissingAccessKeyId => format!("{at} [{profile}] has no aws_access_key_id"),
                    CredentialsError::ConfigMissingSecretKey => {
                        format!("{at} [{profile}] has no aws_secret_access_key")
                    }
                    // The parser's own words may quote the line.
                    _ => match std::fs::File::open(path) {
                        Err(error) => format!("{at} cannot be read: {error}"),
                        Ok(_) => format!("{at} is not a file of credentials: it needs [{profile}] and two keys below"),
                    },
                })?;
                Ok(Keys {
                    access_key: read.access_key.unwrap_or_default(),
                    secret_key: read.secret_key.unwrap_or_default().into(),
                    session_token: read.session_token.or(read.security_token).map(Zeroizing::new),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_profiles_and_secrets_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let text = "[default]\naws_access_key_id = A1\naws_secret_access_key = geheim/1+=\n\n\
                    [other]\naws_access_key_id=A2\naws_secret_access_key=geheim2\naws_session_token=token3\n[half]\n\
                    aws_access_key_id = geheim4\n";
        std::fs::write(&path, text).unwrap();
        let source = |profile: &str| CredentialSource::File { path: path.clone(), profile: profile.into() };
        let keys = source("default").load().unwrap();
        assert_eq!((keys.access_key.as_str(), keys.secret_key.as_str()), ("A1", "geheim/1+="));
        let keys = source("other").load().unwrap();
        assert_eq!(keys.session_token.as_ref().map(|token| token.as_str()), Some("token3"));
        let shown = format!("{keys:?} {:?}", CredentialSource::Given(keys.clone()));
        assert!(shown.contains("A2") && !shown.contains("geheim") && !shown.contains("token3"), "{shown}");
        for (profile, part) in [("none", "no section [none]"), ("half", "no aws_secret_access_key")] {
            let error = source(profile).load().unwrap_err();
            assert!(error.contains(part) && !error.contains("geheim"), "{error}");
        }
        std::fs::write(&path, "geheim5 geheim6\n[\n").unwrap();
        let error = source("default").load().unwrap_err();
        assert!(error.contains("not a file of credentials") && !error.contains("geheim"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(source("default").load().unwrap_err().contains("No such file"));
        assert!(CredentialSource::None.load().unwrap_err().contains("s3-credentials-file"));
    }
}
