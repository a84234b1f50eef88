//! The steps of docs/deploy.md, taken one by one with a real Envoy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::client::{Ask, Connection, Version};
use harness::control::{Provider, until};
use harness::corpus::ENVIRONMENT;
use harness::envoy::{Envoy, Options};
use harness::page::{self, Block, Target};
use harness::port::Reserved;
use harness::{sample, standin, upstream};
use libtest_mimic::{Failed, Trial};
use serde_norway::Value;

use crate::provider_tls::{Authority, serve_with_tls};
use crate::{Fleet, Outcome, ensure};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    type Steps = fn(bool) -> Outcome;
    let all: &[(&str, Steps)] = &[
        ("deploy/the_steps_of_the_page", steps),
        ("deploy/envoy_is_live_where_nothing_listens", live_without_a_listener),
        ("deploy/a_config_map_is_moved_below_a_watched_folder", config_map),
        ("deploy/an_open_connection_is_told_to_connect_anew", open_connection),
        ("deploy/a_new_module_takes_over_and_the_old_one_again", new_module),
    ];
    let is_old = fleet.version < semver::Version::new(1, 37, 0);
    all.iter()
        .map(|(name, run)| {
            let run = *run;
            Trial::test(*name, move || run(is_old).map_err(Failed::from))
        })
        .collect()
}

const FILES: [&str; 2] = ["envoy.yaml", "listener.yaml"];

/// The page's Envoy: its files, and what is around it.
struct Stage {
    folder: PathBuf,
    gate: Reserved,
    replaced: Vec<(&'static str, String)>,
    provider: standin::Running,
    _servers: (upstream::Running, service::Running),
}

impl Stage {
    fn new() -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("avnology-deploy-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).map_err(text)?;
        fs::copy(sample::module()?, folder.join("avnology_gate.wasm")).map_err(text)?;
        let (provider, service) =
            (standin::Running::start(standin::Seed::embedded()), upstream::Running::start());
        let authority = Authority::new()?;
        let trusted = authority.write(&folder, "authority")?;
        let (with_tls, relay) = serve_with_tls(authority.issue("api-id.avnology.net")?, provider.api);
        let gate = Reserved::new(0).map_err(text)?;
        let socket = |at: SocketAddr| format!("{{address: {}, port_value: {}}}", at.ip(), at.port());
        let own = folder.display().to_string();
        let replaced = vec![
            ("{address: 127.0.0.1, port_value: 9901}", "{address: 127.0.0.1, port_value: 0}".to_owned()),
            ("{address: 0.0.0.0, port_value: 8080}", socket(gate.address)),
            ("{address: service.internal, port_value: 3000}", socket(service.addr)),
            ("{address: api-id.avnology.net, port_value: 443}", socket(with_tls)),
            ("/etc/ssl/certs/ca-certificates.crt", trusted.display().to_string()),
            ("/etc/envoy", own.clone()),
            ("/opt/avnology-gate", own),
        ];
        Ok(Self { folder, gate, replaced, provider, _servers: (service, relay) })
    }

    /// With what the page has only as an example replaced.
    fn local(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn read(&self, file: &str) -> Result<Value, String> {
        match fs::read_to_string(self.folder.join(file)) {
            Ok(content) => serde_norway::from_str(&content).map_err(text),
            Err(_) => Ok(Value::Null),
        }
    }

    fn write(&self, file: &str, content: &Value) -> Outcome {
        let content = serde_norway::to_string(content).map_err(text)?;
        fs::write(self.folder.join(file), content).map_err(text)
    }

    /// Puts a block where its first line says.
    fn apply(&self, block: &Block, is_old: bool) -> Outcome {
        let target = block.target().ok_or_else(|| format!("it goes nowhere: {}", block.text))?;
        ensure!(FILES.contains(&&*target.file), "{target:?}");
        let mut piece: Value = serde_norway::from_str(&self.local(&block.text)).map_err(text)?;
        if is_old && target.place.as_deref() == Some("clusters") {
            let options = piece[0]["typed_extension_protocol_options"]
                ["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
                .as_mapping_mut();
            ensure!(options.and_then(|options| options.remove("retry_policy")).is_some(), "no retry_policy");
        }
        let mut file = self.read(&target.file)?;
        let is_new = file.is_null();
        page::apply(&mut file, &target, piece)?;
        if is_new && target.file == "listener.yaml" {
            // The page tells the reader to do this by hand.
            let mut bootstrap = self.read("envoy.yaml")?;
            let resources = bootstrap["static_resources"].as_mapping_mut();
            let listeners = resources.and_then(|resources| resources.remove("listeners"));
            let listener = listeners.ok_or("no listeners")?[0].clone();
            let whole = Target { place: Some("Listener".to_owned()), ..target.clone() };
            page::apply(&mut file, &whole, listener)?;
            self.write("envoy.yaml", &bootstrap)?;
        }
        self.write(&target.file, &file)
    }

    /// An Envoy with the files as they are.
    fn start(&self) -> Result<Envoy, String> {
        let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = Options { workers: 1, environment, module: sample::module()?, narrate: false };
        let own = serde_json::to_value(self.read("envoy.yaml")?).map_err(text)?;
        Envoy::start_edited(options, |bootstrap| {
            *bootstrap = own;
            Ok(())
        })
    }

    /// Runs a command of the page, and says what it prints.
    fn run(&self, command: &str, folder: &Path, admin: Option<SocketAddr>) -> Result<String, String> {
        let mut command = self
            .local(command.trim_end())
            .replace("avnology-gate ", concat!(env!("CARGO_BIN_EXE_avnology-gate"), " "))
            .replace("127.0.0.1:8080", &self.gate.address.to_string());
        if let Some(admin) = admin {
            command = command.replace("127.0.0.1:9901", &admin.to_string());
        }
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .envs([("TOKEN", "tok_alice"), ("OTHER", "tok_noscope")])
            .current_dir(folder)
            .output()
            .map_err(text)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command until it has the status and prints the lines that the page shows: an update
    /// takes a moment.
    fn shows(&self, command: &page::Command, admin: Option<SocketAddr>) -> Outcome {
        let mut printed = String::new();
        let changes = !command.text.starts_with("curl");
        let holds = |printed: &str| match command.status {
            Some(status) => printed.contains(&format!("HTTP/1.1 {status} ")),
            None => command.prints.is_empty() || command.prints == printed,
        };
        let outcome = until(|| {
            printed = self.run(&command.text, &self.folder, admin)?;
            Ok(changes || holds(&printed))
        });
        ensure!(outcome.is_ok() && holds(&printed), "{command:?} prints {printed}");
        Ok(())
    }

    fn status(&self, path: &str) -> Result<u16, String> {
        let ask = Ask::new("GET", path, "api.example.com");
        let answer = harness::client::ask(self.gate.address, Version::Http1, &ask).map_err(text)?;
        Ok(answer.status)
    }

    /// How many listener files Envoy has taken.
    fn updates(&self, envoy: &Envoy) -> u64 {
        envoy.stats("listener_manager.lds.update_success").values().sum()
    }

    /// Everything up to the start.
    fn configured(is_old: bool) -> Result<Self, String> {
        let stage = Self::new()?;
        for block in blocks()?.iter().filter(|block| block.language == "yaml") {
            stage.apply(block, is_old)?;
        }
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::env::var_os("GATE_KEEP").is_none() {
            // What cannot be removed stays in the machine's temporary directory.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The blocks of the page's first part.
fn blocks() -> Result<Vec<Block>, String> {
    let page = fs::read_to_string(sample::root().join("docs/deploy.md")).map_err(text)?;
    let (_, rest) = page.split_once("\n## Envoy\n").ok_or("the page has no such part")?;
    Ok(page::blocks(rest.split("\n## ").next().unwrap_or_default()))
}

fn steps(is_old: bool) -> Outcome {
    let stage = Stage::new()?;
    let mut envoy: Option<Envoy> = None;
    let mut statuses = Vec::new();
    for (nth, block) in blocks()?.iter().enumerate() {
        match &*block.language {
            "yaml" => {
                stage.apply(block, is_old)?;
                if nth == 0 {
                    let _plain = stage.start()?;
                    ensure!(
                        stage.status("/api/profile")? == 200,
                        "the Envoy before the steps does not serve"
                    );
                }
            }
            "sh" => {
                let printed = stage.run(&block.text, &sample::root(), None)?;
                ensure!(printed.is_empty(), "{} prints {printed}", block.text);
            }
            "console" => {
                if envoy.is_none() && block.text.contains("$ curl") {
                    envoy = Some(stage.start()?);
                }
                for command in block.commands() {
                    stage.shows(&command, envoy.as_ref().map(Envoy::admin))?;
                    statuses.extend(command.status);
                }
            }
            // tools/oci/tests/registry.rs types these, against a registry.
            "bash" => {}
            "text" => {
                let log = envoy.as_ref().map(Envoy::log).unwrap_or_default();
                for line in block.text.lines().map(|line| line.trim_end_matches('…')) {
                    ensure!(log.contains(line), "the log has no {line}: {log}");
                }
            }
            other => return Err(format!("a block of {other}")),
        }
    }
    ensure!(statuses == [200, 200, 401, 200, 403, 403, 403, 200, 200], "{statuses:?}");
    let envoy = envoy.ok_or("no Envoy was started")?;
    let metrics = envoy.get("/stats/prometheus?filter=avnology_gate")?;
    ensure!(metrics.contains("reason=\"missing_token\""), "no labels: {metrics}");
    envoy.sound()
}

/// Envoy's own readiness says nothing about a policy that was refused at the start.
fn live_without_a_listener(is_old: bool) -> Outcome {
    let stage = Stage::configured(is_old)?;
    let put = |edit: &str| {
        let command = format!("sed '{edit}' good.yaml > next.yaml && mv next.yaml listener.yaml");
        stage.run(&command, &stage.folder, None)
    };
    stage.run("cp listener.yaml good.yaml", &stage.folder, None)?;
    put(r#"s/"access"/"acess"/"#)?;
    // This waits for LIVE.
    let envoy = stage.start()?;
    let mistakes = [("", "routes[0].acess"), ("/- AVNOLOGY_API_KEY/d", "AVNOLOGY_API_KEY")];
    for (refusals, (edit, logged)) in (1_u64..).zip(mistakes) {
        if !edit.is_empty() {
            put(edit)?;
        }
        until(|| Ok(envoy.stats("lds.update_rejected").values().sum::<u64>() == refusals))?;
        ensure!(envoy.get("/ready")?.trim() == "LIVE", "not live");
        ensure!(stage.status("/gate/ready").is_err(), "it listens");
        ensure!(envoy.log().contains(logged), "the log does not name {logged}: {}", envoy.log());
    }
    put("")?;
    until(|| Ok(stage.status("/gate/ready").is_ok_and(|status| status == 200)))
}

/// What the kubelet does: the files are links to links, and one of these is moved.
fn config_map(is_old: bool) -> Outcome {
    let stage = Stage::configured(is_old)?;
    let page = fs::read_to_string(sample::root().join("docs/deploy.md")).map_err(text)?;
    let watched =
        page.split('`').find(|code| code.contains("watched_directory: {path")).ok_or("no such line")?;
    let (key, source) = watched.split_once(": ").ok_or("no member")?;
    let mut bootstrap = stage.read("envoy.yaml")?;
    let source: Value = serde_norway::from_str(&stage.local(source)).map_err(text)?;
    bootstrap["dynamic_resources"]["lds_config"][key] = source;
    stage.write("envoy.yaml", &bootstrap)?;
    let shell = |command: &str| {
        let printed = stage.run(command, &stage.folder, None)?;
        ensure!(printed.is_empty(), "{command}: {printed}");
        Ok(())
    };
    shell(
        "mkdir ..1 && mv listener.yaml ..1 && ln -s ..1 ..data && ln -s ..data/listener.yaml listener.yaml",
    )?;
    let envoy = stage.start()?;
    until(|| Ok(stage.status("/healthz").is_ok_and(|status| status == 200)))?;
    shell(
        "mkdir ..2 && sed 's/healthz/health/' ..1/listener.yaml > ..2/listener.yaml && ln -s ..2 ..next && mv -T ..next ..data",
    )?;
    until(|| Ok(stage.status("/healthz")? == 403))?;
    envoy.sound()
}

/// With the flags of the shipped compose file, which the harness has too.
fn open_connection(is_old: bool) -> Outcome {
    let compose = sample::shipped("docker-compose.yaml");
    let flags = serde_json::to_string(&compose["services"]["envoy"]["command"]).map_err(text)?;
    ensure!(flags.contains(r#""--drain-strategy","immediate","--drain-time-s","60""#), "{flags}");
    let stage = Stage::configured(is_old)?;
    let envoy = stage.start()?;
    let mut connection = Connection::open(stage.gate.address, Version::Http1).map_err(text)?;
    let ask = Ask::new("GET", "/healthz", "api.example.com");
    ensure!(connection.ask(&ask).map_err(text)?.status == 200, "not public");
    let command = "sed 's/healthz/health/' listener.yaml > next.yaml && mv next.yaml listener.yaml";
    stage.run(command, &stage.folder, None)?;
    until(|| Ok(stage.status("/healthz")? == 403))?;
    // Whoever goes on after that is cut off by the connection manager's `drain_timeout`.
    let mut is_answered = false;
    until(|| match connection.ask(&ask) {
        Ok(answer) => {
            let closes = answer.header("connection");
            ensure!(
                answer.status == 200 && closes.as_deref() == Some("close"),
                "{} {closes:?}",
                answer.status
            );
            is_answered = true;
            Ok(false)
        }
        Err(_) => Ok(true),
    })?;
    ensure!(is_answered, "it gets no answer");
    envoy.sound()
}

/// Another file, another virtual machine; what the workers share outlives it.
fn new_module(is_old: bool) -> Outcome {
    let stage = Stage::configured(is_old)?;
    let envoy = stage.start()?;
    let provider = Provider(stage.provider.control);
    let passes = || -> Outcome {
        let ask = Ask::new("GET", "/api/profile", "api.example.com").bearer("tok_alice");
        let answer = harness::client::ask(stage.gate.address, Version::Http1, &ask).map_err(text)?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    };
    passes()?;
    // The same code and a section that nothing reads.
    let mut module = fs::read(stage.folder.join("avnology_gate.wasm")).map_err(text)?;
    module.extend([0, 2, 1, b'x']);
    fs::write(stage.folder.join("avnology_gate-next.wasm"), module).map_err(text)?;
    let created = || envoy.stats("wasm.envoy.wasm.runtime.v8.created").values().sum::<u64>();
    let mut machines = Vec::new();
    for change in [
        "s/\"health\"/\"healthy\"/",
        "s/avnology_gate.wasm/avnology_gate-next.wasm/",
        "s/avnology_gate-next.wasm/avnology_gate.wasm/",
    ] {
        let (before, taken) = (created(), stage.updates(&envoy));
        let command = format!("sed '{change}' listener.yaml > next.yaml && mv next.yaml listener.yaml");
        stage.run(&command, &stage.folder, None)?;
        until(|| Ok(stage.updates(&envoy) > taken))?;
        passes()?;
        machines.push(created().saturating_sub(before));
        let asked = provider.calls()?.len();
        ensure!(asked == 1, "{change}: the provider was asked {asked} times");
    }
    // One judges each update; what the old module ran in is there until its connections have ended.
    let [policy, next, last] = machines[..] else { return Err(format!("{machines:?}")) };
    ensure!(policy == 1 && next > 1 && last <= 1, "{machines:?}");
    envoy.sound()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
