//! Writes the Parquet files of the archive: columns that are never null, plain and uncompressed, in row groups.
//!
//! That is a small part of the format, in which a file's bytes follow from its rows alone, so that an object that was begun
//! twice is the same twice. Why no library writes it is told in docs/decisions/0053. What others read of it is checked with
//! readers that we did not write.

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int32,
    Int64,
    Text,
}

impl Kind {
    /// Its number in the format.
    fn physical(self) -> i64 {
        match self {
            Self::Int32 => 1,
            Self::Int64 => 2,
            Self::Text => 6,
        }
    }
}

/// A value of a column of its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'c> {
    Int32(i32),
    Int64(i64),
    Text(&'c str),
}

const MAGIC: &[u8] = b"PAR1";
/// A row group is closed once it has so many bytes: what a reader has to hold at once.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
const CREATED_BY: &str = "caracal version 1 (build 1)";

struct Group {
    rows: i64,
    /// Offset and length of each column's page, its header included.
    columns: Vec<(usize, usize)>,
}

/// A file that is being written.
pub(crate) struct Writer {
    columns: &'static [(&'static str, Kind)],
    /// What is written and was not taken yet.
    bytes: Vec<u8>,
    /// How much was taken: where `bytes` begins in the file.
    taken: usize,
    open: Vec<Vec<u8>>,
    open_rows: i64,
    groups: Vec<Group>,
}

impl Writer {
    pub(crate) fn new(columns: &'static [(&'static str, Kind)]) -> Self {
        let open = columns.iter().map(|_| Vec::new()).collect();
        Self { columns, bytes: MAGIC.to_vec(), taken: 0, open, open_rows: 0, groups: Vec::new() }
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> usize {
        self.taken + self.bytes.len() + self.open.iter().map(Vec::len).sum::<usize>()
    }

    /// What goes into the file next and will not change any more: whole row groups, or nothing yet.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.taken += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    /// Adds a row: a cell for each column, in their order.
    pub(crate) fn row<'c>(&mut self, cells: impl IntoIterator<Item = Cell<'c>>) {
        for (column, cell) in self.open.iter_mut().zip(cells) {
            match cell {
                Cell::Int32(number) => column.extend(number.to_le_bytes()),
                Cell::Int64(number) => column.extend(number.to_le_bytes()),
                Cell::Text(text) => {
                    // No text of an event is anywhere near the limit of a length in the format.
                    column.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
                    column.extend(text.as_bytes());
                }
            }
        }
        self.open_rows += 1;
        if self.open.iter().map(Vec::len).sum::<usize>() >= GROUP_BYTES {
            self.close_group();
        }
    }

    fn close_group(&mut self) {
        if self.open_rows == 0 {
            return;
        }
        let mut columns = Vec::with_capacity(self.open.len());
        for values in &mut self.open {
            let (begin, size) = (self.taken + self.bytes.len(), int(values.len()));
            let mut header = Thrift::default();
            header.int32(1, 0).int32(2, size).int32(3, size);
            // Values, then the encodings of the values, and of levels that columns without nulls do not have.
            header.nested(5, |page| {
                page.int32(1, self.open_rows).int32(2, 0).int32(3, 3).int32(4, 3);
            });
            self.bytes.extend(header.ended());
            self.bytes.append(values);
            columns.push((begin, self.taken + self.bytes.len() - begin));
        }
        self.groups.push(Group { rows: self.open_rows, columns });
        self.open_rows = 0;
    }

    /// The file, or what of it was not taken yet. It says `value` under `name` to who asks for it.
    pub(crate) fn finish(mut self, (name, value): (&str, &str)) -> Vec<u8> {
        self.close_group();
        let mut footer = Thrift::default();
        footer.int32(1, 1);
        footer.list(2, STRUCT, self.columns.len() + 1);
        footer.element(|root| {
            root.text(4, "schema").int32(5, int(self.columns.len()));
        });
        for (name, kind) in self.columns {
            footer.element(|column| {
                column.int32(1, kind.physical()).int32(3, 0).text(4, name);
                if *kind == Kind::Text {
                    // Said twice: older readers know the first, newer ones the second.
                    column.int32(6, 0).nested(10, |logical| {
                        logical.nested(1, |_| {});
                    });
                }
            });
        }
        footer.int64(3, self.groups.iter().map(|group| group.rows).sum());
        footer.list(4, STRUCT, self.groups.len());
        for group in &self.groups {
            footer.element(|described| self.describe(group, described));
        }
        footer.list(5, STRUCT, 1);
        footer.element(|pair| {
            pair.text(1, name).text(2, value);
        });
        footer.text(6, CREATED_BY);
        let footer = footer.ended();
        self.bytes.extend(&footer);
        self.bytes.extend(u32::try_from(footer.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend(MAGIC);
        self.bytes
    }

    fn describe(&self, group: &Group, described: &mut Thrift) {
        described.list(1, STRUCT, group.columns.len());
        for ((name, kind), (begin, size)) in self.columns.iter().zip(&group.columns) {
            described.element(|chunk| {
                chunk.int64(2, int(*begin)).nested(3, |column| {
                    column.int32(1, kind.physical());
                    column.list(2, INT32, 1);
                    column.varint(0);
                    column.list(3, BINARY, 1);
                    column.bare_text(name);
                    column.int32(4, 0).int64(5, group.rows).int64(6, int(*size)).int64(7, int(*size));
                    column.int64(9, int(*begin));
                });
            });
        }
        described.int64(2, int(group.columns.iter().map(|(_, size)| size).sum())).int64(3, group.rows);
    }
}

fn int(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

const INT32: u8 = 5;
const INT64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct in Thrift's compact protocol, which the format's own records are written in. Members come in the order of
/// their numbers.
#[derive(Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: u8,
}

impl Thrift {
    fn member(&mut self, number: u8, kind: u8) {
        self.bytes.push((number.saturating_sub(self.last) << 4) | kind);
        self.last = number;
    }

    fn int32(&mut self, number: u8, value: i64) -> &mut Self {
        self.member(number, INT32);
        self.varint(value);
        self
    }

    fn int64(&mut self, number: u8, value: i64) -> &mut Self {
        self.member(number, INT64);
        self.varint(value);
        self
    }

    fn text(&mut self, number: u8, text: &str) -> &mut Self {
        self.member(number, BINARY);
        self.bare_text(text);
        self
    }

    fn nested(&mut self, number: u8, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.member(number, STRUCT);
        self.element(write);
        self
    }

    /// The head of a list; its elements follow.
    fn list(&mut self, number: u8, kind: u8, count: usize) {
        self.member(number, LIST);
        match u8::try_from(count) {
            Ok(few @ 0..15) => self.bytes.push((few << 4) | kind),
            _ => {
                self.bytes.push(0xf0 | kind);
                self.unsigned(count as u64);
            }
        }
    }

    fn element(&mut self, write: impl FnOnce(&mut Self)) {
        let mut element = Self::default();
        write(&mut element);
        self.bytes.extend(element.ended());
    }

    fn bare_text(&mut self, text: &str) {
        self.unsigned(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }

    fn varint(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn ended(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}
