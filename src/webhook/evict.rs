//! Whose cached answers an event ends.

use super::event::Glob;
use super::json::{Found, Pointer};

/// Which events end what is cached about whom.
#[derive(Clone, Debug)]
pub(crate) struct Evict {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    kinds: Glob,
    /// Where the subjects stand: all that are there.
    subjects: Vec<Pointer>,
}

/// What a rule is made of: types, and where their subjects stand.
pub(crate) type RuleText<'t> = (&'t str, &'t [&'t str]);

/// What `true` stands for: the target of an event, and never its actor.
pub(crate) const DEFAULT: &[RuleText<'static>] = &[
    ("user.disabled", USER),
    ("user.deleted", USER),
    ("user.password_changed", USER),
    ("session.revoked", OF_USER),
    ("oauth.consent.revoked", OF_USER),
    ("organization.member.removed", OF_USER),
    ("permission.*", &["/data/subject", "/payload/subject"]),
];

const USER: &[&str] = &["/data/id", "/data/user_id", "/payload/id", "/payload/user_id"];

const OF_USER: &[&str] = &["/data/user_id", "/data/identity_id", "/payload/user_id", "/payload/identity_id"];

impl Evict {
    /// `Err` names the text that is neither a type's pattern nor a pointer.
    pub(crate) fn new<'t>(rules: impl IntoIterator<Item = (&'t str, Vec<&'t str>)>) -> Result<Self, &'t str> {
        let rule = |(kinds, subjects): (&'t str, Vec<&'t str>)| -> Result<Rule, &'t str> {
            let kinds = Glob::parse(kinds).ok_or(kinds)?;
            let subjects = subjects.into_iter().map(|text| Pointer::parse(text).ok_or(text));
            Ok(Rule { kinds, subjects: subjects.collect::<Result<_, _>>()? })
        };
        let rules: Result<_, &str> = rules.into_iter().map(rule).collect();
        Ok(Self { rules: rules? })
    }

    /// Where the subjects of an event of this type stand; empty where it ends nothing.
    pub(crate) fn pointers(&self, kind: Option<&str>) -> Vec<&Pointer> {
        let Some(kind) = kind else { return Vec::new() };
        let is_meant = |rule: &&Rule| rule.kinds.matches(kind);
        self.rules.iter().filter(is_meant).flat_map(|rule| &rule.subjects).collect()
    }
}

/// The subjects that stand there, as tokens and checks name them.
///
/// A check's subject is `namespace:id`, and a token's `sub` is the id; both are given. A set of
/// subjects (`groups:grp_1#member`) is nobody whom a token names.
pub(super) fn subjects_of(found: Vec<Found>) -> Vec<String> {
    let mut subjects = Vec::new();
    for text in found {
        let Found::Text(text) = text else { continue };
        if text.is_empty() || text.contains('#') {
            continue;
        }
        if let Some((_, id)) = text.split_once(':').filter(|(_, id)| !id.is_empty()) {
            subjects.push(id.to_owned());
        }
        subjects.push(text);
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_given_as_tokens_and_as_checks_name_it() {
        let text = |text: &str| Found::Text(text.to_owned());
        let subjects = |found: &[Found]| subjects_of(found.to_vec());
        assert_eq!(subjects(&[text("usr_1")]), ["usr_1"]);
        assert_eq!(subjects(&[text("identities:usr_1")]), ["usr_1", "identities:usr_1"]);
        assert_eq!(subjects(&[text("groups:grp_1#member"), Found::Nothing, Found::Other, text("")]), [""; 0]);
    }

    #[test]
    fn the_table_holds_and_a_rule_is_found_by_its_type() {
        let table = DEFAULT.iter().map(|(kinds, subjects)| (*kinds, subjects.to_vec()));
        let evict = Evict::new(table).unwrap();
        assert_eq!(evict.pointers(Some("user.deleted")).len(), 4);
        assert_eq!(evict.pointers(Some("permission.granted")).len(), 2);
        for kind in [None, Some("user.updated"), Some("group.deleted")] {
            assert!(evict.pointers(kind).is_empty(), "{kind:?}");
        }
        assert_eq!(Evict::new([("a b", vec![])]).err(), Some("a b"));
        assert_eq!(Evict::new([("a", vec!["data"])]).err(), Some("data"));
    }
}
