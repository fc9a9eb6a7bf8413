//! Making a difference small: leave out one thing after another for as long as the two still differ.

use serde_json::Value;

use crate::literal::{Document, Form, Literal, Rule};

/// A question as it was made, before it is spelt.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) documents: Vec<Document>,
    pub(crate) input: Value,
}

/// So many attempts at most; each asks both sides anew.
const ATTEMPTS: usize = 4000;

/// The smallest question found of which `differs` still holds.
pub(crate) fn shrink(mut question: Question, differs: impl Fn(&Question) -> bool) -> Question {
    let mut attempts = 0;
    'smaller: loop {
        for candidate in candidates(&question) {
            attempts += 1;
            if attempts > ATTEMPTS {
                return question;
            }
            if differs(&candidate) {
                question = candidate;
                continue 'smaller;
            }
        }
        return question;
    }
}

fn candidates(question: &Question) -> Vec<Question> {
    let documents = smaller_list(&question.documents, smaller_document)
        .into_iter()
        .map(|documents| Question { documents, input: question.input.clone() });
    let inputs = smaller_json(&question.input)
        .into_iter()
        .map(|input| Question { documents: question.documents.clone(), input });
    documents.chain(inputs).collect()
}

/// The list without one element, then with one element made smaller.
fn smaller_list<T: Clone>(list: &[T], smaller: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let without = (0..list.len()).map(|at| {
        let mut shorter = list.to_vec();
        shorter.remove(at);
        shorter
    });
    let with = list.iter().enumerate().flat_map(|(at, element)| {
        smaller(element).into_iter().map(move |smaller| {
            let mut changed = list.to_vec();
            changed[at] = smaller;
            changed
        })
    });
    without.chain(with).collect()
}

fn smaller_document(document: &Document) -> Vec<Document> {
    let plain = (document.spelling != 0).then(|| Document { spelling: 0, ..document.clone() });
    let rules = smaller_list(&document.rules, smaller_rule);
    plain.into_iter().chain(rules.into_iter().map(|rules| Document { rules, ..document.clone() })).collect()
}

fn smaller_rule(rule: &Rule) -> Vec<Rule> {
    let forms: Vec<Form> = match &rule.form {
        Form::Default(value) => smaller_literal(value).into_iter().map(Form::Default).collect(),
        Form::Complete(value) => smaller_literal(value).into_iter().map(Form::Complete).collect(),
        Form::Element(value) => smaller_literal(value).into_iter().map(Form::Element).collect(),
        Form::Member(key, value) => {
            smaller_literal(value).into_iter().map(|value| Form::Member(key.clone(), value)).collect()
        }
        Form::Program(_) => Vec::new(),
    };
    forms.into_iter().map(|form| Rule { root: rule.root, form }).collect()
}

fn smaller_literal(literal: &Literal) -> Vec<Literal> {
    match literal {
        Literal::Array(elements) => smaller_list(elements, smaller_literal).into_iter().map(Literal::Array).collect(),
        Literal::Set(elements) => smaller_list(elements, smaller_literal).into_iter().map(Literal::Set).collect(),
        Literal::Object(members) => {
            let member = |(key, value): &(Literal, Literal)| {
                smaller_literal(value).into_iter().map(|value| (key.clone(), value)).collect()
            };
            smaller_list(members, member).into_iter().map(Literal::Object).collect()
        }
        _ => Vec::new(),
    }
}

fn smaller_json(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => smaller_list(elements, smaller_json).into_iter().map(Value::Array).collect(),
        Value::Object(members) => {
            let members: Vec<(String, Value)> =
                members.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let member = |(name, value): &(String, Value)| {
                smaller_json(value).into_iter().map(|value| (name.clone(), value)).collect()
            };
            smaller_list(&members, member)
                .into_iter()
                .map(|members| Value::Object(members.into_iter().collect()))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_no_part_in_the_difference_is_left_out() {
        let rule = |root, value| Rule { root, form: Form::Complete(value) };
        let question = Question {
            documents: vec![
                Document { rules: vec![rule("risk", Literal::Array(vec![Literal::Null]))], spelling: 7 },
                Document {
                    rules: vec![rule("restrict", Literal::Array(vec![Literal::Null, Literal::text("x")]))],
                    spelling: 9,
                },
            ],
            input: json!({"a": {"b": [1, 2, 3]}, "c": {}}),
        };
        let small = shrink(question, |question| {
            let texts: String = question.documents.iter().map(Document::spelt).collect();
            let two = question.input["a"]["b"].as_array().is_some_and(|list| list.contains(&json!(2)));
            texts.contains("restrict") && texts.contains("x\"") && two
        });
        assert_eq!(small.documents.len(), 1);
        assert_eq!(small.documents[0].rules, [rule("restrict", Literal::Array(vec![Literal::text("x")]))]);
        assert_eq!(small.input, json!({"a": {"b": [2]}}));
    }
}
