//! The manifests under `envoy/istio` and `envoy/gateway`: what a kustomization brings together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::sample;

/// The kustomizations that somebody applies; the others are parts of them.
pub const KUSTOMIZATIONS: [&str; 5] =
    ["istio/traffic-extension", "istio/wasm-plugin", "istio/webhooks", "gateway/base", "gateway/webhooks"];

/// A resource.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file below `envoy/`.
    pub file: String,
    /// The resource.
    pub value: Value,
}

/// Only what this reads: kustomize would do something about any other field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    resources: Vec<String>,
}

impl Manifest {
    /// Its kind.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// Its specification.
    pub fn spec(&self) -> &Value {
        &self.value["spec"]
    }
}

/// What `kubectl apply -k` would apply, in the order in which the files name it.
pub fn built(kustomization: &str) -> Result<Vec<Manifest>, String> {
    let folder = root().join(kustomization);
    let file = folder.join("kustomization.yaml");
    let read: Kustomization =
        serde_norway::from_str(&text(&file)?).map_err(|error| format!("{}: {error}", file.display()))?;
    if (read.api_version.as_str(), read.kind.as_str()) != ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    {
        return Err(format!("{}: {} {}", file.display(), read.api_version, read.kind));
    }
    let mut built = Vec::new();
    for resource in read.resources {
        let path = folder.join(&resource).canonicalize().map_err(|error| format!("{resource}: {error}"))?;
        let name = path.strip_prefix(root()).map_err(|error| error.to_string())?.display().to_string();
        built.extend(if path.is_dir() { self::built(&name)? } else { documents(&name)? });
    }
    let mut seen = BTreeSet::new();
    for it in &built {
        if !seen.insert((it.kind(), it.namespace(), it.name())) {
            return Err(format!("{kustomization} has {} {} twice", it.kind(), it.name()));
        }
    }
    Ok(built)
}

/// The resources of a file below `envoy/`.
pub fn documents(file: &str) -> Result<Vec<Manifest>, String> {
    let text = text(&root().join(file))?;
    let documents = serde_norway::Deserializer::from_str(&text).map(|document| {
        let value = Value::deserialize(document).map_err(|error| format!("{file}: {error}"))?;
        Ok(Manifest { file: file.to_owned(), value })
    });
    documents.collect()
}

/// Every manifest that is shipped, whatever it is a part of.
pub fn all() -> Result<Vec<Manifest>, String> {
    let mut files = Vec::new();
    for mesh in ["istio", "gateway"] {
        find(&root().join(mesh), &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("kustomization.yaml")) {
        let name = file.strip_prefix(root()).map_err(|error| error.to_string())?;
        all.extend(documents(&name.display().to_string())?);
    }
    Ok(all)
}

/// The only resource of this kind and name.
pub fn only<'m>(manifests: &'m [Manifest], kind: &str, name: &str) -> Result<&'m Manifest, String> {
    let mut found = manifests.iter().filter(|it| it.kind() == kind && it.name() == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(format!("not one {kind} {name}")),
    }
}

/// The folder `envoy/`.
fn root() -> PathBuf {
    sample::root().join("envoy")
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() { find(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
