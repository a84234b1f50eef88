//! The tables of docs/configuration.md.

use super::describe::{Absent, Declared, Object, Place, Type, spelled};

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name on the page.
    pub name: &'static str,
    /// The table in Markdown, without a final line break.
    pub markdown: String,
}

/// A row: one field, or several with the same meaning.
struct Row {
    names: Vec<String>,
    value: String,
    absent: Vec<String>,
    meaning: &'static str,
}

/// The fields of the document.
pub fn document() -> Object {
    super::objects::document()
}

/// Every table, in the order of the fields.
pub fn tables() -> Vec<Table> {
    let mut tables = Vec::new();
    collect(&document(), &mut tables);
    tables
}

fn collect(object: &Object, tables: &mut Vec<Table>) {
    if let Place::Table(name) = object.place
        && !tables.iter().any(|table| table.name == name)
    {
        let mut rows = Vec::new();
        add_rows(object, "", &mut rows);
        tables.push(Table { name, markdown: markdown(&rows) });
    }
    for inner in object.all().filter_map(Declared::object) {
        collect(inner, tables);
    }
}

fn add_rows(object: &Object, prefix: &str, rows: &mut Vec<Row>) {
    for field in &object.fields {
        let name = format!("{prefix}{}", field.name);
        let (value, absent) = (value(&field.kind), absent(&field.absent));
        match rows.iter_mut().find(|row| row.meaning == field.meaning && row.value == value) {
            Some(row) => {
                row.names.push(format!("`{name}`"));
                if !row.absent.contains(&absent) {
                    row.absent.push(absent);
                }
            }
            None => rows.push(Row {
                names: vec![format!("`{name}`")],
                value,
                absent: vec![absent],
                meaning: field.meaning,
            }),
        }
        if let Some(inner) = field.object().filter(|inner| inner.place == Place::Around) {
            add_rows(inner, &format!("{name}."), rows);
        }
    }
}

fn markdown(rows: &[Row]) -> String {
    // A column that would be the same in every row is left out.
    let has_defaults = rows.iter().any(|row| row.absent != [NONE]);
    let line = |cells: [&str; 4]| {
        let [names, value, absent, meaning] = cells;
        if has_defaults {
            format!("| {names} | {value} | {absent} | {meaning} |")
        } else {
            format!("| {names} | {value} | {meaning} |")
        }
    };
    let head = line(["field", "value", "default", "meaning"]);
    let rule = if has_defaults { "|---|---|---|---|" } else { "|---|---|---|" };
    let rows =
        rows.iter().map(|row| line([&row.names.join(", "), &row.value, &row.absent.join(", "), row.meaning]));
    [head, rule.to_owned()].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

fn value(kind: &Type) -> String {
    match kind {
        Type::Text => "string".to_owned(),
        Type::Flag => "`true`, `false`".to_owned(),
        Type::Number { min, max } => format!("`{min}` to `{max}`"),
        Type::Duration { min, max } => format!("`{}` to `{}`", spelled(*min), spelled(*max)),
        Type::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Type::Texts => "list of strings".to_owned(),
        Type::OneOrMore => "string or list of strings".to_owned(),
        Type::TextMap => "object of strings".to_owned(),
        Type::TextsMap => "object of strings or lists of them".to_owned(),
        Type::FlagOrTextsMap => "`true`, `false`, or an object of strings or lists of them".to_owned(),
        Type::Secret => "secret".to_owned(),
        Type::Secrets => "list of secrets".to_owned(),
        Type::Object(_) => "object".to_owned(),
        Type::ObjectOrOff(_) => "object, or `off`".to_owned(),
        Type::Objects(_) => "list of objects".to_owned(),
        Type::ObjectMap(_) => "object of objects".to_owned(),
    }
}

fn absent(absent: &Absent) -> String {
    match absent {
        Absent::Refused => "required".to_owned(),
        Absent::Otherwise(words) => (*words).to_owned(),
        // A string's quotes are left out, as elsewhere on the page.
        Absent::Default(json) => format!("`{}`", json.trim_matches('"')),
    }
}

const NONE: &str = "none";
