//! What a person says, before anything is done with it: settings from all the places they can be written in, key files, and
//! the way from them to an open repository. The command line, mount options and configuration are spellings of one thing.

pub mod config_file;
mod describe;
pub mod given;
pub mod glance;
pub mod jobs;
pub mod key_file;
pub mod log_tail;
pub mod remount;
pub mod retention;
mod s3;
pub mod session;
pub mod settings;
pub mod sizes;
pub mod sources_file;
pub mod values;

pub use given::{Key, SettingsError};
pub use session::SetupError;
pub use settings::Settings;
