//! A rule's expressions: what they may say, what they read, and how they are handed to the engine.
//!
//! The engine is not given the author's text but one that differs from it in small ways, on the same lines:
//!
//! - Every reference to a root, however it is spelt, becomes one to `data.roots.<root>`, where the root's value is laid as
//!   data before whoever reads it is evaluated. So no rule ever calls a rule: the engine, which ends the whole process
//!   when rules call each other in a circle, has nothing it could recurse into (policy.md §14.2 row 1).
//! - Whatever builds a value out of others is wrapped in `__measured(…)`: a value that holds another twice, doubled a few
//!   dozen times, takes no memory, but comparing it takes forever, and no timer looks into a comparison (row 12).
//! - What `some … in` goes through is wrapped in `__each(…)`: nothing is in null or in a string (row 5).
//! - What `not` negates is computed before it, where the language says so: what is undefined is not a truth (row 4).

use std::collections::{HashMap, HashSet};

use regorus::unstable::{ArithOp, AssignOp, BoolOp, Expr, ExprRef, Literal, LiteralStmt, Query, Span};

use super::builtins::{self, Builtin};
use super::outline::Outline;
use super::{MAX_COMPARED, MAX_STATEMENTS, Reads};
use crate::parse::shortened;
use crate::refusal::{Refusal, RefusalKind};
use crate::root::Root;

/// What an import's name stands for.
pub(super) enum Target {
    Input,
    /// A path in `data`.
    Data(Vec<String>),
}

/// A text with what is known of it.
pub(super) struct Text<'t> {
    pub(super) content: &'t str,
    pub(super) outline: &'t Outline,
    pub(super) imports: &'t HashMap<String, Target>,
}

/// A change of the text.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) with: String,
}

/// `content[start..end]` with its changes, which are in the order of the text.
pub(super) fn render(content: &str, start: usize, end: usize, edits: &mut [Edit]) -> String {
    // Stable: what opens or closes at one place does so in the order it was met.
    edits.sort_by_key(|edit| edit.start);
    let mut out = String::with_capacity(end - start + edits.len() * 16);
    let mut done = start;
    for edit in edits {
        out.push_str(content.get(done..edit.start).unwrap_or_default());
        out.push_str(&edit.with);
        done = edit.end.max(done);
    }
    out.push_str(content.get(done..end).unwrap_or_default());
    out
}

/// One rule's way through.
pub(super) struct Walk<'t> {
    text: &'t Text<'t>,
    pub(super) edits: Vec<Edit>,
    pub(super) reads: Reads,
    /// Local names met.
    pub(super) names: HashSet<String>,
    /// Names that a statement around here binds.
    bound: Vec<HashSet<String>>,
    under_with: usize,
    hoisted: usize,
}

impl<'t> Walk<'t> {
    pub(super) fn new(text: &'t Text<'t>) -> Self {
        Self {
            text,
            edits: Vec::new(),
            reads: Reads::default(),
            names: HashSet::new(),
            bound: Vec::new(),
            under_with: 0,
            hoisted: 0,
        }
    }

    fn refuse<T>(&self, span: &Span, kind: RefusalKind) -> Result<T, Refusal> {
        Err(Refusal { at: self.text.outline.position(self.text.content, span.start as usize), kind })
    }

    fn edit(&mut self, start: usize, end: usize, with: impl Into<String>) {
        self.edits.push(Edit { start, end, with: with.into() });
    }

    /// The bytes of an expression, brackets and quotes included.
    fn range(&self, expr: &ExprRef) -> Result<(usize, usize), Refusal> {
        let span = expr.span();
        let end = self.text.outline.with_quote_behind(span.end as usize);
        let start = match expr.as_ref() {
            Expr::Array { .. }
            | Expr::Set { .. }
            | Expr::Object { .. }
            | Expr::ArrayCompr { .. }
            | Expr::SetCompr { .. }
            | Expr::ObjectCompr { .. } => self.text.outline.opening_of(end),
            _ => Some(self.text.outline.with_quote_before(span.start as usize)),
        };
        match start {
            Some(start) if start < end => Ok((start, end)),
            _ => self.refuse(span, RefusalKind::NotEvaluable("this expression is not understood".into())),
        }
    }

    /// Passes an expression whose value is measured when it is there.
    fn measured(
        &mut self,
        expr: &ExprRef,
        inside: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (start, end) = self.range(expr)?;
        self.edit(start, start, "__measured(");
        inside(self)?;
        self.edit(end, end, ")");
        Ok(())
    }

    /// Any expression. `within` a literal collection, another one is measured with the outer.
    pub(super) fn expression(&mut self, expr: &ExprRef, within: bool) -> Result<(), Refusal> {
        match expr.as_ref() {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Ok(()),
            Expr::Var { span, .. } => self.name(span),
            Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } if within || is_constant(expr) => {
                self.parts(expr)
            }
            Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } => self.measured(expr, |walk| walk.parts(expr)),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.comprehension(expr, &[term], query)
            }
            Expr::ObjectCompr { key, value, query, .. } => self.comprehension(expr, &[key, value], query),
            Expr::Call { span, fcn, params, .. } => {
                let builtin = self.builtin(span, fcn, params)?;
                self.call(expr, fcn, params, builtin)
            }
            Expr::UnaryExpr { expr, .. } => self.expression(expr, false),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::BinExpr { lhs, rhs, .. } | Expr::ArithExpr { op: ArithOp::Mul, lhs, rhs, .. } => {
                self.measured(expr, |walk| {
                    walk.expression(lhs, false)?;
                    walk.expression(rhs, false)
                })
            }
            Expr::BoolExpr { lhs, rhs, .. } | Expr::ArithExpr { lhs, rhs, .. } => {
                self.expression(lhs, false)?;
                self.expression(rhs, false)
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().try_for_each(|key| self.expression(key, false))?;
                self.expression(value, false)?;
                self.expression(collection, false)
            }
            Expr::AssignExpr { span, .. } => self.refuse(span, RefusalKind::NotAssignable),
        }
    }

    fn comprehension(&mut self, expr: &ExprRef, terms: &[&ExprRef], query: &Query) -> Result<(), Refusal> {
        // Its names are its own.
        let names = self.names.clone();
        self.measured(expr, |walk| {
            walk.scope(query);
            terms.iter().try_for_each(|term| walk.expression(term, false))?;
            walk.query_in_scope(query)
        })?;
        self.names = names;
        Ok(())
    }

    fn parts(&mut self, expr: &ExprRef) -> Result<(), Refusal> {
        let compared = match expr.as_ref() {
            Expr::Set { items, .. } => items.iter().filter(|item| !is_constant(item)).count(),
            Expr::Object { fields, .. } => fields.iter().filter(|(_, key, _)| !is_constant(key)).count(),
            _ => 0,
        };
        if compared > MAX_COMPARED {
            return self.refuse(expr.span(), RefusalKind::TooManyCompared);
        }
        match expr.as_ref() {
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().try_for_each(|item| self.expression(item, true))
            }
            Expr::Object { fields, .. } => fields.iter().try_for_each(|(_, key, value)| {
                self.expression(key, true)?;
                self.expression(value, true)
            }),
            _ => Ok(()),
        }
    }

    /// A name that is read.
    fn name(&mut self, span: &Span) -> Result<(), Refusal> {
        let (start, end) = (span.start as usize, span.end as usize);
        match (span.text(), self.text.imports.get(span.text())) {
            (_, Some(Target::Input)) | ("input", _) => {
                self.reads.input = true;
                Ok(())
            }
            (_, Some(Target::Data(path))) => match root_at(path) {
                Some(root) => self.root(root, start, end),
                None => self.refuse(span, RefusalKind::ForeignData),
            },
            ("data", None) => self.refuse(span, RefusalKind::ForeignData),
            (name, None) => match Root::named(name) {
                Some(root) => {
                    self.reads.bare.add(root);
                    self.root(root, start, end)
                }
                None => {
                    self.names.insert(name.to_owned());
                    Ok(())
                }
            },
        }
    }

    /// A reference to a root that stands between two places.
    fn root(&mut self, root: Root, start: usize, end: usize) -> Result<(), Refusal> {
        self.reads.roots.add(root);
        if self.under_with > 0 {
            self.reads.under_with.add(root);
        }
        self.edit(start, end, format!("data.roots.{root}"));
        Ok(())
    }

    /// `base.a["b"][c]`.
    fn reference(&mut self, expr: &ExprRef) -> Result<(), Refusal> {
        let (base, steps) = steps_of(expr);
        let into_data = match base.as_ref() {
            Expr::Var { span, .. } => match (span.text(), self.text.imports.get(span.text())) {
                (_, Some(Target::Data(path))) => Some(path.clone()),
                ("data", None) => Some(Vec::new()),
                _ => None,
            },
            _ => None,
        };
        let mut rest = steps.as_slice();
        match into_data {
            None => self.expression(base, false)?,
            Some(mut path) => {
                let mut end = base.span().end as usize;
                let root = loop {
                    if let Some(root) = root_at(&path) {
                        break root;
                    }
                    let Some((step, behind)) = rest.split_first() else {
                        return self.refuse(base.span(), RefusalKind::ForeignData);
                    };
                    let Some(name) = &step.name else { return self.refuse(base.span(), RefusalKind::ForeignData) };
                    path.push(name.clone());
                    (end, rest) = (step.end, behind);
                };
                self.root(root, base.span().start as usize, end)?;
            }
        }
        rest.iter().filter_map(|step| step.index).try_for_each(|index| self.expression(index, false))
    }

    fn builtin(&self, span: &Span, fcn: &ExprRef, params: &[ExprRef]) -> Result<Option<&'static Builtin>, Refusal> {
        let (base, steps) = steps_of(fcn);
        let path: Option<Vec<&str>> = match base.as_ref() {
            Expr::Var { span, .. } if !self.text.imports.contains_key(span.text()) => {
                let steps = steps.iter().map(|step| step.name.as_deref());
                std::iter::once(Some(span.text())).chain(steps).collect()
            }
            _ => None,
        };
        let name = path.map(|path| path.join(".")).unwrap_or_else(|| fcn.span().text().to_owned());
        if name == "print" {
            return Ok(None);
        }
        let Some(builtin) = builtins::named(&name) else {
            return self.refuse(span, RefusalKind::UnknownFunction(shortened(&name)));
        };
        if params.len() != builtin.arguments {
            let (function, takes, found) = (builtin.name, builtin.arguments, params.len());
            return self.refuse(span, RefusalKind::WrongArguments { function, takes, found });
        }
        for (argument, written) in builtin.written {
            if !params.get(*argument).is_some_and(|param| written.is(param)) {
                let (function, needs) = (builtin.name, written.needs());
                return self.refuse(span, RefusalKind::UnboundedArgument { function, needs });
            }
        }
        Ok(Some(builtin))
    }

    fn call(
        &mut self,
        expr: &ExprRef,
        fcn: &ExprRef,
        params: &[ExprRef],
        builtin: Option<&'static Builtin>,
    ) -> Result<(), Refusal> {
        let through = |walk: &mut Self| {
            if let Some(name) = builtin.and_then(|builtin| builtin.instead) {
                let (start, end) = walk.range(fcn)?;
                walk.edit(start, end, name);
            }
            params.iter().try_for_each(|param| walk.expression(param, false))
        };
        if builtin.is_some_and(|builtin| builtin.grows) { self.measured(expr, through) } else { through(self) }
    }

    /// A body.
    pub(super) fn query(&mut self, query: &Query) -> Result<(), Refusal> {
        self.scope(query);
        self.query_in_scope(query)
    }

    /// Enters a body: what its statements bind is bound in all of it.
    fn scope(&mut self, query: &Query) {
        let mut names = HashSet::new();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeIn { key, value, .. } => {
                    key.iter().for_each(|key| names_of(key, &mut names));
                    names_of(value, &mut names);
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { lhs, .. } = expr.as_ref() {
                        names_of(lhs, &mut names);
                    }
                }
                _ => {}
            }
        }
        self.bound.push(names);
    }

    fn query_in_scope(&mut self, query: &Query) -> Result<(), Refusal> {
        if query.stmts.len() > MAX_STATEMENTS {
            return self.refuse(&query.span, RefusalKind::BodyTooLong);
        }
        query.stmts.iter().try_for_each(|statement| self.statement(statement, query.stmts.len()))?;
        self.bound.pop();
        Ok(())
    }

    fn statement(&mut self, statement: &LiteralStmt, of: usize) -> Result<(), Refusal> {
        for replacement in &statement.with_mods {
            let (base, steps) = steps_of(&replacement.refr);
            let input = matches!(base.as_ref(), Expr::Var { span, .. } if span.text() == "input");
            if !input || steps.iter().any(|step| step.name.is_none()) {
                return self.refuse(&replacement.span, RefusalKind::WithTarget);
            }
        }
        let replaced = !statement.with_mods.is_empty();
        self.under_with += usize::from(replaced);
        match &statement.literal {
            Literal::SomeVars { vars, .. } => vars.iter().try_for_each(|name| self.local(name))?,
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().try_for_each(|key| self.pattern(key))?;
                self.pattern(value)?;
                let (start, end) = self.range(collection)?;
                self.edit(start, start, "__each(");
                self.expression(collection, false)?;
                self.edit(end, end, ")");
            }
            Literal::Expr { expr, .. } => self.top(expr)?,
            Literal::NotExpr { span, .. } if replaced => return self.refuse(span, RefusalKind::Negation),
            Literal::NotExpr { span, expr } => self.negated(span, expr, of)?,
            Literal::Every { key, value, domain, query, .. } => {
                key.iter().try_for_each(|key| self.local(key))?;
                self.local(value)?;
                self.expression(domain, false)?;
                self.scope(query);
                if let Some(bound) = self.bound.last_mut() {
                    bound.extend(key.iter().chain([value]).map(|name| name.text().to_owned()));
                }
                self.query_in_scope(query)?;
            }
        }
        self.under_with -= usize::from(replaced);
        statement.with_mods.iter().try_for_each(|replacement| self.expression(&replacement.r#as, false))
    }

    /// An expression that is a statement: perhaps an assignment.
    fn top(&mut self, expr: &ExprRef) -> Result<(), Refusal> {
        let Expr::AssignExpr { op, lhs, rhs, span, .. } = expr.as_ref() else { return self.expression(expr, false) };
        let is_collection = matches!(lhs.as_ref(), Expr::Array { .. } | Expr::Object { .. } | Expr::Set { .. });
        match op {
            AssignOp::ColEq => self.pattern(lhs)?,
            AssignOp::Eq if is_collection && !is_constant(lhs) => {
                // A side that may be unbound, or a pattern itself, could become a value that nobody measures.
                if matches!(
                    rhs.as_ref(),
                    Expr::Var { .. } | Expr::Array { .. } | Expr::Object { .. } | Expr::Set { .. }
                ) {
                    return self.refuse(span, RefusalKind::UnclearUnification);
                }
                self.pattern(lhs)?;
            }
            AssignOp::Eq => self.expression(lhs, false)?,
        }
        self.expression(rhs, false)
    }

    /// What is assigned to.
    fn pattern(&mut self, expr: &ExprRef) -> Result<(), Refusal> {
        match expr.as_ref() {
            Expr::Var { span, .. } => self.local(span),
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Ok(()),
            Expr::Array { items, .. } => items.iter().try_for_each(|item| self.pattern(item)),
            Expr::Object { fields, .. } => fields.iter().try_for_each(|(_, key, value)| match key.as_ref() {
                Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } => self.pattern(value),
                _ => self.refuse(key.span(), RefusalKind::NotAssignable),
            }),
            other => self.refuse(other.span(), RefusalKind::NotAssignable),
        }
    }

    /// A name that becomes a local one.
    fn local(&mut self, span: &Span) -> Result<(), Refusal> {
        let name = span.text();
        let taken = matches!(name, "input" | "data") || Root::named(name).is_some();
        if taken || self.text.imports.contains_key(name) {
            return self.refuse(span, RefusalKind::HidingName(shortened(name)));
        }
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// `not expr`: whatever the language computes before it negates is assigned in front of it.
    fn negated(&mut self, span: &Span, expr: &ExprRef, of: usize) -> Result<(), Refusal> {
        let mut before = String::new();
        match expr.as_ref() {
            Expr::Var { .. } | Expr::Bool { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.plain(expr)?,
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                for side in [lhs, rhs] {
                    match side.as_ref() {
                        Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.plain(side)?,
                        _ => self.computed(side, &mut before)?,
                    }
                }
            }
            Expr::BoolExpr { lhs, rhs, .. } => {
                self.computed(lhs, &mut before)?;
                self.computed(rhs, &mut before)?;
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().try_for_each(|key| self.computed(key, &mut before))?;
                self.computed(value, &mut before)?;
                self.computed(collection, &mut before)?;
            }
            Expr::Call { span, fcn, params, .. } => {
                // Its result is true or false here, so nothing has to be measured.
                if let Some(name) = self.builtin(span, fcn, params)?.and_then(|builtin| builtin.instead) {
                    let (start, end) = self.range(fcn)?;
                    self.edit(start, end, name);
                }
                params.iter().try_for_each(|param| self.computed(param, &mut before))?;
            }
            _ => return self.refuse(span, RefusalKind::Negation),
        }
        if before.is_empty() {
            return Ok(());
        }
        let start = span.start as usize;
        // A body of one statement may stand without braces, two may not.
        let bare = of == 1 && self.text.content.get(..start).is_some_and(|text| text.trim_end().ends_with("if"));
        if bare {
            before.insert_str(0, "{ ");
            let end = self.text.outline.with_quote_behind(span.end as usize);
            self.edit(end, end, " }");
        }
        // In front of what was just changed.
        self.edits.insert(0, Edit { start, end: start, with: before });
        Ok(())
    }

    /// A name or a reference that is negated as it is.
    fn plain(&mut self, expr: &ExprRef) -> Result<(), Refusal> {
        if !self.is_bound(expr) {
            return self.refuse(expr.span(), RefusalKind::Negation);
        }
        self.expression(expr, false)
    }

    /// A part of what is negated, computed before.
    fn computed(&mut self, expr: &ExprRef, before: &mut String) -> Result<(), Refusal> {
        if is_constant(expr) {
            return Ok(());
        }
        if !self.is_bound(expr) {
            return self.refuse(expr.span(), RefusalKind::Negation);
        }
        let (start, end) = self.range(expr)?;
        let outer = std::mem::take(&mut self.edits);
        self.expression(expr, false)?;
        let mut inner = std::mem::replace(&mut self.edits, outer);
        let name = format!("__n{}", self.hoisted);
        self.hoisted += 1;
        let text = render(self.text.content, start, end, &mut inner);
        // It moves to another line, and lines must stay what they are.
        if text.contains('\n') {
            return self.refuse(expr.span(), RefusalKind::Negation);
        }
        before.push_str(&format!("{name} := {text}; "));
        self.edit(start, end, name);
        Ok(())
    }

    /// Whether an expression only uses what something else binds, so that computing it first can't bind anything.
    fn is_bound(&self, expr: &ExprRef) -> bool {
        match expr.as_ref() {
            Expr::Var { span, .. } => {
                let name = span.text();
                matches!(name, "input" | "data")
                    || Root::named(name).is_some()
                    || self.text.imports.contains_key(name)
                    || self.bound.iter().any(|names| names.contains(name))
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(|item| self.is_bound(item)),
            Expr::Object { fields, .. } => {
                fields.iter().all(|(_, key, value)| self.is_bound(key) && self.is_bound(value))
            }
            Expr::Call { params, .. } => params.iter().all(|param| self.is_bound(param)),
            Expr::UnaryExpr { expr, .. } => self.is_bound(expr),
            Expr::RefDot { refr, .. } => self.is_bound(refr),
            Expr::RefBrack { refr, index, .. } => self.is_bound(refr) && self.is_bound(index),
            Expr::BinExpr { lhs, rhs, .. } | Expr::BoolExpr { lhs, rhs, .. } | Expr::ArithExpr { lhs, rhs, .. } => {
                self.is_bound(lhs) && self.is_bound(rhs)
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().chain([value, collection]).all(|part| self.is_bound(part))
            }
            Expr::AssignExpr { .. } => false,
            // Closed in themselves, or scalars.
            _ => true,
        }
    }
}

/// One step of a reference.
struct Step<'e> {
    /// Its name, if it is written.
    name: Option<String>,
    /// What is computed, if it is not.
    index: Option<&'e ExprRef>,
    /// Behind it.
    end: usize,
}

/// What a reference begins with, and its steps from there on.
fn steps_of(expr: &ExprRef) -> (&ExprRef, Vec<Step<'_>>) {
    let (mut base, mut steps) = (expr, Vec::new());
    loop {
        match base.as_ref() {
            Expr::RefDot { refr, field, span, .. } => {
                steps.push(Step { name: Some(field.0.text().to_owned()), index: None, end: span.end as usize });
                base = refr;
            }
            Expr::RefBrack { refr, index, span, .. } => {
                let name = match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => {
                        value.as_string().ok().map(|text| text.to_string())
                    }
                    _ => None,
                };
                let index = name.is_none().then_some(index);
                steps.push(Step { name, index, end: span.end as usize });
                base = refr;
            }
            _ => break,
        }
    }
    steps.reverse();
    (base, steps)
}

/// The root that a path in `data` names.
fn root_at(path: &[String]) -> Option<Root> {
    match path {
        [first, second, name] if first == "caracal" && second == "authz" => Root::named(name),
        _ => None,
    }
}

fn names_of(expr: &ExprRef, names: &mut HashSet<String>) {
    match expr.as_ref() {
        Expr::Var { span, .. } => {
            names.insert(span.text().to_owned());
        }
        Expr::Array { items, .. } => items.iter().for_each(|item| names_of(item, names)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| names_of(value, names)),
        _ => {}
    }
}

/// Whether an expression is a literal all through.
pub(super) fn is_constant(expr: &ExprRef) -> bool {
    match expr.as_ref() {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            true
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(is_constant),
        Expr::Object { fields, .. } => fields.iter().all(|(_, key, value)| is_constant(key) && is_constant(value)),
        Expr::UnaryExpr { expr, .. } => is_constant(expr),
        _ => false,
    }
}
