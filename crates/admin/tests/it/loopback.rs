//! Over a real socket: what a parser makes of a request line must not matter.

use caracal_http::FreshId;
use caracal_http::server::{self, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::world::{BOOTSTRAP, World};

async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_control_plane_target_over_the_wire_no_request_line_skips_the_gates() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let fresh = FreshId::new(|| "fresh".to_owned());
    let router = world.admin.clone().router();
    let serving = tokio::spawn(server::serve(listener, router, fresh, Limits::default(), stopped));

    for (line, expected) in [
        ("GET /v1/zones HTTP/1.1", "401"),
        ("GET http://h/v1/zones HTTP/1.1", "401"),
        ("GET /%761/zones HTTP/1.1", "401"),
        ("GET //v1/zones HTTP/1.1", "401"),
        ("GET /v1/zones/%E0%A4%A HTTP/1.1", "400"),
        ("OPTIONS * HTTP/1.1", "404"),
        ("GET /health HTTP/1.1", "200"),
    ] {
        let answer = exchange(address, &format!("{line}\r\nhost: h\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{line}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("\r\nx-request-id: "), "{line}: {answer}");
    }
    let head = format!("host: h\r\nconnection: close\r\nauthorization: Bearer {BOOTSTRAP}\r\n");
    let listed = exchange(address, &format!("GET /v1/zones HTTP/1.1\r\n{head}\r\n")).await;
    assert!(listed.ends_with("{\"items\":[],\"next_cursor\":null}"), "{listed}");
    let headed = exchange(address, &format!("HEAD /v1/zones HTTP/1.1\r\n{head}\r\n")).await;
    assert!(headed.starts_with("HTTP/1.1 200 ") && headed.ends_with("\r\n\r\n"), "{headed}");

    // What clients without a body send, and a body that only turns out to be too large.
    let bare = format!("POST /v1/zones/z/applications/a/rotate-secret HTTP/1.1\r\n{head}content-length: 0\r\n\r\n");
    assert!(exchange(address, &bare).await.starts_with("HTTP/1.1 404 "));
    let chunk = format!("{:x}\r\n{}\r\n", 600_000, "x".repeat(600_000));
    let kind = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let large = format!("POST /v1/zones HTTP/1.1\r\n{head}{kind}\r\n{chunk}{chunk}0\r\n\r\n");
    assert!(exchange(address, &large).await.starts_with("HTTP/1.1 413 "));

    stop.send_replace(true);
    assert_eq!(serving.await.unwrap(), server::Ended::Drained);
}
