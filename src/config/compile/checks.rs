//! The permission checks of routes.

use super::provider::alias;
use super::{Compiler, Shared};
use crate::config::raw;
use crate::permission::CheckTemplate;

impl Compiler<'_> {
    pub(super) fn checks(
        &mut self,
        raws: &[raw::Check],
        parameters: &[String],
        shared: &Shared,
    ) -> Vec<CheckTemplate> {
        raws.iter().filter_map(|raw| self.check(raw, parameters, shared)).collect()
    }

    pub(super) fn check(
        &mut self,
        raw: &raw::Check,
        parameters: &[String],
        shared: &Shared,
    ) -> Option<CheckTemplate> {
        let at = |name: &str| format!("{}.{name}", raw.at);
        let Some((default_subject, namespaces)) = &shared.permissions else {
            self.problems.push(
                "provider.permissions",
                "nothing usable",
                format!("it: {} is a permission check", raw.at),
            );
            return None;
        };
        let object = raw.object.as_ref().and_then(|text| self.check_template(&at("object"), text))?;
        let (namespace, object) = match &raw.namespace {
            Some(namespace) => (namespace.clone(), object),
            None => match object.split_type() {
                Some((kind, rest)) => (alias(&kind, namespaces), rest),
                None => {
                    let expected =
                        "`namespace` beside it, or a type before a colon, as in `project:{path.id}`";
                    self.problems.push(at("object"), "no type", expected);
                    return None;
                }
            },
        };
        let relation = raw.relation.clone()?;
        for (field, text) in [("namespace", &namespace), ("relation", &relation)] {
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                self.problems.push(at(field), format!("`{text}`"), "letters, digits, `-`, `_` and `.`");
            }
        }
        let subject = match &raw.subject {
            Some(text) => self.subject(&at("subject"), text, namespaces)?,
            None => default_subject.clone(),
        };
        self.parameters(&at("object"), &object, parameters);
        self.parameters(&at("subject"), &subject, parameters);
        Some(CheckTemplate { namespace, object, relation, subject })
    }
}
