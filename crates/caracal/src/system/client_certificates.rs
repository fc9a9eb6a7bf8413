//! Certificates that upstreams are called with: the file that `UPSTREAM_CLIENT_CERTS_FILE` names (`docs/gateway.md`).

use std::fs;
use std::path::{Path, PathBuf};

use caracal_authority::ZoneId;
use caracal_crypto::Secret;
use caracal_gateway::ClientCertificate;
use caracal_http::egress::{ClientIdentity, Host};
use serde::Deserialize;

use super::StartError;

/// An entry as written. A member that nobody knows may be a misspelt restriction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hosts: Vec<String>,
    zones: Vec<String>,
    certificate_file: PathBuf,
    key_file: PathBuf,
}

/// Reads the file and all that it names, or says what is wrong with the first entry that can't be used.
pub(super) fn read(file: &Path) -> Result<Vec<ClientCertificate>, StartError> {
    let mistake = |what: String| StartError::Setting(format!("UPSTREAM_CLIENT_CERTS_FILE: {}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| mistake(error.to_string()))?;
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| mistake(error.to_string()))?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut certificates: Vec<ClientCertificate> = Vec::with_capacity(entries.len());
    for (n, entry) in entries.iter().enumerate() {
        let certificate = certificate(directory, entry).map_err(|what| mistake(format!("entry {}: {what}", n + 1)))?;
        let both = |other: &ClientCertificate| {
            let host = other.hosts.iter().find(|host| certificate.hosts.contains(host))?;
            let zone = other.zones.iter().find(|zone| certificate.zones.contains(zone))?;
            Some(format!("entry {}: {host} and zone {zone} have a certificate already", n + 1))
        };
        if let Some(what) = certificates.iter().find_map(both) {
            return Err(mistake(what));
        }
        certificates.push(certificate);
    }
    Ok(certificates)
}

fn certificate(directory: &Path, entry: &Entry) -> Result<ClientCertificate, String> {
    if entry.hosts.is_empty() || entry.zones.is_empty() {
        return Err("a certificate belongs to hosts and zones; name at least one of each".to_owned());
    }
    let host = |text: &String| Host::parse(text).map_err(|_| format!("`{text}` is not a host"));
    let zone = |text: &String| ZoneId::parse(text).map_err(|_| format!("`{text}` is not the id of a zone"));
    let read = |file: &Path| {
        let file = directory.join(file);
        fs::read(&file).map(Secret::new).map_err(|error| format!("{}: {error}", file.display()))
    };
    let (chain, key) = (read(&entry.certificate_file)?, read(&entry.key_file)?);
    Ok(ClientCertificate {
        hosts: entry.hosts.iter().map(host).collect::<Result<_, _>>()?,
        zones: entry.zones.iter().map(zone).collect::<Result<_, _>>()?,
        identity: ClientIdentity::from_pem(chain.expose(), key.expose()).map_err(|error| error.to_string())?,
    })
}

#[cfg(test)]
mod t03_gateway_egress {
    use caracal_testkit::client_pair;

    use super::*;

    /// The file with `text`, beside the pair `client.pem` and `client.key`.
    fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let ((chain, key), (_, other)) = (client_pair().unwrap(), client_pair().unwrap());
        for (name, text) in [("client.pem", chain), ("client.key", key), ("other.key", other)] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let file = directory.path().join("certificates.json");
        fs::write(&file, text).unwrap();
        (directory, file)
    }

    fn entry(hosts: &str, zones: &str, certificate: &str, key: &str) -> String {
        format!(r#"{{"hosts":{hosts},"zones":{zones},"certificate_file":"{certificate}","key_file":"{key}"}}"#)
    }

    #[test]
    fn certificates_are_read_beside_their_file_and_for_exact_hosts_and_zones() {
        let one = entry(r#"["API.bank.example"]"#, r#"["z-1","z-2"]"#, "client.pem", "client.key");
        let two = entry(r#"["api.bank.example"]"#, r#"["z-3"]"#, "client.pem", "client.key");
        let (_directory, file) = file_with(&format!("[{one},{two}]"));
        let read = read(&file).unwrap();
        assert_eq!(read[0].hosts, [Host::parse("api.bank.example").unwrap()]);
        assert_eq!(read[0].zones, [ZoneId::parse("z-1").unwrap(), ZoneId::parse("z-2").unwrap()]);
        assert_eq!(read.len(), 2);
        assert!(!format!("{:?}", read[0]).contains("PRIVATE"));
    }

    #[test]
    fn whatever_would_show_a_certificate_to_others_or_to_nobody_is_a_mistake() {
        let (host, zone) = (r#"["h.example"]"#, r#"["z-1"]"#);
        let good = entry(host, zone, "client.pem", "client.key");
        for (text, expected) in [
            ("not json".to_owned(), "expected"),
            (entry("[]", zone, "client.pem", "client.key"), "at least one of each"),
            (entry(host, "[]", "client.pem", "client.key"), "at least one of each"),
            (entry(r#"["h.example:443"]"#, zone, "client.pem", "client.key"), "is not a host"),
            (entry(r#"["*.example"]"#, zone, "client.pem", "client.key"), "is not a host"),
            (entry(host, r#"["a b"]"#, "client.pem", "client.key"), "is not the id of a zone"),
            (entry(host, zone, "none.pem", "client.key"), "none.pem"),
            (entry(host, zone, "client.key", "client.key"), "no certificate"),
            (entry(host, zone, "client.pem", "client.pem"), "no private key"),
            (entry(host, zone, "client.pem", "other.key"), "can't be used with the certificate"),
            (good.replace("hosts", "host"), "unknown field"),
            (format!("{good},{good}"), "have a certificate already"),
        ] {
            let (_directory, file) = file_with(&format!("[{text}]"));
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("UPSTREAM_CLIENT_CERTS_FILE"), "{text}: {error}");
        }
        assert!(read(Path::new("/caracal-no-such-file")).is_err());
    }
}
