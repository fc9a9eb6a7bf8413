//! What decisions were made on, kept in memory until something changes it. The embedded engine only: its writer is the only one
//! there is, so it hears of every change. (A server's answers come with the opening of the snapshot, see [`crate::ahead`].)
//!
//! Agents ask again and again with the same session, delegation and resource. What they refer to hardly ever changes, and
//! reading it anew was a fifth of what a decision took. So a zone has a page of answers. A change that could make one of them wrong
//! takes the page away, before its caller is answered and before the zone's new version can be seen.
//!
//! Why a decision on remembered answers is as good as one on a snapshot:
//!
//! - *What is remembered can't change unnoticed.* Every statement that writes takes the page of its zone away, or all pages where
//!   it speaks for the deployment, unless it is one of few that are known to touch nothing remembered ([`may_change_facts`]).
//!   A new statement is no such one until somebody says so here.
//! - *What is not noticed is not remembered.* The few tables whose changes are not looked at are tables that no answer is kept
//!   of. Authority records are one half of each: one that was found or added is kept, as whatever changes it is noticed; that there
//!   was none is not, as every decision adds one.
//! - *Nobody else writes.* The data directory is locked. Should somebody write into the file all the same, the next change
//!   sees it and takes all pages away.
//! - *All of it, or nothing.* A decision is made on the page alone, if everything that it refers to was asked before; else on one
//!   snapshot of the store, which fills the page. It never mixes the two.
//! - *Older is noticed.* The version is taken before the page, and the page is gone before a new version is published. So whoever
//!   finds an old page has an old version, and what it grants is not committed (difference D4). Whoever fills a page had it in hand
//!   before its snapshot: what it adds once the page has been taken away, nobody sees.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caracal_authority::{AuthorityRecordId, ZoneId};
use rusqlite::Connection;

use crate::ahead::{Named, by_id};
use crate::value::{Bind, Param, Row, Value, params};
use crate::{records, sqlite};

/// Answers of one zone, at most; a fuller page is begun again.
const ANSWERS: usize = 4_096;
/// Zones with a page, at most.
const ZONES: usize = 1_024;

/// How many answers of a page are compared with the store in builds with assertions.
const CHECKED: usize = 64;

/// Tables that no remembered answer may come from, and whose changes are not looked at: they grow with every call, or are of no
/// concern to a decision.
const NO_FACTS: [&str; 16] = [
    "audit_events",
    "audit_heads",
    "counts",
    "gateway_nonces",
    "ledger_tiles",
    "ledger_trees",
    "loaded_policies",
    "notification_deliveries",
    "outbox",
    "stream_entries",
    "stream_groups",
    "stream_handled",
    "stream_pending",
    "stream_topics",
    "sts_replicas",
    "used_mandates",
];

/// The pages of all zones.
pub(crate) struct Facts {
    pages: Mutex<HashMap<ZoneId, Arc<Page>>>,
    hasher: RandomState,
}

impl Facts {
    pub(crate) fn new() -> Self {
        Self { pages: Mutex::default(), hasher: RandomState::new() }
    }

    /// The page of `zone` as it is now. Take the zone's version before.
    pub(crate) fn page(&self, zone: &ZoneId) -> ZonePage {
        ZonePage { zone: zone.clone(), page: self.find_or_begin(zone) }
    }

    fn find_or_begin(&self, zone: &ZoneId) -> Arc<Page> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.get(zone).filter(|page| !page.is_full()) {
            return page.clone();
        }
        if pages.len() >= ZONES {
            pages.clear();
        }
        let page = Arc::new(Page::default());
        pages.insert(zone.clone(), page.clone());
        page
    }

    /// Takes away what a group of changes may have made wrong and, if it was `committed`, takes note of the records that it added.
    pub(crate) fn renew(&self, touched: Touched, committed: bool) {
        let Touched { deployment, zones, added } = touched;
        if !deployment && zones.is_empty() && added.is_empty() {
            return;
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if deployment {
            pages.clear();
        }
        for zone in &zones {
            pages.remove(zone);
        }
        // A page that is still there was not touched, so nothing has happened to its zone's new records since.
        for (zone, row) in added.into_iter().filter(|_| committed) {
            if let Some(page) = pages.get(&zone) {
                page.add_record(row);
            }
        }
    }

    /// Takes all pages away.
    pub(crate) fn forget_all(&self) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether everything remembered is what the store says: asked after every group of changes in builds with assertions, and so
    /// by every test of the whole system.
    pub(crate) fn is_true(&self, connection: &Connection) -> bool {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.values().all(|page| page.is_true(connection))
    }

    /// Stands for everything that a decision refers to, but for its record: nearly every mandate has one of its own.
    pub(crate) fn shape(&self, named: &Named<'_>) -> Shape {
        Shape(self.hasher.hash_one((Named { record: None, ..*named }, named.record.is_some())))
    }
}

/// What a decision refers to. Two that are taken for one cost a second look, nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape(u64);

/// What a group of changes may have made wrong.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    deployment: bool,
    zones: HashSet<ZoneId>,
    /// Authority records that were added, as a look-up would find them.
    pub(crate) added: Vec<(ZoneId, Row)>,
}

impl Touched {
    /// Takes note of a statement that was run for `zone`, or for the deployment.
    pub(crate) fn note(&mut self, zone: Option<&ZoneId>, sql: &str) {
        if may_change_facts(sql) {
            match zone {
                Some(zone) if self.zones.contains(zone) => {}
                Some(zone) => _ = self.zones.insert(zone.clone()),
                None => self.deployment = true,
            }
        }
    }
}

/// Answers of one zone that are good as long as the page is the zone's.
#[derive(Default)]
struct Page {
    answers: RwLock<Answers>,
}

/// The rows that one statement found, by what was bound to it.
type ByParameters = HashMap<Vec<Value>, Arc<Vec<Row>>>;

#[derive(Default)]
struct Answers {
    by_statement: HashMap<String, ByParameters>,
    count: usize,
    /// Records by id, as they were added: each is asked for once more, when its mandate is presented.
    added: HashMap<String, Row>,
    added_before: HashMap<String, Row>,
    /// Decisions that can be made on this page.
    whole: HashSet<Shape>,
    /// Decisions that could not be, though everything seemed to be here: they ask what is never the same twice.
    never: HashSet<Shape>,
}

impl Answers {
    fn record(&self, id: &str) -> Option<&Row> {
        self.added.get(id).or_else(|| self.added_before.get(id))
    }
}

impl Page {
    fn is_full(&self) -> bool {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.count >= ANSWERS || answers.whole.len() + answers.never.len() >= ANSWERS
    }

    fn has(&self, shape: Shape) -> bool {
        self.answers.read().unwrap_or_else(PoisonError::into_inner).whole.contains(&shape)
    }

    fn find(&self, sql: &str, params: &[Param<'_>]) -> Option<Vec<Row>> {
        let params: Vec<Value> = params.iter().map(|param| Value::from_param(*param)).collect();
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = answers.by_statement.get(sql).and_then(|of_statement| of_statement.get(&params)) {
            return Some(rows.as_ref().clone());
        }
        match params.get(1) {
            Some(Value::Text(id)) if is_of_record(sql) => answers.record(id).map(|row| vec![row.clone()]),
            _ => None,
        }
    }

    fn add_record(&self, row: Row) {
        let Some(Value::Text(id)) = row.values.get(1).cloned() else { return };
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if answers.added.len() >= ANSWERS {
            answers.added_before = mem::take(&mut answers.added);
        }
        answers.added.insert(id, row);
    }

    fn keep(&self, sql: &str, params: &[Param<'_>], rows: &[Row]) {
        let params: Vec<Value> = params.iter().map(|param| Value::from_param(*param)).collect();
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if !answers.by_statement.contains_key(sql) {
            answers.by_statement.insert(sql.to_owned(), HashMap::new());
        }
        let Some(of_statement) = answers.by_statement.get_mut(sql) else { return };
        if of_statement.insert(params, Arc::new(rows.to_vec())).is_none() {
            answers.count += 1;
        }
    }

    fn is_true(&self, connection: &Connection) -> bool {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let all =
            answers.by_statement.iter().flat_map(|(sql, answers)| answers.iter().map(move |answer| (sql, answer)));
        let mut wrong = all.take(CHECKED).filter(|(sql, (params, rows))| {
            let params: Vec<Param<'_>> = params.iter().map(Bind::bind).collect();
            sqlite::query(connection, sql, &params).is_ok_and(|found| found != ***rows)
        });
        let record = |row: &Row| match row.values.as_slice() {
            [zone, id, ..] => {
                let sql = by_id("authority_records", records::COLUMNS);
                sqlite::query(connection, &sql, &[zone.bind(), id.bind()]).is_ok_and(|found| found != [row.clone()])
            }
            _ => true,
        };
        if answers.added.values().take(CHECKED).any(record) {
            tracing::error!("a remembered record is not the store's");
            return false;
        }
        match wrong.next() {
            None => true,
            Some((sql, (params, _))) => {
                tracing::error!(%sql, ?params, "a remembered answer is not the store's");
                false
            }
        }
    }

    fn is_whole(&self, shape: Shape) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if !answers.never.contains(&shape) {
            answers.whole.insert(shape);
        }
    }

    fn is_never_whole(&self, shape: Shape) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.whole.remove(&shape);
        answers.never.insert(shape);
    }
}

/// A page with the zone that it is of. A statement that speaks for another, or for nobody, has nothing to do with it: what changes
/// the answer to that takes another page away.
pub(crate) struct ZonePage {
    zone: ZoneId,
    page: Arc<Page>,
}

impl ZonePage {
    /// Whether everything that such a decision asks was asked before, and its record is known.
    pub(crate) fn has(&self, shape: Shape, record: Option<&AuthorityRecordId>) -> bool {
        let known = |id: &AuthorityRecordId| {
            self.page.find(&by_id("authority_records", records::COLUMNS), params![self.zone, id]).is_some()
        };
        self.page.has(shape) && record.is_none_or(known)
    }

    fn of(&self, scope: Option<&ZoneId>) -> Option<&Page> {
        (scope == Some(&self.zone)).then_some(self.page.as_ref())
    }
}

/// What a read transaction has to do with a page.
pub(crate) enum Memory {
    /// Nothing.
    None,
    /// It adds what it finds.
    Filling { page: ZonePage, shape: Shape, whole: bool },
    /// It is nothing else.
    Only { page: ZonePage, shape: Shape, missed: bool },
}

impl Memory {
    pub(crate) fn filling(page: ZonePage, shape: Shape) -> Self {
        Self::Filling { page, shape, whole: true }
    }

    pub(crate) fn only(page: ZonePage, shape: Shape) -> Self {
        Self::Only { page, shape, missed: false }
    }

    /// The rows that are remembered of a statement that speaks for `scope`; `None` where the store has to be asked, an error
    /// where it can't be.
    pub(crate) fn find(
        &mut self,
        scope: Option<&ZoneId>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Option<Result<Vec<Row>, NotRemembered>> {
        let Self::Only { page, missed, .. } = self else { return None };
        let rows = page.of(scope).and_then(|page| page.find(sql, params));
        *missed |= rows.is_none();
        Some(rows.ok_or(NotRemembered))
    }

    /// Takes note of what the store has said to a statement that speaks for `scope`.
    pub(crate) fn keep(&mut self, scope: Option<&ZoneId>, sql: &str, params: &[Param<'_>], rows: &[Row]) {
        let Self::Filling { page, whole, .. } = self else { return };
        match page.of(scope).filter(|_| is_of_facts(sql, rows)) {
            Some(page) => page.keep(sql, params, rows),
            None => *whole = false,
        }
    }

    /// Whether something was asked that was not remembered.
    pub(crate) fn has_missed(&self) -> bool {
        matches!(self, Self::Only { missed: true, .. })
    }

    /// Concludes a transaction that `failed` or did not.
    pub(crate) fn conclude(&self, failed: bool) {
        match self {
            Self::Filling { page, shape, whole: true } if !failed => page.page.is_whole(*shape),
            Self::Only { page, shape, missed: true } => page.page.is_never_whole(*shape),
            _ => {}
        }
    }
}

/// The answer is not remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotRemembered;

/// Whether the statement, which writes, may have made a remembered answer wrong.
fn may_change_facts(sql: &str) -> bool {
    let mut words = sql.split_ascii_whitespace();
    let (inserts, table) = match (words.next(), words.next()) {
        (Some("INSERT"), Some("INTO")) => (true, words.next()),
        (Some("DELETE"), Some("FROM")) => (false, words.next()),
        (Some("UPDATE"), table) => (false, table),
        _ => return true,
    };
    match table {
        // One more record makes nothing wrong that is known of another.
        Some("authority_records") => !inserts || sql.contains("ON CONFLICT"),
        Some(table) => !NO_FACTS.contains(&table),
        None => true,
    }
}

/// Whether what the statement, which reads, found stays as it is until a statement is run that [`may_change_facts`].
fn is_of_facts(sql: &str, rows: &[Row]) -> bool {
    let mut words = sql.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.all(|word| !NO_FACTS.contains(&word) && word != "authority_records")
        || (!rows.is_empty() && is_of_record(sql))
}

/// Whether the statement looks one authority record up.
fn is_of_record(sql: &str) -> bool {
    sql == by_id("authority_records", records::COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t04_what_writes_takes_the_page_away_unless_it_is_known_to_touch_nothing_on_it() {
        let touching = [
            "UPDATE agent_sessions SET status = 'ended' WHERE zone_id = ?1",
            "DELETE FROM agent_sessions WHERE zone_id = ?1",
            "INSERT INTO delegation_edges (zone_id) VALUES (?1)",
            "UPDATE authority_records SET status = 'revoked' WHERE zone_id = ?1",
            "DELETE FROM authority_records WHERE zone_id = ?1",
            "INSERT INTO authority_records (id) VALUES (?1) ON CONFLICT (id) DO UPDATE SET status = 'revoked'",
            "INSERT OR REPLACE INTO audit_heads (zone_id) VALUES (?1)",
            "WITH x AS (SELECT 1) UPDATE audit_heads SET chain_seq = 1",
            "UPDATE",
            "",
            "INSERT INTO",
            "INSERT INTO something_new (zone_id) VALUES (?1)",
        ];
        for sql in touching {
            assert!(may_change_facts(sql), "{sql}");
        }
        let neutral = [
            "INSERT INTO authority_records (id) VALUES (?1)",
            "INSERT INTO audit_events (id) VALUES (?1)",
            "INSERT INTO audit_heads (zone_id) VALUES (?1) ON CONFLICT (zone_id) DO UPDATE SET chain_seq = 2",
            "DELETE FROM used_mandates WHERE expires_at < ?1",
            "UPDATE outbox SET attempts = attempts + 1",
        ];
        for sql in neutral {
            assert!(!may_change_facts(sql), "{sql}");
        }
    }

    #[test]
    fn t04_what_grows_with_every_decision_is_not_remembered() {
        let (row, record) = ([Row { values: vec![Value::Int(1)] }], by_id("authority_records", records::COLUMNS));
        let session = "SELECT id FROM agent_sessions WHERE zone_id = ?1 AND id = ?2";
        assert!(is_of_facts(session, &row) && is_of_facts(session, &[]));
        assert!(is_of_facts(&record, &row) && !is_of_facts(&record, &[]));
        for sql in [
            "SELECT count(*) FROM authority_records WHERE zone_id = ?1",
            "SELECT 1 FROM used_mandates WHERE jti = ?1",
            "SELECT a.id FROM agent_sessions a JOIN authority_records r ON r.id = a.subject_record_id",
            "SELECT (SELECT count(*) FROM audit_events)",
        ] {
            assert!(!is_of_facts(sql, &row) && !is_of_facts(sql, &[]), "{sql}");
        }
    }

    #[test]
    fn a_page_and_the_pages_have_a_bound() {
        let facts = Facts::new();
        let zone = |number: usize| ZoneId::parse(&format!("z-{number}")).unwrap();
        for number in 0..3 * ZONES {
            facts.page(&zone(number));
            assert!(facts.pages.lock().unwrap().len() <= ZONES);
        }
        let page = facts.page(&zone(0)).page;
        let row = [Row { values: vec![Value::Int(1)] }];
        for number in 0..ANSWERS {
            assert!(Arc::ptr_eq(&page, &facts.page(&zone(0)).page), "{number}");
            page.keep("SELECT 1", &[Param::Int(i64::try_from(number).unwrap())], &row);
        }
        assert!(!Arc::ptr_eq(&page, &facts.page(&zone(0)).page));
    }
}
