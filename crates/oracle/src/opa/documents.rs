//! Documents of every spelling: what OPA makes of them.

use std::collections::BTreeMap;

use caracal_policy::{Bundle, Document, ParsedDocument, Root, TEMPLATES};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::program::{Opa, OpaFailed};
use crate::chance::Chance;
use crate::literal::same_json;
use crate::run::case_of;

/// A document and what OPA makes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentVector {
    /// Where it comes from.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether `opa check` takes it.
    pub taken: bool,
    /// Root → value as JSON, sets as arrays; `None` if it is not taken or its evaluation fails.
    pub roots: Option<Value>,
}

/// What the published builders write (policy.md §12.2): one line of JSON for each root.
const BUILT: [(&str, &str); 3] = [
    (
        "built, one grant",
        "app_ids := {\"app-1\":\"app-1\"}\ngrants := {\"resource://n\":{\"application\":\"app-1\",\"roles\":{\"app-1\":[\"n:read\"]}}}\n",
    ),
    ("built, no grants", "app_ids := {}\ngrants := {}\n"),
    (
        "built, two applications",
        "app_ids := {\"app-1\":\"app-1\",\"app-2\":\"app-2\"}\ngrants := {\"resource://m\":{\"application\":\"app-2\",\"roles\":{\"app-2\":[\"m:read\",\"m:write\"]}},\"resource://n\":{\"application\":\"app-1\",\"roles\":{\"app-1\":[\"n:read\"],\"auditor\":[\"n:read\"]}}}\n",
    ),
];

/// Values and rules whose spelling is a corner of the language. Some are no Rego at all.
const SPELT: [&str; 91] = [
    "restrict := {}",
    "restrict := { }",
    "restrict := set()",
    "restrict := set( )",
    "restrict := {1}",
    "restrict := {1,}",
    "restrict := [1,]",
    "restrict := [,]",
    "restrict := [1,,2]",
    "restrict := [1 2]",
    "restrict := [\n1\n,\n2\n]",
    "restrict := [ # ]\n1 # ,\n]",
    "restrict := {\"a\": 1, \"a\": 2}",
    "restrict := {\"a\": 1, \"a\": 1}",
    "restrict := {1, 1.0, 1e0}",
    "restrict := {1: \"a\", \"1\": \"b\"}",
    "restrict := {[1]: \"a\", {2}: \"b\", {\"c\": 3}: \"d\", null: 1, true: 2}",
    "restrict := {\"a\", \"b\": 1}",
    "restrict := {\"a\": 1, \"b\"}",
    "restrict := [0, -0, 1, -1, 10, 0.5, -0.5, 1e3, 1E3, 1e+3, 1e-3, 1.5e2]",
    "restrict := [01]",
    "restrict := [1.]",
    "restrict := [.5]",
    "restrict := [+1]",
    "restrict := [- 1]",
    "restrict := [1e]",
    "restrict := [0x10]",
    "restrict := [1_000]",
    "restrict := [9007199254740993, 18446744073709551615, 18446744073709551616]",
    "restrict := [123456789012345678901234567890]",
    "restrict := [\"\\u00e9\\n\\t\\\"\\\\\\/\\b\\f\\r\"]",
    "restrict := [\"\\ud83d\\ude00\"]",
    "restrict := [\"\\ud800\"]",
    "restrict := [\"\\x\"]",
    "restrict := [\"\\u12\"]",
    "restrict := [\"a\tb\"]",
    "restrict := [\"a\u{7f}b\"]",
    "restrict := [\"é 😀 \u{200b}\"]",
    "restrict := [`a\\n\"b`]",
    "restrict := [`a\nb`]",
    "restrict := [``]",
    "restrict := [`a]",
    "restrict := [\"a]",
    "restrict := null",
    "restrict := true",
    "restrict := \"x\"",
    "restrict := 5",
    "restrict := x",
    "restrict := nul",
    "restrict := [nulll]",
    "restrict := [True]",
    "restrict = [1]",
    "restrict == [1]",
    "restrict=[1]",
    "restrict:=[1]",
    "restrict :=\n[1]",
    "restrict\n:= [1]",
    "restrict := [1] risk := []",
    "restrict := [1]; risk := []",
    "restrict := [1];",
    "restrict := {1}\n{ false }",
    "restrict := {1}\n- {1}",
    "restrict := {1}\n.a",
    "restrict := {1}\n[0]",
    "restrict := {1}[1]",
    "restrict := [1]\n\n\n\nrisk := []",
    "  restrict := [1]",
    "\trestrict := [1]",
    "default restrict := []",
    "default restrict = []",
    "default restrict := [1]\nrestrict := [2]",
    "default restrict := []\ndefault restrict := []",
    "default restrict contains 1",
    "restrict contains 1",
    "restrict contains \"a\"\nrestrict contains \"b\"\nrestrict contains \"a\"",
    "restrict contains [1, {2}]",
    "app_ids[\"a\"] := \"b\"",
    "app_ids[\"a\"] := \"b\"\napp_ids[\"a\"] := \"b\"",
    "app_ids[\"a\"] := \"b\"\napp_ids[\"a\"] := \"c\"",
    "app_ids[1] := \"b\"",
    "app_ids.a := \"b\"",
    "app_ids.a = \"b\"\napp_ids[\"c\"] := \"d\"",
    "grants[\"r\"] := {\"application\": \"a\", \"roles\": {\"x\": {\"s\"}}}",
    "grants.a.b := 1",
    "app_ids := {\"a\": \"b\"}\napp_ids[\"c\"] := \"d\"",
    "restrict := []\nrestrict contains 1",
    "restrict := [1]\nrestrict := [1]",
    "restrict := [1]\nrestrict := [2]",
    "restrict := [1]\nrestrict := [1.0]",
    "restrict(x) := [1]",
    "risk := [{\"scope\": \"a\", \"tier\": \"b\", \"more\": {\"deep\": [[[[]]]]}}]",
];

/// Heads that a document may open with. Without an import it is version 0 of the language.
const HEADS: [&str; 6] = [
    "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n",
    "# caracal:data-document\npackage caracal.authz\n",
    "\u{feff}# caracal:data-document\r\npackage caracal.authz\r\nimport rego.v1\r\n",
    "# caracal:data-document\npackage caracal.authz # here\nimport future.keywords.contains\nimport future.keywords.if # too\n",
    "# caracal:data-document\n\n  package   caracal.authz\nimport future.keywords",
    "# caracal:data-document\npackage caracal.authz\nimport rego.v1\nimport future.keywords\n",
];

/// Every document that OPA is asked about, by name. `bent`: so many texts with one character changed.
fn texts(bent: usize) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for template in TEMPLATES {
        texts.push((format!("template {}", template.id), template.content.to_owned()));
    }
    for (name, rules) in BUILT {
        texts.push((name.to_owned(), format!("{}{rules}", HEADS[0])));
    }
    for (at, rules) in SPELT.iter().enumerate() {
        texts.push((format!("spelling {at}"), format!("{}{rules}\n", HEADS[0])));
    }
    for (at, head) in HEADS.iter().enumerate() {
        texts.push((format!("head {at}"), format!("{head}\nrestrict := [1]\n")));
        texts.push((format!("head {at}, a set in parts"), format!("{head}\nrestrict contains 1\n")));
    }
    for zone in 0..40 {
        if let Some(case) = case_of(SEED, zone, 0) {
            texts.extend(case.documents.into_iter().map(|(name, text)| (format!("zone {zone}, {name}"), text)));
        }
    }
    let whole = texts.len();
    let mut chance = Chance::of(SEED, u64::MAX);
    for number in 0..bent {
        let (name, text) = texts[chance.below(whole)].clone();
        texts.push((format!("{name}, bent {number}"), bend(&mut chance, &text)));
    }
    texts
}

const SEED: u64 = 4;

/// The text with one character left out, doubled, exchanged with its neighbour or replaced.
fn bend(chance: &mut Chance, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    // What comes first in most documents is not what is of interest.
    let start = text.chars().count().min(60);
    let at = start + chance.below(characters.len().saturating_sub(start).max(1));
    let at = at.min(characters.len().saturating_sub(1));
    match chance.below(5) {
        0 => {
            characters.remove(at);
        }
        1 => characters.insert(at, characters[at]),
        2 if at > 0 => characters.swap(at - 1, at),
        3 => characters
            .insert(at, *chance.pick(&[' ', '\n', '\t', '#', ',', ':', '0', '-', '.', '"', '`', ';', '\u{a0}'])),
        _ => characters[at] = *chance.pick(&['{', '}', '[', ']', ',', ':', '"', '=', '1', 'e', '.', '\\', 'é', '\r']),
    }
    characters.into_iter().collect()
}

/// Asks OPA about every document.
pub fn document_vectors(opa: &Opa, bent: usize) -> Result<Vec<DocumentVector>, OpaFailed> {
    let mut vectors = Vec::new();
    for (name, text) in texts(bent) {
        let documents = BTreeMap::from([("document".to_owned(), text.clone())]);
        let taken = opa.takes(&documents)?;
        let roots = if taken { opa.roots(&documents)? } else { None };
        vectors.push(DocumentVector { name, text, taken, roots });
    }
    Ok(vectors)
}

/// Whether what our parser and validator take, OPA takes, and reads as the same values. The first difference is an error.
pub fn check_documents(vectors: &[DocumentVector]) -> Result<Checked, String> {
    let mut checked = Checked::default();
    for DocumentVector { name, text, taken, roots } in vectors {
        let Ok(parsed) = ParsedDocument::parse(text) else { continue };
        checked.parsed += 1;
        let documents = [Document { policy_version_id: "document", content: text }];
        let loaded = Bundle::load(&documents);
        let built = Bundle::build(&documents);
        let told = |what: &str| format!("{name}: {what}\n{text}");
        if built.is_ok() && loaded.is_err() {
            return Err(told("handed in, but not loaded"));
        }
        // Several rules that contradict each other are for the bundle to refuse, not for the parser.
        if loaded.is_err() {
            continue;
        }
        checked.loaded += 1;
        checked.built += u64::from(built.is_ok());
        let Some(roots) = roots.as_ref().filter(|_| *taken) else {
            return Err(told("taken by us and not by OPA"));
        };
        for root in Root::ALL {
            let Some(ours) = parsed.value_of(root) else { continue };
            let ours = serde_json::to_value(ours).map_err(|error| error.to_string())?;
            let stock = roots.get(root.name()).ok_or_else(|| told("OPA knows a root less"))?;
            if !same_json(&ours, stock) {
                return Err(told(&format!("{root} is {stock} to OPA and {ours} to us")));
            }
            checked.values += 1;
        }
    }
    Ok(checked)
}

/// How much of the vectors had something to compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checked {
    /// Documents that our parser reads.
    pub parsed: u64,
    /// Documents that make a bundle.
    pub loaded: u64,
    /// Documents that an author may hand in.
    pub built: u64,
    /// Values of roots that were compared.
    pub values: u64,
}
