//! Reads Parquet files by the format's own description, from their end, knowing nothing of who wrote them. Plain columns
//! without nulls only; anything else fails.

use serde_json::{Value, json};

/// One member of a struct in Thrift's compact protocol.
#[derive(Debug, Clone)]
enum Read {
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Read>),
    Struct(Vec<(i64, Read)>),
}

impl Read {
    fn member(&self, number: i64) -> &Read {
        let Read::Struct(members) = self else { panic!("no struct: {self:?}") };
        &members.iter().find(|(own, _)| *own == number).unwrap_or_else(|| panic!("no {number} in {self:?}")).1
    }

    fn number(&self) -> i64 {
        let Read::Number(number) = self else { panic!("no number: {self:?}") };
        *number
    }

    fn text(&self) -> String {
        let Read::Text(text) = self else { panic!("no text: {self:?}") };
        String::from_utf8(text.clone()).unwrap()
    }

    fn list(&self) -> &[Read] {
        let Read::List(list) = self else { panic!("no list: {self:?}") };
        list
    }
}

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, left) = self.0.split_at(count);
        self.0 = left;
        taken.to_vec()
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn value(&mut self, kind: u8) -> Read {
        match kind {
            4..=6 => {
                let coded = self.varint();
                Read::Number((coded >> 1) as i64 ^ -((coded & 1) as i64))
            }
            8 => {
                let size = self.varint() as usize;
                Read::Text(self.take(size))
            }
            9 => {
                let head = self.take(1)[0];
                let count = if head >> 4 == 15 { self.varint() } else { u64::from(head >> 4) };
                Read::List((0..count).map(|_| self.value(head & 15)).collect())
            }
            12 => self.record(),
            _ => panic!("a kind that is not used: {kind}"),
        }
    }

    fn record(&mut self) -> Read {
        let (mut members, mut number) = (Vec::new(), 0);
        loop {
            let head = self.take(1)[0];
            if head == 0 {
                return Read::Struct(members);
            }
            assert_ne!(head >> 4, 0, "long numbers are not used");
            number += i64::from(head >> 4);
            members.push((number, self.value(head & 15)));
        }
    }
}

/// The rows of a file, as objects.
pub(crate) fn rows(file: &[u8]) -> Vec<Value> {
    let end = file.len();
    assert_eq!((&file[..4], &file[end - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    let size = u32::from_le_bytes(file[end - 8..end - 4].try_into().unwrap()) as usize;
    let footer = Bytes(&file[end - 8 - size..end - 8]).record();
    let columns: Vec<(String, i64)> = footer.member(2).list()[1..]
        .iter()
        .map(|column| (column.member(4).text(), column.member(1).number()))
        .collect();
    assert_eq!(footer.member(2).list()[0].member(5).number() as usize, columns.len());
    let mut rows: Vec<Value> = Vec::new();
    for group in footer.member(4).list() {
        let (first, count) = (rows.len(), group.member(3).number() as usize);
        rows.resize(first + count, json!({}));
        for (chunk, (name, kind)) in group.member(1).list().iter().zip(&columns) {
            let described = chunk.member(3);
            assert_eq!((described.member(3).list()[0].text(), described.member(1).number()), (name.clone(), *kind));
            assert_eq!(described.member(5).number() as usize, count);
            let begin = described.member(9).number() as usize;
            let mut bytes = Bytes(&file[begin..begin + described.member(7).number() as usize]);
            let page = bytes.record();
            assert_eq!(page.member(5).member(1).number() as usize, count);
            assert_eq!(page.member(3).number() as usize, bytes.0.len());
            for row in &mut rows[first..] {
                row[name] = match kind {
                    1 => json!(i32::from_le_bytes(bytes.take(4).try_into().unwrap())),
                    2 => json!(i64::from_le_bytes(bytes.take(8).try_into().unwrap())),
                    _ => {
                        let size = u32::from_le_bytes(bytes.take(4).try_into().unwrap()) as usize;
                        json!(String::from_utf8(bytes.take(size)).unwrap())
                    }
                };
            }
            assert!(bytes.0.is_empty());
        }
    }
    assert_eq!(footer.member(3).number() as usize, rows.len());
    rows
}
