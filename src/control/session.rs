//! From settings to an open repository.

use crate::catalog::{Catalog, CatalogError};
use crate::control::given::{Given, Key};
use crate::control::{Settings, SettingsError, key_file};
use crate::format::layout;
use crate::format::slot::Argon2Costs;
use crate::ops::OpsError;
use crate::ops::repair::header::{self, Kept};
use crate::repo::header::{has_spare, without_header};
use crate::repo::open::Settings as OpenSettings;
use crate::repo::{RepoError, Repository};
use crate::seal::recovery::RecoveryKey;
use crate::seal::{KeyError, Secret, keys};
use crate::target::s3::CredentialSource;
use crate::target::{self, Target, TargetSpec};
use crate::words::clock::Clock;
use crate::words::geometry::BlockSize;
use crate::words::monitor::Monitor;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Level of zstd in new repositories; docs/decisions/0001-block-zstd-pack.md.
pub const ZSTD_LEVEL_DEFAULT: i32 = 1;
/// Bytes of packs in new repositories; docs/decisions/0001-block-zstd-pack.md.
pub const PACK_BYTES_DEFAULT: u64 = 32 << 20;
/// The file in the state directory that the recovery key of an embedded repository is written to.
pub const RECOVERY_FILE: &str = "recovery-key";

/// Why there is no repository to work on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SetupError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("{path} does not exist: name another with --key-file or --passphrase-file (a file with the recovery key will do), or make a repository with `backyfs init`", path = .path.display())]
    NoSecret { path: PathBuf },
    #[error("{path} can be read by others (mode {mode:04o}): run `chmod 600 {path}` first", path = .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} is longer than 1 MiB: it is neither a key nor a passphrase", path = .path.display())]
    NotASecret { path: PathBuf },
    #[error("{path}: {source}", path = .path.display())]
    Secret { path: PathBuf, source: io::Error },
    /// With the place where its path was written.
    #[error("{given}: {error}")]
    Placed { given: Box<Given>, error: Box<SetupError> },
}

impl SetupError {
    /// The mount option that is to blame, if one is: `name=text` or `name`.
    pub fn mount_option(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.mount_option(),
            Self::Placed { given, .. } => given.mount_option(),
            _ => None,
        }
    }

    /// With the place where this setting was written, if it was.
    fn placed(self, settings: &Settings, key: Key) -> Self {
        match settings.origins.iter().find(|given| given.key == key) {
            Some(given) => Self::Placed { given: Box::new(given.clone()), error: Box::new(self) },
            None => self,
        }
    }
}

impl From<SetupError> for OpsError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Repo(error) => Self::Repo(error),
            error => Self::refused(error.to_string()),
        }
    }
}

/// What a new repository is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Parameters {
    /// Bytes per block.
    pub block_size: BlockSize,
    /// zstd level.
    pub zstd_level: i32,
    /// Bytes at which packs are closed.
    pub pack_size_bytes: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        let (zstd_level, pack_size_bytes) = (ZSTD_LEVEL_DEFAULT, PACK_BYTES_DEFAULT);
        Self { block_size: BlockSize::DEFAULT, zstd_level, pack_size_bytes }
    }
}

/// A repository was made.
pub struct Initialized {
    /// Where.
    pub target: String,
    /// Opens it when everything else is lost. To be shown once.
    pub recovery: RecoveryKey,
    /// The key file that was made for it.
    pub new_key_file: Option<PathBuf>,
}

/// Makes a repository, and a key file when the one that is named does not exist.
///
/// # Errors
/// When there is one already, or something else lies there; then a key file just made is taken away again.
pub fn init(settings: &Settings, parameters: &Parameters, clock: &Arc<dyn Clock>) -> Result<Initialized, SetupError> {
    let mut secrets = Vec::new();
    if let Some(path) = &settings.passphrase_file {
        secrets.push(key_file::read_passphrase(path)?);
    }
    let mut new_key_file = None;
    if let Some(path) = &settings.key_file {
        match key_file::read_key(path) {
            Err(SetupError::NoSecret { .. }) => {
                secrets.push(key_file::create_key(path, &**clock)?);
                new_key_file = Some(path.clone());
            }
            read => secrets.push(read?),
        }
    }
    if settings.embedded {
        make_private(&settings.state_dir)?;
    }
    let target = target(settings)?;
    let made = keys::Settings {
        block_size: parameters.block_size,
        zstd_level: parameters.zstd_level,
        pack_size_bytes: parameters.pack_size_bytes,
        argon2: Argon2Costs::DEFAULT,
    };
    match Repository::create(&*target, &secrets, &made, clock) {
        Ok(recovery) => Ok(Initialized { target: target.describe(), recovery, new_key_file }),
        Err(error) => {
            // Only where it is certain that nothing was sealed with it: otherwise a key is worth keeping.
            let certain = matches!(error, RepoError::AlreadyExists { .. } | RepoError::Key(_))
                || crate::ops::error::failure_of(&error) == crate::ops::Failure::Refused;
            if let Some(path) = new_key_file.filter(|_| certain) {
                let _ = std::fs::remove_file(path);
            }
            Err(error.into())
        }
    }
}

/// Makes the embedded repository if it is meant and not there. Returns where its recovery key is.
///
/// # Errors
/// When it cannot be made.
pub fn make_embedded(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Option<PathBuf>, SetupError> {
    let TargetSpec::Dir(directory) = &settings.target else { return Ok(None) };
    if !settings.embedded || directory.symlink_metadata().is_ok() {
        return Ok(None);
    }
    let made = init(settings, &Parameters::default(), clock)?;
    let path = settings.state_dir.join(RECOVERY_FILE);
    key_file::write_new(&path, format!("{}\n", made.recovery).as_bytes())
        .map_err(|source| SetupError::Secret { path: path.clone(), source })?;
    Ok(Some(path))
}

fn make_private(directory: &Path) -> Result<(), SetupError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| SetupError::Secret { path: directory.to_owned(), source })
}

/// The target that is set; nothing of it is read yet.
///
/// # Errors
/// When the settings of S3 cannot be used.
pub fn target(settings: &Settings) -> Result<Arc<dyn Target>, RepoError> {
    Ok(target::open(&settings.target, &settings.target_options())?)
}

/// Looks whether there is a repository and something to open it with, without opening it.
///
/// # Errors
/// When there is none, when its target cannot be reached, or when a file that is needed for it cannot be read: with the place where that
/// is written.
pub fn probe(settings: &Settings) -> Result<(), SetupError> {
    if matches!(settings.target, TargetSpec::S3(_)) {
        look_for_credentials(settings)?;
    }
    look_for_repository(settings)?;
    look_for_secrets(settings)
}

/// What was named in our settings. Where the tools of AWS look is for the target to tell.
fn look_for_credentials(settings: &Settings) -> Result<(), SetupError> {
    let credentials = match &settings.s3.credentials {
        CredentialSource::File { path, config: None, .. } => Some(path),
        _ => None,
    };
    for (key, path) in [(Key::S3CredentialsFile, credentials), (Key::S3CaFile, settings.s3.ca_file.as_ref())] {
        let Some(path) = path.filter(|_| settings.origins.iter().any(|given| given.key == key)) else { continue };
        let unreadable = |source| SetupError::Secret { path: path.clone(), source };
        // One that is a pipe is read once only.
        let is_file = std::fs::metadata(path).map(|metadata| metadata.is_file());
        let read = is_file.and_then(|is_file| if is_file { File::open(path).map(drop) } else { Ok(()) });
        read.map_err(|source| unreadable(source).placed(settings, key))?;
    }
    Ok(())
}

/// As [`secrets`], without reading them.
fn look_for_secrets(settings: &Settings) -> Result<(), SetupError> {
    let (mut is_there, mut missing) = (false, None);
    for (key, path) in [(Key::KeyFile, &settings.key_file), (Key::PassphraseFile, &settings.passphrase_file)] {
        let Some(path) = path else { continue };
        match key_file::look(path)
            .map_err(|error| (matches!(error, SetupError::NoSecret { .. }), error.placed(settings, key)))
        {
            Ok(()) => is_there = true,
            Err((true, error)) => missing = missing.or(Some(error)),
            Err((false, error)) => return Err(error),
        }
    }
    missing.filter(|_| !is_there).map_or(Ok(()), Err)
}

fn look_for_repository(settings: &Settings) -> Result<(), SetupError> {
    let target = target(settings)?;
    match target.get(&layout::header()) {
        Ok(_) => Ok(()),
        Err(error) if has_spare(&*target, &error) => Ok(()),
        Err(target::TargetError::NotFound { .. }) => Err(without_header(&*target).into()),
        Err(error) => Err(RepoError::from(error).into()),
    }
}

/// The secrets that are set, and the error of the first that is not there.
///
/// # Errors
/// When one is there and cannot be read, or others can read it.
pub fn secrets(settings: &Settings) -> Result<(Vec<Secret>, Option<SetupError>), SetupError> {
    let mut secrets: Vec<Secret> = Vec::new();
    let mut missing = None;
    let files = [(&settings.key_file, true), (&settings.passphrase_file, false)];
    for (path, is_key) in files.into_iter().filter_map(|(path, is_key)| Some((path.as_ref()?, is_key))) {
        let read = if is_key { key_file::read_key(path) } else { key_file::read_passphrase(path) };
        match read {
            Ok(secret) => secrets.push(secret),
            Err(error @ SetupError::NoSecret { .. }) => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok((secrets, missing))
}

/// Opens the repository.
///
/// # Errors
/// When there is none, or no secret opens it.
pub fn open(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Arc<Repository>, SetupError> {
    let (secrets, missing) = secrets(settings)?;
    let mut refused = None;
    for secret in secrets {
        match open_with(settings, secret, clock, monitor) {
            Err(RepoError::Key(error)) if is_wrong(&error) => refused = Some(RepoError::Key(error)),
            opened => return Ok(opened?),
        }
    }
    match (refused, missing) {
        (Some(refused), _) => Err(refused.into()),
        (None, Some(missing)) => Err(without_secret(settings, missing)),
        (None, None) => Err(SetupError::NoSecret { path: settings.state_dir.join("key") }),
    }
}

fn is_wrong(error: &KeyError) -> bool {
    matches!(error, KeyError::WrongSecret { .. } | KeyError::NoSlot { .. })
}

/// A missing repository is more worth telling than a missing key.
fn without_secret(settings: &Settings, missing: SetupError) -> SetupError {
    match look_for_repository(settings) {
        Err(SetupError::Repo(
            error @ (RepoError::NoRepository { .. } | RepoError::NoHeader { .. } | RepoError::HalfMade { .. }),
        )) => error.into(),
        _ => missing,
    }
}

fn open_with(
    settings: &Settings,
    secret: Secret,
    clock: &Arc<dyn Clock>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Arc<Repository>, RepoError> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let readers = match settings.target {
        TargetSpec::Dir(_) => cores,
        TargetSpec::S3(_) => settings.s3.concurrency.max(cores),
    };
    Repository::open(OpenSettings {
        target: target(settings)?,
        secret,
        state_dir: settings.state_dir.clone(),
        memory_bytes: settings.memory_bytes,
        cache: settings.cache(),
        clock: Arc::clone(clock),
        monitor: Arc::clone(monitor),
        workers: cores,
        readers,
    })
}

/// What this host keeps of the header and the keys of the repository, if a secret opens it so. No secret, or a wrong one, is for
/// [`open`] to tell.
///
/// # Errors
/// When a secret cannot be read, or the target cannot be reached.
pub fn kept(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Option<Kept>, SetupError> {
    let target = target(settings)?;
    for secret in secrets(settings)?.0 {
        match header::find(&*target, &settings.state_dir, &secret, clock) {
            Ok(None) | Err(OpsError::Repo(RepoError::Key(_))) => {}
            Ok(kept) => return Ok(kept),
            Err(OpsError::Repo(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Opens the repository for a rebuild: a catalog that is damaged beyond reading is discarded first.
///
/// # Errors
/// As [`open`].
pub fn open_for_rebuild(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Arc<Repository>, SetupError> {
    match open(settings, clock, monitor) {
        Err(SetupError::Repo(RepoError::Catalog(error))) => {
            if let CatalogError::Corrupt { path, .. } = &*error {
                Catalog::discard(path).map_err(RepoError::from)?;
                return open(settings, clock, monitor);
            }
            Err(RepoError::Catalog(error).into())
        }
        opened => opened,
    }
}
