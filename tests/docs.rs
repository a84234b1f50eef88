//! Checks the documentation against the code: examples compile, and the documented fields and
//! reasons are those of the code.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use avnology_gate::config;
use avnology_gate::config::fields::describe::{Object, Place};
use avnology_gate::config::fields::tables::{document, tables};
use avnology_gate::overrides::{self, Override};
use avnology_gate::refusal::{PASSES, Reason};
use avnology_gate::telemetry::{METRICS, Metric};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const CONFIGURATION: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- fields: ";
const END: &str = "<!-- /fields -->";
/// The table of headers, among those of fields.
const OVERRIDES: &str = "overrides";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every environment variable is set, each to its own value.
fn env(name: &str) -> Option<String> {
    Some(format!("value-of-{name}-long-enough"))
}

#[test]
fn the_configuration_in_the_readme_holds_without_a_warning() {
    let readme = read("README.md");
    let blocks: Vec<&str> =
        readme.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1);
    let loaded = config::load(blocks[0].as_bytes(), &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_page_on_webhooks_shows_the_routes_of_the_example() {
    let example = read("envoy/webhook-routes.yaml");
    let routes =
        example.split_once("routes:").map(|(_, rest)| format!("```yaml\nroutes:{rest}```\n")).unwrap();
    assert!(read("docs/webhooks.md").contains(&routes), "docs/webhooks.md shows other routes than {routes}");
}

#[test]
fn every_reason_is_documented_with_its_status_and_error() {
    let documented = read("docs/decisions.md");
    for reason in Reason::ALL {
        let answer = reason.info().answer;
        let status = if answer == PASSES { "passes".to_owned() } else { answer.status.code.to_string() };
        let error = if answer == PASSES { String::new() } else { format!("`{}`", answer.error) };
        let row = format!("| `{}` | {status} | {error} | ", reason.id());
        assert!(documented.contains(&row), "docs/decisions.md has no row that begins {row}");
    }
    let rows = documented.lines().filter(|l| {
        l.starts_with("| `") && ([" passes ", "| 2", "| 4", "| 5"].iter().any(|status| l.contains(status)))
    });
    assert_eq!(rows.count(), Reason::ALL.len(), "docs/decisions.md documents a reason that does not exist");
}

/// The headers of `overrides::ALL`, which are no fields.
fn overrides() -> String {
    let row =
        |known: &Override| format!("| `{}` | {} | {} |", known.name, known.replaces.word(), known.read_by);
    let rows: Vec<String> = overrides::ALL.iter().map(row).collect();
    format!("| header | replaces the | read by |\n|---|---|---|\n{}", rows.join("\n"))
}

/// The page, with the table between each pair of markers generated from the declared fields.
fn with_declared_tables(page: &str) -> String {
    let mut blocks = page.split(BEGIN);
    let mut filled = blocks.next().unwrap().to_owned();
    for block in blocks {
        let (name, rest) = block.split_once(" -->\n").unwrap();
        let (_, rest) = rest.split_once(END).unwrap_or_else(|| panic!("the table `{name}` has no end"));
        let declared = match name {
            OVERRIDES => overrides(),
            name => match tables().into_iter().find(|table| table.name == name) {
                Some(table) => table.markdown,
                None => panic!("no fields are declared for the table `{name}`"),
            },
        };
        filled += &format!("{BEGIN}{name} -->\n{declared}\n{END}{rest}");
    }
    filled
}

#[test]
fn the_tables_of_the_configuration_are_those_of_the_declared_fields() {
    let page = read(CONFIGURATION);
    let declared = with_declared_tables(&page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIGURATION), declared).unwrap();
        return;
    }
    for (stands, declared) in page.lines().zip(declared.lines()) {
        assert_eq!(stands, declared, "{CONFIGURATION} is behind: UPDATE_DOCS=1 cargo test --test docs");
    }
    assert_eq!(page, declared, "{CONFIGURATION} is behind: UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_threats_show_every_shipped_line_that_protects() {
    const THREATS: &str = "docs/threats.md";
    let page = read(THREATS);
    let (before, rest) = page.split_once("<!-- shipped -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /shipped -->").unwrap();
    let table = harness::shipped::Lines::load().table();
    let listed = format!("{before}<!-- shipped -->\n{table}\n<!-- /shipped -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(THREATS), listed).unwrap();
        return;
    }
    assert_eq!(page, listed, "{THREATS} is behind: UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_page_about_metrics_shows_the_table() {
    const PAGE: &str = "docs/metrics.md";
    let page = read(PAGE);
    let (before, rest) = page.split_once("<!-- metrics -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /metrics -->").unwrap();
    let mut table = "| metric | kind | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, labels, help } in METRICS {
        let kind = format!("{kind:?}").to_lowercase();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    let listed = format!("{before}<!-- metrics -->\n{table}<!-- /metrics -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), listed).unwrap();
        return;
    }
    assert_eq!(page, listed, "{PAGE} is behind: UPDATE_DOCS=1 cargo test --test docs");
}

/// Without a rule a label is a part of the name, and each value a metric of its own.
#[test]
fn the_shipped_bootstrap_makes_every_label_of_the_table() {
    let bootstrap = harness::sample::shipped("envoy.yaml");
    let tags = bootstrap["stats_config"]["stats_tags"].as_array().unwrap();
    let named: BTreeSet<&str> = tags.iter().map(|tag| tag["tag_name"].as_str().unwrap()).collect();
    let labels: BTreeSet<&str> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
    assert_eq!(named, labels);
    for tag in tags {
        let (name, regex) = (tag["tag_name"].as_str().unwrap(), tag["regex"].as_str().unwrap());
        assert!(regex.contains(&format!(r"(\.{name}\.(")), "{regex}");
    }
}

#[test]
fn every_declared_field_has_a_row_and_every_row_is_a_declared_field() {
    /// Collects an object's fields, and those of the objects in it, each with its table.
    fn walk(object: &Object, around: &str, prefix: &str, found: &mut BTreeSet<(String, String)>) {
        let (table, prefix) = match object.place {
            Place::Around => (around, prefix),
            Place::Table(table) | Place::PartOf(table) => (table, ""),
        };
        for field in &object.fields {
            let name = format!("{prefix}{}", field.name);
            if let Some(inner) = field.object() {
                walk(inner, table, &format!("{name}."), found);
            }
            found.insert((table.to_owned(), name));
        }
        if let Some(like) = &object.like {
            walk(like, table, prefix, found);
        }
    }
    let mut declared = BTreeSet::new();
    walk(&document(), "", "", &mut declared);

    let page = with_declared_tables(&read(CONFIGURATION));
    let mut documented = BTreeSet::new();
    let mut table = None;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(BEGIN) {
            table = name.strip_suffix(" -->");
        } else if table == Some(OVERRIDES) && line != END {
            continue;
        } else if line == END {
            table = None;
        } else if line.starts_with("| `") {
            let table = table.unwrap_or_else(|| panic!("a row that no field declares: {line}"));
            let names = line.split('|').nth(1).unwrap();
            let names = names.split('`').skip(1).step_by(2);
            documented.extend(names.map(|name| (table.to_owned(), name.to_owned())));
        }
    }
    let missing: Vec<_> = declared.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&declared).collect();
    assert!(missing.is_empty() && invented.is_empty(), "no row: {missing:?}; no field: {invented:?}");
    assert!(declared.len() > 80, "the walk finds the fields: {declared:?}");
}

/// Which lines of the page are the shipped ones: all but addresses, names and the policy.
#[test]
fn the_page_about_deploying_shows_the_shipped_lines() {
    let page = read("docs/deploy.md");
    let mut compared = BTreeSet::new();
    let mut listener = harness::sample::shipped("listener.yaml")["resources"][0].take();
    let manager = listener["filter_chains"][0]["filters"][0]["typed_config"].take();
    for block in harness::page::blocks(&page).iter().filter(|block| block.language == "yaml") {
        let target = block.target().unwrap_or_else(|| panic!("it says no place: {}", block.text));
        let mut shown: Value = serde_norway::from_str(&block.text).unwrap();
        let shipped = match (&*target.file, target.place.as_deref()) {
            ("envoy.yaml", Some("clusters")) => {
                let host = &mut shown[0]["load_assignment"]["endpoints"];
                assert!(host.to_string().contains(r#""api-id.avnology.net","port_value":443"#), "{host}");
                *host = json!([]);
                shown[0]["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
                json!([harness::sample::cluster_with_tls("avnology", "avnology", None)])
            }
            ("envoy.yaml", None) if shown.get("dynamic_resources").is_some() => {
                shown["node"].take();
                json!({"node": null, "dynamic_resources": harness::sample::shipped("envoy.yaml")["dynamic_resources"]})
            }
            ("listener.yaml", Some("http_filters")) => {
                let policy = "/typed_config/config/configuration/value";
                let mut plugin = manager["http_filters"][0].clone();
                let text = shown[0].pointer_mut(policy).unwrap().take();
                let loaded = config::load(text.as_str().unwrap().as_bytes(), &env);
                let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
                assert_eq!(loaded.warnings, Vec::<String>::new());
                plugin.pointer_mut(policy).unwrap().take();
                json!([plugin])
            }
            ("listener.yaml", Some("Listener")) => {
                json!({"per_connection_buffer_limit_bytes": listener["per_connection_buffer_limit_bytes"]})
            }
            ("listener.yaml", Some("HttpConnectionManager")) => {
                let of_the_service = [
                    "@type",
                    "stat_prefix",
                    "codec_type",
                    "http_filters",
                    "route_config",
                    "upgrade_configs",
                    "access_log",
                ];
                let mut settings = manager.clone();
                settings.as_object_mut().unwrap().retain(|name, _| !of_the_service.contains(&&**name));
                settings
            }
            _ => continue,
        };
        assert_eq!(shown, shipped, "docs/deploy.md, {target:?}");
        compared.insert(target.place);
    }
    assert_eq!(compared.len(), 5, "{compared:?}");
}

/// What the page says of settings and other filters is tried, and every such trial is on the page.
#[test]
fn every_row_about_deploying_names_its_tests() {
    let page = read("docs/deploy.md");
    let mut shown = BTreeSet::new();
    for section in ["### 5. The listener's settings", "### Its place among the filters"] {
        let section = page.split(section).nth(1).unwrap().split("\n### ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
        for row in &rows[1..] {
            let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            assert!(!tests.is_empty(), "no test shows: {row}");
            shown.extend(tests.into_iter().map(str::to_owned));
        }
    }
    let names = tests_by_name();
    assert!(shown.is_subset(&names), "{:?}", shown.difference(&names));
    let is_order = |name: &&String| name.strip_prefix("order/").is_some_and(|rest| !rest.is_empty());
    let trials: BTreeSet<&String> = names.iter().filter(is_order).collect();
    assert_eq!(shown.iter().filter(is_order).collect::<BTreeSet<_>>(), trials);
    assert!(trials.len() > 9, "{trials:?}");
}

/// Sizes on the page about deploying are those of the code and of the pages that explain them.
#[test]
fn the_page_about_deploying_has_the_sizes_of_the_code() {
    let page = read("docs/deploy.md").replace('\n', " ");
    for (file, says, shown) in [
        ("src/cache/mod.rs", "BYTES_PER_ENTRY: usize = 1024;", "1 KiB of answer each on average"),
        ("docs/performance.md", "323 bytes a token", "A token measured [323 bytes](performance.md)"),
        (
            "docs/performance.md",
            "| gate, cached token, four identity headers | 43.0 | 17.2 |",
            "took 17 µs more than no filter",
        ),
        ("docs/performance.md", "| gate, every request asks | 163 | 138 |", "asks the provider 138 µs"),
        ("docs/performance.md", "| 1 MiB | 4,530 | 4,240 |", "takes 4 ms for each MiB"),
        (
            "docs/configuration.md",
            "is enough for 42 workers, or for 21 that are updated",
            "enough for 42 workers, or for 21 while",
        ),
        (
            "docs/configuration.md",
            "4,096 of them and 8 MiB a worker",
            "| questions that wait for their turn | 8 MiB |",
        ),
        (
            "docs/configuration.md",
            "holds up to 64 MiB of them",
            "| bodies of webhooks that are held | 64 MiB |",
        ),
        (
            "docs/configuration.md",
            "500 a second, 5000 at once",
            "500 new tokens a second are 12,000 with three Envoys of eight workers",
        ),
        ("docs/configuration.md", "| `30s`, `10s` |", "asked about once each `ttl` (30 s)"),
        ("docs/configuration.md", "at about 50 bytes each", "`replay.slots` at 50 bytes each"),
    ] {
        assert!(read(file).replace('\n', " ").contains(says), "{file} says no longer: {says}");
        assert!(page.contains(shown), "docs/deploy.md does not say: {shown}");
    }
}

/// The route that the page shows is the shipped listener's.
#[test]
fn the_page_about_streams_shows_the_shipped_route() {
    let page = read("docs/long-lived.md");
    let block = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let listener = read("envoy/listener.yaml");
    let shipped: Vec<&str> = listener.lines().map(str::trim).collect();
    let shown: Vec<&str> = block.lines().map(str::trim).collect();
    assert!(shown.len() > 4 && shipped.windows(shown.len()).any(|window| window == shown), "{shown:#?}");
    for limit in ["timeout: 15s", "stream_idle_timeout: 30s"] {
        assert!(listener.contains(limit), "{limit}");
    }
}

#[test]
fn relative_links_lead_somewhere() {
    for page in [
        "README.md",
        "docs/deploy.md",
        "docs/command-line.md",
        "docs/configuration.md",
        "docs/decisions.md",
        "docs/metrics.md",
        "docs/operate.md",
        "docs/tasks/outages.md",
        "docs/tasks/roll-out-in-shadow.md",
        "docs/tasks/rotate-secrets.md",
        "docs/compose.md",
        "docs/long-lived.md",
        "docs/mesh.md",
        "docs/performance.md",
        "docs/life-of-a-request.md",
        "docs/CONTRIBUTING.md",
        "docs/threats.md",
        "tests/attack/README.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().unwrap();
        for target in read(page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !target.starts_with("http") && !file.is_empty() {
                assert!(folder.join(file).exists(), "{page} links to {target}");
            }
        }
    }
}

/// The words of a page that may be paths.
fn words(page: &str) -> impl Iterator<Item = &str> {
    page.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)))
        .map(|word| word.trim_end_matches(['.', '/']))
}

#[test]
fn every_source_that_a_page_names_exists() {
    for page in ["docs/life-of-a-request.md", "docs/CONTRIBUTING.md", "docs/life-of-a-request.svg"] {
        let text = read(page);
        let named: Vec<&str> = words(&text).filter(|word| word.starts_with("src/")).collect();
        assert!(!named.is_empty(), "{page} names its sources by their paths");
        for path in named {
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists();
            assert!(exists, "{page} names {path}, which is not there");
        }
    }
}

#[test]
fn every_file_in_the_picture_is_one_of_its_layers() {
    let picture = read("docs/life-of-a-request.svg");
    for file in words(&picture).filter(|word| word.ends_with(".rs")) {
        let exists = ["src/flow", "src/envoy"]
            .iter()
            .any(|layer| Path::new(env!("CARGO_MANIFEST_DIR")).join(layer).join(file).exists());
        assert!(exists, "the picture names {file}, which is in neither src/flow nor src/envoy");
    }
}

#[test]
fn check_prints_what_the_cluster_must_allow_and_the_shipped_one_does() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/base.json");
    let run = |workers: u32| {
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_avnology-gate"));
        let output =
            check.arg("check").arg(&policy).args(["--workers", &workers.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Without retries: 64 + 32 + 96 for each worker.
    assert!(run(8).contains("max_requests of 1536 at least, and max_retries of 0"), "{}", run(8));
    let document = read("tests/cases/base.json").replace("\"retries\": 0", "\"retries\": 1");
    let needs = config::load(document.as_bytes(), &env).unwrap().cluster_needs(42).unwrap();
    assert_eq!((needs.cluster.as_str(), needs.requests, needs.retries), ("avnology", 16_128, 8_064));
    let shipped = read("envoy/envoy.yaml");
    let provider = shipped.split("- name: upstream").next().unwrap();
    for limit in ["max_connections", "max_pending_requests", "max_requests", "max_retries"] {
        assert!(provider.contains(&format!("{limit}: 16384")), "{limit}");
    }
    assert!(provider.contains("lb_policy: LEAST_REQUEST"));
    let page = read(CONFIGURATION);
    assert!(page.contains("16,384 for all four, which is enough for 42 workers"));
}

/// A page's files are written where its commands run; what they print is what the page shows.
#[test]
fn the_page_about_the_command_line_shows_what_is_printed() {
    const PAGE: &str = "docs/command-line.md";
    let page = read(PAGE);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command-line");
    fs::create_dir_all(&folder).unwrap();
    let blocks = |kind: &str| -> Vec<String> {
        let begin = format!("```{kind}\n");
        page.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
    };
    fs::write(folder.join("policy.json"), &blocks("json")[0]).unwrap();
    fs::write(folder.join("policy.yaml"), &blocks("yaml")[0]).unwrap();
    let updates = std::env::var_os("UPDATE_DOCS").is_some();
    let (mut commands, mut shown) = (0, page.clone());
    for console in blocks("console") {
        let (command, printed) = console.strip_prefix("$ ").unwrap().split_once('\n').unwrap();
        let program = command.replace("avnology-gate", env!("CARGO_BIN_EXE_avnology-gate"));
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{{ {program}; }} 2>&1")]).current_dir(&folder);
        let output = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        shown = shown.replace(&console, &format!("$ {command}\n{output}"));
        assert!(updates || printed == output, "UPDATE_DOCS=1 cargo test --test docs: {output}");
        commands += 1;
    }
    assert!(commands >= 5, "{commands}");
    if updates {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), shown).unwrap();
    }
    let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_avnology-gate"));
    let help = String::from_utf8(help.arg("--help").output().unwrap().stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for verb in
        listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help")
    {
        assert!(page.contains(&format!("| `{verb}")), "{PAGE} has no row of `{verb}`");
    }
}

/// Every test that a name can stand for: cases, rows of the attack suite, and what the sources call
/// a trial, a scenario or a test.
fn tests_by_name() -> BTreeSet<String> {
    fn sources(folder: &Path, found: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = harness::corpus::load(&root.join("tests/cases")).unwrap();
    let rows = harness::attack::load(&root.join("tests/attack/rows")).unwrap();
    let readings = harness::attack::readings(&root.join("tests/attack/rows")).unwrap();
    let mut names: BTreeSet<String> = cases.into_iter().map(|case| case.id).collect();
    names.extend(rows.into_iter().map(|row| row.id));
    names.extend(readings.into_iter().map(|reading| reading.id));
    names.extend(
        harness::shipped::Lines::load()
            .lines
            .into_iter()
            .filter(|line| line.trial().is_some())
            .map(|line| line.test),
    );
    let mut text = read("tests/docs.rs");
    text.push_str(&read("tests/manifests.rs"));
    for folder in ["src", "tests/envoy", "tests/chaos", "tests/harness/src", "tests/fuzz/tests"] {
        sources(&root.join(folder), &mut text);
    }
    let word = |rest: &str, end: char| rest.split(end).next().unwrap_or_default().to_owned();
    names.extend(
        text.split("#[test]\n").skip(1).filter_map(|rest| Some(word(rest.split_once("fn ")?.1, '('))),
    );
    // Trials and scenarios: `("name", function)`, on one line or on two.
    names.extend(text.split("(\"").skip(1).map(|rest| word(rest, '"')));
    let alone = text.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    names.extend(alone.map(str::to_owned));
    names
}

/// What the gate cannot do in a mesh is shown, and a trial about a mesh is on the page.
#[test]
fn every_row_about_the_meshes_names_its_tests() {
    let names = tests_by_name();
    let page = read("docs/mesh.md");
    let limits = page.split("## What the gate cannot do there").nth(1).unwrap();
    let mut shown = BTreeSet::new();
    for row in limits.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test shows: {row}");
        for test in tests {
            assert!(names.contains(test), "docs/mesh.md names {test}, which is no test");
            shown.insert(test.to_owned());
        }
    }
    let of_a_mesh = |name: &&String| {
        let mut parts = name.splitn(2, '/');
        let is_one = parts.next().is_some_and(|mesh| ["istio", "gateway", "capabilities"].contains(&mesh));
        // A trial's name is a sentence; others are those of files and folders.
        is_one && parts.next().is_some_and(|sentence| sentence.contains('_'))
    };
    let trials: BTreeSet<&String> = names.iter().filter(of_a_mesh).collect();
    assert_eq!(shown.iter().filter(of_a_mesh).collect::<BTreeSet<_>>(), trials);
    assert!(trials.len() > 15, "{trials:?}");
}

#[test]
fn every_test_that_the_threats_name_exists() {
    let names = tests_by_name();
    let page = read("docs/threats.md");
    let mut named = 0;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| tries") && !line.starts_with("| in |"))
    {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test shows: {row}");
        for test in tests {
            assert!(names.contains(test), "docs/threats.md names {test}, which is no test");
            named += 1;
        }
    }
    assert!(named > 80, "the page names its tests: {named}");
    let remaining = page.split("## What remains").nth(1).unwrap();
    for name in remaining
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("framework/") || name.starts_with("http"))
    {
        assert!(names.contains(name), "docs/threats.md names {name}, which is no test");
    }
}

/// What `make release` publishes about a version, and refuses to do without.
#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::env::temp_dir().join(format!("changelog-{}.md", std::process::id()));
    fs::write(
        &file,
        "# Changelog\n\n## [1.1.0]\n\n## [1.0.0] - 2026-01-02\n### Fixed\n- x\n## [0.9.0]\n- y\n",
    )
    .unwrap();
    let notes = |version: &str| {
        let command = std::process::Command::new(root.join("tools/notes")).arg(version).arg(&file).output();
        let output = command.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(notes("1.0.0"), (true, "### Fixed\n- x\n".to_owned()));
    assert_eq!(notes("0.9.0"), (true, "- y\n".to_owned()));
    // None, an empty one, and one whose name only begins so.
    for missing in ["2.0.0", "1.1.0", "1.0", "1.0.0]"] {
        assert_eq!(notes(missing), (false, String::new()), "{missing}");
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn the_page_about_versions_names_those_of_the_matrix() {
    let makefile = read("Makefile");
    let set = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" := "));
        line.unwrap_or_else(|| panic!("the Makefile sets no {name}")).to_owned()
    };
    let versions = set("ENVOY_VERSIONS").replace("$(ENVOY_VERSION)", &set("ENVOY_VERSION"));
    let versions: Vec<&str> = versions.split(' ').collect();
    let (oldest, newest) = (versions[0], versions[versions.len() - 1]);
    let listed = format!("{} and {newest}", versions[..versions.len() - 1].join(", "));
    let page = read("docs/versions.md").replace('\n', " ");
    for text in [&listed, &format!("with {newest}, and with {oldest}")] {
        assert!(page.contains(text), "docs/versions.md does not say {text:?}");
    }
    let short = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    let readme = format!("in real Envoys from {} to {}", short(oldest), short(newest));
    assert!(read("README.md").contains(&readme), "README.md does not say {readme:?}");
}
