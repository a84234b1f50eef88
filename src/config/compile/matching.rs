//! The methods and hosts of a route.

use super::Compiler;
use crate::config::raw;
use crate::route::{HostPattern, Methods, Pattern};

impl Compiler<'_> {
    pub(super) fn methods(&mut self, raw: &raw::Route) -> Methods {
        let Some(names) = &raw.methods else { return Methods::Any };
        for (nth, name) in names.iter().enumerate() {
            if !METHODS.contains(&name.as_str()) {
                let expected = match nearest_method(name) {
                    Some(method) => format!("`{method}`"),
                    None => "a method that is registered for HTTP, such as `GET`".to_owned(),
                };
                self.problems.push(format!("{}.match.methods[{nth}]", raw.at), format!("`{name}`"), expected);
            }
        }
        Methods::Only(names.clone())
    }

    pub(super) fn ready_path(&mut self, document: &raw::Document) {
        let Some(path) = &document.ready_path else { return };
        if !Pattern::parse(path).is_ok_and(|p| p.names().next().is_none()) || !path.is_ascii() {
            self.problems.push(
                "ready_path",
                format!("`{path}`"),
                "a path without parameters, such as `/ready`",
            );
        }
        if let Some(route) = document.routes.iter().find(|r| r.path.as_ref() == Some(path)) {
            let found = format!("`{path}`, the path of {} too", route.at);
            self.problems.push("ready_path", found, "a path of its own");
        }
    }

    pub(super) fn hosts(&mut self, raw: &raw::Route) -> Vec<HostPattern> {
        let Some(names) = &raw.hosts else { return vec![HostPattern::Any] };
        let mut hosts = Vec::with_capacity(names.len());
        for (nth, name) in names.iter().enumerate() {
            match HostPattern::parse(name) {
                Some(host) => hosts.push(host),
                None => {
                    let expected = "a host without port, or `*.` and a suffix";
                    self.problems.push(
                        format!("{}.match.hosts[{nth}]", raw.at),
                        format!("`{name}`"),
                        expected,
                    );
                }
            }
        }
        hosts
    }
}

/// The method that is meant by a misspelt one, by its first letters.
fn nearest_method(name: &str) -> Option<&'static str> {
    let same = |method: &&str| {
        method.bytes().zip(name.bytes()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
    };
    // Of several the first: the table begins with the usual ones.
    let nearest = METHODS.into_iter().rev().max_by_key(same)?;
    (same(&nearest) >= 2).then_some(nearest)
}

/// The methods of the HTTP Method Registry (RFC 9110 section 16.1), the usual ones first; a method
/// in no table is rather a slip than a new one.
const METHODS: [&str; 40] = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "QUERY",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "LABEL",
    "LINK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "ORDERPATCH",
    "REBIND",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "PURGE",
];
