//! Pages: links that lead somewhere, a changelog that knows the version, decisions that are numbered without a gap.

use std::path::{Component, Path, PathBuf};

use super::Findings;
use super::tree::File;

pub(super) fn check(files: &[File], findings: &mut Findings) {
    for page in files.iter().filter(|file| file.path.ends_with(".md") && !file.is_data()) {
        for target in links(&page.text) {
            if !leads_somewhere(files, &page.path, target) {
                findings.add(&page.path, format!("the link to `{target}` leads nowhere"));
            }
        }
    }
    changelog(files, findings);
    decisions(files, findings);
}

/// Targets of `[text](target)` that are files of this tree.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '))
}

fn leads_somewhere(files: &[File], page: &str, target: &str) -> bool {
    let mut place: PathBuf = Path::new(page).parent().unwrap_or(Path::new("")).to_path_buf();
    for component in Path::new(target).components() {
        let inside = match component {
            Component::ParentDir => place.pop(),
            Component::Normal(name) => {
                place.push(name);
                true
            }
            _ => true,
        };
        if !inside {
            return false;
        }
    }
    let place = place.to_string_lossy().replace('\\', "/");
    files.iter().any(|file| file.path == place || file.path.starts_with(&format!("{}/", place.trim_end_matches('/'))))
}

fn changelog(files: &[File], findings: &mut Findings) {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let version = text("Cargo.toml").lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let Some(version) = version else {
        findings.add("Cargo.toml", "names no version");
        return;
    };
    if !text("CHANGELOG.md").lines().any(|line| line.starts_with("## ") && line.contains(version)) {
        findings.add("CHANGELOG.md", format!("has no section for {version}"));
    }
}

fn decisions(files: &[File], findings: &mut Findings) {
    let records = files.iter().filter_map(|file| file.path.strip_prefix("docs/decisions/"));
    let numbered = records.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    for (index, name) in numbered.enumerate() {
        let expected = format!("{:04}-", index + 1);
        if !name.starts_with(&expected) {
            findings.add(&format!("docs/decisions/{name}"), format!("the next number is {expected}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn found(files: &[File]) -> Vec<String> {
        let mut findings = Findings::default();
        check(files, &mut findings);
        findings.0
    }

    fn tree(page: &str) -> Vec<File> {
        vec![
            file("Cargo.toml", "[workspace.package]\nversion = \"0.1.0\"\n"),
            file("CHANGELOG.md", "## 0.1.0\n"),
            file("docs/a.md", page),
            file("docs/b.md", "\n"),
            file("docs/decisions/0001-first.md", "\n"),
        ]
    }

    #[test]
    fn links_lead_to_files_and_folders() {
        let good = "[b](b.md#there) [up](../CHANGELOG.md) [in](decisions/) [out](https://example.org/)\n";
        assert!(found(&tree(good)).is_empty(), "{:?}", found(&tree(good)));
        assert_eq!(found(&tree("[gone](gone.md) [above](../../gone.md)\n")).len(), 2);
    }

    #[test]
    fn a_version_without_a_changelog_and_a_gap_in_the_records_are_found() {
        let tree = [
            file("Cargo.toml", "[workspace.package]\nversion = \"0.2.0\"\n"),
            file("CHANGELOG.md", "## 0.1.0\n"),
            file("docs/decisions/0002-second.md", "\n"),
        ];
        assert_eq!(found(&tree).len(), 2);
    }
}
