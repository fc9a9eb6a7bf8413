//! What a caller may present as a bearer.
//!
//! The key is that of RFC 7515, appendix A.3, whose private half nobody here uses. So whatever verifies has to be the
//! token of that appendix, with one of the two equivalent signatures; everything else would be a forgery. And every
//! token that is taken apart is spelt in the one way an encoder would spell it.

use std::sync::LazyLock;

use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_crypto::jws::{PublicKey, UnverifiedToken};

const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.\
                      eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

static KEY: LazyLock<PublicKey> = LazyLock::new(|| {
    let coordinate = |text| from_base64url(text).expect("base64url").try_into().expect("32 bytes");
    PublicKey::from_coordinates(&coordinate(X), &coordinate(Y)).expect("a point of P-256")
});

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = UnverifiedToken::parse(text) else { return };
    let (signed, signature) = text.rsplit_once('.').expect("three parts");
    let (header, payload) = signed.split_once('.').expect("three parts");
    assert_eq!(base64url(&from_base64url(header).expect("was read")), header);
    assert_eq!(base64url(token.payload()), payload);
    let claims: serde_json::Value = serde_json::from_slice(token.payload()).expect("JSON to everybody");
    assert_eq!(claims.as_object(), Some(token.claims()));
    if token.verify(&KEY).is_ok() {
        assert_eq!(token.alg(), Some("ES256"));
        assert_eq!(signed, SIGNED);
        let bytes = from_base64url(signature).expect("verified");
        assert_eq!((bytes.len(), base64url(&bytes).as_str()), (64, signature));
    }
}
