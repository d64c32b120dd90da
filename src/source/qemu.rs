//! Images of other formats, read as the disk they hold: qcow2, vmdk, vdi, ... whatever qemu knows.
//!
//! `qemu-nbd` serves the disk on a socket of ours, read-only; `qemu-img map` tells what of it is data. Both are told the format:
//! guessing it would let whoever writes into a raw disk make it look like an image that reads other files of this machine.

use crate::source::changes::Changes;
use crate::source::destination::{Destination, Manner};
use crate::source::file::attributes_of;
use crate::source::nbd::{Connection, Connections};
use crate::source::volume::{Moment, Volume};
use crate::source::{Content, Extent, Source, SourceError};
use crate::words::attribute::FileAttributes;
use serde::Deserialize;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Readers served at once; qemu-nbd lets others connect and wait until one of them leaves, which none does.
const READERS_MAX: usize = 16;
/// How long qemu-nbd may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// An image file of a format that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuVolume {
    path: PathBuf,
    format: String,
}

impl QemuVolume {
    /// An absolute path, and the format as qemu calls it.
    pub fn new(path: PathBuf, format: String) -> Self {
        Self { path, format }
    }
}

impl Volume for QemuVolume {
    fn describe(&self) -> String {
        format!("{} ({})", self.path.display(), self.format)
    }

    fn open(&self, _: Moment<'_>) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::new(QemuSource::open(self)?))
    }

    fn destination(&self, _: &Manner) -> Result<Box<dyn Destination>, SourceError> {
        Err(SourceError::DestinationKind {
            what: self.describe(),
            problem: "only raw images can be restored to; convert the restored one with qemu-img convert".into(),
        })
    }
}

/// A row of `qemu-img map --output=json`.
#[derive(Debug, Deserialize)]
struct Mapped {
    start: u64,
    length: u64,
    zero: bool,
}

/// An open image. The server ends when it is dropped.
struct QemuSource {
    volume: QemuVolume,
    size_bytes: u64,
    data: Changes,
    attributes: FileAttributes,
    connections: Connections,
    /// Nothing is read through it. The server ends by itself when its last connection does, so one that stays keeps it, and none is
    /// left when this process is killed.
    #[allow(dead_code, reason = "it is open, which is all it is for")]
    keeper: Connection,
    server: Server,
}

struct Server {
    process: Child,
    /// The socket's directory, which nobody else may enter.
    room: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl QemuSource {
    fn open(volume: &QemuVolume) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Open { what: volume.describe(), source };
        let metadata = std::fs::metadata(&volume.path).map_err(failed)?;
        let attributes = attributes_of(&metadata);
        let advice = format!("it was to be read as {}; `qemu-img info FILE` tells what it is", volume.format);
        let mut mapping = Command::new("qemu-img");
        mapping.args(["map", "--output=json", "-f"]).arg(&volume.format).arg(&volume.path);
        let map = run(&mut mapping, &advice)?;
        let rows: Vec<Mapped> = serde_json::from_slice(&map)
            .map_err(|error| SourceError::Tool { program: "qemu-img map".into(), said: error.to_string() })?;
        let parts = rows.iter().filter(|row| !row.zero);
        let parts = parts.map(|row| Extent { range: row.start..row.start + row.length, content: Content::Data });
        let data = Changes::new(parts);
        // Without the page cache, so that it is left as it was; where the file system cannot, with it.
        let (server, keeper) = serve(volume, "none").or_else(|_| serve(volume, "writeback"))?;
        let (size_bytes, connections) = (keeper.size_bytes(), Connections::new(READERS_MAX));
        Ok(Self { volume: volume.clone(), size_bytes, data, attributes, connections, keeper, server })
    }

    fn socket(&self) -> PathBuf {
        socket_in(self.server.room.path())
    }
}

fn socket_in(room: &Path) -> PathBuf {
    room.join("nbd")
}

/// Starts a server and connects to it.
fn serve(volume: &QemuVolume, cache: &str) -> Result<(Server, Connection), SourceError> {
    let program = || "qemu-nbd".to_owned();
    let start = |error: io::Error| tool_missing("qemu-nbd", &error);
    let room = tempfile::Builder::new().prefix("backyfs-nbd-").tempdir().map_err(start)?;
    let mut command = Command::new("qemu-nbd");
    // One more than read: the keeper.
    command.arg("--shared").arg((READERS_MAX + 1).to_string()).args(["--read-only", "--cache", cache, "--format"]);
    command.arg(&volume.format).arg("--socket").arg(socket_in(room.path())).arg(&volume.path);
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(start)?;
    let mut server = Server { process, room };
    let started = Instant::now();
    loop {
        match Connection::open(&socket_in(server.room.path())) {
            Ok(connection) => return Ok((server, connection)),
            Err(error) if started.elapsed() > START_PATIENCE => {
                return Err(SourceError::Tool { program: program(), said: error.to_string() });
            }
            Err(_) => {}
        }
        if server.process.try_wait().is_ok_and(|ended| ended.is_some()) {
            let mut said = String::new();
            if let Some(mut stderr) = server.process.stderr.take() {
                // What it said is told as far as it can be read.
                let _ = io::Read::read_to_string(&mut stderr, &mut said);
            }
            return Err(SourceError::Tool { program: program(), said: said.trim().to_owned() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tool_missing(program: &str, error: &io::Error) -> SourceError {
    let said = match error.kind() {
        io::ErrorKind::NotFound => "it is not installed; on Debian it is in the package qemu-utils".to_owned(),
        _ => error.to_string(),
    };
    SourceError::Tool { program: program.to_owned(), said }
}

/// What a program writes. When it refuses, `advice` stands behind what it says.
fn run(command: &mut Command, advice: &str) -> Result<Vec<u8>, SourceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().map_err(|error| tool_missing(&program, &error))?;
    if !done.status.success() {
        let said = format!("{} ({advice})", String::from_utf8_lossy(&done.stderr).trim());
        return Err(SourceError::Tool { program, said });
    }
    Ok(done.stdout)
}

impl Source for QemuSource {
    fn describe(&self) -> String {
        self.volume.describe()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn attributes(&self) -> FileAttributes {
        self.attributes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, SourceError> {
        Ok(self.data.extent_at(offset, self.size_bytes, Content::Hole))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        if offset + buffer.len() as u64 > self.size_bytes {
            return Err(SourceError::Shrank { what: self.describe(), offset: self.size_bytes });
        }
        let failed = |source| SourceError::Read { what: self.describe(), offset, source };
        self.connections.read_at(&self.socket(), offset, buffer).map_err(failed)
    }

    fn sector_bytes(&self) -> u32 {
        512
    }

    fn has_changed(&self) -> bool {
        let then = self.attributes.mtime;
        let same = |now: &std::fs::Metadata| now.mtime() == then.seconds && now.mtime_nsec() == i64::from(then.nanos);
        !std::fs::metadata(&self.volume.path).is_ok_and(|now| same(&now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::conformance;

    const NOW: Moment<'static> = Moment::Now { name: "" };

    #[test]
    fn other_formats_are_read_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        let mut content = vec![0; 5 << 20];
        content[100_000..1_000_000].fill(5);
        content[(4 << 20) + 3..(5 << 20) - 512].fill(6);
        std::fs::write(&raw, &content).unwrap();
        for format in ["vmdk", "vdi", "vhdx", "qed"] {
            let path = dir.path().join(format);
            let convert = ["convert", "-f", "raw", "-O", format];
            let converted = Command::new("qemu-img").args(convert).args([&raw, &path]).status();
            assert!(converted.unwrap().success(), "{format}");
            let opened = QemuVolume::new(path, format.into()).open(NOW).unwrap();
            conformance::reads_what_it_holds(&*opened, &content);
        }
    }

    #[test]
    fn qcow2_is_read_as_the_disk_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, qcow2) = (dir.path().join("raw"), dir.path().join("qcow2"));
        let mut content = vec![0; 5 << 20];
        content[100_000..1_000_000].fill(5);
        content[(4 << 20) + 3..(5 << 20) - 512].fill(6);
        std::fs::write(&raw, &content).unwrap();
        let convert =
            Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &qcow2]).status();
        assert!(convert.unwrap().success());
        let volume = QemuVolume::new(qcow2.clone(), "qcow2".into());
        let opened = volume.open(NOW).unwrap();
        conformance::reads_what_it_holds(&*opened, &content);
        assert_eq!(opened.extent_at(2 << 20).unwrap().content, Content::Hole);
        assert!(!opened.has_changed());

        // A backup that is killed takes its server with it: its connections are closed, and nothing else.
        let QemuSource { keeper, connections, mut server, .. } = QemuSource::open(&volume).unwrap();
        assert!(server.process.try_wait().unwrap().is_none());
        drop((keeper, connections));
        let ended = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            server.process.try_wait().unwrap().is_some()
        });
        assert!(ended);

        // The format is what was said: as raw it is the bytes of the file, as something else it is refused.
        let as_raw = QemuVolume::new(qcow2.clone(), "raw".into()).open(NOW).unwrap();
        assert!(as_raw.size_bytes() != 5 << 20);
        let wrong = QemuVolume::new(qcow2, "vmdk".into()).open(NOW).err().unwrap();
        assert!(matches!(&wrong, SourceError::Tool { said, .. } if said.contains("read as vmdk")), "{wrong}");
        assert!(volume.destination(&conformance::new_manner(1)).is_err());
    }
}
