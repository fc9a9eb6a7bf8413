//! Approvals: a human agrees to one request before it is minted (contract: sts.md §7).
//!
//! The zone's policy says that `payments:send` needs approval. `invoice-bot` asks for it; everything else about the
//! request is in order, so a [`Hold`] is raised and the caller is told its id. An operator, or the user for whom the
//! agent works, looks at what is asked and approves. The same request, sent again, is minted and spends the hold in the
//! same commit.
//!
//! What would go wrong otherwise, and where it is kept from happening:
//!
//! - *A yes to one thing is used for another.* The hold keeps a [`Binding`]: a hash of all that was asked, of the rows
//!   behind the names, and of the policy that was in force. Any change is another binding, and another hold.
//! - *The agent approves itself.* [`subject_may_decide`] and [`operator_may_decide`].
//! - *One yes is used twice.* [`Hold::state`] knows one order of states; the store changes it under conditions.
//! - *Zones disagree with themselves.* Several declarations become one [`Requirement`] in [`merge`].

mod binding;
mod decide;
mod hold;
mod tiers;

pub use binding::{Binding, Bound, NotABinding, PolicyStamp, ResourceRow};
pub use decide::{
    NotForOperators, NotTheirs, Presented, are_related, identity, operator_may_decide, subject_may_decide,
};
pub use hold::{Consumed, Hold, HoldState, LaunchOf, NewHold, PrincipalKind, REISSUE_WINDOW};
pub use tiers::{ApprovalTier, Approver, ClassConflict, Privacy, Requirement, merge};
