//! What is needed to get to a bucket.

use crate::target::s3::credentials::CredentialSource;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where in S3. How to get there is in [`Settings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the bucket.
    pub bucket: String,
    /// What the names of all objects begin with, without a slash at its end; empty for the whole bucket.
    pub prefix: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

/// How the bucket's name stands in addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// `https://bucket.host/key` at AWS, `https://host/bucket/key` everywhere else and where a bucket's name has dots, which no
    /// wildcard certificate covers.
    #[default]
    Auto,
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    Virtual,
}

/// Settings of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://host:port`; AWS when there is none.
    pub endpoint: Option<String>,
    /// Region of the bucket. Most servers besides AWS take any.
    pub region: String,
    /// How buckets are addressed.
    pub style: Style,
    /// Who we are.
    pub credentials: CredentialSource,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Where objects are kept; the server's choice when there is none.
    pub storage_class: Option<String>,
    /// What the server encrypts objects with, beside our own encryption; the bucket's choice when there is none.
    pub encryption: Option<String>,
    /// With which key, where that takes one.
    pub kms_key: Option<String>,
    /// Requests at a time.
    pub concurrency: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long nothing may move on a connection that has something to do.
    pub timeout: Duration,
}

impl Settings {
    /// Requests at a time, unless something else is said.
    pub const CONCURRENCY_DEFAULT: usize = 8;
    /// The region that servers which have none take for theirs.
    pub const REGION_DEFAULT: &'static str = "us-east-1";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: Self::REGION_DEFAULT.into(),
            style: Style::Auto,
            credentials: CredentialSource::None,
            ca_file: None,
            storage_class: None,
            encryption: None,
            kms_key: None,
            concurrency: Self::CONCURRENCY_DEFAULT,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
        }
    }
}
