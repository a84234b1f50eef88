//! The names that label metrics: those that a configuration gives, and only so many of them.

/// A name in [`Labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(u16);

/// The names that this VM has used as labels. A host never forgets a metric, so there may be only
/// so many: those beyond are counted together, as `other`.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// With the kind of each, since each kind has its own limit.
    names: Vec<(LabelKind, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LabelKind {
    Route,
    Webhook,
    Endpoint,
    Policy,
}

impl Labels {
    /// The label of a route's name.
    pub(crate) fn route(&mut self, name: &str) -> Label {
        self.label(LabelKind::Route, name)
    }

    /// The label of a webhook's name.
    pub(crate) fn webhook(&mut self, name: &str) -> Label {
        self.label(LabelKind::Webhook, name)
    }

    /// The label of an endpoint.
    pub(crate) fn endpoint(&mut self, name: &str) -> Label {
        self.label(LabelKind::Endpoint, name)
    }

    /// The label of a policy's digest.
    pub(crate) fn policy(&mut self, digest: &str) -> Label {
        self.label(LabelKind::Policy, digest)
    }

    /// What a label reads.
    pub(crate) fn text(&self, label: Label) -> &str {
        self.names.get(usize::from(label.0)).map_or(OTHER, |(_, name)| name)
    }

    fn label(&mut self, kind: LabelKind, name: &str) -> Label {
        let name = readable(name);
        let place = self.names.iter().position(|(of, known)| *of == kind && *known == name);
        let place = place.or_else(|| {
            let known = self.names.iter().filter(|(of, _)| *of == kind).count();
            let most = if kind == LabelKind::Policy { MOST_POLICIES } else { MOST_NAMES };
            (known < most).then(|| {
                self.names.push((kind, name));
                self.names.len().saturating_sub(1)
            })
        });
        place.and_then(|place| u16::try_from(place).ok()).map_or(Label(u16::MAX), Label)
    }
}

/// A dot would end the value, and a colon is no part of a host's metric.
fn readable(name: &str) -> String {
    let is_readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@');
    let name = if name.is_empty() { "_" } else { name };
    name.chars().take(MOST_CHARS).map(|c| if is_readable(c) { c } else { '_' }).collect()
}

/// The label of all names beyond the limit.
const OTHER: &str = "other";

/// The most names of one kind. What a process counts with them stays within some megabytes.
const MOST_NAMES: usize = 200;

/// The most policies: one is named by a single metric.
const MOST_POLICIES: usize = 10_000;

/// The most characters of a name.
const MOST_CHARS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_names_of_a_kind_have_a_label_of_their_own() {
        let mut labels = Labels::default();
        let of: Vec<Label> = (0..201).map(|n| labels.route(&format!("r{n}"))).collect();
        assert_eq!(labels.text(of[0]), "r0");
        assert_eq!(labels.text(of[199]), "r199");
        assert_eq!(labels.text(of[200]), OTHER);
        assert_eq!(labels.route("r7"), of[7]);
        let webhook = labels.webhook("r7");
        assert_ne!(webhook, of[7]);
        assert_eq!(labels.text(webhook), "r7");
    }

    #[test]
    fn a_label_has_no_byte_that_could_end_it() {
        let mut labels = Labels::default();
        for (name, text) in [
            ("a.b", "a_b"),
            ("introspection@outbound|443||id.example", "introspection@outbound_443__id_example"),
            ("é\n\"", "___"),
            ("", "_"),
        ] {
            let label = labels.route(name);
            assert_eq!(labels.text(label), text);
        }
        let label = labels.route(&"x".repeat(1000));
        assert_eq!(labels.text(label).len(), MOST_CHARS);
    }
}
