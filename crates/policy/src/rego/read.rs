//! From a text to the rules in it: those that are literal, and those that must be evaluated.

use std::collections::HashMap;

use regorus::Engine;
use regorus::unstable::{Expr, ExprRef, Import, Module, Query, Rule as Parsed, RuleAssign, RuleBody, RuleHead, Span};

use super::outline::Outline;
use super::walk::{Edit, Target, Text, Walk, is_constant, render};
use super::{Evaluated, Part, PartForm, complaint, program};
use crate::literal::{Literal, Member, Position, Value};
use crate::number::Number;
use crate::parse::{Form, ParsedDocument, Rule, VALUE_BYTES, shortened, sorted_members};
use crate::refusal::{Refusal, RefusalKind};
use crate::root::Root;

/// What a document may import that is neither `data` nor `input`.
const KEYWORD_IMPORTS: [&str; 6] = [
    "rego.v1",
    "future.keywords",
    "future.keywords.contains",
    "future.keywords.every",
    "future.keywords.if",
    "future.keywords.in",
];

/// What the engine keeps for a byte of text, about: a tree and its schedule.
const ENGINE_BYTES: usize = 64;

/// Reads a document that the literal parser does not take.
pub(crate) fn read(content: &str) -> Result<ParsedDocument, Refusal> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    let outline = Outline::of(content)?;
    let start = Position { line: 1, column: 1 };
    let mut engine = program::engine();
    engine.add_policy("document".to_owned(), content.to_owned()).map_err(|error| {
        let (at, message) = complaint(&error);
        Refusal { at: at.unwrap_or(start), kind: RefusalKind::NotEvaluable(message) }
    })?;
    let Some(module) = engine_module(&mut engine) else {
        return Err(Refusal { at: start, kind: RefusalKind::NotEvaluable("there is no document".into()) });
    };
    let reader = Reader { content, outline: &outline };
    let mut document = ParsedDocument { rules: Vec::new(), repeated_keys: Vec::new(), weight: 0, evaluated: None };
    reader.document(&module, &mut document)?;
    document.weight = document.weight.saturating_add(content.len().saturating_mul(ENGINE_BYTES));
    Ok(document)
}

fn engine_module(engine: &mut Engine) -> Option<regorus::unstable::Ref<Module>> {
    engine.get_modules().first().cloned()
}

struct Reader<'t> {
    content: &'t str,
    outline: &'t Outline,
}

/// A rule's head: the root, what the rule gives it, and the expressions in it.
struct Head<'r> {
    root: Root,
    form: PartForm,
    key: Option<&'r ExprRef>,
    /// The name of a member written as `root.name`.
    name: Option<&'r Span>,
    assign: Option<&'r RuleAssign>,
}

impl Reader<'_> {
    fn at(&self, span: &Span) -> Position {
        self.outline.position(self.content, span.start as usize)
    }

    fn refuse<T>(&self, span: &Span, kind: RefusalKind) -> Result<T, Refusal> {
        Err(Refusal { at: self.at(span), kind })
    }

    fn document(&self, module: &Module, document: &mut ParsedDocument) -> Result<(), Refusal> {
        let package = module.package.refr.span();
        if package.text() != crate::text::PACKAGE {
            return self.refuse(package, RefusalKind::ForeignPackage(shortened(package.text())));
        }
        if module.target.is_some() {
            return self.refuse(package, RefusalKind::ReservedName("__target__".into()));
        }
        let mut edits = Vec::new();
        let imports = self.imports(&module.imports, &mut edits)?;
        let text = Text { content: self.content, outline: self.outline, imports: &imports };
        let mut parts = Vec::new();
        for rule in &module.policy {
            match self.literal(rule, document)? {
                Some(rule) => {
                    self.blank(rule, &mut edits);
                }
                None => parts.push(self.part(rule, &text, &mut edits)?),
            }
        }
        if !parts.is_empty() {
            let text = render(self.content, 0, self.content.len(), &mut edits);
            document.evaluated = Some(Evaluated { text, parts });
        }
        Ok(())
    }

    /// The names that imports give, and imports of `data` taken out: what they name is resolved here.
    fn imports(&self, imports: &[Import], edits: &mut Vec<Edit>) -> Result<HashMap<String, Target>, Refusal> {
        let mut names = HashMap::new();
        for import in imports {
            let mut path: Vec<String> = Vec::new();
            let mut refr = &import.refr;
            loop {
                match refr.as_ref() {
                    Expr::RefDot { refr: next, field, .. } => {
                        path.push(field.0.text().to_owned());
                        refr = next;
                    }
                    Expr::RefBrack { refr: next, index, .. } => {
                        match index.as_ref() {
                            Expr::String { value, .. } => {
                                path.push(value.as_string().map(|text| text.to_string()).unwrap_or_default())
                            }
                            _ => return self.refuse(&import.span, RefusalKind::ForeignData),
                        }
                        refr = next;
                    }
                    other => {
                        path.push(other.span().text().to_owned());
                        break;
                    }
                }
            }
            path.reverse();
            let (Some(first), Some(last)) = (path.first().cloned(), path.last().cloned()) else { continue };
            let name = import.r#as.as_ref().map_or(last, |name| name.text().to_owned());
            let target = match first.as_str() {
                "input" => Target::Input,
                "data" => {
                    self.blank(&import.span, edits);
                    Target::Data(path.split_off(1))
                }
                _ if KEYWORD_IMPORTS.contains(&path.join(".").as_str()) => continue,
                // The engine takes a misspelt one for nothing, and then reads the text in another way than its author.
                _ => return self.refuse(&import.span, RefusalKind::UnknownImport(shortened(&path.join(".")))),
            };
            let same_root = matches!(&target, Target::Data(path) if path.last() == Some(&name));
            let hides =
                (Root::named(&name).is_some() && !same_root) || (name == "data") || (name == "input" && path.len() > 1);
            if hides || names.insert(name.clone(), target).is_some() {
                return self.refuse(&import.span, RefusalKind::HidingName(shortened(&name)));
            }
        }
        Ok(names)
    }

    /// Takes a piece out of the text for the engine, but not its lines.
    fn blank(&self, span: &Span, edits: &mut Vec<Edit>) {
        let (start, end) = (span.start as usize, self.outline.with_quote_behind(span.end as usize));
        let text = self.content.get(start..end).unwrap_or_default();
        edits.push(Edit { start, end, with: text.chars().filter(|c| *c == '\n').collect() });
    }

    /// Takes a rule over as literal data, if it is: then it says where it stands.
    fn literal<'r>(&self, rule: &'r Parsed, document: &mut ParsedDocument) -> Result<Option<&'r Span>, Refusal> {
        let (span, root, form) = match rule {
            Parsed::Default { span, refr, args, value, .. } => {
                let root = self.root(refr)?;
                if !args.is_empty() || !matches!(refr.as_ref(), Expr::Var { .. }) || !is_constant(value) {
                    return self.refuse(span, RefusalKind::BadDefault(root.name()));
                }
                match self.value(value, document) {
                    Some(value) => (span, root, Form::Default(value)),
                    None => return self.refuse(span, RefusalKind::BadDefault(root.name())),
                }
            }
            Parsed::Spec { span, head, bodies } if bodies.is_empty() => {
                let head = self.head(head)?;
                let mut read = |expr: &ExprRef| if is_constant(expr) { self.value(expr, document) } else { None };
                let key = match (head.name, head.key) {
                    (Some(name), _) => {
                        Some(Literal { at: self.at(name), value: Value::String(Box::from(name.text())) })
                    }
                    (None, Some(key)) => read(key),
                    (None, None) => None,
                };
                let value = head.assign.and_then(|assign| read(&assign.value));
                let form = match (head.form, key, value) {
                    (PartForm::Whole, _, Some(value)) => Form::Complete(value),
                    (PartForm::Members, Some(key), Some(value)) => Form::Member(Member { key, value }),
                    (PartForm::Elements, Some(key), _) => Form::Element(key),
                    _ => return Ok(None),
                };
                (span, head.root, form)
            }
            Parsed::Spec { .. } => return Ok(None),
        };
        document.rules.push(Rule { root, at: self.at(span), form });
        Ok(Some(span))
    }

    /// The root at the bottom of a rule's reference.
    fn root(&self, refr: &ExprRef) -> Result<Root, Refusal> {
        let mut base = refr;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = base.as_ref() {
            base = refr;
        }
        let span = base.span();
        match Root::named(span.text()) {
            Some(root) => Ok(root),
            None => self.refuse(span, RefusalKind::ForeignRule(shortened(span.text()))),
        }
    }

    fn head<'r>(&self, head: &'r RuleHead) -> Result<Head<'r>, Refusal> {
        match head {
            RuleHead::Func { refr, span, .. } => {
                let root = self.root(refr)?;
                self.refuse(span, RefusalKind::Function(root.name()))
            }
            RuleHead::Set { refr, key, span } => {
                let root = self.root(refr)?;
                match (refr.as_ref(), key) {
                    (Expr::Var { .. }, Some(key)) => {
                        Ok(Head { root, form: PartForm::Elements, key: Some(key), name: None, assign: None })
                    }
                    (Expr::Var { .. }, None) => self.refuse(span, RefusalKind::HeadWithoutValue(root.name())),
                    _ => self.refuse(span, RefusalKind::DeepHead(root.name())),
                }
            }
            RuleHead::Compr { refr, assign, span } => {
                let root = self.root(refr)?;
                let assign = assign.as_ref();
                let is_root = |expr: &ExprRef| matches!(expr.as_ref(), Expr::Var { .. });
                match refr.as_ref() {
                    Expr::Var { .. } => Ok(Head { root, form: PartForm::Whole, key: None, name: None, assign }),
                    Expr::RefBrack { refr, index, .. } if is_root(refr) => {
                        Ok(Head { root, form: PartForm::Members, key: Some(index), name: None, assign })
                    }
                    Expr::RefDot { refr, field, .. } if is_root(refr) => {
                        Ok(Head { root, form: PartForm::Members, key: None, name: Some(&field.0), assign })
                    }
                    _ => self.refuse(span, RefusalKind::DeepHead(root.name())),
                }
            }
        }
    }

    /// A rule for the engine.
    fn part(&self, rule: &Parsed, text: &Text<'_>, edits: &mut Vec<Edit>) -> Result<Part, Refusal> {
        let Parsed::Spec { span, head: parsed, bodies } = rule else {
            return self.refuse(rule.span(), RefusalKind::BadDefault("restrict"));
        };
        let head = self.head(parsed)?;
        let root = head.root;
        if let Some(body) = bodies.iter().find(|body| body.is_else && head.form != PartForm::Whole) {
            return self.refuse(&body.span, RefusalKind::ElseOnPart(root.name()));
        }
        if head.form == PartForm::Whole {
            self.shape(span, root, head.assign, bodies)?;
        }
        let mut walk = Walk::new(text);
        let first: Option<&Query> = bodies.first().map(|body| body.query.as_ref());
        head.key.iter().try_for_each(|key| walk.expression(key, false))?;
        let of_body = bodies.first().and_then(|body| body.assign.as_ref());
        head.assign.iter().copied().chain(of_body).try_for_each(|assign| walk.expression(&assign.value, false))?;
        let mut given = std::mem::take(&mut walk.names);
        if let Some(query) = first {
            walk.query(query)?;
        }
        self.bound(span, &given, &walk)?;
        for body in bodies.iter().skip(1) {
            walk.names.clear();
            if let Some(assign) = &body.assign {
                walk.expression(&assign.value, false)?;
                given = std::mem::take(&mut walk.names);
            }
            walk.query(&body.query)?;
            self.bound(&body.span, &given, &walk)?;
        }
        edits.append(&mut walk.edits);
        Ok(Part { root, form: head.form, at: self.at(span), reads: walk.reads })
    }

    /// Whether every name that a head uses is one that the body knows. The engine would notice only when it gets there.
    fn bound(&self, span: &Span, given: &std::collections::HashSet<String>, walk: &Walk<'_>) -> Result<(), Refusal> {
        // The first by name, so that a text has one answer.
        match given.iter().filter(|name| *name == "_" || !walk.names.contains(*name)).min() {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{}` is not assigned by the rule's body", shortened(name));
                self.refuse(span, RefusalKind::NotEvaluable(message))
            }
        }
    }

    /// Values that a root can't have, where they are written out (policy.md §2.1, §7.3 "wrong types").
    fn shape(&self, span: &Span, root: Root, head: Option<&RuleAssign>, bodies: &[RuleBody]) -> Result<(), Refusal> {
        let expected = match root {
            Root::Restrict => "a set, an object or an array",
            Root::AppIds => "an object of binding key to application id",
            Root::Grants => "an object of resource identifier to grant",
            _ => return Ok(()),
        };
        let wrong = |assign: Option<&RuleAssign>| match assign.map(|assign| assign.value.as_ref()) {
            None
            | Some(
                Expr::String { .. }
                | Expr::RawString { .. }
                | Expr::Number { .. }
                | Expr::Bool { .. }
                | Expr::Null { .. },
            ) => true,
            Some(Expr::Array { .. } | Expr::ArrayCompr { .. } | Expr::SetCompr { .. }) => root == Root::Grants,
            Some(Expr::Set { .. }) => root == Root::Grants,
            Some(_) => false,
        };
        let others = bodies.iter().filter(|body| body.is_else || body.assign.is_some());
        if wrong(head) || others.map(|body| body.assign.as_ref()).any(wrong) {
            return self.refuse(span, RefusalKind::WrongShape(root.name(), expected));
        }
        Ok(())
    }

    /// A literal expression as a value.
    fn value(&self, expr: &ExprRef, document: &mut ParsedDocument) -> Option<Literal> {
        document.weight = document.weight.saturating_add(VALUE_BYTES);
        let span = expr.span();
        let value = match expr.as_ref() {
            Expr::Null { .. } => Value::Null,
            Expr::Bool { value, .. } => Value::Boolean(*value.as_bool().ok()?),
            Expr::Number { span, .. } => Value::Number(Number::parse(span.text())?),
            Expr::UnaryExpr { expr, .. } => match expr.as_ref() {
                Expr::Number { span, .. } => Value::Number(Number::parse(&format!("-{}", span.text()))?),
                _ => return None,
            },
            Expr::String { value, .. } | Expr::RawString { value, .. } => {
                Value::String(Box::from(value.as_string().ok()?.as_ref()))
            }
            Expr::Array { items, .. } => {
                Value::Array(items.iter().map(|item| self.value(item, document)).collect::<Option<_>>()?)
            }
            Expr::Set { items, .. } => {
                let mut elements = items.iter().map(|item| self.value(item, document)).collect::<Option<Vec<_>>>()?;
                elements.sort();
                elements.dedup();
                Value::Set(elements)
            }
            Expr::Object { fields, .. } => {
                let mut members = Vec::with_capacity(fields.len());
                for (_, key, value) in fields {
                    let key = self.value(key, document)?;
                    members.push(Member { key, value: self.value(value, document)? });
                }
                Value::Object(sorted_members(members, &mut document.repeated_keys))
            }
            _ => return None,
        };
        // An object's span begins at its last member: its end is where it should be.
        let start = match expr.as_ref() {
            Expr::Object { span, .. } => self.outline.opening_of(span.end as usize),
            _ => None,
        };
        let at = match start {
            Some(start) => self.outline.position(self.content, start),
            None => self.at(span),
        };
        Some(Literal { at, value })
    }
}
