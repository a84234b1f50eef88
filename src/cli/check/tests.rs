use super::*;
use crate::cli::stand_in;
use std::path::Path;

#[test]
fn what_stands_for_a_secret_is_one_in_every_format() {
    for (nth, name) in ["A", "AB", "ABC", "AVNOLOGY_WEBHOOK_SECRET"].into_iter().enumerate() {
        for key in ["utf8", "hex", "base64", "whsec"] {
            let document = format!(
                r#"{{"routes": [{{"match": {{"methods": ["POST"], "path": "/h"}}, "webhook": "h"}}],
                "webhooks": {{"h": {{"format": "custom", "custom": {{"signature_header": "x", "key": "{key}"}},
                "secrets": [{{"env": "{name}"}}, {{"env": "OTHER{nth}"}}]}}}}}}"#
            );
            let loaded = config::load(document.as_bytes(), &|name| Some(stand_in(name)));
            assert!(loaded.is_ok(), "{name} {key}: {:?}", loaded.err());
        }
    }
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// What a terminal without colours shows of these texts.
fn judged(texts: &[(&str, &str)]) -> Judgement {
    let texts: Vec<(String, Vec<u8>)> =
        texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    check(&texts, false, None)
}

fn shown(name: &str, text: &str) -> String {
    report::text(&judged(&[(name, text)]).findings, false)
}

/// What is said of these texts: `Err` if one is not valid.
fn checked(texts: &[&str]) -> Result<String, String> {
    let judgement = judged(&texts.iter().map(|text| ("file", *text)).collect::<Vec<_>>());
    let lines: Vec<String> = judgement
        .findings
        .iter()
        .map(|finding| format!("{:?}: {} {}", finding.severity, finding.message, finding.help.join(" ")))
        .collect();
    if judgement.is_valid() { Ok(lines.join("\n")) } else { Err(lines.join("\n")) }
}

#[test]
fn the_shipped_files_hold_and_lack_tls_until_it_is_switched_on() {
    let (bootstrap, listener) = (shipped("envoy.yaml"), shipped("listener.yaml"));
    let without = checked(&[&bootstrap, &listener]).unwrap();
    assert!(
        without.starts_with("Warning: cluster `avnology` has no TLS") && without.lines().count() == 1,
        "{without}"
    );
    assert_eq!(checked(&[&bootstrap.replace("#TLS ", ""), &listener]), Ok(String::new()));
    let alone = checked(&[&listener]).unwrap();
    assert!(alone.contains("is in no file given here"), "{alone}");
}

#[test]
fn a_bootstrap_without_the_plugin_is_a_problem_unless_a_policy_stands_beside_it() {
    let bootstrap = shipped("envoy.yaml");
    let problem = checked(&[&bootstrap]).unwrap_err();
    assert!(problem.starts_with("Problem: found no plugin entry"), "{problem}");
    let policy = "{\"routes\": [{\"match\": {\"path\": \"/x\"}, \"access\": \"public\"}]}";
    assert_eq!(checked(&[&bootstrap, policy]), Ok(String::new()));
}

#[test]
fn a_policy_in_a_listener_is_judged_as_if_it_stood_alone() {
    let listener = shipped("listener.yaml").replace("\"routes\": [", "\"roots\": [");
    assert!(checked(&[&listener]).unwrap_err().contains("roots"));
    let listener =
        shipped("listener.yaml").replace("[AVNOLOGY_CLIENT_SECRET, AVNOLOGY_API_KEY,", "[AVNOLOGY_API_KEY,");
    let problem = checked(&[&listener]).unwrap_err();
    assert!(problem.contains("no environment variable `AVNOLOGY_CLIENT_SECRET`"), "{problem}");
    assert!(checked(&["static_resources: ["]).unwrap_err().starts_with("Problem: not YAML: "));
}

#[test]
fn two_entries_are_told_apart() {
    let listener = shipped("listener.yaml").replace("\"ready_path\": \"/gate/ready\"", "\"ready_path\": 1");
    let other = listener.replace("name: avnology_gate\n", "name: other\n");
    let both = format!("{}\n---\n", listener.trim_end());
    assert!(checked(&[&both, &other]).is_err());
    let list = |text: &str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
    let two = format!("{}{}", list(&listener), list(&other));
    let files: Vec<String> = judged(&[("f", &two)]).findings.into_iter().map(|it| it.file).collect();
    assert_eq!(files, ["f (`avnology_gate`)", "f (`other`)"]);
}

const POLICY: &str = r#"{
  "routes": [
    {"name": "orders", "match": {"path": "/orders"}, "access": "pubic"}
  ]
}
"#;

#[test]
fn a_problem_shows_its_line_its_route_and_what_was_meant() {
    let expected = r#"problem: routes[0] (`orders`).access: found `pubic`, expected `public`, `optional` or `required`
 --> p.json:3:64
  |
3 |     {"name": "orders", "match": {"path": "/orders"}, "access": "pubic"}
  |                                                                ^^^^^^^
  |
  = help: did you mean `public`?"#;
    assert_eq!(shown("p.json", POLICY), expected);
    let judgement = judged(&[("p.json", POLICY)]);
    let json = &report::json(&judgement.findings)[0];
    assert_eq!((&json["line"], &json["column"]), (&json!(3), &json!(64)));
    assert_eq!(json["path"], "routes[0].access");
}

#[test]
fn a_problem_in_yaml_or_in_a_listener_shows_the_line_that_was_written() {
    let yaml = "routes:\n- name: orders # é\n  match: {path: /orders}\n  access: pubic # all\n";
    let text = shown("p.yaml", yaml);
    assert!(text.contains("--> p.yaml:4:11\n"), "{text}");
    assert!(text.contains("4 |   access: pubic # all\n  |           ^^^^^\n"), "{text}");
    let unknown = shown("p.yaml", "routes:\n- match: {path: /a}\n  acces: public\n");
    assert!(unknown.contains("3 |   acces: public\n  |   ^^^^^\n"), "{unknown}");
    let listener = shipped("listener.yaml");
    let broken = listener.replacen("\"access\": \"public\"", "\"access\": \"pubic\"", 1);
    assert_ne!(broken, listener);
    let (nth, line) = broken.lines().enumerate().find(|(_, line)| line.contains("\"pubic\"")).unwrap();
    let column = line.find("\"pubic\"").unwrap() + 1;
    let text = shown("l.yaml", &broken);
    assert!(text.contains(&format!("--> l.yaml:{}:{column}\n", nth + 1)), "{text}");
    // A document that is no block of lines is shown by itself.
    let inline = "name: a\ntyped_config:\n  \"@type\": a/envoy.extensions.filters.http.wasm.v3.Wasm\n  config:\n    \
        name: gate\n    configuration:\n      \"@type\": a/google.protobuf.StringValue\n      \
        value: '{\"routes\": [{\"match\": {\"path\": \"/a\"}, \"access\": \"pubic\"}]}'\n";
    let text = shown("i.yaml", inline);
    assert!(text.contains("i.yaml (configuration of `gate`):1:49"), "{text}");
}

#[test]
fn what_is_no_json_is_told_in_the_parsers_words_and_with_a_caret() {
    let cases: [(&str, &[u8], &str, &str); 9] = [
        (
            "a trailing comma",
            b"{\n  \"routes\": [1,]\n}",
            "problem: not JSON: trailing comma\n --> p.json:2:16",
            "",
        ),
        (
            "a comment",
            b"{\n  // all\n}",
            "not JSON: key must be a string\n --> p.json:2:3",
            "JSON has no comments",
        ),
        ("truncated", b"{\"routes\": [", "not JSON: EOF while parsing a list", "cut off"),
        ("empty", b"", "not JSON: EOF while parsing a value", "the file is empty"),
        ("a byte order mark", b"\xef\xbb\xbf{}", "not JSON: expected value", "byte order mark"),
        ("UTF-16", b"\xff\xfe{\0}\0", "not UTF-8 at byte 0", "save it as UTF-8"),
        ("binary", b"{\"a\": \"\xfe\"}", "not UTF-8 at byte 7", ""),
        ("YAML with a tab", b"routes:\n\t- a", "not JSON", ""),
        ("a document of another kind", b"[1]", "found a list, expected an object", ""),
    ];
    for (what, bytes, reason, help) in cases {
        let text =
            report::text(&check(&[("p.json".to_owned(), bytes.to_vec())], false, None).findings, false);
        assert!(text.contains(reason) && text.contains(help), "{what}: {text}");
        assert!(!text.contains("StringValue"), "{what}: {text}");
    }
    let yaml = shown("p.yaml", "routes:\n- match: [\n");
    assert!(yaml.contains("problem: not YAML: ") && yaml.contains("--> p.yaml:"), "{yaml}");
    assert!(checked(&["routes:\n- match: {path: /a}\n  access: public\n"]).is_ok());
}

#[test]
fn one_mistake_is_one_problem() {
    let titles = |text: &str| -> Vec<String> {
        judged(&[("p.json", text)]).findings.into_iter().map(|finding| finding.message).collect()
    };
    let route = |nth: usize| format!(r#"{{"match": {{"path": "/{nth}"}}}}"#);
    let routes = (0..8).map(route).collect::<Vec<_>>().join(",");
    let cases = [
        (
            r#"{"route": [{"match": {"path": "/a"}, "access": "public"}]}"#.to_owned(),
            "route: found an unknown",
        ),
        (format!(r#"{{"provder": {{}}, "routes": [{routes}]}}"#), "provder: found an unknown"),
        (
            format!(
                r#"{{"provider": {{"cluster": "a", "authority": "a", "introspecton": {{}}}}, "routes": [{routes}]}}"#
            ),
            "provider.introspecton: found an unknown",
        ),
        (
            format!(r#"{{"provider": {{"cluster": "a", "authority": "a"}}, "routes": [{routes}]}}"#),
            "provider.introspection: found nothing, expected it: routes[0] wants a token (and 7 more",
        ),
    ];
    // What was meant stands in the place of a list of names.
    assert_eq!(titles(&cases[0].0), ["route: found an unknown field"]);
    for (text, beginning) in cases {
        let told = titles(&text);
        assert!(told.len() == 1 && told[0].starts_with(beginning), "{told:#?}");
    }
    let told = titles(r#"{"routes": [{"match": {"path": "/a"}, "acces": "public"}]}"#);
    assert!(told.len() == 1 && told[0].starts_with("routes[0].acces: "), "{told:#?}");
    let provider = r#""provider": {"cluster": "a", "authority": "a", "introspection": {"credentials": {"method": "none"}}, "permissions": {"api_key": {"env": "K"}}}"#;
    let check = r#""require": {"permissions": {"all": [{"relation": "r", "object": "p:{path.id}"}]}}"#;
    for matching in [r#""prefix": "/api""#, r#""path": "/api/**""#] {
        let told = titles(&format!(r#"{{{provider}, "routes": [{{"match": {{{matching}}}, {check}}}]}}"#));
        assert!(!told.is_empty() && told.iter().all(|line| line.starts_with("routes[0].match")), "{told:#?}");
    }
    let told = titles(&format!(r#"{{{provider}, "require": {{"audience": [""]}}, "routes": [{routes}]}}"#));
    assert_eq!(told, ["require.audience[0]: found an empty string, expected a string that is not empty"]);
}

#[test]
fn a_rule_that_is_no_object_is_shown_as_one() {
    let told = |rule: &str| {
        shown("p.json", &format!(r#"{{"routes": [{{"match": {{"path": "/a"}}, "require": {rule}}}]}}"#))
    };
    let text = told(r#"{"scopes": "profile"}"#);
    assert!(text.contains(r#"help: write `{"all":["profile"]}`, or `any` for `all`"#), "{text}");
    let text = told(r#"{"permissions": [{"relation": "r", "object": "p:1"}]}"#);
    assert!(text.contains(r#"help: write `{"all":[{"object":"p:1","relation":"r"}]}`"#), "{text}");
    assert!(!told(r#"{"scopes": 1}"#).contains("help: write"));
}

#[test]
fn of_five_thousand_bad_routes_a_hundred_are_told() {
    let route = |nth: usize| format!("{{\"match\": {{\"path\": \"{nth}\"}}, \"access\": \"public\"}}");
    let routes = (0..5000).map(route).collect::<Vec<_>>().join(",\n");
    let text = shown("p.json", &format!("{{\"routes\": [\n{routes}]}}"));
    assert_eq!(text.matches("problem: routes[").count(), 100);
    assert!(text.contains("… and 4900 more problems"));
}

#[test]
fn a_warning_names_the_route_and_its_line() {
    let text = shown(
        "p.json",
        "{\"routes\": [\n  {\"name\": \"all\", \"match\": {\"path\": \"/{*rest}\"}, \"access\": \"public\"}\n],\n \"mode\": \"shadow\"}",
    );
    assert!(text.starts_with("warning: mode is `shadow`") && text.contains("--> p.json:4:2"), "{text}");
}
