//! The contract as Rego text, run by the interpreter of `regorus`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use regorus::{Engine, PolicyLengthConfig, Value as Data};
use serde_json::Value;

/// The decision contract as Rego text, package `caracal.oracle`.
pub const MODULE: &str = include_str!("decision.rego");

/// What the oracle says to one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Row of the ladder, 1 to 15.
    pub row: u8,
    /// The result document (policy.md §4.3).
    pub result: Value,
    /// Why the documents make no bundle if every entry of their grants is there for this input.
    pub barren: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The documents make no bundle (policy.md §2.1, §7.3).
    #[error("the documents make no bundle: {0}")]
    Refused(String),
    /// The evaluation of this input has no answer.
    #[error("the evaluation failed: {0}")]
    Failed(String),
}

/// The contract, parsed once.
#[derive(Clone)]
pub struct Oracle {
    /// Reads documents.
    reader: Engine,
    /// Holds the contract.
    contract: Engine,
}

/// The contract beside the documents of one zone.
pub struct Zone {
    engine: Engine,
}

impl Oracle {
    /// Parses the contract. It fails only if the text of this crate is broken.
    pub fn new() -> Result<Self, NoAnswer> {
        let mut reader = Engine::new();
        // Documents without an import are version 0 (policy.md §2.2), a failing call is undefined (§14.2 row 8), and a
        // document may be one long line (row 9).
        reader.set_rego_v0(true);
        reader.set_strict_builtin_errors(false);
        reader
            .set_policy_length_config(PolicyLengthConfig { max_col: NonZeroU32::MAX, ..PolicyLengthConfig::default() });
        let mut contract = reader.clone();
        contract.add_policy("decision.rego".to_owned(), MODULE.to_owned()).map_err(failed)?;
        Ok(Self { reader, contract })
    }

    /// The zone with its documents evaluated once, into data. Right only for documents that do not look at the input.
    ///
    /// The interpreter has no bound on nesting or recursion: the text must be of our own making.
    pub fn zone(&self, documents: &[(&str, &str)]) -> Result<Zone, NoAnswer> {
        let mut reader = self.reader.clone();
        add(&mut reader, documents)?;
        Zone::of(&self.contract, whole(&mut reader)?)?.unless_refused()
    }

    /// The zone with its documents read, to be evaluated as a whole for every input. Right for all documents.
    pub fn questions(&self, documents: &[(&str, &str)]) -> Result<Questions, NoAnswer> {
        let mut reader = self.reader.clone();
        add(&mut reader, documents)?;
        Ok(Questions { reader, contract: self.contract.clone() })
    }

    /// The zone with its documents as rules beside the contract, evaluated anew for every input.
    pub fn live_zone(&self, documents: &[(&str, &str)]) -> Result<Zone, NoAnswer> {
        let mut engine = self.contract.clone();
        add(&mut engine, documents)?;
        Zone { engine }.unless_refused()
    }
}

/// Documents that are evaluated anew, whole, for every input.
pub struct Questions {
    reader: Engine,
    contract: Engine,
}

impl Questions {
    /// Evaluates the documents for one input, and answers it by what they come to.
    pub fn answer(&mut self, input: &Value) -> Result<Answer, NoAnswer> {
        self.reader.set_input(Data::from(input.clone()));
        let mut zone = Zone::of(&self.contract, whole(&mut self.reader)?)?;
        let barren = zone.reasons("barren")?;
        if zone.reasons("refused")? != barren {
            return Err(NoAnswer::Refused(barren.unwrap_or_else(|| "a shape".to_owned())));
        }
        Ok(Answer { barren, ..zone.answer(input)? })
    }
}

/// All that the documents of a reader come to.
///
/// They are asked for with everything else there is: asked for as a package that lies in several modules, the interpreter
/// takes rules for evaluated that it has not come to, and finds nothing where stock OPA finds their values.
fn whole(reader: &mut Engine) -> Result<Data, NoAnswer> {
    let read = reader.eval_query("data".to_owned(), false).map_err(refused)?;
    let value = read.result.first().and_then(|row| row.expressions.first()).map(|expression| &expression.value);
    let authz = value.map(|data| data[&Data::from("caracal")][&Data::from("authz")].clone());
    Ok(authz.filter(|value| value.as_object().is_ok()).unwrap_or_else(Data::new_object))
}

impl Zone {
    /// The contract over these data.
    fn of(contract: &Engine, authz: Data) -> Result<Self, NoAnswer> {
        let mut engine = contract.clone();
        engine.add_data(object("caracal", object("authz", authz))).map_err(failed)?;
        Ok(Self { engine })
    }

    /// Refuses what a type check would refuse, before anything is decided.
    fn unless_refused(mut self) -> Result<Self, NoAnswer> {
        self.reasons("refused")?.map_or(Ok(self), |shapes| Err(NoAnswer::Refused(shapes)))
    }

    /// The members of a set of reasons, if it has any.
    fn reasons(&mut self, rule: &str) -> Result<Option<String>, NoAnswer> {
        self.engine.set_input_json("{}").map_err(failed)?;
        let shapes = self.engine.eval_rule(format!("data.caracal.oracle.{rule}")).map_err(refused)?;
        Ok(shapes.as_set().map_or(true, |shapes| !shapes.is_empty()).then(|| shapes.to_string()))
    }

    /// Answers one input.
    pub fn answer(&mut self, input: &Value) -> Result<Answer, NoAnswer> {
        self.engine.set_input(Data::from(input.clone()));
        let answer = self.engine.eval_rule("data.caracal.oracle.answer".to_owned()).map_err(failed)?;
        let answer: Value = serde_json::from_str(&answer.to_json_str().map_err(failed)?).map_err(failed)?;
        let row = answer["row"].as_u64().and_then(|row| u8::try_from(row).ok());
        row.map(|row| Answer { row, result: answer["result"].clone(), barren: None })
            .ok_or_else(|| failed("the answer has no row"))
    }
}

fn add(engine: &mut Engine, documents: &[(&str, &str)]) -> Result<(), NoAnswer> {
    for (name, text) in documents {
        engine.add_policy((*name).to_owned(), (*text).to_owned()).map_err(refused)?;
    }
    Ok(())
}

fn object(name: &str, value: Data) -> Data {
    Data::from(BTreeMap::from([(Data::from(name), value)]))
}

fn refused(error: impl ToString) -> NoAnswer {
    NoAnswer::Refused(error.to_string())
}

fn failed(error: impl ToString) -> NoAnswer {
    NoAnswer::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_several_documents_see_each_other_whatever_their_order() {
        let start = "package caracal.authz\n\nimport rego.v1\n\n";
        let risk = r#"risk := [{"scope": "n:pay", "tier": "low"}] if { input.context.requested_scopes[_] == "n:pay" }"#;
        let restrict = "restrict := {null} if { i9 := input.resource.identifier; not data.caracal.authz.grants[i9] }";
        let grants = r#"grants := {"resource://n": {"application": "pay", "roles": {}}}"#;
        for rules in
            [["", restrict, grants], [risk, restrict, grants], [grants, risk, restrict], [grants, restrict, ""]]
        {
            let texts = rules.map(|rule| format!("{start}{rule}\n"));
            let documents: Vec<(&str, &str)> =
                ["pv-0", "pv-1", "pv-2"].into_iter().zip(texts.iter().map(String::as_str)).collect();
            let mut questions = Oracle::new().unwrap().questions(&documents).unwrap();
            // Stock OPA 1.19 has no restriction here.
            let answer = questions.answer(&json!({"resource": {"identifier": "resource://n"}})).unwrap();
            assert_eq!(answer.result["diagnostics"][0]["reason"], "no_rule_matched", "{rules:?}");
        }
    }
}
