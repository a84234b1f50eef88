//! The command line as a process: what goes where, and with which status it ends.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The exit status, standard output and standard error.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_avnology-gate"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that reads no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const WARNS: &str = r#"{"routes": [{"match": {"path": "/a"}, "access": "public"}], "mode": "shadow"}"#;
const REFUSED: &str = r#"{"routes": [{"match": {"path": "/a"}, "access": "pubic"}]}"#;

#[test]
fn check_ends_with_a_status_and_tells_problems_to_standard_error() {
    let (status, out, err) = run(&["check", "-"], WARNS);
    assert_eq!((status, out.as_str()), (0, "the configuration is valid, with the digest 62e9467a\n"));
    assert!(err.starts_with("warning: mode is `shadow`") && err.contains("--> <stdin>:1:61"), "{err}");
    let (status, out, err) = run(&["check", "--deny-warnings", "-"], WARNS);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("warning: "), "{err}");
    let (status, out, err) = run(&["check", "-"], REFUSED);
    assert_eq!((status, out.as_str()), (1, ""));
    // No colours where nobody sees them.
    assert!(err.starts_with("problem: routes[0].access") && !err.contains('\u{1b}'), "{err}");
    let (status, out, err) = run(&["check", "/does/not/exist.json"], "");
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.starts_with("/does/not/exist.json: "), "{err}");
}

#[test]
fn check_prints_one_json_document_for_programs() {
    for (input, valid) in [(WARNS, true), (REFUSED, false)] {
        let (status, out, err) = run(&["check", "--format", "json", "-"], input);
        let printed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status == 0, err.as_str()), (valid, ""));
        assert_eq!(printed["valid"], valid);
        let finding = &printed["findings"][0];
        assert_eq!(finding["severity"], if valid { "warning" } else { "problem" });
        assert_eq!((&finding["line"], &finding["file"]), (&1.into(), &"<stdin>".into()));
    }
}

const ROUTES: &str = r#"{
  "provider": {"cluster": "idp", "authority": "id.example", "introspection": {"credentials": {"method": "none"}},
    "permissions": {"api_key": {"env": "KEY"}}},
  "routes": [
    {"name": "orders", "match": {"path": "/orders/{id}", "methods": ["PUT"]},
      "require": {"audience": ["a"], "scopes": {"all": ["write"]}}},
    {"name": "admin", "match": {"path": "/admin"},
      "require": {"audience": ["a"], "permissions": {"all": [{"object": "p:1", "relation": "r"}]}}},
    {"match": {"path": "/{*rest}"}, "access": "public"},
    {"name": "far", "match": {"path": "/admin", "hosts": ["far.example"]}, "access": "public"}
  ]
}"#;

fn explained(arguments: &[&str]) -> String {
    let (status, out, err) = run(&[&["explain", "-", "--host", "a.example"], arguments].concat(), ROUTES);
    assert_eq!((status, err.as_str()), (0, ""));
    out
}

#[test]
fn explain_names_the_rule_and_its_line() {
    let token =
        ["--header", "authorization: Bearer x", "--claims", r#"{"aud": "a", "scope": "read", "sub": "u"}"#];
    let text = explained(&[&["--method", "PUT", "--path", "/orders/7"][..], &token].concat());
    for line in [
        "route     routes[0] (`orders`) (<stdin>:5:5)",
        "not       routes[2] (<stdin>:9:5): matches too, but is less specific",
        "not       2 more, whose path does not match",
        "call      POST /oauth2/introspect to cluster `idp`",
        "decision  deny, insufficient_scope, 403",
        "rule      routes[0] (`orders`).require.scopes (<stdin>:6:38): {\"all\":[\"write\"]}",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    let text = explained(&[&["--path", "/admin", "--permissions", "granted"][..], &token].concat());
    assert!(
        text.contains("\nnot       routes[3] (`far`) (<stdin>:10:5): its hosts do not match\n"),
        "{text}"
    );
    assert!(
        text.contains("\"object\":\"1\"") && text.contains("\ndecision  allow, authenticated\n"),
        "{text}"
    );
    assert!(text.contains("\nadds      x-avnology-user-id: u\n"), "{text}");
}

#[test]
fn explain_tells_what_bars_a_request_and_what_is_still_open() {
    let text = explained(&["--path", "/admin.json"]);
    assert!(text.starts_with("route     none\nbarred by routes[1] (`admin`)"), "{text}");
    assert!(
        text.contains("routes[2] (<stdin>:9:5): matches, but a service that reads paths leniently"),
        "{text}"
    );
    let text = explained(&["--path", "/orders/7"]);
    assert!(
        text.contains("routes[0] (`orders`) (<stdin>:5:5): its methods do not include this one"),
        "{text}"
    );
    let text = explained(&["--path", "/admin", "--header", "Authorization: Bearer x"]);
    assert!(text.starts_with("route     routes[1] (`admin`)"), "{text}");
    assert!(text.contains("decision  open: it depends on the provider's answer about the token"), "{text}");
    let hook = r#"{"routes": [{"name": "h", "match": {"methods": ["POST"], "path": "/h"}, "webhook": "h"}],
        "webhooks": {"h": {"format": "github", "secrets": [{"env": "S"}]}}}"#;
    let signature = format!("x-hub-signature-256: sha256={}", "0".repeat(64));
    let ask = ["explain", "-", "--host", "a", "--path", "/h", "--method", "POST", "--header", &signature];
    let (status, text, _) = run(&[&ask[..], &["--header", "x-github-delivery: 1"]].concat(), hook);
    assert!(status == 0 && text.starts_with("route     routes[0] (`h`)"), "{text}");
    assert!(text.contains("decision  open: it depends on the signature of the body"), "{text}");
    let (status, out, err) = run(&["explain", "-", "--host", "a", "--path", "/"], REFUSED);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("problem: routes[0].access"), "{err}");
}

#[test]
fn convert_prints_the_json_that_the_module_reads() {
    let yaml = "routes:\n- match: {path: /a}\n  access: public # for all\n";
    let (status, json, _) = run(&["convert", "-"], yaml);
    assert_eq!(status, 0);
    let expected = serde_json::json!({"routes": [{"match": {"path": "/a"}, "access": "public"}]});
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
    let (status, json, _) = run(&["convert", "envoy/listener.yaml"], "");
    assert!(status == 0 && serde_json::from_str::<Value>(&json).unwrap()["routes"].is_array(), "{json}");
    let (status, out, err) = run(&["convert", "-"], "routes: [");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("problem: not YAML: "), "{err}");
}

#[test]
fn routes_lists_what_each_asks_for() {
    let (status, out, _) = run(&["routes", "-"], ROUTES);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(status, 0);
    assert_eq!(rows[0], ["#", "methods", "hosts", "path", "name", "access", "rules"]);
    assert_eq!(rows[1], ["0", "PUT", "*", "/orders/{id}", "orders", "required", "scopes,audience"]);
    assert_eq!(rows[4], ["3", "*", "far.example", "/admin", "far", "public", "-"]);
    let (_, out, _) = run(&["routes", "--format", "json", "-"], ROUTES);
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&printed[1]["access"], &printed[1]["rules"][1]), (&"required".into(), &"permissions".into()));
}

/// The verbs, as the help lists them.
fn verbs() -> Vec<String> {
    let (_, help, _) = run(&["--help"], "");
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    listed.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_verb_has_an_example_a_manual_page_and_completions() {
    let (_, completions, _) = run(&["completions", "bash"], "");
    let (_, manual, _) = run(&["man"], "");
    let verbs: Vec<String> = verbs().into_iter().filter(|verb| verb != "help").collect();
    assert_eq!(verbs.len(), 8, "{verbs:?}");
    for verb in &verbs {
        let (status, help, _) = run(&[verb, "--help"], "");
        assert!(status == 0 && help.contains(&format!("\n  avnology-gate {verb}")), "{help}");
        let (status, page, _) = run(&["man", verb], "");
        assert!(status == 0 && page.contains(&format!("avnology\\-gate\\-{verb}")), "{page}");
        assert!(manual.contains(&format!("avnology\\-gate\\-{verb}(1)")), "{verb}: {manual}");
        assert!(completions.contains(&format!("avnology__gate__subcmd__{verb}")), "{verb}: {completions}");
    }
    assert_eq!(run(&["man", "no-such-verb"], "").0, 2);
}
