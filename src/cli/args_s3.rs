//! Flags about S3 and about bandwidth. docs/targets.md says which server needs which.

use crate::control::Key;
use clap::Args;

/// Keys are no flags, because everyone can see those: docs/targets.md says where they go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Distant targets (settings like those above)")]
pub struct Distant {
    /// Server of s3: targets, for example https://s3.example.org [default: AWS]
    #[arg(long, global = true, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(long, global = true, value_name = "NAME")]
    pub s3_region: Option<String>,
    /// Whether the bucket's name stands in the path or in the host [default: auto]
    #[arg(long, global = true, value_name = "auto|path|virtual")]
    pub s3_style: Option<String>,
    /// File with access keys, as the tools of AWS have it [default: ~/.aws/credentials]
    #[arg(long, global = true, value_name = "FILE")]
    pub s3_credentials_file: Option<String>,
    /// Section of that file [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub s3_profile: Option<String>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub s3_ca_file: Option<String>,
    /// Storage class of packs [default: the bucket's]
    #[arg(long, global = true, value_name = "CLASS")]
    pub s3_storage_class: Option<String>,
    /// What the server is told to encrypt objects with [default: the bucket's]
    #[arg(long, global = true, value_name = "AES256|aws:kms")]
    pub s3_encryption: Option<String>,
    /// Key of aws:kms [default: the bucket's]
    #[arg(long, global = true, value_name = "ID")]
    pub s3_kms_key: Option<String>,
    /// Requests at a time [default: 8]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub s3_concurrency: Option<String>,
    /// How long connecting may take [default: 10s]
    #[arg(long, global = true, value_name = "TIME")]
    pub s3_connect_timeout: Option<String>,
    /// How long nothing may move on a busy connection [default: 60s]
    #[arg(long, global = true, value_name = "TIME")]
    pub s3_timeout: Option<String>,
    /// Bytes a second towards the target, for example 10M [default: none]
    #[arg(long, global = true, value_name = "RATE")]
    pub upload_limit: Option<String>,
    /// Bytes a second from the target [default: none]
    #[arg(long, global = true, value_name = "RATE")]
    pub download_limit: Option<String>,
}

impl Distant {
    /// The settings that were given as flags.
    pub fn settings(&self) -> Vec<(Key, String)> {
        let given = [
            (Key::S3Endpoint, &self.s3_endpoint),
            (Key::S3Region, &self.s3_region),
            (Key::S3Style, &self.s3_style),
            (Key::S3CredentialsFile, &self.s3_credentials_file),
            (Key::S3Profile, &self.s3_profile),
            (Key::S3CaFile, &self.s3_ca_file),
            (Key::S3StorageClass, &self.s3_storage_class),
            (Key::S3Encryption, &self.s3_encryption),
            (Key::S3KmsKey, &self.s3_kms_key),
            (Key::S3Concurrency, &self.s3_concurrency),
            (Key::S3ConnectTimeout, &self.s3_connect_timeout),
            (Key::S3Timeout, &self.s3_timeout),
            (Key::UploadLimit, &self.upload_limit),
            (Key::DownloadLimit, &self.download_limit),
        ];
        given.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))).collect()
    }
}
