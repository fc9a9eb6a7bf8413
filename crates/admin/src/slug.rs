//! Names for machines, made from names for people (contract: admin-api.md §5.1, §5.4, §5.6).

/// Lower-case, runs of anything but `a-z0-9` as one `-`, none at the ends; `fallback` when nothing is left.
pub(crate) fn slug(name: &str, fallback: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for character in name.to_lowercase().chars() {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { fallback.to_owned() } else { slug.to_owned() }
}

/// `base` itself, or with `-2` to `-999` behind it: the first that is not among `taken`. `None` when all are.
pub(crate) fn first_free(base: &str, taken: &[String]) -> Option<String> {
    let is_free = |candidate: &String| !taken.contains(candidate);
    std::iter::once(base.to_owned()).chain((2..=999).map(|number| format!("{base}-{number}"))).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_what_is_left_of_a_name() {
        for (name, expected) in [
            ("Ops", "ops"),
            ("  My  Zone!  ", "my-zone"),
            ("Größe 3", "gr-e-3"),
            ("---", "zone"),
            ("日本", "zone"),
            ("a--b", "a-b"),
        ] {
            assert_eq!(slug(name, "zone"), expected, "{name}");
        }
    }

    #[test]
    fn the_first_free_number_is_taken() {
        let taken: Vec<String> = ["ops", "ops-2", "ops-4"].map(str::to_owned).to_vec();
        assert_eq!(first_free("ops", &taken).unwrap(), "ops-3");
        assert_eq!(first_free("dev", &taken).unwrap(), "dev");
        let all: Vec<String> = std::iter::once("x".to_owned()).chain((2..=999).map(|n| format!("x-{n}"))).collect();
        assert_eq!(first_free("x", &all), None);
    }
}
