//! A proxy between a client and a server that can be cut: the partition between two machines, on one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How a way is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are closed, new ones are closed at once: a machine that is down behind a router that says so.
    Refuse,
    /// Nothing comes through and nobody says so: a cable that was pulled.
    BlackHole,
}

const OPEN: u8 = 0;
const REFUSING: u8 = 1;
const SILENT: u8 = 2;
/// How often a pipe looks whether it was cut.
const LOOK: Duration = Duration::from_millis(20);

/// Listens on the loopback address and passes everything on, until it is cut.
pub struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    state: AtomicU8,
    /// Every open connection, to be closed when the way is cut.
    open: Mutex<Vec<TcpStream>>,
}

impl CuttingProxy {
    /// In front of `target`.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { target, state: AtomicU8::new(OPEN), open: Mutex::default() });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The proxy's own value holds the other one.
                if Arc::strong_count(&serving) == 1 {
                    return;
                }
                let shared = serving.clone();
                thread::spawn(move || shared.serve(client));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the way until it is healed.
    pub fn cut(&self, how: Cut) {
        let state = if how == Cut::Refuse { REFUSING } else { SILENT };
        self.shared.state.store(state, Ordering::SeqCst);
        if how == Cut::Refuse {
            self.shared.close_all();
        }
    }

    /// Opens the way again. Connections that hung are closed: nothing they held back is delivered late.
    pub fn heal(&self) {
        self.shared.close_all();
        self.shared.state.store(OPEN, Ordering::SeqCst);
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.state.store(REFUSING, Ordering::SeqCst);
        self.shared.close_all();
    }
}

impl Shared {
    fn close_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn keep(&self, stream: &TcpStream) {
        if let Ok(stream) = stream.try_clone() {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        self.keep(&client);
        match self.state.load(Ordering::SeqCst) {
            OPEN => {}
            REFUSING => {
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
            // Accepted by the kernel already; held open, never answered, closed by the healing.
            _ => return,
        }
        let Ok(server) = TcpStream::connect(self.target) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        self.keep(&server);
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
        let other = self.clone();
        thread::spawn(move || other.pipe(from_server, client));
        self.pipe(from_client, server);
    }

    fn pipe(&self, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(LOOK));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if self.state.load(Ordering::SeqCst) == SILENT {
                continue;
            }
            let Some(read) = buffer.get(..read) else { break };
            if to.write_all(read).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
