//! `avnology-gate sign`: what it prints passes the gate, for every format.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    reason = "a test may panic, and takes the time"
)]

use avnology_gate::config;
use avnology_gate::config::signing;
use avnology_gate::flow::{Engine, NoStore, RootId, Seed, Step, StreamId};
use avnology_gate::http::head::RequestHead;
use avnology_gate::time::Timestamp;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NOW: u64 = 1_700_000_000;
/// A secret in every format.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
const BODY: &str = r#"{"type":"it's a test"}"#;

fn sign(arguments: &[&str], body: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_avnology-gate"))
        .arg("sign")
        .args(arguments)
        .env("SENDERS_SECRET", SECRET)
        .env_remove("AVNOLOGY_WEBHOOK_SECRET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
    child.wait_with_output().unwrap()
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The reason of the gate's decision on a delivery to `/NAME`.
fn judge(policy: &str, path: &str, headers: &str, body: &str, now: u64) -> String {
    let env = |_: &str| Some(SECRET.to_owned());
    let loaded = config::load(policy.as_bytes(), &env).unwrap_or_else(|problems| panic!("{problems}"));
    let mut engine = Engine::new(Seed([0; 16]), Rc::new(NoStore));
    let now = Timestamp::from_secs(now);
    engine.configure(RootId(1), loaded, now);
    let mut pairs =
        vec![(":method", "POST"), (":path", path), (":authority", "api.example.com"), (":scheme", "http")];
    pairs.extend(headers.lines().map(|line| line.split_once(": ").unwrap()));
    let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let mut step = engine.begin(StreamId(2), RootId(1), &RequestHead::new(pairs, false), now);
    if matches!(step, Step::NeedBody) {
        let mut fetch = |from: usize, len: usize| Some(body.as_bytes()[from..from + len].to_vec());
        step = engine.body(StreamId(2), body.len(), true, &mut fetch, now);
    }
    let Step::Decided(verdict) = step else { panic!("{path} is not decided") };
    verdict.event().reason().id().to_owned()
}

fn policy_of(format: &str) -> String {
    serde_json::json!({
        "routes": [{"match": {"methods": ["POST"], "path": "/hook"}, "webhook": "hook"}],
        "webhooks": {"hook": {"format": format, "secrets": [{"env": "SENDERS_SECRET"}]}}
    })
    .to_string()
}

#[test]
fn what_is_printed_for_a_format_passes_the_gate() {
    let formats: Vec<&str> = signing::formats().collect();
    assert!(formats.len() >= 7, "{formats:?}");
    for format in formats {
        let arguments = [
            "--format",
            format,
            "--secret-env",
            "SENDERS_SECRET",
            "--timestamp",
            "1700000000",
            "--id",
            "m_1",
        ];
        let headers = printed(sign(&arguments, BODY));
        let policy = policy_of(format);
        let judge = |body: &str, now: u64| judge(&policy, "/hook", &headers, body, now);
        assert_eq!(judge(BODY, NOW), "webhook_verified", "{format}: {headers}");
        assert_eq!(judge("{}", NOW), "invalid_signature", "{format}");
        let is_timed = headers.contains("1700000000");
        let later = if is_timed { "stale_timestamp" } else { "webhook_verified" };
        assert_eq!(judge(BODY, NOW + 301), later, "{format}");
        assert_eq!(is_timed, !["github", "shopify"].contains(&format), "{format}");
        assert_eq!(headers.contains("m_1"), ["svix", "standard-webhooks"].contains(&format), "{format}");
    }
}

#[test]
fn a_policy_says_how_its_webhook_signs_and_with_what() {
    let file = format!("{ROOT}/tests/cases/webhooks.json");
    let policy = std::fs::read_to_string(&file).unwrap();
    let document: serde_json::Value = serde_json::from_str(&policy).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for name in document["webhooks"].as_object().unwrap().keys().filter(|name| *name != "avnology") {
        let headers = printed(sign(&["--policy", &file, "--webhook", name], BODY));
        let reason = judge(&policy, &format!("/{name}"), &headers, BODY, now);
        assert_eq!(reason, "webhook_verified", "{name}: {headers}");
    }
    // Of the environment it needs what the webhook needs.
    let output = sign(&["--policy", &file, "--webhook", "avnology"], BODY);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("webhooks.avnology.secrets[0]") && said.contains("AVNOLOGY_WEBHOOK_SECRET"),
        "{said}"
    );
}

#[test]
fn each_of_two_secrets_can_sign() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("two-secrets.json");
    let policy = policy_of("github").replace(
        r#"[{"env":"SENDERS_SECRET"}]"#,
        r#"["secret_of_the_past_days", {"env": "SENDERS_SECRET"}]"#,
    );
    std::fs::write(&file, &policy).unwrap();
    let file = file.to_str().unwrap();
    let mut seen = Vec::new();
    for index in ["0", "1"] {
        let headers = printed(sign(&["--policy", file, "--webhook", "hook", "--secret-index", index], BODY));
        assert_eq!(judge(&policy, "/hook", &headers, BODY, NOW), "webhook_verified", "{headers}");
        seen.push(headers);
    }
    assert_ne!(seen[0], seen[1]);
    let output = sign(&["--policy", file, "--webhook", "hook", "--secret-index", "2"], BODY);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_curl_command_sends_the_printed_headers_and_the_body() {
    let url = "http://127.0.0.1:1/a?b=it's&c=$(d)";
    let arguments = [
        "--format",
        "slack",
        "--secret-env",
        "SENDERS_SECRET",
        "--timestamp",
        "1700000000",
        "body file.json",
    ];
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("curl");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("body file.json"), BODY).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avnology-gate"));
        let command = command.arg("sign").args(arguments).args(more).env("SENDERS_SECRET", SECRET);
        printed(command.current_dir(&folder).output().unwrap())
    };
    let headers = run(&[]);
    // What a shell makes of it, an argument a line.
    let script = format!("curl() {{ printf '%s\\n' \"$@\"; }}\n{}", run(&["--curl", url]));
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let arguments = printed(output);
    let mut expected = vec!["-i", url, "-H", "content-type: application/json"];
    for header in headers.lines() {
        expected.extend(["-H", header]);
    }
    expected.extend(["--data-binary", "@body file.json"]);
    assert_eq!(arguments.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_cannot_be_signed_is_told_apart_from_what_cannot_be_read() {
    let file = format!("{ROOT}/tests/cases/webhooks.json");
    let format = ["--format", "svix", "--secret-env"];
    for (arguments, status, said) in [
        (vec![], 2, "--format"),
        (vec!["--format", "svix"], 2, "--secret-env"),
        (vec!["--format", "custom", "--secret-env", "SENDERS_SECRET"], 2, "svix"),
        (vec!["--policy", &file], 2, "--webhook"),
        (vec!["--policy", "/nowhere.json", "--webhook", "x"], 2, "/nowhere.json"),
        ([&format[..], &["NO_SUCH_SECRET"]].concat(), 2, "NO_SUCH_SECRET"),
        ([&format[..], &["SENDERS_SECRET", "/nowhere"]].concat(), 2, "/nowhere"),
        ([&format[..], &["SENDERS_SECRET", "--id", "a.b"]].concat(), 1, "--id a.b"),
        ([&format[..], &["PATH"]].concat(), 1, "PATH: expected `whsec_` and base64"),
        (vec!["--policy", &file, "--webhook", "x"], 1, "`stripe`"),
    ] {
        let output = sign(&arguments, BODY);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty() && !text.contains(SECRET), "{arguments:?}: {text}");
    }
}

#[test]
fn the_example_of_the_help_works() {
    let help = printed(sign(&["--help"], ""));
    let example = help.lines().find(|line| line.contains("sign --format")).unwrap().trim();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("help");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("event.json"), BODY).unwrap();
    let command = example.replace("avnology-gate", env!("CARGO_BIN_EXE_avnology-gate"));
    let mut shell = Command::new("sh");
    let shell = shell.arg("-c").arg(command).current_dir(&folder).env("STRIPE_WEBHOOK_SECRET", SECRET);
    let headers = printed(shell.output().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(judge(&policy_of("stripe"), "/hook", &headers, BODY, now), "webhook_verified", "{headers}");
}
