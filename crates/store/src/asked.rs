//! Conditions of a listing that its caller may leave out. Only what is asked for is in the statement: a condition that admits
//! everything when nothing is bound hides from the engine which of its indexes finds the rest.

use crate::value::Param;

/// The conditions so far, and what is bound to them.
pub(crate) struct Asked<'a> {
    conditions: String,
    params: Vec<Param<'a>>,
}

impl<'a> Asked<'a> {
    /// None yet; `params` are bound from ?1 on.
    pub(crate) fn beside(params: &[Param<'a>]) -> Self {
        Self { conditions: String::new(), params: params.to_vec() }
    }

    /// Adds `condition`, where `{}` stands for `value`, when there is one.
    pub(crate) fn and(&mut self, condition: &str, value: Param<'a>) {
        if matches!(value, Param::Null) {
            return;
        }
        self.params.push(value);
        let place = format!("?{}", self.params.len());
        self.conditions.push_str(" AND ");
        self.conditions.push_str(&condition.replace("{}", &place));
    }

    /// ` AND …` for each condition.
    pub(crate) fn conditions(&self) -> &str {
        &self.conditions
    }

    /// What is bound, in order.
    pub(crate) fn params(&self) -> &[Param<'a>] {
        &self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_said_and_bound() {
        let mut asked = Asked::beside(&[Param::Text("z")]);
        asked.and("a = {}", Param::Null);
        asked.and("(b = {} OR c = {})", Param::Int(1));
        asked.and("d = {}", Param::Text("x"));
        assert_eq!(asked.conditions(), " AND (b = ?2 OR c = ?2) AND d = ?3");
        assert!(matches!(asked.params(), [Param::Text("z"), Param::Int(1), Param::Text("x")]));
    }
}
