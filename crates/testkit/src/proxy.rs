//! A proxy between a client and a server that can be cut: the partition between two machines, on one.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How a way is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are closed, new ones are closed at once: a machine that is down behind a router that says so.
    Refuse,
    /// Nothing comes through and nobody says so, not even that the other side has closed: a cable that was pulled. New
    /// connections are made by the kernel and never answered.
    BlackHole,
    /// What is asked comes through, and no answer comes back: what fails for the client has happened on the server.
    Mute,
    /// All is well until somebody asks for this, in one piece: from then on [`Cut::Mute`]. What a client sends by the clock
    /// is answered until then.
    MuteFrom(&'static str),
    /// Everything comes through, with one bit of it turned round: a machine between that is broken, or means harm.
    Flip,
}

/// Listens on the loopback address and passes everything on, until it is cut.
pub struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    way: Mutex<Way>,
    /// The way has been cut otherwise, or healed.
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Cut(Cut),
    /// The proxy's value is gone.
    Gone,
}

/// What a direction of a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Questions,
    Answers,
}

/// One lock for both: a connection that came in while the way was being healed would else stay held for ever.
struct Way {
    state: State,
    /// Both ends of every connection, to be closed when the way is cut.
    connections: HashMap<u64, Vec<TcpStream>>,
    /// The number of the next one.
    next: u64,
}

impl CuttingProxy {
    /// In front of `target`.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let way = Way { state: State::Open, connections: HashMap::new(), next: 0 };
        let shared = Arc::new(Shared { target, way: Mutex::new(way), changed: Condvar::new() });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.way().state == State::Gone {
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
        self.shared.set(State::Cut(how));
    }

    /// Opens the way again. Connections that hung are closed: nothing they held back is delivered late.
    pub fn heal(&self) {
        self.shared.set(State::Open);
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.set(State::Gone);
        // The listener waits for a connection; this is one.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let mut way = self.way();
        let healed_unhurt = state == State::Open && way.state == State::Open;
        let goes_on = matches!(state, State::Cut(Cut::BlackHole | Cut::Flip | Cut::Mute | Cut::MuteFrom(_)));
        if !goes_on && !healed_unhurt {
            for stream in way.connections.drain().flat_map(|(_, both)| both) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        way.state = state;
        self.changed.notify_all();
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        let Some(number) = self.admit(&client) else { return };
        let server = TcpStream::connect(self.target).ok().filter(|server| self.joins(number, server));
        if let Some(server) = server {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            if let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) {
                let other = self.clone();
                let back = thread::spawn(move || other.pipe(from_server, client, Says::Answers));
                self.pipe(from_client, server, Says::Questions);
                let _ = back.join();
            }
        }
        for stream in self.way().connections.remove(&number).into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The number of a new connection, if it may go on.
    fn admit(&self, client: &TcpStream) -> Option<u64> {
        let mut way = self.way();
        if matches!(way.state, State::Cut(Cut::Refuse) | State::Gone) {
            return None;
        }
        let number = way.next;
        way.next += 1;
        way.connections.insert(number, vec![client.try_clone().ok()?]);
        // Kept open and unanswered, if nothing comes through; the healing closes it.
        (way.state != State::Cut(Cut::BlackHole)).then_some(number)
    }

    /// Adds the other end to a connection, unless that was closed meanwhile.
    fn joins(&self, number: u64, server: &TcpStream) -> bool {
        let mut way = self.way();
        let (Some(ends), Ok(server)) = (way.connections.get_mut(&number), server.try_clone()) else { return false };
        ends.push(server);
        true
    }

    /// Passes on what one end says, until it has finished or the way was cut.
    fn pipe(&self, mut from: TcpStream, mut to: TcpStream, says: Says) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer);
            if self.was_silent() {
                break;
            }
            if let Ok(read) = &read
                && self.way().state == State::Cut(Cut::Flip)
                && let Some(byte) = buffer.get_mut(read / 2)
            {
                *byte ^= 1;
            }
            if let Ok(read) = &read
                && says == Says::Questions
            {
                self.mute_at(buffer.get(..*read).unwrap_or_default());
            }
            if matches!(read, Ok(1..)) && says == Says::Answers && self.way().state == State::Cut(Cut::Mute) {
                continue;
            }
            match read.map(|read| buffer.get(..read).unwrap_or_default()) {
                // That end has finished and may still be told something.
                Ok([]) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(said) if to.write_all(said).is_ok() => {}
                _ => break,
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Mutes the way before a question is passed on that it was to be mute from.
    fn mute_at(&self, question: &[u8]) {
        let mut way = self.way();
        if let State::Cut(Cut::MuteFrom(word)) = way.state
            && question.windows(word.len().max(1)).any(|part| part == word.as_bytes())
        {
            way.state = State::Cut(Cut::Mute);
        }
    }

    /// Whether nothing came through just now. If so, waits until that is over: what was read, an end too, is not passed
    /// on, and as nothing more is read, a sender finds after a while that nobody takes what it sends.
    fn was_silent(&self) -> bool {
        let mut way = self.way();
        let silent = way.state == State::Cut(Cut::BlackHole);
        while way.state == State::Cut(Cut::BlackHole) {
            way = self.changed.wait(way).unwrap_or_else(PoisonError::into_inner);
        }
        silent
    }
}
