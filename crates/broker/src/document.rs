//! A provider's secret document, opened (contract: sts.md §10.2).

use std::collections::HashMap;

use caracal_crypto::{SecretBytes, SecretText};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::answer;

/// What is sealed for a provider: texts by name, `client_secret`, `private_key`, `api_key` and the like.
pub struct SecretDocument(HashMap<String, SecretText>);

impl SecretDocument {
    /// The document that was opened; none is empty. `None`: it is no object.
    pub fn read(opened: Option<&SecretBytes>) -> Option<Self> {
        let Some(opened) = opened else { return Some(Self(HashMap::new())) };
        let members = answer::members(opened.expose())?;
        let texts = members.into_iter().filter_map(|(name, value)| match value {
            Value::String(text) if text.is_empty() => {
                drop(Zeroizing::new(text));
                None
            }
            Value::String(text) => Some((name, SecretText::new(text))),
            _ => None,
        });
        Some(Self(texts.collect()))
    }

    /// The text of this name; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&SecretText> {
        self.0.get(name)
    }

    /// Takes it out.
    pub fn take(&mut self, name: &str) -> Option<SecretText> {
        self.0.remove(name)
    }

    /// Everything that is in it, by name, in the order of the names.
    pub(crate) fn sorted(&self) -> Vec<(&str, &SecretText)> {
        let mut members: Vec<_> = self.0.iter().map(|(name, value)| (name.as_str(), value)).collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        members
    }
}
