//! Requests that wait for a human, and the humans.

use axum::body::Body;
use caracal_authority::ApprovalId;
use caracal_store::approvals::{self, ApprovalRow, Verdict};
use caracal_store::{StoreError, policy_sets};
use http::Request;
use serde_json::{Value, json};

use super::{APP, Answer, Ask, ISSUER, POLICY, START, World, ZONE, zone};

/// Reading the docs is held, for whom `approver` says.
pub(crate) fn held_for(approver: &str) -> String {
    let declaration = json!([{"tier": "reading", "approver": approver}]);
    format!("{POLICY}risk := [{{\"scope\": \"docs:read\", \"tier\": \"reading\"}}]\napproval_tiers := {declaration}\n")
}

/// A person: a subject, the record of a sign-in through `app-docs`, and the mandate of it.
pub(crate) struct Person {
    pub(crate) mandate: String,
}

impl World {
    /// A world in which reading the docs is held for an operator.
    pub(crate) async fn held() -> Self {
        Self::held_by("operator").await
    }

    pub(crate) async fn held_by(approver: &str) -> Self {
        let world = Self::configured(|config| config.waiting.every = std::time::Duration::from_millis(20)).await;
        world.activate(&held_for(approver)).await;
        world.keys.create(&zone()).await.unwrap();
        world
    }

    /// The active set version and its manifest.
    pub(crate) async fn active_version(&self) -> (String, String) {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let active = policy_sets::find_active(&mut snapshot.zone(&zone())).await.unwrap().unwrap();
        (active.version_id.to_string(), active.manifest_sha256)
    }

    /// Lets the hold's time be over, and no other's.
    pub(crate) async fn expire(&self, id: &str) {
        self.tamper(&format!("UPDATE approvals SET expires_at = {}000000 WHERE id = '{id}'", START - 1));
    }

    /// From now on no evidence can be written, so nothing that needs some is committed.
    pub(crate) fn break_evidence(&self) {
        match self.directory.database() {
            Some(database) => database.run(
                "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
                 CREATE TRIGGER broken BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION broken()",
            ).map(drop).unwrap(),
            None => self
                .database()
                .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'broken'); END")
                .unwrap(),
        }
    }

    /// It can be written again.
    pub(crate) fn mend_evidence(&self) {
        match self.directory.database() {
            Some(database) => database.run("DROP TRIGGER broken ON audit_events").map(drop).unwrap(),
            None => self.database().execute_batch("DROP TRIGGER broken").unwrap(),
        }
    }

    /// Whatever id a mandate gets, the record `rec-app` is given it first.
    pub(crate) fn take_every_jti(&self) {
        let takes = "UPDATE authority_records SET jti = NEW.jti WHERE id = 'rec-app'";
        match self.directory.database() {
            Some(database) => database
                .run(&format!(
                    "CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN {takes}; RETURN NEW; END $$;
                     CREATE TRIGGER taken BEFORE INSERT ON authority_records FOR EACH ROW EXECUTE FUNCTION taken()"
                ))
                .map(drop)
                .unwrap(),
            None => self
                .database()
                .execute_batch(&format!("CREATE TRIGGER taken BEFORE INSERT ON authority_records BEGIN {takes}; END"))
                .unwrap(),
        }
    }

    /// A gated mint that is now held: the body it was answered with.
    pub(crate) async fn hold(&self) -> Value {
        let answer = Ask::mint().send(self).await;
        assert_eq!(answer.outcome(), "401 interaction_required");
        answer.json
    }

    /// What the Admin API does for an operator.
    pub(crate) async fn operator_decides(&self, id: &str, approved: bool) -> bool {
        let id = ApprovalId::parse(id).unwrap();
        let verdict = Verdict {
            approved,
            approver: "admin:token-1".to_owned(),
            approver_record: None,
            reason: None,
            message: caracal_crypto::chance::uuid_v4().unwrap().to_string().parse().unwrap(),
        };
        self.change((id, verdict), |tx, (id, verdict)| {
            Box::pin(async move { approvals::decide(tx, id, verdict).await })
        })
        .await
    }

    pub(crate) async fn approval(&self, id: &str) -> Option<ApprovalRow> {
        let mut snapshot = self.store.snapshot().await.unwrap();
        approvals::lookup(&mut snapshot.zone(&zone()), &ApprovalId::parse(id).unwrap()).await.unwrap()
    }

    /// How many holds the zone has.
    pub(crate) async fn approvals(&self) -> i64 {
        let mut snapshot = self.store.snapshot().await.unwrap();
        let counts = approvals::count_by_state(&mut snapshot.zone(&zone())).await.unwrap();
        counts.into_iter().map(|(_, count)| count).sum()
    }

    /// The person `subject`, signed in as the record `record`.
    pub(crate) async fn sign_in(&self, subject: &str, record: &str) -> Person {
        self.add_record(record, |row| {
            row.kind = "user".to_owned();
            row.subject_id = subject.to_owned();
        })
        .await;
        Person { mandate: self.mandate_of(subject, record, |_| {}).await }
    }

    /// A session mandate with whatever is to be different.
    pub(crate) async fn mandate_of(&self, subject: &str, record: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": [ISSUER], "sub": subject, "iat": START, "exp": START + 900,
            "jti": format!("jti-{record}-{subject}"), "zone_id": ZONE, "client_id": APP, "sid": record,
            "root_sid": record, "use": "session", "sub_type": "user",
        });
        change(&mut claims);
        self.sign(&claims).await
    }

    /// Says yes or no to a hold with a mandate.
    pub(crate) async fn say(&self, mandate: &str, id: &str, body: &Value) -> Answer {
        let request = Request::post(format!("/approvals/{id}/decision"))
            .header("authorization", format!("Bearer {mandate}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    /// The state of a hold, as whoever waits for it is told.
    pub(crate) async fn state_of(&self, id: &str) -> String {
        let answer = self.get(&format!("/approvals/{id}")).await;
        assert_eq!(answer.status, 200);
        answer.text("state").to_owned()
    }
}

/// A change of the zone that runs until it is let go, and changes nothing.
pub(crate) struct Held {
    release: std::sync::mpsc::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), StoreError>>,
}

impl Held {
    pub(crate) async fn back(world: &World) -> Self {
        let (release, released) = std::sync::mpsc::channel();
        let (runs, is_run) = std::sync::mpsc::channel();
        let store = world.store.clone();
        let done = tokio::spawn(async move {
            store
                .commit(&zone(), std::sync::Mutex::new((runs, released)), |_, gate| {
                    Box::pin(async move {
                        let gate = gate.lock().unwrap();
                        gate.0.send(()).unwrap();
                        tokio::task::block_in_place(|| gate.1.recv().unwrap());
                        Ok(())
                    })
                })
                .await
        });
        tokio::task::spawn_blocking(move || is_run.recv().unwrap()).await.unwrap();
        Self { release, done }
    }

    pub(crate) async fn let_go(self) {
        self.release.send(()).unwrap();
        self.done.await.unwrap().unwrap();
    }
}
