//! Access keys: where they come from, when they are renewed, and that they are never shown.

use crate::target::s3::profile::Profile;
use crate::target::s3::{container, instance, process, web_identity};
use crate::words::clock::{Clock, SystemClock};
use crate::words::stamp::Stamp;
use parking_lot::Mutex;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Keys that end are renewed so long before, as the tools of AWS do.
const RENEW_BEFORE_MS: i64 = 5 * 60 * 1000;
/// While they are good, a renewal that failed is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

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

/// Keys as somebody gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The keys.
    pub keys: Keys,
    /// When they end, if that is known.
    pub until: Option<Stamp>,
}

impl From<Keys> for Issued {
    fn from(keys: Keys) -> Self {
        Self { keys, until: None }
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
    /// One half of a pair only: other keys than those that are meant must not take their place.
    Half {
        /// The name of what is there.
        set: &'static str,
        /// The name of what is not.
        missing: &'static str,
    },
    /// In files as the tools of AWS have them. They are read again when the keys in them are not accepted any more, so that whoever
    /// renews temporary keys only has to write the file.
    File {
        /// The credentials.
        path: PathBuf,
        /// The configuration beside them, in which a profile may say how to get its keys.
        config: Option<PathBuf>,
        /// The section of both.
        profile: String,
    },
    /// A role that is assumed with a token which a cluster puts into a file (IRSA of EKS, and others).
    WebIdentity(WebIdentity),
    /// The agent of a container (ECS, EKS).
    Container {
        /// Its address.
        url: String,
        /// What it wants to see.
        token: Option<ContainerToken>,
    },
    /// The role of the virtual machine, from its metadata service.
    Instance {
        /// Its address.
        endpoint: String,
    },
}

/// A role, and what proves that one may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentity {
    /// ARN of the role.
    pub role: String,
    /// The file with the token, which is replaced now and then.
    pub token_file: PathBuf,
    /// By what name the session is found in audits.
    pub session: String,
    /// Address of the token service.
    pub endpoint: String,
}

/// What a container shows to its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerToken {
    /// In a file, which is replaced now and then.
    File(PathBuf),
    /// In the environment.
    Given(Hidden),
}

impl CredentialSource {
    /// Gets the keys.
    ///
    /// # Errors
    /// A sentence that says what is missing where; it never holds what was read.
    pub fn load(&self) -> Result<Issued, String> {
        match self {
            Self::None => Err(NO_KEYS.into()),
            Self::Given(keys) => Ok(keys.clone().into()),
            Self::Half { set, missing } => Err(format!("{set} is set and {missing} is not: both are needed")),
            Self::File { path, config, profile } => match Profile::read(path, config.as_deref(), profile)? {
                Profile::Keys(keys) => Ok(keys.into()),
                Profile::Process(command) => process::issue(&command),
                Profile::WebIdentity(role) => web_identity::issue(&role),
            },
            Self::WebIdentity(role) => web_identity::issue(role),
            Self::Container { url, token } => container::issue(url, token.as_ref()),
            Self::Instance { endpoint } => {
                instance::issue(endpoint).map_err(|problem| format!("{NO_KEYS} ({problem})"))
            }
        }
    }
}

impl CredentialSource {
    /// Whether the files of AWS's tools say anything of the keys of a profile, or cannot be understood.
    pub fn is_meant(path: &Path, config: Option<&Path>, profile: &str) -> bool {
        Profile::is_meant(path, config, profile)
    }
}

const NO_KEYS: &str = "there are no keys: set s3-credentials-file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials";

/// Keys in use, renewed before they end.
pub(super) struct Holder {
    source: CredentialSource,
    held: Mutex<Held>,
    /// Held by who renews them.
    renewing: Mutex<()>,
}

struct Held {
    issued: Issued,
    not_before: Instant,
}

impl Held {
    fn is_due(&self, now: Stamp) -> bool {
        let due = |until: Stamp| now.millis() >= until.millis() - RENEW_BEFORE_MS;
        self.issued.until.is_some_and(due) && Instant::now() >= self.not_before
    }
}

impl Holder {
    /// Gets the first keys.
    ///
    /// # Errors
    /// As [`CredentialSource::load`].
    pub(super) fn new(source: CredentialSource) -> Result<Self, String> {
        let held = Mutex::new(Held { issued: source.load()?, not_before: Instant::now() });
        Ok(Self { source, held, renewing: Mutex::default() })
    }

    /// The keys to sign with. Those that end soon are renewed by one caller; the others go on with them meanwhile.
    pub(super) fn keys(&self) -> Keys {
        let held = || {
            let held = self.held.lock();
            (held.issued.keys.clone(), held.is_due(SystemClock.now()))
        };
        let (keys, is_due) = held();
        if !is_due {
            return keys;
        }
        let Some(_alone) = self.renewing.try_lock() else { return keys };
        // Another may have renewed them meanwhile.
        let (keys, is_due) = held();
        if !is_due {
            return keys;
        }
        match self.source.load() {
            Ok(issued) => {
                *self.held.lock() = Held { issued: issued.clone(), not_before: Instant::now() };
                issued.keys
            }
            Err(problem) => {
                tracing::warn!("the credentials end soon and cannot be renewed: {problem}");
                self.held.lock().not_before = Instant::now() + RENEW_AGAIN;
                keys
            }
        }
    }

    /// Other keys than those, which were refused; `None` when there are none yet.
    pub(super) fn others(&self, refused: &Keys) -> Option<Keys> {
        let _alone = self.renewing.lock();
        let held = self.held.lock().issued.keys.clone();
        if held != *refused {
            return Some(held);
        }
        match self.source.load() {
            Ok(issued) if issued.keys != *refused => {
                *self.held.lock() = Held { issued: issued.clone(), not_before: Instant::now() };
                Some(issued.keys)
            }
            Ok(_) => None,
            Err(problem) => {
                tracing::debug!("the credentials cannot be read anew: {problem}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let keys = Keys {
            access_key: "A2".into(),
            secret_key: "geheim".to_owned().into(),
            session_token: Some("geheim".to_owned().into()),
        };
        let token = Some(ContainerToken::Given(Hidden::new("geheim".into())));
        let source = CredentialSource::Container { url: "http://h".into(), token };
        let shown = format!("{keys:?} {:?} {source:?}", CredentialSource::Given(keys.clone()));
        assert!(shown.contains("A2") && !shown.contains("geheim"), "{shown}");
        assert!(CredentialSource::None.load().unwrap_err().contains("s3-credentials-file"));
    }

    #[test]
    fn keys_are_renewed_before_they_end_and_kept_while_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (path, answer) = (dir.path().join("credentials"), dir.path().join("answer"));
        let text = format!("[default]\ncredential_process = cat {}\n", answer.display());
        std::fs::write(&path, text).unwrap();
        let write = |key: &str, minutes: i64| {
            let until = jiff::Timestamp::from_millisecond(SystemClock.now().millis() + minutes * 60_000).unwrap();
            let text = format!(
                r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"s","SessionToken":"t","Expiration":"{until}"}}"#
            );
            std::fs::write(&answer, text).unwrap();
        };
        write("A1", 60);
        let source = CredentialSource::File { path, config: None, profile: "default".into() };
        let holder = Holder::new(source).unwrap();
        write("A2", 4);
        assert_eq!(holder.keys().access_key, "A1", "they are good for an hour");
        // Refused all the same: others are there by now, and none when they are the same.
        let others = holder.others(&holder.keys()).unwrap();
        assert_eq!(others.access_key, "A2");
        assert_eq!(holder.others(&others), None);
        // Those end in four minutes.
        std::fs::write(&answer, "nonsense").unwrap();
        assert_eq!(holder.keys().access_key, "A2");
        write("A3", 60);
        assert_eq!(holder.keys().access_key, "A2", "not asked again at once");
        holder.held.lock().not_before = Instant::now();
        assert_eq!(holder.keys().access_key, "A3");
    }
}
