//! A caller who speaks HTTP byte by byte and sees exactly what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing in these tests takes long; what does is stuck.
const STUCK: Duration = Duration::from_secs(10);

pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response's head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole response, or as much of one as came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether the body ended where its framing says.
    pub(crate) whole: bool,
}

impl Head {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status, code and description of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let body = self.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(body["requestId"], body["request_id"]);
        assert_eq!(body["requestId"].as_str(), self.get("x-request-id"));
        (self.status(), text("error"), text("error_description"))
    }
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as much as the other side takes.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// One whole request and its answer, on this connection.
    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer(!request.starts_with("HEAD ")).await
    }

    /// The next answer, informational ones included.
    pub(crate) async fn answer(&mut self, may_have_body: bool) -> Answer {
        let head = self.head().await;
        let bodiless = !may_have_body || head.status < 200 || matches!(head.status, 204 | 304);
        let mut answer = Answer { head, body: Vec::new(), trailers: Vec::new(), whole: true };
        if bodiless {
            return answer;
        }
        if answer.get("transfer-encoding") == Some("chunked") {
            loop {
                match self.chunk().await {
                    Some(data) if data.is_empty() => break,
                    Some(data) => answer.body.extend(data),
                    None => {
                        answer.whole = false;
                        return answer;
                    }
                }
            }
            match self.fields().await {
                Some(trailers) => answer.trailers = trailers,
                None => answer.whole = false,
            }
        } else if let Some(length) = answer.get("content-length") {
            let length: usize = length.parse().unwrap();
            answer.whole = self.fill(length).await;
            let take = length.min(self.buffer.len());
            answer.body = self.buffer.drain(..take).collect();
        } else {
            while self.more().await {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    pub(crate) async fn head(&mut self) -> Head {
        let line = self.line().await.expect("a status line");
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        Head { status, headers: self.fields().await.expect("a whole head") }
    }

    /// One chunk of a chunked body: empty for the last; `None` when the connection ended before it was whole.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await?;
        let length = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
        if length == 0 {
            return Some(Vec::new());
        }
        if !self.fill(length + 2).await {
            return None;
        }
        let data = self.buffer.drain(..length).collect();
        assert_eq!(self.buffer.drain(..2).collect::<Vec<_>>(), b"\r\n");
        Some(data)
    }

    /// Whether the connection ends without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// Exactly so many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        assert!(self.fill(length).await, "the connection ended");
        self.buffer.drain(..length).collect()
    }

    /// What comes next, however much it is.
    pub(crate) async fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.more().await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Everything until the connection ends, and whether it ended in order: an error is no end.
    pub(crate) async fn rest_and_how(&mut self) -> (Vec<u8>, bool) {
        let mut rest = std::mem::take(&mut self.buffer);
        let ended = timeout(STUCK, self.stream.read_to_end(&mut rest)).await.expect("an end in time");
        (rest, ended.is_ok())
    }

    /// Header fields up to the empty line; `None` when the connection ended before.
    pub(crate) async fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':').unwrap();
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.buffer.len() < length {
            if !self.more().await {
                return false;
            }
        }
        true
    }

    /// Reads what is there; `false` when the connection ended, in order or not.
    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        let read = timeout(STUCK, self.stream.read(&mut chunk)).await.expect("an answer in time").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }
}
