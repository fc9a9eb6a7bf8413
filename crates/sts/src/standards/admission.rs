//! How an application gets in to ask after a mandate or to take one back: by the form rules, the proof, the budget of
//! derivations and the count of wrong secrets of the token route (contract: sts.md §3.1, §3.4, §12).

use axum::body::Body;
use caracal_authority::ZoneId;
use caracal_authority::exchange::Refusal;
use caracal_authority::mandate::{Claims, MAX_TOKEN_BYTES};
use caracal_custody::mandate::{SignedClaims, VerifyError, verify};
use caracal_http::body;
use caracal_http::form::{self, Form, FormError};
use caracal_http::limits::Source;
use caracal_store::applications::{self, Application};
use caracal_store::{StoreError, ZoneRead};
use http::Request;
use zeroize::Zeroizing;

use super::Door;
use super::credentials::ClientCredentials;
use crate::client::{AuthenticatedClient, Credentials, NotAuthenticated};
use crate::facts::live_client;
use crate::guesses::{Guessed, Guesser};
use crate::request::RequestFault;
use crate::wire::Ended;
use crate::{ExchangeError, Sts};

/// An application that proved itself to its zone, and the token it brought.
pub(super) struct Admitted {
    pub(super) client: AuthenticatedClient,
    pub(super) token: Zeroizing<String>,
}

impl Sts {
    /// Lets an application in. Whether it brought a token is looked at last: nobody else is told what is missing.
    pub(super) async fn admit(&self, zone: &str, request: Request<Body>) -> Result<Admitted, Ended> {
        let (client, mut form) = self.admit_client(zone, request).await?;
        let token = form.take("token").filter(|token| !token.trim().is_empty()).ok_or(RequestFault::NoToken)?;
        Ok(Admitted { client, token })
    }

    /// Lets an application in that brings nothing but itself, or whatever else the form has.
    pub(super) async fn admit_client(
        &self,
        zone: &str,
        request: Request<Body>,
    ) -> Result<(AuthenticatedClient, Form), Ended> {
        let source = self.source(&request);
        let (parts, body) = request.into_parts();
        Form::check_head(parts.uri.query(), &parts.headers)?;
        let bytes = body::read(body, form::MAX_BYTES, self.config.body_deadline).await.map_err(FormError::from)?;
        let mut form = Form::parse_fields(&bytes, &[])?;
        Door::Zone(zone).zone(&form)?;
        let presented = ClientCredentials::of_form(&mut form)?.or_by_basic(&parts.headers)?;
        let client = self.proven(zone, presented, source).await?;
        Ok((client, form))
    }

    async fn proven(
        &self,
        zone: &str,
        presented: ClientCredentials,
        source: Option<Source>,
    ) -> Result<AuthenticatedClient, ExchangeError> {
        let application = presented.application.clone().unwrap_or_default();
        let guesser = Guesser { at: Guessed::Secret, application, source };
        self.check_guesses(&guesser).await?;
        let credentials = Credentials {
            zone: Some(zone),
            application: presented.application.as_deref(),
            secret: presented.secret.as_ref().map(|secret| secret.as_str()),
        };
        match AuthenticatedClient::by_secret(&credentials, &self.store, &self.verifier).await {
            Ok(client) => Ok(client),
            Err(NotAuthenticated::Verifier(error)) => Err(error.into()),
            Err(NotAuthenticated::Store(error)) => Err(error.into()),
            // Which zone is the right one is told where mandates are minted, with evidence there. Here it is a wrong
            // guess on the wire, so it has to count like one.
            Err(NotAuthenticated::Unproven | NotAuthenticated::Misplaced { .. } | NotAuthenticated::Zoneless(_)) => {
                self.denials.count("sts", "client_unauthenticated");
                Err(self.guessed_wrong(&guesser).await)
            }
        }
    }

    /// The claims of `token`, if this service signed it for `zone`. Nothing is known of its standing.
    pub(super) async fn issued(
        &self,
        zone: &ZoneId,
        token: &str,
    ) -> Result<Option<(SignedClaims, Claims)>, ExchangeError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(None);
        }
        let signed = match verify(self.keys.as_ref(), token).await {
            Ok(signed) => signed,
            Err(VerifyError::Unavailable(error)) => return Err(error.into()),
            Err(VerifyError::Malformed | VerifyError::UnknownKey | VerifyError::BadSignature) => return Ok(None),
        };
        let claims = signed.claims().ok();
        let claims = claims.filter(|claims| claims.zone == *zone && claims.issuer == self.config.issuer);
        Ok(claims.map(|claims| (signed, claims)))
    }
}

/// The application as it is now, if it is still there, alive, and has the secret that was verified.
pub(super) async fn still_proven(
    tx: &mut ZoneRead<'_>,
    client: &AuthenticatedClient,
) -> Result<Result<Application, Refusal>, StoreError> {
    let row = applications::lookup(tx, client.application()).await?.filter(|row| client.still_holds(row));
    let lives = live_client(tx, row.as_ref()).await?.is_some();
    Ok(row.filter(|_| lives).ok_or(Refusal::ClientUnauthenticated))
}
