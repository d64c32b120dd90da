//! Why bytes are not what they should be.

/// Why some bytes could not be decoded. `what` names the kind of object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Too few bytes.
    #[error("{what}: ends after {found_bytes} bytes where {needed_bytes} are needed")]
    Truncated {
        /// Kind of object.
        what: &'static str,
        /// How many bytes it would take at least.
        needed_bytes: u64,
        /// How many there are.
        found_bytes: u64,
    },
    /// Bytes are left over.
    #[error("{what}: {extra_bytes} bytes too many")]
    Trailing {
        /// Kind of object.
        what: &'static str,
        /// How many are left over.
        extra_bytes: u64,
    },
    /// It does not begin with its magic: it is something else, or its beginning is damaged.
    #[error("this is not a {what}: it does not begin with the right bytes")]
    Magic {
        /// Kind of object.
        what: &'static str,
    },
    /// It has a format version that this program does not know.
    #[error(
        "the {what} was made by a newer backyfs: format version {version}, this one knows up to {supported}; upgrade backyfs"
    )]
    Newer {
        /// Kind of object.
        what: &'static str,
        /// The version found.
        version: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// Its checksum is wrong: it is damaged.
    #[error("{what}: the checksum is wrong, it is damaged")]
    Checksum {
        /// Kind of object.
        what: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("{what}: {field} is {value}: {problem}")]
    Field {
        /// Kind of object.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with that.
        problem: &'static str,
    },
}
