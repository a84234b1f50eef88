//! `make run` and `make demo`: the shipped configuration in a real Envoy, with the requests that
//! show every kind of decision.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::{self, Answer, Ask, PATIENCE, Version};
use crate::control::Provider;
use crate::corpus::{ENVIRONMENT, WEBHOOK_SECRET};
use crate::envoy::{Envoy, Options, Refused};
use crate::port::Reserved;
use crate::sample::{self, Policy, Shape};

/// The ports that a transcript shows, whatever the real ones were: the gate's usual one, and one
/// for the stand-in's control port.
const SHOWN: [u16; 2] = [10_000, 10_001];

/// The gate with everything around it. Dropping this stops all of it.
pub struct Demo {
    /// Where the gate listens.
    pub gate: SocketAddr,
    /// The stand-in's control port.
    pub control: SocketAddr,
    shape: Shape,
    envoy: Envoy,
    _port: Reserved,
    _standin: standin::Running,
    _service: upstream::Running,
}

/// One request of the demonstration.
struct Show {
    /// What it shows.
    about: &'static str,
    what: What,
}

enum What {
    /// To the gate.
    Request { method: &'static str, path: &'static str, headers: &'static [(&'static str, &'static str)] },
    /// To the gate, once it has noticed that the provider is back.
    Later { path: &'static str, headers: &'static [(&'static str, &'static str)] },
    /// A webhook to the gate, signed with the secret that the gate knows or not at all.
    Webhook { signed: bool },
    /// To the stand-in's control port.
    Control { path: &'static str },
}

const ALICE: (&str, &str) = ("Authorization", "Bearer tok_alice");
const BOB: (&str, &str) = ("Authorization", "Bearer tok_bob");
const EVENT: &str = r#"{"type":"user.created","data":{"id":"usr_carol"}}"#;
/// A signature with the right form, but not the right value.
const FORGED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The demonstration: each kind of decision once.
const SHOWS: &[Show] = &[
    Show {
        about: "200: an active token with the scope; the client's own x-avnology-user-id does not survive",
        what: What::Request {
            method: "GET",
            path: "/api/profile",
            headers: &[ALICE, ("X-Avnology-User-Id", "usr_root")],
        },
    },
    Show {
        about: "401: no token",
        what: What::Request { method: "GET", path: "/api/profile", headers: &[] },
    },
    Show {
        about: "401: a token that was revoked",
        what: What::Request {
            method: "GET",
            path: "/api/profile",
            headers: &[("Authorization", "Bearer tok_revoked")],
        },
    },
    Show {
        about: "403: a token without the scope",
        what: What::Request {
            method: "GET",
            path: "/api/profile",
            headers: &[("Authorization", "Bearer tok_noscope")],
        },
    },
    Show {
        about: "200: alice is an editor of this project",
        what: What::Request { method: "PUT", path: "/api/projects/proj_1", headers: &[ALICE] },
    },
    Show {
        about: "403: and not of that one",
        what: What::Request { method: "PUT", path: "/api/projects/proj_2", headers: &[ALICE] },
    },
    Show {
        about: "403: what no route names stays closed, whoever asks",
        what: What::Request { method: "DELETE", path: "/api/projects/proj_1", headers: &[ALICE] },
    },
    Show { about: "200: a webhook whose signature holds", what: What::Webhook { signed: true } },
    Show { about: "401: a webhook that somebody else signed", what: What::Webhook { signed: false } },
    Show { about: "stop the provider", what: What::Control { path: "/stop-accepting" } },
    Show {
        about: "200: alice's token was asked about a moment ago",
        what: What::Request { method: "GET", path: "/api/profile", headers: &[ALICE] },
    },
    Show {
        about: "503: without the provider nobody new gets in",
        what: What::Request { method: "GET", path: "/api/profile", headers: &[BOB] },
    },
    Show { about: "start it again", what: What::Control { path: "/resume" } },
    Show {
        about: "200: bob too, once the gate has found out",
        what: What::Later { path: "/api/profile", headers: &[BOB] },
    },
];

impl Demo {
    /// Starts everything; `port` 0 takes any free ones, else the control port is the next. With
    /// `narrate`, Envoy's access log goes to standard output. `policy`: in place of the shipped one.
    pub fn start(port: u16, narrate: bool, policy: Option<Vec<u8>>) -> Result<Self, String> {
        Self::start_with(port, narrate, policy, 2)
    }

    /// The same, with this many workers.
    pub fn start_with(
        port: u16,
        narrate: bool,
        policy: Option<Vec<u8>>,
        workers: u32,
    ) -> Result<Self, String> {
        let control = if port == 0 { 0 } else { port.checked_add(1).ok_or("no port after GATE_PORT")? };
        drop(std::net::TcpListener::bind(("127.0.0.1", control)).map_err(|error| {
            format!("cannot listen on 127.0.0.1:{control}: {error}; GATE_PORT chooses other ports")
        })?);
        let port = Reserved::new(port).map_err(|error| {
            format!("cannot listen on 127.0.0.1:{port}: {error}; GATE_PORT chooses another port")
        })?;
        let gate = port.address;
        let module = sample::module()?;
        let standin = standin::Running::start_on(standin::Seed::embedded(), control);
        let service = upstream::Running::start();
        let mut environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        // What a policy names and the caller has set is handed on, as production's plugin entry does.
        let is_known = |name: &String| ENVIRONMENT.iter().any(|(known, _)| known == name);
        let named = policy.iter().flat_map(|policy| sample::variables_of(policy));
        let set =
            named.filter(|name| !is_known(name)).filter_map(|name| Some((std::env::var(&name).ok()?, name)));
        let own: Vec<(String, String)> = set.map(|(value, name)| (name, value)).collect();
        environment.extend(own.iter().cloned());
        let envoy = Envoy::start(Options { workers, environment, module, narrate })?;
        let refused = |Refused(text): Refused| format!("{text}\n{}", envoy.log());
        envoy
            .put_clusters(vec![
                sample::cluster("avnology", "avnology", Some(standin.api)),
                sample::cluster("upstream", "upstream", Some(service.addr)),
            ])
            .map_err(refused)?;
        let log = if narrate { "/dev/stdout".into() } else { envoy.directory().join("access.log") };
        let mut shape = Shape::new("gate", policy.map_or(Policy::Shipped, Policy::Document), "upstream", log);
        shape.address = gate;
        shape.variables = own.into_iter().map(|(name, _)| name).collect();
        envoy.put_listener(&shape).map_err(refused)?;
        Ok(Self {
            gate,
            control: standin.control,
            shape,
            envoy,
            _port: port,
            _standin: standin,
            _service: service,
        })
    }

    /// Envoy's admin port.
    pub fn admin(&self) -> SocketAddr {
        self.envoy.admin()
    }

    /// Envoy itself.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Where the access log is, unless it is narrated.
    pub fn access_log(&self) -> &std::path::Path {
        &self.shape.access_log
    }

    /// Puts another policy in force; a refused one leaves the one before.
    pub fn configure(&mut self, policy: &[u8]) -> Result<(), Refused> {
        let shape = Shape {
            policy: Policy::Document(policy.to_vec()),
            label: format!("{}+", self.shape.label),
            ..self.shape.clone()
        };
        self.envoy.put_listener(&shape)?;
        self.shape = shape;
        Ok(())
    }

    /// Whether Envoy still runs.
    pub fn lives(&self) -> bool {
        self.envoy.lives()
    }

    /// The commands that show each decision.
    pub fn instructions(&self) -> String {
        let mut out = String::new();
        for show in SHOWS {
            let _ = writeln!(out, "# {}\n{}\n", show.about, show.command(self.gate, self.control));
        }
        let _ = writeln!(out, "# the stand-in signs and delivers webhooks too");
        let _ = writeln!(
            out,
            "curl -i http://{}/deliver -d '{{\"url\":\"http://{}/webhooks/avnology\",\"secret\":\"{WEBHOOK_SECRET}\",\"event\":{EVENT}}}'",
            self.control, self.gate
        );
        out
    }

    /// Sends every request and writes it with its answer.
    pub fn play(&self, out: &mut impl Write) -> Result<(), String> {
        for (nth, show) in SHOWS.iter().enumerate() {
            let space = if nth > 0 { "\n" } else { "" };
            let answer =
                show.send(self.gate, self.control).map_err(|error| format!("{}: {error}", show.about))?;
            write!(
                out,
                "{space}# {}\n$ {}\n{}",
                show.about,
                show.command(self.gate, self.control),
                render(&answer)
            )
            .and_then(|()| out.flush())
            .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What [`Demo::play`] writes, with the ports that the documentation shows.
    pub fn transcript(&self) -> Result<String, String> {
        let mut out = Vec::new();
        self.play(&mut out)?;
        let text = String::from_utf8(out).map_err(|error| error.to_string())?;
        let [gate, control] = SHOWN.map(|port| SocketAddr::from(([127, 0, 0, 1], port)).to_string());
        Ok(text.replace(&self.gate.to_string(), &gate).replace(&self.control.to_string(), &control))
    }
}

impl Show {
    /// The request as a shell command.
    fn command(&self, gate: SocketAddr, control: SocketAddr) -> String {
        match &self.what {
            What::Request { method, path, headers } => {
                let mut out = String::from("curl -i");
                if *method != "GET" {
                    let _ = write!(out, " -X {method}");
                }
                let _ = write!(out, " http://{gate}{path}");
                for (name, value) in *headers {
                    let _ = write!(out, " -H '{name}: {value}'");
                }
                out
            }
            What::Later { path, headers } => {
                let what = What::Request { method: "GET", path, headers };
                format!("sleep 2; {}", Self { about: self.about, what }.command(gate, control))
            }
            What::Webhook { signed } => {
                let signature = if *signed {
                    format!(
                        "$(printf %s \"$t.$body\" | openssl dgst -sha256 -hmac {WEBHOOK_SECRET} -r | cut -d' ' -f1)"
                    )
                } else {
                    FORGED.to_owned()
                };
                format!(
                    "body='{EVENT}' t=$(date +%s); curl -i http://{gate}/webhooks/avnology -d \"$body\" \\\n    \
                     -H \"X-Avnology-Timestamp: $t\" -H \"X-Avnology-Signature: {signature}\""
                )
            }
            What::Control { path } => format!("curl -i -X POST http://{control}{path}"),
        }
    }

    fn send(&self, gate: SocketAddr, control: SocketAddr) -> Result<Answer, String> {
        let (to, ask) = match &self.what {
            What::Request { method, path, headers } => {
                let ask = Ask::new(method, path, &gate.to_string());
                (gate, headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)))
            }
            What::Later { path, headers } => {
                let end = Instant::now() + PATIENCE;
                loop {
                    let what = What::Request { method: "GET", path, headers };
                    let answer = Self { about: self.about, what }.send(gate, control)?;
                    if answer.status != 503 || Instant::now() > end {
                        return Ok(answer);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            What::Webhook { signed } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let signature = standin::sign(WEBHOOK_SECRET, now, EVENT.as_bytes());
                let ask = Ask::new("POST", "/webhooks/avnology", &gate.to_string())
                    .header("X-Avnology-Timestamp", now.to_string())
                    .header("X-Avnology-Signature", if *signed { &signature } else { FORGED })
                    .body(EVENT);
                (gate, ask)
            }
            What::Control { path } => {
                return Provider(control).down(*path == "/stop-accepting").map(|()| Answer {
                    status: 200,
                    body: b"{\"ok\":true}\n".to_vec(),
                    ..Answer::default()
                });
            }
        };
        client::ask(to, Version::Http1, &ask).map_err(|failure| failure.to_string())
    }
}

/// An answer as the demonstration shows it: what the gate reports, or what the service saw of the
/// request.
fn render(answer: &Answer) -> String {
    let mut out = String::new();
    let reason = match answer.status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        503 => "Service Unavailable",
        _ => "",
    };
    let _ = writeln!(out, "HTTP/1.1 {} {reason}", answer.status);
    for name in ["www-authenticate", "retry-after", "cache-control"] {
        for value in answer.values(name) {
            let _ = writeln!(out, "{name}: {value}");
        }
    }
    let echo = answer.json();
    let (Some(method), Some(path)) = (echo["method"].as_str(), echo["path"].as_str()) else {
        let _ = writeln!(out, "{}", answer.text().trim_end());
        return out;
    };
    let _ = writeln!(out, "the service saw {method} {path}");
    let mut headers: Vec<(String, String)> =
        serde_json::from_value(echo["headers"].clone()).unwrap_or_default();
    headers.retain(|(name, _)| name.starts_with("x-avnology-"));
    headers.sort();
    for (name, value) in headers {
        // These differ every time.
        let value = if name.ends_with("timestamp") || name.ends_with("signature") { "…" } else { &value };
        let _ = writeln!(out, "  {name}: {value}");
    }
    out
}
