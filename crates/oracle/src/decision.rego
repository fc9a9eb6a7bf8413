# The decision contract, a second time: policy.md section 4 as the table there says it, one clause a row.
#
# It reads the six documents of a zone (data.caracal.authz) and one input, and answers with the row that decided and the
# result document. It shares nothing with the ladder in crates/policy but the table both were written from.
#
# Two manners keep its meaning the same in every engine: what may be missing is bound to a name before it is used under
# `not` or `every`, and only collections are iterated.
package caracal.oracle

import rego.v1

import data.caracal.authz

# ---------------------------------------------------------------------------------------------------------------------
# The ladder (4.2). The first clause whose condition holds decides.

# Row 1
answer := deny(1, "restriction_active") if frozen

# Row 2. A workload whose id is also that of an application would match row 10 as well: that row answers.
else := allow(2, "caracal-bootstrap", []) if {
	bootstrap
	owned
	not workload
}

# Row 3
else := deny(3, "malformed_risk_data") if {
	classified
	not risk_readable
}

# Row 4
else := deny(4, "malformed_approval_data") if {
	classified
	not approval_tiers_readable
}

# Row 5
else := deny(5, "resource_not_granted") if {
	mint
	not owned
}

# Row 6
else := deny(6, "delegation_scope_exceeded") if {
	mint
	not delegated
}

# Row 7
else := deny(7, "confinement_violation") if {
	mint
	not confinement_respected
}

# Row 8
else := deny(8, "role_scope_mismatch") if {
	mint
	not role_covers(wanted)
}

# Row 9
else := allow(9, sprintf("caracal-%s-mint", [binding_key]), mint_diagnostics) if mint

# Row 10
else := allow(10, "caracal-workload-mint", mint_diagnostics) if {
	workload
	risk_readable
	approval_tiers_readable
}

# Row 11
else := deny(11, "mandate_target_mismatch") if {
	use
	not targeted
}

# Row 12
else := deny(12, "resource_not_granted") if {
	use
	not owned
}

# Row 13
else := deny(13, "role_scope_mismatch") if {
	use
	not role_covers(carried)
}

# Row 14
else := allow(14, sprintf("caracal-%s-use", [binding_key]), []) if use

# Row 15
else := deny(15, "no_rule_matched")

# ---------------------------------------------------------------------------------------------------------------------
# The result document (4.3)

deny(row, reason) := {"row": row, "result": {
	"decision": "deny",
	"evaluation_status": "complete",
	"determining_policies": [],
	"diagnostics": [{"reason": reason}],
}}

allow(row, policy, diagnostics) := {"row": row, "result": {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": policy}],
	"diagnostics": diagnostics,
}}

# Mint diagnostics (4.4): step-up first, then risk, each only if there is one.
mint_diagnostics := array.concat(
	[{"step_up_required": {"type": "human_approval", "tiers": sort(held)}} | count(held) > 0],
	[{"risk": classes} | count(classes) > 0],
)

# The declarations of every tier that a wanted scope is classified in. A set: each once.
held := {declaration |
	some scope in wanted
	tier := tier_of(scope)
	some declaration in approval_tiers
	declaration.tier == tier
}

# One per requested occurrence, by scope.
classes := [{"scope": scope, "tier": tier} |
	some scope in sort(requested)
	tier := tier_of(scope)
]

# Two tiers for one scope are two values of one function: an evaluation error, as the contract says.
tier_of(scope) := element.tier if {
	some element in risk
	element.scope == scope
}

# ---------------------------------------------------------------------------------------------------------------------
# Request shapes (4.1)

bootstrap if {
	wanted == {"agent:lifecycle"}
	not has_subject
	not has_edge
	not has_session
}

mint if {
	edge_id := input.delegation_edge.id
	edge_id != ""
	has_session
	not has_subject
	count(wanted) > 0
	not "agent:lifecycle" in wanted
}

workload if {
	input.principal.type == "Workload"
	input.action.id == "CredentialInjection"
	not has_subject
	not has_edge
	not has_session
}

# What has to be classified before it can be minted.
classified if mint

classified if {
	workload
	not bootstrap
}

use if {
	edge_id := input.context.subject_claims.delegation_edge_id
	edge_id != ""
	count(wanted) == 0
	count(carried) > 0
}

# ---------------------------------------------------------------------------------------------------------------------
# Terms (4.1)

wanted := {scope | some scope in requested}

default requested := []

requested := input.context.requested_scopes if is_array(input.context.requested_scopes)

default labels := []

labels := input.principal.labels if is_array(input.principal.labels)

has_subject if is_object(input.context.subject_claims)

has_edge if is_object(input.delegation_edge)

has_session if is_string(input.context.agent_session_id)

entry := authz.grants[input.resource.identifier]

# A binding key is a string.
binding_key := key if {
	key := entry.application
	is_string(key)
}

owned if application_of(binding_key, authz.app_ids) == input.principal.id

# Functions, because their arguments have no type before they are looked at: a compiler that knows the types refuses a zone
# all of whose keys are null or all of whose roles are numbers, which is for the rows to deny.
application_of(key, app_ids) := app_ids[key] if is_object(app_ids)

role_of(label, roles) := roles[label] if is_object(roles)

# One single label holds them all; roles are not united.
role_covers(scopes) if {
	some label in labels
	held_scopes := role_of(label, entry.roles)
	every scope in scopes {
		scope in held_scopes
	}
}

# Pieces between single spaces; a tab separates nothing, and a claim that is no string carries nothing.
carried := {piece |
	scope := input.context.subject_claims.scope
	is_string(scope)
	some piece in split(scope, " ")
	piece != ""
}

# A target is a list. One string is none.
targeted if {
	target := input.context.subject_claims.target
	is_array(target)
	input.resource.identifier in target
}

# Every wanted scope is one of the delegation's; no scopes are none.
delegated if {
	edge_scopes := input.delegation_edge.scopes
	is_array(edge_scopes)
	every scope in wanted {
		scope in edge_scopes
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# The documents and what each tolerates (2.1)

default restrict := []

restrict := authz.restrict

frozen if {
	is_collection(restrict)
	some _ in restrict
}

default confinement := []

confinement := authz.confinement

confinement_respected if {
	is_collection(confinement)
	every rule in confinement {
		respects(rule)
	}
}

# No label starts with the prefix …
respects(rule) if {
	prefix := rule.label_prefix
	every label in labels {
		not startswith(label, prefix)
	}
}

# … or every wanted scope is one of the rule's. A rule without a prefix is never respected.
respects(rule) if {
	prefix := rule.label_prefix
	is_string(prefix)
	scopes := rule.scopes
	every scope in wanted {
		scope in scopes
	}
}

default risk := []

risk := authz.risk

risk_readable if {
	is_array(risk)
	every element in risk {
		is_classification(element)
	}
}

is_classification(element) if {
	is_object(element)
	scope := element.scope
	is_text(scope)
	tier := element.tier
	is_text(tier)
}

default approval_tiers := []

approval_tiers := authz.approval_tiers

approval_tiers_readable if {
	is_array(approval_tiers)
	every element in approval_tiers {
		is_declaration(element)
	}
}

is_declaration(element) if {
	is_object(element)
	tier := element.tier
	is_text(tier)
	object.get(element, "approver", "any") in {"operator", "subject", "any"}
	object.get(element, "privacy", "identified") in {"identified", "pseudonymous", "anonymous"}
	seconds := object.get(element, "ttl_seconds", 1)
	is_number(seconds)
	seconds > 0
	seconds == round(seconds)

	# Above this, engines disagree on what a rounding is.
	seconds <= 9007199254740992
}

is_text(value) if {
	is_string(value)
	value != ""
}

is_collection(value) if is_array(value)

is_collection(value) if is_set(value)

is_collection(value) if is_object(value)

# ---------------------------------------------------------------------------------------------------------------------
# Documents that make no bundle (2.1): shapes that a type check refuses before anything is decided.

refused contains "restrict is a scalar" if not is_collection(restrict)

refused contains "app_ids is a scalar" if {
	app_ids := authz.app_ids
	not is_collection(app_ids)
}

refused contains "grants is no object" if {
	grants := authz.grants
	not is_object(grants)
}

refused contains why if some why in barren

# Grants that as a whole can grant nothing. Entries that depend on the question may be absent for one, so of those only a
# type check knows all.
barren contains "no entry of grants has an application" if {
	grants := authz.grants
	is_object(grants)
	count(grants) > 0
	every candidate in grants {
		not has_member(candidate, "application")
	}
}

barren contains "no entry of grants has roles" if {
	grants := authz.grants
	is_object(grants)
	count(grants) > 0
	every candidate in grants {
		not has_member(candidate, "roles")
	}
}

refused contains "a confinement rule has a prefix that is no string" if {
	is_collection(confinement)
	some rule in confinement
	prefix := rule.label_prefix
	not is_string(prefix)
}

has_member(value, name) if {
	is_object(value)
	some member, _ in value
	member == name
}
