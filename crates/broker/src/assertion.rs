//! Signed statements to a token endpoint: who the client is, or for whom it asks (RFC 7523; contract: sts.md §10.3).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caracal_authority::Timestamp;
use caracal_crypto::{SecretText, chance};
use serde_json::{Map, Value, json};

use crate::error::BrokerError;
use crate::key::{AssertionKey, Certificate};

/// How long a proof of the client may be used.
const CLIENT_SECONDS: i64 = 60;
/// How long an asserted grant may be used.
const GRANT_SECONDS: i64 = 300;

/// Who signs, and by what name the endpoint knows the key.
pub(crate) struct Signer<'s> {
    pub(crate) key: &'s AssertionKey,
    pub(crate) key_id: Option<&'s str>,
    pub(crate) certificate: Option<&'s Certificate>,
}

impl Signer<'_> {
    /// `private_key_jwt`: the client is who it says.
    pub(crate) fn client(&self, client_id: &str, endpoint: &str, now: Timestamp) -> Result<SecretText, BrokerError> {
        let mut header = self.header();
        if let Some(certificate) = self.certificate {
            header.insert("x5t".to_owned(), certificate.sha1.as_str().into());
            header.insert("x5t#S256".to_owned(), certificate.sha256.as_str().into());
        }
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": endpoint,
            "iat": now.as_seconds(),
            "exp": now.as_seconds() + CLIENT_SECONDS,
            "jti": chance::uuid_v4()?.to_string(),
        });
        self.sign(&header, &claims)
    }

    /// The `jwt_bearer` grant: the client asks for somebody.
    pub(crate) fn grant(
        &self,
        issuer: &str,
        subject: &str,
        audience: &str,
        scope: Option<&str>,
        now: Timestamp,
    ) -> Result<SecretText, BrokerError> {
        let mut claims = json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": now.as_seconds(),
            "exp": now.as_seconds() + GRANT_SECONDS,
            "jti": chance::uuid_v4()?.to_string(),
        });
        if let Some(scope) = scope {
            claims["scope"] = scope.into();
        }
        self.sign(&self.header(), &claims)
    }

    pub(crate) fn header(&self) -> Map<String, Value> {
        let mut header = Map::new();
        header.insert("alg".to_owned(), self.key.algorithm().into());
        header.insert("typ".to_owned(), "JWT".into());
        if let Some(key_id) = self.key_id {
            header.insert("kid".to_owned(), key_id.into());
        }
        header
    }

    pub(crate) fn sign(&self, header: &Map<String, Value>, claims: &Value) -> Result<SecretText, BrokerError> {
        let part = |value: String| URL_SAFE_NO_PAD.encode(value);
        let signed = format!("{}.{}", part(Value::from(header.clone()).to_string()), part(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes()).map_err(|_| BrokerError::NotSigned)?;
        Ok(SecretText::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}
