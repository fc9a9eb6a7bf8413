//! Where evidence is exported to.

use super::*;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];
const BUCKET: (&str, &str) = ("AUDIT_EXPORT_S3_BUCKET", "evidence");

fn read(given: &[(&str, &str)]) -> Result<ExportSettings, Vec<String>> {
    let environment: Environment = given.iter().copied().collect();
    let read = Settings::read(&flags("127.0.0.1"), &environment).map(|settings| settings.audit.export);
    read.map_err(|Mistakes(found)| found.into_iter().map(|mistake| mistake.name).collect())
}

#[test]
fn evidence_goes_to_a_bucket_a_directory_or_nowhere() {
    assert!(matches!(read(&[]), Ok(ExportSettings::Off)));
    let Ok(ExportSettings::Directory(path)) = read(&[("AUDIT_EXPORT_DIR", "/srv/evidence")]) else { panic!() };
    assert_eq!(path.to_str(), Some("/srv/evidence"));
    let Ok(ExportSettings::Bucket(bucket)) = read(&[&KEYS[..], &[BUCKET]].concat()) else { panic!() };
    assert_eq!(
        (bucket.bucket.as_str(), bucket.region.as_str(), bucket.endpoint, bucket.lock),
        ("evidence", "us-east-1", None, None)
    );
    let given = [
        &KEYS[..],
        &[
            BUCKET,
            ("AUDIT_EXPORT_S3_REGION", "eu-central-1"),
            ("AUDIT_EXPORT_S3_ENDPOINT", "https://minio:9000/"),
            ("AUDIT_EXPORT_LOCK_MODE", "Compliance"),
            ("AUDIT_EXPORT_LOCK_DAYS", "2"),
        ],
    ]
    .concat();
    let settings = read(&given).unwrap();
    assert_eq!(format!("{settings:?}"), "bucket", "and nothing of what is secret");
    let ExportSettings::Bucket(bucket) = settings else { panic!() };
    let lock = bucket.lock.unwrap();
    assert_eq!((lock.compliance, lock.lasts.as_secs()), (true, 2 * 86_400));
    assert_eq!((bucket.region.as_str(), bucket.endpoint.unwrap().as_str()), ("eu-central-1", "https://minio:9000"));
}

#[test]
fn an_archive_that_would_not_be_what_was_meant_stops_the_start() {
    let of_bucket = |more: &[(&str, &str)]| read(&[&KEYS[..], &[BUCKET], more].concat()).err().unwrap_or_default();
    assert_eq!(of_bucket(&[("AUDIT_EXPORT_DIR", "/srv")]), ["AUDIT_EXPORT_DIR"]);
    assert_eq!(of_bucket(&[("AUDIT_EXPORT_S3_ENDPOINT", "http://minio:9000")]), ["AUDIT_EXPORT_S3_ENDPOINT"]);
    assert_eq!(of_bucket(&[("AUDIT_EXPORT_S3_REGION", "a/b")]), ["AUDIT_EXPORT_S3_REGION"]);
    assert_eq!(
        of_bucket(&[("AUDIT_EXPORT_LOCK_MODE", "hard"), ("AUDIT_EXPORT_LOCK_DAYS", "1")]),
        ["AUDIT_EXPORT_LOCK_MODE"]
    );
    assert_eq!(of_bucket(&[("AUDIT_EXPORT_LOCK_DAYS", "1")]), ["AUDIT_EXPORT_LOCK_MODE"]);
    assert_eq!(of_bucket(&[("AUDIT_EXPORT_LOCK_MODE", "governance")]), ["AUDIT_EXPORT_LOCK_DAYS"]);
    assert_eq!(
        of_bucket(&[("AUDIT_EXPORT_LOCK_MODE", "governance"), ("AUDIT_EXPORT_LOCK_DAYS", "0")]),
        ["AUDIT_EXPORT_LOCK_DAYS"]
    );
    assert_eq!(
        read(&[("AUDIT_EXPORT_S3_BUCKET", "Evidence/x"), KEYS[0], KEYS[1]]).err().unwrap(),
        ["AUDIT_EXPORT_S3_BUCKET"]
    );
    assert_eq!(read(&[BUCKET]).err().unwrap(), ["AWS_ACCESS_KEY_ID"]);
    let alone = read(&[("AUDIT_EXPORT_DIR", "/srv"), ("AUDIT_EXPORT_LOCK_MODE", "governance")]).err().unwrap();
    assert_eq!(alone, ["AUDIT_EXPORT_LOCK_MODE"], "a directory locks nothing");
}
