//! The image in a real registry: pushed, inspected and pulled, as those do who deploy it.
//!
//! Needs skopeo and Debian's docker-registry; `tools/registry` says what to type.

use oci::{Image, Layout};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the registry may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oci-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What the test has found matters more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A registry on a port of its own. Dropping it ends the process.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(directory: &Path) -> Self {
        let configuration = directory.join("registry.yml");
        let storage = directory.join("storage");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts; see tools/registry");
        let log = process.stderr.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that the registry never waits for a reader.
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address = rest.split(['"', ' ']).next().unwrap_or_default();
                    let _ = sender.send(address.to_owned());
                }
            }
        });
        let mut registry = Self { process, address: String::new() };
        registry.address = receiver.recv_timeout(PATIENCE).expect("the registry says where it listens");
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What skopeo prints.
fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output();
    let output = output.expect("skopeo starts; see tools/registry");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn module() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/avnology_gate.wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `make build` makes it", path.display()))
}

/// The layer's file as Istio and Envoy Gateway find it: the one that is named `plugin.wasm`.
fn plugin(layer: &Path) -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(layer).unwrap()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().file_name().is_some_and(|name| name == "plugin.wasm") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{} holds no plugin.wasm", layer.display())
}

#[test]
fn what_is_pulled_from_a_registry_is_the_module_byte_for_byte() {
    let scratch = Scratch::new("registry");
    let module = module();
    let image = Image { module: &module, version: "1.2.3", revision: Some("0123abc"), rustc: "rustc 1.95.0" };
    let layout = Layout::new(&image).unwrap();
    let (directory, archive) = (scratch.0.join("layout"), scratch.0.join("image.tar"));
    layout.write(&directory).unwrap();
    fs::write(&archive, layout.archive().unwrap()).unwrap();

    let registry = Registry::start(&scratch.0);
    let local = format!("oci:{}:1.2.3", directory.display());
    let packed = format!("oci-archive:{}:1.2.3", archive.display());
    let remote = format!("docker://{}/avnology-gate:1.2.3", registry.address);
    skopeo(&["copy", "--dest-tls-verify=false", &local, &remote]);

    for (source, flags) in [(&local, ""), (&packed, ""), (&remote, "--tls-verify=false")] {
        let arguments: Vec<&str> =
            ["inspect", flags, source].into_iter().filter(|text| !text.is_empty()).collect();
        let seen: Value = serde_json::from_str(&skopeo(&arguments)).unwrap();
        assert_eq!(seen["Digest"], layout.manifest, "{source}");
        assert_eq!((&seen["Os"], &seen["Architecture"]), (&"linux".into(), &"amd64".into()), "{source}");
        assert_eq!(seen["Labels"]["org.opencontainers.image.version"], "1.2.3", "{source}");
        assert_eq!(seen["Labels"]["org.opencontainers.image.revision"], "0123abc", "{source}");
    }

    // As docs/deploy.md has it typed for an Envoy that is in no mesh.
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy.md")).unwrap();
    let commands = page.split("```bash\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let commands = commands
        .replace("docker://registry.example.com/avnology-gate:0.1.0", &remote)
        .replace("skopeo ", "skopeo --insecure-policy ")
        .replace(" copy ", " copy --src-tls-verify=false ");
    assert!(commands.contains(&remote), "{commands}");
    let typed = Command::new("sh").args(["-ec", &commands]).current_dir(&scratch.0).output().unwrap();
    assert!(typed.status.success(), "{commands}: {}", String::from_utf8_lossy(&typed.stderr));
    assert!(fs::read(scratch.0.join("plugin.wasm")).unwrap() == module, "the file differs");

    // By its digest, as a careful configuration names it.
    let pulled = scratch.0.join("pulled");
    let exact = format!("docker://{}/avnology-gate@{}", registry.address, layout.manifest);
    skopeo(&["copy", "--src-tls-verify=false", &exact, &format!("dir:{}", pulled.display())]);
    let manifest = fs::read(pulled.join("manifest.json")).unwrap();
    assert_eq!(oci::digest(&manifest), layout.manifest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let plugin = plugin(&pulled.join(layer));
    assert!(plugin == module, "the pulled module differs: {} bytes, {}", plugin.len(), module.len());
    assert_eq!(oci::digest(&plugin), layout.module);
}
