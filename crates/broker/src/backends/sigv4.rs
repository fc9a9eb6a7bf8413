//! AWS Signature Version 4: a request signed with a key that is derived for a day, a region and a service.

use caracal_crypto::SecretText;
use caracal_crypto::encoding::hex;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use caracal_authority::Timestamp;

/// What is signed. Path and query are in their canonical form already.
pub(super) struct Signed<'s> {
    pub(super) method: &'s str,
    pub(super) path: &'s str,
    pub(super) query: &'s str,
    /// Names in lower case, sorted; values without white space at their ends. All are signed.
    pub(super) headers: &'s [(&'s str, &'s str)],
    pub(super) body: &'s [u8],
}

/// For what.
pub(super) struct Scope<'s> {
    pub(super) region: &'s str,
    pub(super) service: &'s str,
    pub(super) at: Timestamp,
}

/// `x-amz-date`.
pub(super) fn date(at: Timestamp) -> String {
    at.to_seconds_text().replace(['-', ':'], "")
}

/// The value of `Authorization`.
pub(super) fn authorization(key_id: &str, secret: &SecretText, signed: &Signed<'_>, scope: &Scope<'_>) -> String {
    let date = date(scope.at);
    let day = date.get(..8).unwrap_or_default();
    let place = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let names: Vec<&str> = signed.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let sha256 = |bytes: &[u8]| hex(digest(&SHA256, bytes).as_ref());
    let headers: String = signed.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let Signed { method, path, query, body, .. } = signed;
    let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{}", sha256(body));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{place}\n{}", sha256(canonical.as_bytes()));
    let first = Zeroizing::new(format!("AWS4{}", secret.expose()));
    let mut key = hmac::Key::new(HMAC_SHA256, first.as_bytes());
    for part in [day, scope.region, scope.service, "aws4_request"] {
        key = hmac::Key::new(HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={key_id}/{place}, SignedHeaders={names}, Signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
    const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");
    const HOST: (&str, &str) = ("host", "example.amazonaws.com");

    /// Cases of AWS' own signing test suite, as published with `awslabs/aws-c-auth` (Apache-2.0),
    /// `tests/aws-signing-test-suite/v4`: `get-vanilla`, `post-vanilla`, `post-sts-header-before`,
    /// `get-vanilla-query-order-key-case` and `post-x-www-form-urlencoded`.
    #[test]
    fn requests_are_signed_as_aws_publishes() {
        let form: &[(&str, &str)] = &[
            ("content-length", "13"),
            ("content-type", "application/x-www-form-urlencoded"),
            HOST,
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
            DATE,
        ];
        let with_token: &[(&str, &str)] = &[HOST, DATE, ("x-amz-security-token", TOKEN)];
        for (method, query, headers, body, names, signature) in [
            (
                "GET",
                "",
                &[HOST, DATE][..],
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "POST",
                "",
                &[HOST, DATE],
                "",
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "POST",
                "",
                with_token,
                "",
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "GET",
                "Param1=value1&Param2=value2",
                &[HOST, DATE],
                "",
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "POST",
                "",
                form,
                "Param1=value1",
                "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
                "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            ),
        ] {
            let secret = SecretText::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned());
            let at = Timestamp::parse("2015-08-30T12:36:00Z").unwrap();
            let scope = Scope { region: "us-east-1", service: "service", at };
            let signed = Signed { method, path: "/", query, headers, body: body.as_bytes() };
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(authorization("AKIDEXAMPLE", &secret, &signed, &scope), expected);
        }
    }
}
