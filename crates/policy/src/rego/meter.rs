//! How much an evaluation has built, and the functions that the engine calls to have it measured.
//!
//! One evaluation runs on one thread from start to end, so its meter lies with the thread; the engine's clones share their
//! functions and could not tell evaluations apart.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use regorus::utils::limits::{TimeSource, set_time_source};
use regorus::{Engine, Value};

use super::builtins::{RFC3339, TO_NUMBER};
use super::outline::is_small;
use crate::number::Number;

/// Most that one value may hold: nodes, and 16 bytes of text each counting as one.
pub(super) const MAX_VALUE: u64 = 50_000;
/// Most that all values built by one evaluation may hold together.
const MAX_BUILT: u64 = 500_000;
/// Largest number, in bits: division and printing take the square of it.
const MAX_BITS: u64 = 4096;

thread_local! {
    static BUILT: Cell<u64> = const { Cell::new(0) };
    static EXCEEDED: Cell<bool> = const { Cell::new(false) };
}

/// Starts measuring on this thread.
pub(super) fn start() {
    BUILT.set(0);
    EXCEEDED.set(false);
}

/// Whether something became too large since then, even if the engine went on.
pub(super) fn exceeded() -> bool {
    EXCEEDED.get()
}

/// The size of a value, counted no further than `most`.
pub(super) fn size(value: &Value, most: u64) -> u64 {
    let text = |length: usize| 1 + u64::try_from(length).unwrap_or(u64::MAX) / 16;
    match value {
        Value::String(string) => text(string.len()),
        Value::Number(number) if number.as_big().is_some_and(|number| number.bits() > MAX_BITS) => most + 1,
        Value::Array(elements) => sum(elements.iter(), most),
        Value::Set(elements) => sum(elements.iter(), most),
        Value::Object(members) => sum(members.iter().flat_map(|(key, value)| [key, value]), most),
        _ => 1,
    }
}

fn sum<'v>(values: impl Iterator<Item = &'v Value>, most: u64) -> u64 {
    let mut total = 1_u64;
    for value in values {
        if total > most {
            break;
        }
        total += size(value, most - total);
    }
    total
}

fn measured(mut arguments: Vec<Value>) -> anyhow::Result<Value> {
    let Some(value) = arguments.pop() else { bail!("nothing to measure") };
    let size = size(&value, MAX_VALUE);
    BUILT.set(BUILT.get().saturating_add(size));
    if size > MAX_VALUE || BUILT.get() > MAX_BUILT {
        EXCEEDED.set(true);
        bail!("a value became too large");
    }
    Ok(value)
}

fn each(mut arguments: Vec<Value>) -> anyhow::Result<Value> {
    Ok(match arguments.pop() {
        Some(collection @ (Value::Array(_) | Value::Set(_) | Value::Object(_))) => collection,
        Some(Value::Undefined) | None => Value::Undefined,
        Some(_) => Value::new_array(),
    })
}

fn to_number(mut arguments: Vec<Value>) -> anyhow::Result<Value> {
    Ok(match arguments.pop() {
        Some(number @ Value::Number(_)) => number,
        Some(Value::Null) => Value::from(0_u64),
        Some(Value::Bool(value)) => Value::from(u64::from(value)),
        Some(Value::String(text)) if is_small(&text) && Number::parse(&text).is_some() => {
            Value::from_numeric_string(&text).unwrap_or(Value::Undefined)
        }
        _ => Value::Undefined,
    })
}

fn rfc3339(mut arguments: Vec<Value>) -> anyhow::Result<Value> {
    let nanoseconds = match arguments.pop() {
        Some(Value::String(text)) => super::value::rfc3339_nanoseconds(&text),
        _ => None,
    };
    Ok(nanoseconds.map_or(Value::Undefined, Value::from))
}

type Function = fn(Vec<Value>) -> anyhow::Result<Value>;

/// Gives an engine the functions that [`super::walk`] writes into documents.
pub(super) fn install(engine: &mut Engine) -> anyhow::Result<()> {
    let functions: [(&str, Function); 4] =
        [("__measured", measured), ("__each", each), (TO_NUMBER, to_number), (RFC3339, rfc3339)];
    for (name, function) in functions {
        engine.add_extension(name.to_owned(), 1, Box::new(function))?;
    }
    Ok(())
}

struct Monotonic;

impl TimeSource for Monotonic {
    fn now(&self) -> Option<Duration> {
        static START: OnceLock<Instant> = OnceLock::new();
        Some(START.get_or_init(Instant::now).elapsed())
    }
}

/// Gives the engine a clock for its time limit. Without one its limit would mean nothing, so that is an error.
pub(super) fn give_time() -> anyhow::Result<()> {
    static GIVEN: OnceLock<bool> = OnceLock::new();
    match GIVEN.get_or_init(|| set_time_source(&Monotonic).is_ok()) {
        true => Ok(()),
        false => Err(anyhow!("evaluation has no clock")),
    }
}
