//! A bucket of S3 or of a store that speaks its protocol, for objects that are written once (contract:
//! audit-and-streams.md §5.6). Nothing is ever put in another object's place: the store is told so with each object, and
//! refuses.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use caracal_authority::Timestamp;
use caracal_crypto::encoding::hex;
use caracal_custody::BackendError;
use caracal_http::egress::{OperatorClient, SimpleResponse};
use caracal_store::Clock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ring::digest::{SHA256, digest};

use super::aws::{AwsCredentials, AwsKeys, source};
use super::lent::Credential;
use super::sigv4::{self, Scope, Signed};
use super::web::{BackendUrl, Web, secret_header};

const KIND: &str = "s3";
const SERVICE: &str = "s3";
/// For a whole object on a slow line.
const DEADLINE: Duration = Duration::from_secs(300);
/// Says of an object which one it is, whatever its bytes are.
const IDENTITY: &str = "x-amz-meta-caracal-events";
/// Words for keys that are no good any more, while others may be.
const STALE_KEYS: [&str; 3] = ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"];

/// For how long an object is locked, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Whether nobody at all can end it early, the account's owner included.
    pub compliance: bool,
    /// For how long.
    pub lasts: Duration,
}

/// Where the bucket is, and whose keys sign.
#[derive(Clone)]
pub struct BucketSettings {
    /// `AUDIT_EXPORT_S3_BUCKET`.
    pub bucket: String,
    /// `AUDIT_EXPORT_S3_REGION`.
    pub region: String,
    /// `AUDIT_EXPORT_S3_ENDPOINT`; AWS' own without.
    pub endpoint: Option<BackendUrl>,
    /// Whose keys.
    pub credentials: AwsCredentials,
    /// The lock that each object gets.
    pub lock: Option<ObjectLock>,
}

/// Whether a bucket can have that name: no name that can needs any encoding in a URL.
pub fn is_bucket_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    (3..=63).contains(&name.len())
        && name.bytes().all(good)
        && !name.contains("..")
        && ends(name.bytes().next())
        && ends(name.bytes().last())
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is there, now or since before.
    There,
    /// Another one lies under its name.
    Other,
}

/// A bucket.
pub struct Bucket {
    web: Web,
    /// Before the object's name: empty, or the bucket's.
    prefix: String,
    region: String,
    clock: Arc<dyn Clock>,
    keys: Credential<Arc<AwsKeys>>,
    lock: Option<ObjectLock>,
}

struct Question<'q> {
    doing: &'static str,
    method: Method,
    key: &'q str,
    /// Beside those of the signature. Names in lower case.
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Bucket {
    /// With these settings; `None` where region and bucket make no address. Signatures carry the time of `clock`.
    pub fn new(client: OperatorClient, clock: Arc<dyn Clock>, settings: BucketSettings) -> Option<Self> {
        let BucketSettings { bucket, region, endpoint, credentials, lock } = settings;
        let (base, prefix) = match endpoint {
            Some(endpoint) => (endpoint, format!("/{bucket}")),
            None => own(&bucket, &region)?,
        };
        let keys = Credential::new(clock.clone(), source(client.clone(), credentials));
        Some(Self { web: Web::new(KIND, client, base).with_deadline(DEADLINE), prefix, region, clock, keys, lock })
    }

    /// Keeps an object under `key`, unless something lies there. `identity` tells which object it is: one that is there
    /// already and has the same is this one, and so is one without any, which is not ours to judge.
    pub async fn keep(&self, key: &str, identity: &str, bytes: Bytes) -> Result<Kept, BackendError> {
        let mut headers = vec![
            ("content-type", "application/octet-stream".to_owned()),
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", STANDARD.encode(digest(&SHA256, &bytes))),
            ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
            (IDENTITY, identity.to_owned()),
        ];
        if let Some(ObjectLock { compliance, lasts }) = self.lock {
            let mode = if compliance { "COMPLIANCE" } else { "GOVERNANCE" };
            headers.push(("x-amz-object-lock-mode", mode.to_owned()));
            headers.push(("x-amz-object-lock-retain-until-date", self.clock.now().plus(lasts).to_seconds_text()));
        }
        let put = Question { doing: "keep an object", method: Method::PUT, key, headers, body: bytes };
        let answer = self.ask(&put).await?;
        match answer.status {
            status if status.is_success() => Ok(Kept::There),
            StatusCode::PRECONDITION_FAILED => self.compare(key, identity).await,
            _ => Err(self.refused(put.doing, &answer)),
        }
    }

    /// What lies under `key` already. Who may write here may often not look; then the name says enough.
    async fn compare(&self, key: &str, identity: &str) -> Result<Kept, BackendError> {
        let doing = "say what it has";
        let look = Question { doing, method: Method::HEAD, key, headers: Vec::new(), body: Bytes::new() };
        let answer = self.ask(&look).await?;
        match answer.status {
            StatusCode::OK => {
                let said = answer.headers.get(IDENTITY).map(HeaderValue::as_bytes);
                Ok(if said.is_none_or(|said| said == identity.as_bytes()) { Kept::There } else { Kept::Other })
            }
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                tracing::warn!(key, "an object lies there already, and whether it is the same may not be looked at");
                Ok(Kept::There)
            }
            _ => Err(self.refused(doing, &answer)),
        }
    }

    /// Asks. Keys that have run out meanwhile are replaced once.
    async fn ask(&self, question: &Question<'_>) -> Result<SimpleResponse, BackendError> {
        let mut is_second = false;
        loop {
            let keys = self.keys.get().await?;
            let headers = self.signed(question, &keys.value)?;
            let path = format!("{}/{}", self.prefix, question.key);
            let Question { doing, method, body, .. } = question;
            let answer = self.web.ask(doing, method.clone(), &path, headers, body.clone()).await?;
            let is_stale = word(&answer).is_some_and(|word| STALE_KEYS.contains(&word.as_str()));
            if !is_stale || is_second || keys.expires_at.is_none() {
                return Ok(answer);
            }
            self.keys.forget(&keys);
            is_second = true;
        }
    }

    fn signed(&self, question: &Question<'_>, keys: &AwsKeys) -> Result<HeaderMap, BackendError> {
        let at: Timestamp = self.clock.now();
        let (date, content) = (sigv4::date(at), hex(digest(&SHA256, &question.body).as_ref()));
        let mut fields: Vec<(&str, &str)> =
            question.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("host", self.web.base.authority()), ("x-amz-content-sha256", &content), ("x-amz-date", &date)]);
        if let Some(session) = &keys.session {
            fields.push(("x-amz-security-token", session.expose()));
        }
        fields.sort_unstable();
        let path = format!("{}{}/{}", self.web.base.path(), self.prefix, question.key);
        let method = question.method.as_str();
        let signed = Signed { method, path: &path, query: "", headers: &fields, body: &question.body };
        let scope = Scope { region: &self.region, service: SERVICE, at };
        let authorization = sigv4::authorization(&keys.id, &keys.secret, &signed, &scope);
        let mut headers = match &keys.session {
            Some(session) => secret_header(HeaderName::from_static("x-amz-security-token"), "", session),
            None => HeaderMap::new(),
        };
        let own = [("x-amz-content-sha256", content), ("x-amz-date", date), ("authorization", authorization)];
        for (name, value) in question.headers.iter().cloned().chain(own) {
            let value = HeaderValue::from_str(&value);
            let value = value.map_err(|_| self.web.failed(question.doing, "a header can't be sent"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }

    fn refused(&self, doing: &'static str, answer: &SimpleResponse) -> BackendError {
        let word = word(answer).map(|word| format!(" ({word})")).unwrap_or_default();
        self.web.failed(doing, format!("status {}{word}", answer.status.as_u16()))
    }
}

/// AWS' own address of a bucket. A name with dots in it has no certificate there, so that it stands in the path.
fn own(bucket: &str, region: &str) -> Option<(BackendUrl, String)> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || region.len() > 32 || !region.bytes().all(good) || !is_bucket_name(bucket) {
        return None;
    }
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let (host, prefix) = if bucket.contains('.') {
        (format!("s3.{region}.{domain}"), format!("/{bucket}"))
    } else {
        (format!("{bucket}.s3.{region}.{domain}"), String::new())
    };
    Some((BackendUrl::parse(&format!("https://{host}")).ok()?, prefix))
}

/// The word for an error in an answer, which is XML: letters, never more than a few.
fn word(answer: &SimpleResponse) -> Option<String> {
    if answer.status.is_success() {
        return None;
    }
    let text = std::str::from_utf8(&answer.body).ok()?;
    let (_, behind) = text.split_once("<Code>")?;
    let (code, _) = behind.split_once("</Code>")?;
    let good = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lies_at_its_own_host_unless_its_name_has_dots() {
        let at = |bucket, region| own(bucket, region).map(|(base, prefix)| format!("{}{prefix}", base.as_str()));
        for (bucket, region, address) in [
            ("evidence", "eu-central-1", Some("https://evidence.s3.eu-central-1.amazonaws.com")),
            ("my.evidence", "us-east-1", Some("https://s3.us-east-1.amazonaws.com/my.evidence")),
            ("evidence", "cn-north-1", Some("https://evidence.s3.cn-north-1.amazonaws.com.cn")),
            ("evidence", "a.b", None),
            ("evidence", "", None),
            ("Evidence", "us-east-1", None),
            ("ev/idence", "us-east-1", None),
            ("ev", "us-east-1", None),
            ("-evidence", "us-east-1", None),
            ("evi..dence", "us-east-1", None),
        ] {
            assert_eq!(at(bucket, region).as_deref(), address, "{bucket} {region}");
        }
    }
}
