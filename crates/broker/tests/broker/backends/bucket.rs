//! A bucket, by a server that recomputes every signature from the request as it came, and checks what it is told of the
//! content.

use std::time::Duration;

use bytes::Bytes;
use caracal_broker::backends::{AwsCredentials, Bucket, BucketSettings, Kept, ObjectLock};
use ring::digest;

use super::aws::{REGION, is_signed, static_keys};
use super::*;

const KEY: &str = "audit/2026/01/01/2026-01-01T09.parquet";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";
/// What decides must be signed, or somebody else could change it.
const NEEDED: [&str; 3] = ["host", "x-amz-date", "x-amz-content-sha256"];
const NEEDED_OF_PUT: [&str; 4] =
    ["if-none-match", "content-type", "x-amz-sdk-checksum-algorithm", "x-amz-meta-caracal-events"];

fn refused(status: u16, code: &str) -> Reply {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>of {SECRET}</Message></Error>");
    Reply::bytes(status, text)
}

#[derive(Default)]
struct Objects {
    kept: HashMap<String, Received>,
    may_look: bool,
}

impl Objects {
    fn answer(&mut self, request: &Received) -> Reply {
        if !is_signed(request, "AKIDEXAMPLE", SECRET, "s3", &NEEDED) {
            return refused(403, "SignatureDoesNotMatch");
        }
        let sha256 = digest::digest(&digest::SHA256, &request.body);
        if request.header("x-amz-content-sha256") != Some(&caracal_crypto::encoding::hex(sha256.as_ref())) {
            return refused(400, "XAmzContentSHA256Mismatch");
        }
        let there = self.kept.get(request.path());
        match request.method.as_str() {
            "PUT" => {
                if !is_signed(request, "AKIDEXAMPLE", SECRET, "s3", &NEEDED_OF_PUT)
                    || request.header("x-amz-checksum-sha256") != Some(&STANDARD.encode(sha256))
                {
                    return refused(400, "InvalidRequest");
                }
                if there.is_some() && request.header("if-none-match") == Some("*") {
                    return refused(412, "PreconditionFailed");
                }
                self.kept.insert(request.path().to_owned(), request.clone());
                Reply::bytes(200, "")
            }
            "HEAD" if !self.may_look => Reply::bytes(403, ""),
            "HEAD" => match there.map(|kept| kept.header("x-amz-meta-caracal-events")) {
                None => Reply::bytes(404, ""),
                Some(None) => Reply::bytes(200, ""),
                Some(Some(identity)) => Reply::bytes(200, "").with("x-amz-meta-caracal-events", identity),
            },
            _ => refused(405, "MethodNotAllowed"),
        }
    }
}

struct Served {
    server: FakeServer,
    objects: Arc<Mutex<Objects>>,
    time: Time,
}

impl Served {
    async fn new() -> Self {
        let objects = Arc::new(Mutex::new(Objects { may_look: true, ..Objects::default() }));
        let answers = objects.clone();
        let server = FakeServer::https(&[], move |request| answers.lock().unwrap().answer(request));
        Self { server, objects, time: Time::new().await }
    }

    fn bucket(&self, credentials: AwsCredentials, lock: Option<ObjectLock>) -> Bucket {
        let endpoint = BackendUrl::parse(&format!("{}/store/", self.server.url())).unwrap();
        let settings = BucketSettings {
            bucket: "my.evidence".to_owned(),
            region: REGION.to_owned(),
            endpoint: Some(endpoint),
            credentials,
            lock,
        };
        Bucket::new(client(&self.server), self.time.clock.clone(), settings).unwrap()
    }
}

#[tokio::test]
async fn t06_evidence_an_object_is_kept_once_and_locked() {
    let of = Served::new().await;
    let lock = |compliance| Some(ObjectLock { compliance, lasts: Duration::from_secs(10 * 86_400) });
    let bucket = of.bucket(static_keys(SECRET), lock(true));
    assert_eq!(bucket.keep(KEY, "id-1", Bytes::from_static(b"PAR1")).await, Ok(Kept::There));
    assert_eq!(bucket.keep(KEY, "id-1", Bytes::from_static(b"other bytes")).await, Ok(Kept::There), "the same events");
    assert_eq!(bucket.keep(KEY, "id-2", Bytes::from_static(b"PAR1")).await, Ok(Kept::Other));
    let path = format!("/store/my.evidence/{KEY}");
    let kept = of.objects.lock().unwrap().kept[&path].clone();
    assert_eq!(kept.body, b"PAR1");
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-retain-until-date", "2026-01-11T00:00:00Z"),
    ] {
        assert_eq!(kept.header(name), Some(value));
    }
    // An object that says nothing of itself lies there from before; its name says which hour it is of.
    of.objects.lock().unwrap().kept.get_mut(&path).unwrap().headers.clear();
    assert_eq!(bucket.keep(KEY, "id-2", Bytes::new()).await, Ok(Kept::There));
    of.objects.lock().unwrap().may_look = false;
    assert_eq!(bucket.keep(KEY, "id-2", Bytes::new()).await, Ok(Kept::There));

    let bucket = of.bucket(static_keys(SECRET), lock(false));
    assert_eq!(bucket.keep("a", "id", Bytes::new()).await, Ok(Kept::There));
    let mode =
        of.objects.lock().unwrap().kept["/store/my.evidence/a"].header("x-amz-object-lock-mode").map(str::to_owned);
    assert_eq!(mode.as_deref(), Some("GOVERNANCE"));
    let bucket = of.bucket(static_keys(SECRET), None);
    assert_eq!(bucket.keep("b", "id", Bytes::new()).await, Ok(Kept::There));
    let names: Vec<String> =
        of.objects.lock().unwrap().kept["/store/my.evidence/b"].headers.iter().map(|(name, _)| name.clone()).collect();
    assert!(names.iter().all(|name| !name.contains("lock")), "{names:?}");
}

#[tokio::test]
async fn t05_secrets_a_bucket_that_refuses_is_an_error_without_its_words() {
    let of = Served::new().await;
    let refused = of.bucket(static_keys("another"), None).keep(KEY, "id", Bytes::new()).await.unwrap_err().to_string();
    assert!(refused.contains("status 403 (SignatureDoesNotMatch)") && !refused.contains(SECRET), "{refused}");
    assert!(of.objects.lock().unwrap().kept.is_empty());
}
