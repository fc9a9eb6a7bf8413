//! `cargo xtask sbom`: what the binary is made of, as CycloneDX 1.6, from `Cargo.lock` and the manifests alone.
//!
//! The lock file is what every build is held to (`--locked`), so what is derived from it can't differ from what was
//! built; and it is the same bytes on every machine, with neither a time nor a random number in it. A package that only
//! tests, chores or the fuzz targets use is there, too, and marked as excluded from what ships.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

/// The package whose program ships.
const SHIPPED: &str = "caracal";

/// The lock file.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    /// None for what lies in this tree.
    source: Option<String>,
    checksum: Option<String>,
    /// `name`, or `name version` where there are several.
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Package {
    fn reference(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn is(&self, dependency: &str) -> bool {
        let mut words = dependency.split(' ');
        words.next() == Some(&self.name) && words.next().is_none_or(|version| version == self.version)
    }
}

/// The whole document. `manifests` are the texts of this tree's own, which say what is for tests only.
pub(crate) fn write(lock: &str, manifests: &[String]) -> Result<String, String> {
    let lock: Lock = toml::from_str(lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for manifest in manifests {
        let (name, dependencies) = of_manifest(manifest)?;
        needed.insert(name, dependencies);
    }
    let shipped = shipped(&lock.package, &needed)?;
    let root = lock.package.iter().find(|package| package.name == SHIPPED && package.source.is_none());
    let root = root.ok_or_else(|| format!("Cargo.lock has no `{SHIPPED}`"))?;
    let others = || lock.package.iter().filter(|package| package.name != SHIPPED);
    let mut components: Vec<Value> = Vec::new();
    for package in others() {
        let mut component = json!({
            "type": "library", "bom-ref": package.reference(), "name": package.name, "version": package.version,
            "purl": package.reference(), "scope": if shipped.contains(&package.reference()) { "required" } else { "excluded" },
        });
        match (&package.source, &package.checksum) {
            (None, _) => {}
            (Some(_), Some(checksum)) => component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]),
            (Some(source), None) => return Err(format!("{} comes from {source} without a checksum", package.name)),
        }
        components.push(component);
    }
    let mut dependencies: Vec<Value> = Vec::new();
    for package in &lock.package {
        let of = dependencies_of(package, &lock.package, &needed)?;
        dependencies.push(json!({"ref": package.reference(), "dependsOn": of}));
    }
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": root.reference(), "name": root.name,
                                   "version": root.version, "purl": root.reference(),
                                   "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": components, "dependencies": dependencies,
    });
    serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|error| error.to_string())
}

/// The name of a package of this tree, and the packages that it is built with when nobody tests.
fn of_manifest(text: &str) -> Result<(String, BTreeSet<String>), String> {
    let manifest: toml::Table = toml::from_str(text).map_err(|error| format!("a manifest: {error}"))?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let name = name.ok_or("a manifest without a package's name")?.to_owned();
    let of_platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|all| all.values());
    let places = of_platforms.filter_map(toml::Value::as_table).chain([&manifest]);
    let mut dependencies = BTreeSet::new();
    for place in places {
        for kind in ["dependencies", "build-dependencies"] {
            for (key, value) in place.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
                let real = value.get("package").and_then(toml::Value::as_str);
                dependencies.insert(real.unwrap_or(key).to_owned());
            }
        }
    }
    Ok((name, dependencies))
}

/// What `package` is built with: all that the lock file says of a foreign one, without the tests' of one of ours.
fn dependencies_of(
    package: &Package,
    all: &[Package],
    needed: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<String>, String> {
    let own = if package.source.is_none() { needed.get(&package.name) } else { None };
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.split(' ').next().unwrap_or_default();
        if own.is_some_and(|own| !own.contains(name)) {
            continue;
        }
        let known = all.iter().find(|other| other.is(dependency));
        let known = known.ok_or_else(|| format!("`{dependency}` of {} is not in Cargo.lock", package.name))?;
        found.push(known.reference());
    }
    found.sort();
    Ok(found)
}

/// Everything that the shipped program is built from.
fn shipped(all: &[Package], needed: &BTreeMap<String, BTreeSet<String>>) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<&Package> = all.iter().filter(|package| package.name == SHIPPED).collect();
    while let Some(package) = waiting.pop() {
        if found.insert(package.reference()) {
            let of = dependencies_of(package, all, needed)?;
            waiting.extend(all.iter().filter(|other| of.contains(&other.reference())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4
[[package]]
name = "caracal"
version = "0.1.0"
dependencies = ["caracal-http", "leaf 2.0.0", "tester"]
[[package]]
name = "caracal-http"
version = "0.1.0"
dependencies = ["leaf 1.0.0"]
[[package]]
name = "leaf"
version = "1.0.0"
source = "registry+a"
checksum = "aa"
[[package]]
name = "leaf"
version = "2.0.0"
source = "registry+a"
checksum = "bb"
[[package]]
name = "tester"
version = "1.0.0"
source = "registry+a"
checksum = "cc"
"#;

    fn manifests() -> Vec<String> {
        vec![
            "[package]\nname = \"caracal\"\n[dependencies]\ncaracal-http.workspace = true\n[target.'cfg(unix)'.dependencies]\n\
             foliage = { package = \"leaf\", version = \"2\" }\n[dev-dependencies]\ntester = \"1\"\n"
                .to_owned(),
            "[package]\nname = \"caracal-http\"\n[dependencies]\nleaf = \"1\"\n".to_owned(),
        ]
    }

    #[test]
    fn t10_release_sbom_lists_what_the_lock_file_has_with_its_hash_and_whether_it_ships() {
        let written = write(LOCK, &manifests()).unwrap();
        let sbom: Value = serde_json::from_str(&written).unwrap();
        let of = |component: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            [text(&component["purl"]), text(&component["scope"]), text(&component["hashes"][0]["content"])]
        };
        let components: Vec<[String; 3]> = sbom["components"].as_array().unwrap().iter().map(of).collect();
        assert_eq!(
            components,
            [
                ["pkg:cargo/caracal-http@0.1.0", "required", "-"],
                ["pkg:cargo/leaf@1.0.0", "required", "aa"],
                ["pkg:cargo/leaf@2.0.0", "required", "bb"],
                ["pkg:cargo/tester@1.0.0", "excluded", "cc"],
            ]
        );
        assert_eq!(
            sbom["dependencies"][0],
            json!({"ref": "pkg:cargo/caracal@0.1.0", "dependsOn": ["pkg:cargo/caracal-http@0.1.0", "pkg:cargo/leaf@2.0.0"]})
        );
        assert_eq!(written, write(LOCK, &manifests()).unwrap());
    }

    #[test]
    fn t10_release_sbom_is_refused_for_a_package_that_nothing_holds_to_its_bytes() {
        let without = LOCK.replace("checksum = \"cc\"\n", "");
        assert!(write(&without, &manifests()).unwrap_err().contains("tester comes from registry+a without a checksum"));
        let missing = LOCK.replace("name = \"tester\"", "name = \"another\"");
        assert_eq!(write(&missing, &[]).unwrap_err(), "`tester` of caracal is not in Cargo.lock");
    }

    #[test]
    fn t10_release_sbom_of_this_tree_is_its_lock_file_and_ships_no_part_that_only_tests_use() {
        let root = crate::root();
        let lock = crate::read(root, "Cargo.lock").unwrap();
        let sbom: Value = serde_json::from_str(&write(&lock, &crate::manifests(root).unwrap()).unwrap()).unwrap();
        let components = sbom["components"].as_array().unwrap();
        let hashes: BTreeSet<&str> =
            components.iter().filter_map(|component| component["hashes"][0]["content"].as_str()).collect();
        let locked: BTreeSet<&str> =
            lock.lines().filter_map(|line| line.strip_prefix("checksum = \"")?.strip_suffix('"')).collect();
        assert_eq!((components.len() + 1, hashes), (lock.matches("[[package]]").count(), locked));
        let scope = |name: &str| components.iter().find(|component| component["name"] == name).map(|one| &one["scope"]);
        for (name, expected) in [
            ("ring", "required"),
            ("caracal-authority", "required"),
            ("proptest", "excluded"),
            ("caracal-testkit", "excluded"),
            ("caracal-oracle", "excluded"),
            ("xtask", "excluded"),
        ] {
            assert_eq!(scope(name), Some(&json!(expected)), "{name}");
        }
    }
}
