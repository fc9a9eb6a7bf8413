//! The template catalog: documents to start from (contract: policy.md §9).

use serde::Serialize;

/// One template of the catalog. The caller edits the placeholder literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Template {
    /// Stable id.
    pub id: &'static str,
    /// Title.
    pub name: &'static str,
    /// What it expresses.
    pub description: &'static str,
    /// A document that passes every check as it is.
    pub content: &'static str,
}

/// The catalog, in the order it is answered.
pub const TEMPLATES: [Template; 4] = [
    Template {
        id: "application-bindings",
        name: "Application Bindings",
        description: "Gives each application a short key, so that grants can name it. Replace the placeholder ids by \
                      those of your applications.",
        content: r#"# caracal:data-document
package caracal.authz

import rego.v1

# Binding key on the left, application id on the right. Grants refer to the key.
app_ids := {
	"payments": "replace-with-the-payments-application-id",
	"support": "replace-with-the-support-application-id",
}
"#,
    },
    Template {
        id: "resource-grants",
        name: "Resource Grants",
        description: "Says which application owns a resource and which scopes a session label may hold on it.",
        content: r#"# caracal:data-document
package caracal.authz

import rego.v1

# `application` is a binding key of app_ids; under `roles`, each session label lists the scopes it may hold.
# A mint needs one single label that holds every requested scope.
grants := {
	"resource://replace-with-your-resource": {
		"application": "payments",
		"roles": {
			"worker": ["example:read", "example:write"],
		},
	},
}
"#,
    },
    Template {
        id: "label-confinement",
        name: "Label Confinement",
        description: "Caps every session that carries a label with a prefix. It can only take away.",
        content: r#"# caracal:data-document
package caracal.authz

import rego.v1

# A session with a label such as customer:acme can obtain no scope beyond these, whatever its other labels hold.
confinement := [
	{"label_prefix": "customer:", "scopes": ["example:read"]},
]
"#,
    },
    Template {
        id: "zone-restriction",
        name: "Zone Restriction",
        description: "An emergency stop: any member freezes the zone, so that every decision denies.",
        content: r#"# caracal:data-document
package caracal.authz

import rego.v1

# Empty: nothing is frozen. To freeze the zone, add a member, for example {"incident-42": true}.
restrict := {}
"#,
    },
];
