//! What others already found, against what is strict here: the corpora of `testkit`.

use std::collections::BTreeMap;

use caracal_testkit::corpora::{self, Case};

use crate::path::{self, Canonical};

/// Names of the cases of which something else is said than their verdict.
fn wrong(cases: Vec<Case>, said: impl Fn(&Case) -> String) -> BTreeMap<String, (String, &'static str)> {
    let judged = cases.into_iter().map(|case| (said(&case), case));
    judged.filter(|(said, case)| said != case.verdict).map(|(said, case)| (case.name, (said, case.verdict))).collect()
}

#[test]
fn t01_control_plane_documents_that_parsers_disagree_about_are_read_in_one_way_or_refused() {
    let said = |case: &Case| crate::json::parse(&case.bytes).map_or("refuse", |_| "accept").to_owned();
    assert_eq!(wrong(corpora::json(), said), BTreeMap::new());
}

mod t03_gateway_path {
    use super::*;

    #[test]
    fn paths_that_two_readers_take_for_two_places_are_moved_or_refused() {
        let said = |case: &Case| match path::canonical(&case.text(), None) {
            Canonical::Redirect(to) => format!("move {to}"),
            Canonical::Clean => path::check(&case.text()).map_or("refuse", |()| "pass").to_owned(),
        };
        assert_eq!(wrong(corpora::paths(), said), BTreeMap::new());
    }
}

mod t03_gateway_egress {
    use super::*;
    use crate::egress::{AddressClass, Host, TargetUrl, classify};

    #[test]
    fn an_address_is_what_it_is_in_whatever_spelling() {
        let said = |case: &Case| match TargetUrl::parse(&format!("http://{}/", case.text())) {
            Err(_) => "none".to_owned(),
            Ok(url) => match url.host() {
                Host::Name(name) => format!("the name {name}"),
                Host::Address(address) => match classify(*address) {
                    AddressClass::Metadata => "metadata".to_owned(),
                    class => class.to_string(),
                },
            },
        };
        assert_eq!(wrong(corpora::addresses(), said), BTreeMap::new());
    }
}
