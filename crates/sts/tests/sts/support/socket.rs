//! The service behind a real listener.

use std::net::SocketAddr;
use std::sync::Arc;

use caracal_http::FreshId;
use caracal_http::admission::Gate;
use caracal_http::server::{Ended, Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::World;

/// The service of a world while it listens.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Ended>,
}

impl Listening {
    pub(crate) fn on(listener: TcpListener, world: &World) -> Self {
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let fresh = FreshId::new(|| "from-the-listener".to_owned());
        let serving = tokio::spawn(serve(listener, world.sts.clone().router(), fresh, Limits::default(), stopped));
        Self { address, stop, serving }
    }

    /// Behind a gate.
    pub(crate) fn behind(gate: &Arc<Gate>, listener: TcpListener, world: &World) -> Self {
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let fresh = FreshId::new(|| "from-the-listener".to_owned());
        let serving = tokio::spawn(serve(listener, world.sts.clone().guarded(gate), fresh, Limits::default(), stopped));
        Self { address, stop, serving }
    }

    /// Sends one request on a connection of its own and reads until the server closes.
    pub(crate) async fn say(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}Host: sts\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) async fn end(self) {
        self.stop.send(true).unwrap();
        assert_eq!(self.serving.await.unwrap(), Ended::Drained);
    }
}
