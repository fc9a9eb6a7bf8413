//! Applications of a document (contract: control-cli-deploy.md §3.1).
//!
//! One that an import makes has no secret: a secret that nobody has asked for is one that nobody looks after. It gets its
//! first from `rotate-secret`.

use std::collections::BTreeSet;

use caracal_authority::ApplicationId;
use caracal_store::applications::{self, Application};
use caracal_store::{Attribution, ZoneWrite};
use serde_json::{Value, json};

use super::{require_free_name, traits};
use crate::admin::fresh;
use crate::attribution::changed;
use crate::desired_state::{Did, Import, Object, State};
use crate::input::{Fields, Mismatch, Text};
use crate::problem::Refusal;

/// The application as a document has it. Only global tokens see traits.
pub(crate) fn spec(application: &Application, is_global: bool) -> Value {
    let mut spec = json!({"name": application.name});
    if is_global {
        spec["traits"] = json!(application.traits);
    }
    spec
}

/// Makes the application what the document says.
pub(crate) async fn settle(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
) -> Result<(Did, String), Refusal> {
    let hand = &import.hand;
    let (name, wanted) = read(object).map_err(|mismatch| mismatch.refuse("invalid_application"))?;
    if let Some(wanted) = &wanted {
        traits::check(wanted, hand.is_global)?;
    }
    let Some(application) = state.applications.get_mut(&name) else {
        require_free_name(tx, &name, None).await?;
        let application = Application {
            zone_id: tx.zone().clone(),
            id: fresh::<ApplicationId>(tx.now())?,
            name: name.clone(),
            registration_method: "managed".to_owned(),
            traits: wanted.unwrap_or_default(),
            secret_hash: None,
            expires_at: None,
            archived_at: None,
            attribution: Attribution { updated_at: None, ..Attribution::created(&hand.by, tx.now()) },
        };
        applications::add(tx, &application).await?;
        let id = application.id.to_string();
        state.applications.insert(name, application);
        return Ok((Did::Create, id));
    };
    let set = |traits: &[String]| traits.iter().cloned().collect::<BTreeSet<_>>();
    let drift: Vec<&'static str> = match wanted {
        Some(wanted) if set(&wanted) != set(&application.traits) => {
            application.traits = wanted;
            changed(&mut application.attribution, &hand.by, tx.now());
            applications::update(tx, application).await?;
            vec!["traits"]
        }
        _ => Vec::new(),
    };
    Ok((Did::update(drift), application.id.to_string()))
}

fn read(object: &Object) -> Result<(String, Option<Vec<String>>), Mismatch> {
    let mut fields = Fields::of(Some(Value::Object(object.body(&[("name", "name"), ("traits", "traits")]))))?;
    let name = fields.required_text("name", Text::trimmed(1, 200))?;
    Ok((name, fields.texts("traits", (0, usize::MAX), Text::exact(0, usize::MAX))?))
}
