//! Where evidence is exported to (contract: audit-and-streams.md §5.6, §10).

use std::path::PathBuf;
use std::time::Duration;

use caracal_broker::backends::{BackendUrl, BucketSettings, ObjectLock, is_bucket_name};

use super::clouds::aws_credentials;
use super::variables::Reader;

const BUCKET: &str = "AUDIT_EXPORT_S3_BUCKET";
const ENDPOINT: &str = "AUDIT_EXPORT_S3_ENDPOINT";
const DIRECTORY: &str = "AUDIT_EXPORT_DIR";
const LOCK_MODE: &str = "AUDIT_EXPORT_LOCK_MODE";
const LOCK_DAYS: &str = "AUDIT_EXPORT_LOCK_DAYS";

/// Where evidence is exported to.
#[derive(Clone)]
pub enum ExportSettings {
    /// Nowhere.
    Off,
    /// Below a directory.
    Directory(PathBuf),
    /// Into a bucket.
    Bucket(BucketSettings),
}

impl std::fmt::Debug for ExportSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Directory(_) => "directory",
            Self::Bucket(_) => "bucket",
        })
    }
}

impl ExportSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        match (reader.text(BUCKET), reader.text(DIRECTORY)) {
            (Some(_), Some(_)) => {
                reader.mistake(DIRECTORY, format!("evidence is exported to one place; {BUCKET} names one already"));
                Self::Off
            }
            (Some(bucket), None) => Self::bucket(reader, bucket).map_or(Self::Off, Self::Bucket),
            (None, directory) => {
                let of_bucket = [ENDPOINT, LOCK_MODE, LOCK_DAYS];
                for name in of_bucket.into_iter().filter(|name| reader.text(name).is_some()).collect::<Vec<_>>() {
                    // Somebody believes that evidence is locked away, and it would not be.
                    reader.mistake(name, format!("has no effect without {BUCKET}"));
                }
                directory.map_or(Self::Off, |directory| Self::Directory(directory.into()))
            }
        }
    }

    fn bucket(reader: &mut Reader<'_>, bucket: String) -> Option<BucketSettings> {
        if !is_bucket_name(&bucket) {
            reader.mistake(BUCKET, format!("`{bucket}` is no name of a bucket"));
        }
        let region = reader.text("AUDIT_EXPORT_S3_REGION").unwrap_or_else(|| "us-east-1".to_owned());
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.len() > 32 || !region.bytes().all(good) {
            reader.mistake("AUDIT_EXPORT_S3_REGION", format!("`{region}` is no region, such as eu-central-1"));
        }
        let endpoint = reader.text(ENDPOINT).map(|text| BackendUrl::parse(&text));
        let endpoint = match endpoint.transpose() {
            Ok(endpoint) => endpoint,
            Err(error) => {
                reader.mistake(ENDPOINT, error.to_string());
                None
            }
        };
        let lock = lock(reader);
        let credentials = aws_credentials(reader)?;
        Some(BucketSettings { bucket, region, endpoint, credentials, lock })
    }
}

/// A mode and a time, or neither.
fn lock(reader: &mut Reader<'_>) -> Option<ObjectLock> {
    let Some(mode) = reader.text(LOCK_MODE) else {
        if reader.text(LOCK_DAYS).is_some() {
            reader.mistake(LOCK_MODE, format!("is needed with {LOCK_DAYS}: governance or compliance"));
        }
        return None;
    };
    let compliance = match mode.trim().to_ascii_lowercase().as_str() {
        "compliance" => true,
        "governance" => false,
        _ => {
            reader.mistake(LOCK_MODE, format!("`{mode}` is neither governance nor compliance"));
            return None;
        }
    };
    if reader.text(LOCK_DAYS).is_none() {
        reader.mistake(LOCK_DAYS, format!("is needed with {LOCK_MODE}"));
    }
    let days = reader.number::<u32>(LOCK_DAYS, 1, 1);
    Some(ObjectLock { compliance, lasts: Duration::from_secs(86_400).saturating_mul(days) })
}
