//! TLS to the provider as the shipped bootstrap has it, switched on: a certificate counts that the
//! named authority has made for the provider's host, and no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::client::{Ask, Version};
use harness::envoy::{Envoy, Refused};
use harness::scene::Scene;
use harness::{sample, standin};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::{Fleet, Outcome, Run, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: &[(&str, Run)] = &[
        ("provider_tls/a_certificate_of_the_authority_for_the_host", |envoy| {
            judge(envoy, By::Trusted, HOST, "", 200)
        }),
        ("provider_tls/a_certificate_of_another_authority", |envoy| {
            judge(envoy, By::Other, HOST, "", 503)?;
            judge(envoy, By::Other, HOST, "/common_tls_context/validation_context", 200)
        }),
        ("provider_tls/a_certificate_for_another_host", |envoy| {
            let names = "/common_tls_context/validation_context/match_typed_subject_alt_names";
            judge(envoy, By::Trusted, "api.example.com", "", 503)?;
            judge(envoy, By::Trusted, "api.example.com", names, 200)
        }),
        ("provider_tls/the_host_is_named_to_the_provider", |envoy| {
            judge(envoy, By::Trusted, HOST, "/sni", 503)
        }),
    ];
    all.iter().map(|(name, run)| trial(fleet, name, 1, *run)).collect()
}

/// Whom the shipped lines name.
const HOST: &str = "api-id.avnology.net";

/// Who made the provider's certificate.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Trusted,
    Other,
}

/// The shipped cluster, with TLS as the comment beside it switches it on.
fn switched_on(name: &str, to: SocketAddr, authority: &Path) -> Result<Value, String> {
    let mut cluster = sample::cluster_with_tls("avnology", name, Some(to));
    let trusted = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename";
    *cluster.pointer_mut(trusted).ok_or("no authority is named")? = json!(authority);
    Ok(cluster)
}

/// Asks for a decision about a good token behind a provider with this certificate, and without the
/// line at this pointer.
fn judge(envoy: &Arc<Envoy>, by: By, host: &str, without: &str, status: u16) -> Outcome {
    let mut scene = Scene::new(envoy, "tls", standin::Seed::embedded())?;
    let (trusted, other) = (Authority::new()?, Authority::new()?);
    let made = if by == By::Trusted { trusted.issue(host)? } else { other.issue(host)? };
    let provider = scene.provider_api().ok_or("no provider")?;
    let (address, _relay) = serve_with_tls(made, provider);
    let authority = trusted.write(envoy.directory(), &scene.shape.name)?;
    let mut cluster = switched_on(&scene.cluster, address, &authority)?;
    if let Some((parent, name)) = without.rsplit_once('/') {
        let context = cluster.pointer_mut("/transport_socket/typed_config").ok_or("no TLS")?;
        let line = context.pointer_mut(parent).and_then(Value::as_object_mut).and_then(|at| at.remove(name));
        ensure!(line.is_some(), "no {without}");
    }
    envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)?;
    scene.configure(&sample::forgetful_policy()).map_err(|Refused(text)| text)?;
    let request = Ask::new("GET", "/api/profile", "api.example.com").bearer("tok_alice");
    let answer = scene.connect(Version::Http1, None)?.ask(&request).map_err(|failure| failure.to_string())?;
    ensure!(answer.status == status, "{host}, without {without:?}: {} {}", answer.status, answer.text());
    let asked = !scene.provider.calls()?.is_empty();
    ensure!(asked == (status == 200), "the provider was asked: {asked}");
    Ok(())
}

/// A server that decrypts for the stand-in.
pub(crate) fn serve_with_tls(
    made: Arc<ServerConfig>,
    provider: SocketAddr,
) -> (SocketAddr, service::Running) {
    let ([address], running) = service::Running::start(|[listener]| {
        let acceptor = TlsAcceptor::from(made);
        service::accept(listener, move |stream| relay(acceptor.clone(), stream, provider))
    });
    (address, running)
}

async fn relay(acceptor: TlsAcceptor, stream: TcpStream, provider: SocketAddr) {
    // Who does not like the certificate leaves, and that is the trial's point.
    let Ok(mut client) = acceptor.accept(stream).await else { return };
    let Ok(mut provider) = TcpStream::connect(provider).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut provider).await;
}

/// A throw-away authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, String> {
        let mut parameters = CertificateParams::new(Vec::new()).map_err(text)?;
        // A certificate whose subject is its issuer's would count as signed by itself.
        parameters.distinguished_name.push(DnType::CommonName, "a throw-away authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(text)?;
        let certificate = parameters.self_signed(&key).map_err(text)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    pub(crate) fn write(&self, directory: &Path, name: &str) -> Result<PathBuf, String> {
        let path = directory.join(format!("{name}.pem"));
        fs::write(&path, &self.certificate).map_err(text)?;
        Ok(path)
    }

    /// A server that has a certificate for this host, and shows it to who asks for the shipped one.
    pub(crate) fn issue(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        let key = KeyPair::generate().map_err(text)?;
        let parameters = CertificateParams::new(vec![host.to_owned()]).map_err(text)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(text)?;
        let provider = Arc::new(ring::default_provider());
        let der = PrivateKeyDer::try_from(key.serialize_der())?;
        let chain = vec![certificate.der().clone()];
        let certified = CertifiedKey::from_der(chain, der, &provider).map_err(text)?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(text)?.with_no_client_auth();
        Ok(Arc::new(config.with_cert_resolver(Arc::new(Named(Arc::new(certified))))))
    }
}

/// One certificate, for those who name the shipped host.
#[derive(Debug)]
struct Named(Arc<CertifiedKey>);

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (hello.server_name() == Some(HOST)).then(|| Arc::clone(&self.0))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
