//! An Envoy for the trials of one mesh: the clusters that its manifests name, with a provider that
//! speaks TLS and a service behind them. Trials bring listeners.
//!
//! What a mesh would send over its own channel (extension configurations, the authority's
//! certificate) comes from files here, and endpoints are on this machine. Nothing else is changed.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harness::client::{Answer, Ask, Connection, Version};
use harness::control::{Provider, Upstream};
use harness::corpus::{ENVIRONMENT, WEBHOOK_SECRET};
use harness::envoy::{Envoy, Options, Refused};
use harness::port::Reserved;
use harness::{sample, standin, upstream};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::provider_tls::{Authority, serve_with_tls};
use crate::{Outcome, ensure};

/// How long nothing passes where a worker stays closed. Envoy starts a module anew after a second,
/// where nobody says otherwise.
pub(super) const CLOSED: Duration = Duration::from_millis(1800);

/// The host that every manifest names.
pub(super) const PROVIDER: &str = "api-id.avnology.net";

/// What a trial does with what it shares.
pub(super) type With<T> = fn(&T) -> Outcome;

/// Trials that share what the first one of them builds.
pub(super) fn trials<T: Send + Sync + 'static>(
    build: fn() -> Result<T, String>,
    all: &[(&str, With<T>)],
) -> Vec<Trial> {
    let shared: Arc<OnceLock<Result<T, String>>> = Arc::default();
    let trial = |(name, run): &(&str, With<T>)| {
        let (shared, run) = (Arc::clone(&shared), *run);
        Trial::test(*name, move || {
            let built = shared.get_or_init(build).as_ref().map_err(Clone::clone);
            built.and_then(run).map_err(Failed::from)
        })
    };
    all.iter().map(trial).collect()
}

/// A trial that shares nothing.
pub(super) fn alone(name: &str, run: fn() -> Outcome) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

pub(super) struct Stage {
    pub(super) envoy: Arc<Envoy>,
    pub(super) provider: Provider,
    pub(super) upstream: Upstream,
    /// Where the provider speaks TLS.
    provider_tls: SocketAddr,
    /// The certificate of the authority that the provider's is from.
    authority: PathBuf,
    _servers: (standin::Running, upstream::Running, service::Running),
}

impl Stage {
    /// With a provider whose certificate is for this host.
    pub(super) fn start(host: &str) -> Result<Self, String> {
        let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = Options { workers: 1, environment, module: sample::module()?, narrate: false };
        let envoy = Arc::new(Envoy::start(options)?);
        let standin = standin::Running::start(standin::Seed::embedded());
        let service = upstream::Running::start();
        let authority = Authority::new()?;
        let (provider_tls, relay) = serve_with_tls(authority.issue(host)?, standin.api);
        Ok(Self {
            authority: authority.write(envoy.directory(), "provider")?,
            envoy,
            provider: Provider(standin.control),
            upstream: Upstream(service.addr),
            provider_tls,
            _servers: (standin, service, relay),
        })
    }

    /// The provider's cluster, as a mesh made it.
    pub(super) fn provide(&self, mut cluster: Value) -> Outcome {
        each_object(&mut cluster, &mut |object| {
            if let Some(address) = object.get_mut("socket_address") {
                *address = socket(self.provider_tls);
            }
            if let Some(config) = object.get_mut("sds_config") {
                let file = self.envoy.directory().join("authority.json");
                *config = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
                let secret = json!({
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                    "name": object["name"],
                    "validation_context": {"trusted_ca": {"filename": self.authority}},
                });
                put(&file, &json!({"resources": [secret]}))?;
            }
            Ok(())
        })?;
        self.envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)
    }

    /// The service's cluster, under the name that a mesh gives it.
    pub(super) fn serve(&self, name: &str) -> Outcome {
        let cluster = sample::cluster("upstream", name, Some(self.upstream.0));
        self.envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)
    }

    /// The file from which a listener's filter is discovered.
    fn extension(&self, name: &str) -> PathBuf {
        self.envoy.directory().join(format!("extension-{name}.json"))
    }

    /// A listener with the extension configurations that its filters are to discover.
    pub(super) fn listen(
        &self,
        name: &str,
        mut listener: Value,
        extensions: &[Value],
    ) -> Result<Gate<'_>, String> {
        let port = Reserved::new(0).map_err(|error| error.to_string())?;
        listener["name"] = json!(name);
        listener["address"] = json!({"socket_address": socket(port.address)});
        each_object(&mut listener, &mut |object| {
            let filter = object.get("name").cloned().unwrap_or_default();
            let Some(source) = object.get_mut("config_discovery").map(|it| &mut it["config_source"]) else {
                return Ok(());
            };
            ensure!(source["ads"].is_object(), "{filter} is not discovered over the mesh's channel");
            let found = extensions.iter().find(|it| it["name"] == filter);
            let found = found.ok_or_else(|| format!("nobody configures {filter}"))?;
            let file = self.extension(name);
            put(&file, &json!({"resources": [found]}))?;
            source.as_object_mut().and_then(|source| source.remove("ads"));
            source["path_config_source"] = json!({"path": file});
            Ok(())
        })?;
        self.envoy.put_raw_listener(name, listener).map_err(|Refused(text)| text)?;
        Ok(Gate { stage: self, address: port.address, name: name.to_owned(), _port: port })
    }
}

/// A listener of a stage. Dropping it removes it.
pub(super) struct Gate<'s> {
    pub(super) stage: &'s Stage,
    address: SocketAddr,
    name: String,
    _port: Reserved,
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.stage.envoy.remove(&self.name, &[]);
    }
}

impl Gate<'_> {
    /// Gives the discovered filter another configuration.
    pub(super) fn extend(&self, extension: &Value) -> Outcome {
        put(&self.stage.extension(&self.name), &json!({"resources": [extension]}))
    }

    pub(super) fn connect(&self) -> Result<Connection, String> {
        Connection::open(self.address, Version::Http1).map_err(|error| error.to_string())
    }

    pub(super) fn ask(&self, request: &Ask) -> Result<Answer, String> {
        harness::client::ask(self.address, Version::Http1, request).map_err(|failure| failure.to_string())
    }

    pub(super) fn expect(&self, request: &Ask, status: u16) -> Outcome {
        let answer = self.ask(request)?;
        let asked = String::from_utf8_lossy(request.path.as_deref().unwrap_or_default());
        ensure!(answer.status == status, "{asked}: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// What the service sees of a request that names its caller itself.
    pub(super) fn user_behind(&self, request: Ask, status: u16) -> Result<Vec<String>, String> {
        let id = format!("{}-{status}-{}", self.name, self.stage.upstream.seen()?.len());
        let request = request.header("x-avnology-user-id", "usr_root").header("x-trial", &id);
        self.expect(&request, status)?;
        let has = |headers: &[(String, String)]| headers.iter().any(|(n, v)| n == "x-trial" && *v == id);
        let seen = self.stage.upstream.seen()?.into_iter().find(|seen| has(&seen.headers));
        let headers = seen.ok_or("the service saw no such request")?.headers;
        Ok(headers.into_iter().filter(|(name, _)| name == "x-avnology-user-id").map(|(_, id)| id).collect())
    }

    /// Has a webhook delivered, of a body of this size at least, and says the answer's status.
    pub(super) fn deliver(&self, size: usize) -> Result<u64, String> {
        let url = format!("http://{}/webhooks/avnology", self.address);
        let event = json!({"type": "user.created", "of": self.name, "padding": "x".repeat(size)});
        let delivery = json!({"url": url, "secret": WEBHOOK_SECRET, "event": event});
        self.stage.provider.deliver(&delivery)?["status"].as_u64().ok_or_else(|| "no status".to_owned())
    }

    /// With a module in the gate's place that fails at its second request: whether a request passes
    /// again after that, within this time.
    pub(super) fn recovers_within(&self, long: Duration) -> Result<bool, String> {
        let (ask, began) = (request("GET", "/healthz"), Instant::now());
        self.expect(&ask, 200)?;
        self.expect(&ask, 503)?;
        while began.elapsed() < long {
            if self.ask(&ask)?.status == 200 {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    /// The shipped policy decides here, with the provider's answers.
    pub(super) fn decides(&self) -> Outcome {
        let user = self.user_behind(profile().bearer("tok_alice"), 200)?;
        ensure!(user == ["usr_alice"], "the service saw {user:?}");
        self.expect(&profile(), 401)?;
        self.expect(&profile().bearer("tok_revoked"), 401)?;
        self.expect(&profile().bearer("tok_noscope"), 403)?;
        self.expect(&request("PUT", "/api/projects/proj_1").bearer("tok_alice"), 200)?;
        self.expect(&request("PUT", "/api/projects/proj_2").bearer("tok_alice"), 403)?;
        self.expect(&request("GET", "/elsewhere").bearer("tok_alice"), 403)?;
        let user = self.user_behind(request("GET", "/healthz"), 200)?;
        ensure!(user.is_empty(), "the service saw {user:?}");
        // Envoy passes over a field that it does not know, and counts it.
        let unknown = self.stage.envoy.stats("dynamic_unknown_fields");
        ensure!(unknown.values().all(|count| *count == 0), "{unknown:?} in {}", self.name);
        self.stage.envoy.sound()
    }
}

pub(super) fn request(method: &str, path: &str) -> Ask {
    Ask::new(method, path, "api.example.com")
}

pub(super) fn profile() -> Ask {
    request("GET", "/api/profile")
}

fn socket(address: SocketAddr) -> Value {
    json!({"address": address.ip().to_string(), "port_value": address.port()})
}

/// Writes a file that Envoy may be watching.
fn put(file: &PathBuf, content: &Value) -> Outcome {
    let next = file.with_extension("next");
    fs::write(&next, content.to_string())
        .and_then(|()| fs::rename(&next, file))
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// Shows every object, outer ones first.
pub(super) fn each_object(value: &mut Value, show: &mut impl FnMut(&mut Value) -> Outcome) -> Outcome {
    if value.is_object() {
        show(value)?;
    }
    match value {
        Value::Object(members) => members.values_mut().try_for_each(|it| each_object(it, show)),
        Value::Array(items) => items.iter_mut().try_for_each(|it| each_object(it, show)),
        _ => Ok(()),
    }
}
