//! What was wrong with an answer of the provider's.

use super::Unusable;
use std::fmt;

/// What was wrong with a 200, for the operator: a member's name, as the protocol or the policy
/// knows it, and never a value.
#[derive(Clone, Copy, Debug)]
pub struct Flaw {
    /// The member.
    member: Option<MemberName>,
    /// What is wrong with it, as a sentence goes on after its name.
    what: &'static str,
}

/// A member's name, cut after so many bytes: a refusal is a small value that is copied.
#[derive(Clone, Copy, Debug)]
struct MemberName {
    bytes: [u8; 47],
    len: u8,
}

impl MemberName {
    fn new(name: &str) -> Self {
        let mut bytes = [0; 47];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self { bytes, len: u8::try_from(name.len()).unwrap_or(u8::MAX) }
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.bytes.get(..self.len.into());
        let bytes = whole.unwrap_or(&self.bytes);
        let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        write!(f, "{text}{}", if whole.is_some() { "" } else { "…" })
    }
}

impl Flaw {
    /// Of the whole body.
    pub(crate) const fn of_body(what: &'static str) -> Unusable {
        Unusable::BadReply(Self { member: None, what })
    }

    /// Of one member.
    pub(crate) fn of(member: &str, what: &'static str) -> Unusable {
        Unusable::BadReply(Self { member: Some(MemberName::new(member)), what })
    }
}

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
    fn a_flaw_names_its_member_as_far_as_it_is_short() {
        let told = |name: &str| match Flaw::of(name, "occurs twice") {
            Unusable::BadReply(flaw) => flaw.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told("/realm_access/roles"), "`/realm_access/roles` occurs twice");
        assert_eq!(told(&"a".repeat(47)), format!("`{}` occurs twice", "a".repeat(47)));
        assert_eq!(told(&"a".repeat(48)), format!("`{}…` occurs twice", "a".repeat(47)));
        assert_eq!(told(&"\u{e9}".repeat(300)), format!("`{}…` occurs twice", "\u{e9}".repeat(23)));
    }
}
