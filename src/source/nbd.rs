//! Reading from a network block device server over a socket: the fixed newstyle handshake and plain reads, which every server
//! speaks (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>).

use parking_lot::{Condvar, Mutex};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SERVER_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
/// The longest read that every server takes.
const READ_MAX_BYTES: usize = 32 << 20;

/// How long a server may take to greet: one that serves others lets whoever connects wait.
const GREETING_PATIENCE: Duration = Duration::from_secs(60);

/// One connection. One request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    size_bytes: u64,
    next: u64,
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server does not speak NBD as expected: {what}"))
}

impl Connection {
    /// Connects to the default export.
    ///
    /// # Errors
    /// When nobody listens, or it is no such server, or it does not greet for a minute.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(GREETING_PATIENCE))?;
        if read_u64(&mut stream)? != SERVER_MAGIC || read_u64(&mut stream)? != OPTION_MAGIC {
            return Err(strange("greeting"));
        }
        let flags = read_u16(&mut stream)?;
        if flags & FIXED_NEWSTYLE == 0 {
            return Err(strange("old style"));
        }
        let ours = flags & (FIXED_NEWSTYLE | NO_ZEROES);
        let mut hello = u32::from(ours).to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend(0u32.to_be_bytes());
        stream.write_all(&hello)?;
        let size_bytes = read_u64(&mut stream)?;
        read_u16(&mut stream)?;
        if ours & NO_ZEROES == 0 {
            stream.read_exact(&mut [0; 124])?;
        }
        // A disk may take as long as it likes.
        stream.set_read_timeout(None)?;
        Ok(Self { stream, size_bytes, next: 0 })
    }

    /// Bytes of the export.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// What the server says, as an error number; or that it is gone.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (part, at) in buffer.chunks_mut(READ_MAX_BYTES).zip((offset..).step_by(READ_MAX_BYTES)) {
            self.next += 1;
            let len = u32::try_from(part.len()).map_err(io::Error::other)?;
            let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
            request.extend(0u16.to_be_bytes());
            request.extend(READ.to_be_bytes());
            request.extend(self.next.to_be_bytes());
            request.extend(at.to_be_bytes());
            request.extend(len.to_be_bytes());
            self.stream.write_all(&request)?;
            let (magic, error, cookie) =
                (read_u32(&mut self.stream)?, read_u32(&mut self.stream)?, read_u64(&mut self.stream)?);
            if magic != REPLY_MAGIC || cookie != self.next {
                return Err(strange("answer"));
            }
            if error != 0 {
                // The protocol's numbers are those of Linux.
                return Err(io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(libc::EIO)));
            }
            self.stream.read_exact(part)?;
        }
        Ok(())
    }
}

/// Connections to one server, as many as are wanted at once and no more than it serves: who comes when all of them are in use waits.
#[derive(Debug)]
pub struct Connections {
    state: Mutex<Idle>,
    returned: Condvar,
}

#[derive(Debug)]
struct Idle {
    connections: Vec<Connection>,
    /// How many more may be opened.
    unopened: usize,
}

impl Connections {
    /// At most `max` of them; none is opened yet.
    pub fn new(max: usize) -> Self {
        Self { state: Mutex::new(Idle { connections: Vec::new(), unopened: max }), returned: Condvar::new() }
    }

    /// Fills `buffer` from `offset` through one of them.
    ///
    /// # Errors
    /// As [`Connection::open`] and [`Connection::read_at`].
    pub fn read_at(&self, socket: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut idle = self.state.lock();
        let taken = loop {
            if let Some(connection) = idle.connections.pop() {
                break Some(connection);
            }
            if idle.unopened > 0 {
                idle.unopened -= 1;
                break None;
            }
            self.returned.wait(&mut idle);
        };
        drop(idle);
        let read = taken.map_or_else(|| Connection::open(socket), Ok).and_then(|mut connection| {
            connection.read_at(offset, buffer)?;
            Ok(connection)
        });
        let mut idle = self.state.lock();
        let done = match read {
            Ok(connection) => {
                idle.connections.push(connection);
                Ok(())
            }
            // One on which something went wrong is closed and not used again; another may be opened in its place.
            Err(error) => {
                idle.unopened += 1;
                Err(error)
            }
        };
        drop(idle);
        self.returned.notify_one();
        done
    }
}

fn read_u16(stream: &mut UnixStream) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
