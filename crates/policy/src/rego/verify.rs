//! A second look at what the engine was given: its own reading of it, all through.
//!
//! It knows nothing of how [`super::walk`] goes, and asks one thing: does any expression name a rule? Names of rules are the
//! six roots; `data` may be followed by `roots` and nothing else.

use anyhow::bail;
use regorus::unstable::{Expr, ExprRef, Literal, Query, Rule, RuleAssign, RuleHead};

use crate::root::Root;

/// Whether a rule calls no rule.
pub(super) fn rule(rule: &Rule) -> anyhow::Result<()> {
    let Rule::Spec { head, bodies, .. } = rule else { bail!(rule.span().error("a default is not evaluated")) };
    match head {
        RuleHead::Compr { refr, assign, .. } => {
            if let Expr::RefBrack { index, .. } = refr.as_ref() {
                expression(index)?;
            }
            given(assign.as_ref())?;
        }
        RuleHead::Set { key, .. } => key.iter().try_for_each(expression)?,
        RuleHead::Func { span, .. } => bail!(span.error("a root is no function")),
    }
    bodies.iter().try_for_each(|body| given(body.assign.as_ref()).and_then(|()| query(&body.query)))
}

fn given(assign: Option<&RuleAssign>) -> anyhow::Result<()> {
    assign.map_or(Ok(()), |assign| expression(&assign.value))
}

fn query(query_: &Query) -> anyhow::Result<()> {
    for statement in &query_.stmts {
        match &statement.literal {
            Literal::SomeVars { vars, .. } => vars.iter().try_for_each(|name| named(name.text()))?,
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().chain([value, collection]).try_for_each(expression)?;
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expression(expr)?,
            Literal::Every { key, value, domain, query: inner, .. } => {
                key.iter().chain([value]).try_for_each(|name| named(name.text()))?;
                expression(domain)?;
                query(inner)?;
            }
        }
        for with in &statement.with_mods {
            expression(&with.refr)?;
            expression(&with.r#as)?;
        }
    }
    Ok(())
}

fn named(name: &str) -> anyhow::Result<()> {
    if name == "data" || Root::named(name).is_some() {
        bail!("`{name}` would be looked for among the rules");
    }
    Ok(())
}

fn expression(expr: &ExprRef) -> anyhow::Result<()> {
    match expr.as_ref() {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            Ok(())
        }
        Expr::Var { span, .. } => named(span.text()),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().try_for_each(expression),
        Expr::Object { fields, .. } => {
            fields.iter().try_for_each(|(_, key, value)| expression(key).and_then(|()| expression(value)))
        }
        Expr::ArrayCompr { term, query: inner, .. } | Expr::SetCompr { term, query: inner, .. } => {
            expression(term)?;
            query(inner)
        }
        Expr::ObjectCompr { key, value, query: inner, .. } => {
            expression(key)?;
            expression(value)?;
            query(inner)
        }
        Expr::Call { fcn, params, .. } => {
            expression(fcn)?;
            params.iter().try_for_each(expression)
        }
        Expr::UnaryExpr { expr, .. } => expression(expr),
        Expr::RefDot { refr, field, .. } => match refr.as_ref() {
            Expr::Var { span, .. } if span.text() == "data" && field.0.text() == "roots" => Ok(()),
            _ => expression(refr),
        },
        Expr::RefBrack { refr, index, .. } => {
            expression(refr)?;
            expression(index)
        }
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            expression(lhs)?;
            expression(rhs)
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).try_for_each(expression)
        }
    }
}
