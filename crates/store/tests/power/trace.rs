//! What strace wrote down of a process, as far as it concerns the files of one directory.

use std::collections::HashMap;
use std::path::Path;

/// What reached the system. Files are named by their name in the directory; the directory itself is the empty name.
pub(crate) enum Call {
    /// Opened so that it is made where it is not there, and emptied if `empties`.
    Create {
        file: String,
        empties: bool,
    },
    Write {
        file: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        length: usize,
    },
    Sync {
        file: String,
    },
    Remove {
        file: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// A line on standard error: what the process said to whoever waits for it.
    Said(String),
}

/// A call between the two lines of the trace at which it began and had ended.
pub(crate) struct Event {
    pub(crate) call: Call,
    pub(crate) began: usize,
    pub(crate) ended: usize,
}

/// Every call by which a file can be changed, those too by which the store changes none: a store that began to use one of
/// them would not be seen. `?`: not every processor has it.
pub(crate) const CALLS: &str = "trace=openat,openat2,?open,?creat,write,writev,pwrite64,pwritev,?pwritev2,ftruncate,truncate,\
    fallocate,fsync,fdatasync,sync_file_range,sync,syncfs,msync,unlinkat,?unlink,renameat2,?renameat,?rename,linkat,?link,\
    mmap,copy_file_range,sendfile,splice,io_uring_setup,io_submit";

/// The calls of a trace that was made with `-f -y -xx`, in the order in which they took effect.
pub(crate) fn read(trace: &str, directory: &Path) -> Vec<Event> {
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    let mut events = Vec::new();
    for (line, text) in trace.lines().enumerate() {
        let (process, text) = text.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, (line, begun.to_owned()));
        } else if let Some(resumed) = text.strip_prefix("<... ") {
            let (began, begun) = unfinished.remove(process).unwrap();
            let whole = begun + resumed.split_once(" resumed>").unwrap().1;
            events.extend(call(&whole, directory).map(|call| Event { call, began, ended: line }));
        } else {
            events.extend(call(text, directory).map(|call| Event { call, began: line, ended: line }));
        }
    }
    // A call can have its effect as soon as it begins; of a sync only its end says anything.
    events.sort_by_key(|event| if matches!(event.call, Call::Sync { .. }) { event.ended } else { event.began });
    events
}

fn call(text: &str, directory: &Path) -> Option<Call> {
    if text.starts_with(['+', '-']) {
        // Signals and ends of processes.
        return None;
    }
    let (head, result) = text.rsplit_once(" = ").unwrap_or_else(|| panic!("not a call: {}", shown(text)));
    if result.starts_with("-1 ") {
        return None;
    }
    let (name, arguments) = head.trim_end().strip_suffix(')').and_then(|head| head.split_once('(')).unwrap();
    let arguments: Vec<&str> = arguments.split(", ").collect();
    if name == "write" && arguments[0].starts_with("2<") {
        return Some(Call::Said(String::from_utf8(bytes(arguments[1])).unwrap()));
    }
    let files: Vec<String> = arguments.iter().filter_map(|argument| file(argument, directory)).collect();
    let first = files.first()?.clone();
    let number = |at: usize| arguments[at].parse::<usize>().unwrap();
    let index = files.iter().any(|file| file.ends_with("-shm"));
    let opened = || arguments.iter().find(|argument| argument.starts_with("O_")).unwrap().split('|');
    Some(match name {
        // The index of the log is made anew from the log at every start, and mapped; nothing rests on it.
        "mmap" | "pwrite64" | "ftruncate" | "fallocate" | "openat" | "open" | "unlink" | "unlinkat" if index => {
            return None;
        }
        "openat" | "open" if opened().any(|flag| flag == "O_CREAT") => {
            Call::Create { file: first, empties: opened().any(|flag| flag == "O_TRUNC") }
        }
        "openat" | "open" if opened().all(|flag| flag != "O_TRUNC") => return None,
        "mmap" if !(arguments[2].contains("PROT_WRITE") && arguments[3].contains("MAP_SHARED")) => return None,
        "pwrite64" => {
            let written = bytes(arguments[1]);
            assert_eq!(result.parse(), Ok(written.len()), "half a write to {first}, or half of it in the trace");
            Call::Write { file: first, offset: number(3), bytes: written }
        }
        "ftruncate" => Call::Truncate { file: first, length: number(1) },
        "fsync" | "fdatasync" => Call::Sync { file: first },
        "unlink" | "unlinkat" => Call::Remove { file: first },
        "rename" | "renameat" | "renameat2" => Call::Rename { from: first, to: files[1].clone() },
        other => panic!("{other} on {first}: no test knows what a loss of power makes of that"),
    })
}

/// The file that an argument names, by a path or by a descriptor with its path.
fn file(argument: &str, directory: &Path) -> Option<String> {
    let path = match argument.split_once('<') {
        Some((_, path)) => path.strip_suffix('>')?,
        None => argument.strip_prefix('"')?.strip_suffix('"')?,
    };
    // Most of what is written is no path; only so much of it is looked at.
    let path = bytes(path.get(..4 * 1_000).unwrap_or(path));
    let path = Path::new(std::str::from_utf8(&path).ok()?);
    Some(path.strip_prefix(directory).ok()?.to_str()?.to_owned())
}

/// Of a string like `\x6f\x6b`, with or without quotation marks.
fn bytes(text: &str) -> Vec<u8> {
    let text = text.strip_prefix('"').map_or(text, |text| {
        text.strip_suffix('"').unwrap_or_else(|| panic!("a string that the trace cut short: {}", shown(text)))
    });
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => panic!("no hexadecimal digit"),
    };
    let found = text.as_bytes().chunks(4).map(|four| match four {
        [b'\\', b'x', high, low] => digit(*high) * 16 + digit(*low),
        _ => panic!("not in hexadecimal digits: {}", shown(text)),
    });
    found.collect()
}

fn shown(text: &str) -> &str {
    text.get(..200).unwrap_or(text)
}
