//! What was wrong with an answer of the provider's.

use super::Unusable;
use std::cell::RefCell;
use std::fmt;

/// What was wrong with a 200, for the operator: a member's name, as the protocol or the policy
/// knows it, and never a value.
///
/// It is copied with every refusal, so it is small.
#[derive(Clone, Copy, Debug)]
pub struct Flaw {
    /// The member.
    member: Option<&'static str>,
    /// What is wrong with it, as a sentence goes on after its name.
    what: &'static str,
}

impl Flaw {
    /// Of the whole body.
    pub(crate) const fn of_body(what: &'static str) -> Unusable {
        Unusable::BadReply(Self { member: None, what })
    }

    /// Of one member.
    pub(crate) const fn of(member: &'static str, what: &'static str) -> Unusable {
        Unusable::BadReply(Self { member: Some(member), what })
    }

    /// Of a claim that the protocol or the policy names.
    #[cold]
    pub(crate) fn of_claim(name: &str, what: &'static str) -> Unusable {
        Self::of(kept(name).unwrap_or("a claim that the policy names"), what)
    }
}

/// The name for as long as the process lives; `None` once there are too many. A policy's names are
/// few, and no request and no answer can add one.
fn kept(name: &str) -> Option<&'static str> {
    thread_local! {
        static NAMES: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }
    let keep = |names: &RefCell<Vec<&'static str>>| {
        let mut names = names.try_borrow_mut().ok()?;
        if let Some(known) = names.iter().find(|known| **known == name) {
            return Some(*known);
        }
        if names.len() >= MOST_NAMES {
            return None;
        }
        let kept: &'static str = Box::leak(name.into());
        names.push(kept);
        Some(kept)
    };
    NAMES.try_with(keep).ok().flatten()
}

/// How many names are kept.
const MOST_NAMES: usize = 256;

/// Which flaw it was changes no decision.
impl PartialEq for Flaw {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Flaw {}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.member {
            Some(member) => write!(f, "`{member}` {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_names_the_policys_claim_as_long_as_these_are_few() {
        let told = |name: &str| match Flaw::of_claim(name, "occurs twice") {
            Unusable::BadReply(flaw) => flaw.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told("/realm_access/roles"), "`/realm_access/roles` occurs twice");
        for n in 1..256 {
            assert_eq!(told(&format!("c{n}")), format!("`c{n}` occurs twice"));
        }
        assert_eq!(told("one more"), "`a claim that the policy names` occurs twice");
        assert_eq!(told("c7"), "`c7` occurs twice");
    }

    /// Every function of the hit path returns one.
    #[test]
    fn a_refusal_is_small() {
        assert!(size_of::<Unusable>() <= 40 && size_of::<crate::refusal::Refusal>() <= 48);
    }
}
