//! Proof that a caller may act for a user (contract: coordinator.md W1, README D13).
//!
//! An application that anchors a session to a user's record speaks for that user, and ends the record when it ends the
//! session. So naming the record is not enough: whoever logged the user in holds the mandate that was minted with the
//! record, and shows it.

use axum::http::StatusCode;
use caracal_authority::mandate::{Expected, MAX_TOKEN_BYTES, Use};
use caracal_authority::record::SubjectKind;
use caracal_authority::{AuthorityRecordId, Timestamp, ZoneId};
use caracal_custody::mandate::{VerifyError, verify};
use caracal_custody::{CustodyError, VerificationKeys};
use caracal_http::Problem;

use crate::wire::refusal;

/// What the caller showed, judged before the transaction that needs it.
#[derive(Debug, Clone)]
pub(crate) enum SubjectProof {
    /// Nothing.
    None,
    /// Control of this user's record, for this application, in this zone.
    Of(AuthorityRecordId),
    /// Something else.
    Failed(ProofFault),
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofFault {
    /// A user's own mandate, but relayed by another application.
    #[error("the subject token was minted for another application")]
    OtherApplication,
    /// No mandate of a user, or not the one of this record, or none at all.
    #[error("the subject token does not prove control of the authority record")]
    Invalid,
}

impl From<ProofFault> for Problem {
    fn from(fault: ProofFault) -> Self {
        let answer = match fault {
            ProofFault::OtherApplication => refusal(StatusCode::FORBIDDEN, "subject_proof_application_mismatch"),
            ProofFault::Invalid => refusal(StatusCode::UNAUTHORIZED, "invalid_subject_proof"),
        };
        answer.describe(fault.to_string())
    }
}

impl SubjectProof {
    /// Judges `token` as proof of control of `anchor` for `application`. An outage of the keys is no verdict.
    pub(crate) async fn judge(
        keys: &dyn VerificationKeys,
        issuer: &str,
        zone: &ZoneId,
        token: Option<&str>,
        application: &str,
        anchor: &AuthorityRecordId,
        now: Timestamp,
    ) -> Result<Self, CustodyError> {
        let Some(token) = token else { return Ok(Self::None) };
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(Self::Failed(ProofFault::Invalid));
        }
        let signed = match verify(keys, token).await {
            Ok(signed) => signed,
            Err(VerifyError::Unavailable(cause)) => return Err(cause),
            Err(_) => return Ok(Self::Failed(ProofFault::Invalid)),
        };
        let expected = Expected { issuer, audience: issuer, zone, r#use: Use::Session };
        let Ok(claims) = signed.accept(&expected, now) else { return Ok(Self::Failed(ProofFault::Invalid)) };
        if claims.client.as_str() != application {
            return Ok(Self::Failed(ProofFault::OtherApplication));
        }
        // A mandate that carries scopes, resources, a session or a delegation was handed out to do something with, and
        // may have been shown to others; only the bare one of the login stays with whoever logged the user in.
        let bare = claims.scope.is_empty()
            && claims.target.is_empty()
            && claims.path.is_empty()
            && claims.chain.is_empty()
            && claims.session.is_none()
            && claims.delegation.is_none()
            && claims.source_session.is_none()
            && claims.target_session.is_none();
        let own = claims.kind == SubjectKind::User
            && claims.record.as_ref() == Some(anchor)
            && claims.root_record.as_ref() == Some(anchor);
        Ok(if bare && own { Self::Of(anchor.clone()) } else { Self::Failed(ProofFault::Invalid) })
    }

    /// Whether it proves control of `anchor`.
    pub(crate) fn check(&self, anchor: &AuthorityRecordId) -> Result<(), ProofFault> {
        match self {
            Self::Of(proven) if proven == anchor => Ok(()),
            Self::Of(_) | Self::None => Err(ProofFault::Invalid),
            Self::Failed(fault) => Err(*fault),
        }
    }
}
