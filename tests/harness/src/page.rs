//! The blocks of a page that tests follow: pieces of configuration, each with its place in its first
//! line, and commands with what they print.

use serde_norway::{Mapping, Value};

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The word behind the fence.
    pub language: String,
    /// What stands between the fences.
    pub text: String,
}

/// Where a piece of configuration belongs: `# FILE`, `# FILE, in PLACE` or
/// `# FILE, in PLACE before NAME`.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The file.
    pub file: String,
    /// A key of the file, or a message's type without its package; none is the file's top.
    pub place: Option<String>,
    /// The item of a list before which it goes; none is the list's end.
    pub before: Option<String>,
}

/// A command, and what stands below it.
#[derive(Clone, Debug)]
pub struct Command {
    /// The status that the comment above begins with.
    pub status: Option<u16>,
    /// The command.
    pub text: String,
    /// The lines that it prints, if the page shows them.
    pub prints: String,
}

/// The blocks of a text, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut fences = text.split("\n```");
    let _before = fences.next();
    let mut blocks = Vec::new();
    // What is inside a fence and what is outside come in turn.
    while let (Some(inside), _) = (fences.next(), fences.next()) {
        if let Some((language, text)) = inside.split_once('\n') {
            blocks.push(Block { language: language.to_owned(), text: format!("{text}\n") });
        }
    }
    blocks
}

impl Block {
    /// Where it belongs.
    pub fn target(&self) -> Option<Target> {
        let line = self.text.lines().next()?.strip_prefix("# ")?;
        let (file, rest) = line.split_once(", in ").map_or((line, None), |(file, rest)| (file, Some(rest)));
        let (place, before) = match rest.map(|rest| rest.split_once(" before ").ok_or(rest)) {
            None => (None, None),
            Some(Err(place)) => (Some(place.to_owned()), None),
            Some(Ok((place, before))) => (Some(place.to_owned()), Some(before.to_owned())),
        };
        Some(Target { file: file.to_owned(), place, before })
    }

    /// Its commands.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut status = None;
        for line in self.text.lines() {
            if let Some(text) = line.strip_prefix("$ ") {
                commands.push(Command {
                    status: status.take(),
                    text: text.to_owned(),
                    prints: String::new(),
                });
            } else if let Some(comment) = line.strip_prefix("# ") {
                status = comment.get(..3).and_then(|status| status.parse().ok());
            } else if let Some(command) = commands.last_mut() {
                command.prints.push_str(line);
                command.prints.push('\n');
            }
        }
        commands
    }
}

/// Puts a piece of configuration where it belongs.
pub fn apply(file: &mut Value, target: &Target, piece: Value) -> Result<(), String> {
    let place = match &target.place {
        None => file,
        Some(name) => {
            let mut found = Vec::new();
            places(file, name, &mut found);
            let count = found.len();
            let place = found.pop().filter(|_| count == 1);
            place.ok_or_else(|| format!("{} has {count} places `{name}`", target.file))?
        }
    };
    match (place, piece) {
        (Value::Sequence(items), Value::Sequence(more)) => {
            let at = match &target.before {
                None => items.len(),
                Some(name) => items
                    .iter()
                    .position(|item| item.get("name").and_then(Value::as_str) == Some(name))
                    .ok_or_else(|| format!("{} has no item `{name}`", target.file))?,
            };
            items.splice(at..at, more);
            Ok(())
        }
        (Value::Mapping(members), Value::Mapping(more)) => {
            merge(members, more);
            Ok(())
        }
        (place @ Value::Null, piece) => {
            *place = piece;
            Ok(())
        }
        _ => Err(format!("what belongs into {target:?} is of another kind")),
    }
}

fn merge(members: &mut Mapping, more: Mapping) {
    for (key, value) in more {
        match (members.get_mut(&key), value) {
            (Some(Value::Mapping(members)), Value::Mapping(more)) => merge(members, more),
            (_, value) => {
                members.insert(key, value);
            }
        }
    }
}

/// The values at a key, or the messages of a type, wherever they are. Below one that was found
/// nothing is looked for.
fn places<'v>(value: &'v mut Value, name: &str, found: &mut Vec<&'v mut Value>) {
    let kind = value.get("@type").and_then(Value::as_str).unwrap_or_default();
    if kind.rsplit_once('.').is_some_and(|(_, kind)| kind == name) {
        found.push(value);
        return;
    }
    match value {
        Value::Mapping(members) => {
            for (key, value) in members.iter_mut() {
                if key.as_str() == Some(name) {
                    found.push(value);
                } else {
                    places(value, name, found);
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| places(item, name, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "text\n\n```yaml\n# a.yaml\nlist:\n  - name: x\n```\n\nmore\n\n```yaml\n\
                        # a.yaml, in list before x\n- name: w\n```\n\n```console\n# 401: no\n$ curl y\n\
                        $ stats\none: 1\n```\n";

    #[test]
    fn pieces_go_where_their_first_line_says() {
        let blocks = blocks(PAGE);
        let languages: Vec<&str> = blocks.iter().map(|block| &*block.language).collect();
        assert_eq!(languages, ["yaml", "yaml", "console"]);
        let mut file = Value::Null;
        for block in &blocks[..2] {
            let piece = serde_norway::from_str(&block.text).unwrap();
            apply(&mut file, &block.target().unwrap(), piece).unwrap();
        }
        assert_eq!(serde_norway::to_string(&file).unwrap(), "list:\n- name: w\n- name: x\n");
        let nowhere = Target { file: "a.yaml".into(), place: Some("lists".into()), before: None };
        assert!(apply(&mut file, &nowhere, Value::Null).is_err());
    }

    #[test]
    fn a_command_has_its_status_and_what_it_prints() {
        let commands = blocks(PAGE)[2].commands();
        let seen: Vec<_> = commands.iter().map(|c| (c.status, &*c.text, &*c.prints)).collect();
        assert_eq!(seen, [(Some(401), "curl y", ""), (None, "stats", "one: 1\n")]);
    }
}
