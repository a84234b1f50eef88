//! Puts the module into an OCI image, as a layout on disk: the form that Istio and Envoy Gateway
//! fetch from a registry.
//!
//! The image has one layer, which holds the module as `plugin.wasm`: the "compat" variant of
//! <https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md>. The same module and labels
//! give the same bytes, and so the same digest, wherever and whenever the image is made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The file in the layer; a proxy's agent looks for this name and no other.
pub const PLUGIN: &str = "plugin.wasm";

/// A module, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The module.
    pub module: &'a [u8],
    /// The release, which is also the image's tag.
    pub version: &'a str,
    /// The commit, where it is known.
    pub revision: Option<&'a str>,
    /// The compiler, as it names itself: who wants to compile the same bytes needs the same one.
    pub rustc: &'a str,
}

/// An image layout: its files by their path, and the digests that users need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    files: BTreeMap<String, Vec<u8>>,
    /// The digest of the image's manifest, which names the image in a registry.
    pub manifest: String,
    /// The digest of the module itself.
    pub module: String,
}

impl Layout {
    /// Makes the image.
    ///
    /// # Errors
    /// Only where memory cannot be written.
    pub fn new(image: &Image<'_>) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut blob = |bytes: Vec<u8>, media_type: &str| {
            let digest = digest(&bytes);
            let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
            files.insert(format!("blobs/{}", digest.replacen(':', "/", 1)), bytes);
            descriptor
        };
        let tarball = tarball([(PLUGIN, image.module)])?;
        let diff_id = digest(&tarball);
        let layer = blob(gzip(&tarball)?, "application/vnd.oci.image.layer.v1.tar+gzip");
        let labels = labels(image);
        let config = json!({
            "architecture": "amd64",
            "config": {"Labels": labels},
            "created": EPOCH,
            "history": [{"created": EPOCH, "created_by": "avnology-gate: make oci"}],
            "os": "linux",
            "rootfs": {"diff_ids": [diff_id], "type": "layers"},
        });
        let config = blob(text(&config), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({
            "annotations": labels,
            "config": config,
            "layers": [layer],
            "mediaType": MANIFEST,
            "schemaVersion": 2,
        });
        let mut manifest = blob(text(&manifest), MANIFEST);
        let manifest_digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        // What `oci:DIRECTORY:TAG` finds an image by.
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": image.version});
        let index = json!({"manifests": [manifest], "mediaType": INDEX, "schemaVersion": 2});
        files.insert("index.json".to_owned(), text(&index));
        files.insert("oci-layout".to_owned(), text(&json!({"imageLayoutVersion": "1.0.0"})));
        Ok(Self { files, manifest: manifest_digest, module: digest(image.module) })
    }

    /// Writes the layout into a directory, in place of what was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let part = beside(directory);
        remove(&part)?;
        for (path, bytes) in &self.files {
            let path = part.join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, bytes)?;
        }
        remove(directory)?;
        fs::rename(&part, directory)
    }

    /// The layout as one file, `oci-archive:` to many tools.
    ///
    /// # Errors
    /// Only where memory cannot be written.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        tarball(self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))
    }
}

/// `sha256:` and the digest.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", base16ct::lower::encode_string(&Sha256::digest(bytes)))
}

/// What the image says of itself, to registries and to those who inspect it.
fn labels(image: &Image<'_>) -> Value {
    let mut labels = json!({
        "net.avnology.gate.rustc": image.rustc,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.title": "avnology-gate",
        "org.opencontainers.image.version": image.version,
    });
    if let Some(revision) = image.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

/// A tar archive of files that anybody may read, with nothing of the machine that wrote it.
fn tarball<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len().try_into().map_err(io::Error::other)?);
        archive.append_data(&mut header, path, bytes)?;
    }
    archive.into_inner()
}

/// Compressed, with a header that names neither a time nor a system.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder =
        GzBuilder::new().mtime(0).operating_system(UNKNOWN).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// JSON with its members in the order of their names.
fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A path in the same directory that nobody else writes to.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// When everything was made.
const EPOCH: &str = "1970-01-01T00:00:00Z";
/// RFC 1952's number of no particular operating system.
const UNKNOWN: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    const IMAGE: Image<'_> = Image {
        module: b"\0asm\x01\0\0\0",
        version: "1.2.3",
        revision: Some("0123abc"),
        rustc: "rustc 1.95.0",
    };

    fn layout() -> Layout {
        Layout::new(&IMAGE).unwrap()
    }

    impl Layout {
        fn json(&self, path: &str) -> Value {
            serde_json::from_slice(&self.files[path]).unwrap()
        }

        /// What a descriptor names, after its digest and size have been compared with it.
        fn blob(&self, descriptor: &Value) -> &[u8] {
            let name = descriptor["digest"].as_str().unwrap();
            let bytes = &self.files[&format!("blobs/sha256/{}", name.strip_prefix("sha256:").unwrap())];
            assert_eq!(digest(bytes), name);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        }

        fn manifest(&self) -> Value {
            serde_json::from_slice(self.blob(&self.json("index.json")["manifests"][0])).unwrap()
        }
    }

    #[test]
    fn the_index_names_one_image_of_one_layer_and_no_further_index() {
        let layout = layout();
        let index = layout.json("index.json");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(index["manifests"][0]["mediaType"], MANIFEST);
        assert_eq!(index["manifests"][0]["digest"], layout.manifest);
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
        let manifest = layout.manifest();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(layout.json("oci-layout")["imageLayoutVersion"], "1.0.0");
        // The manifest, its configuration and the layer, and the two files above.
        assert_eq!(layout.files.len(), 5);
    }

    #[test]
    fn the_layer_holds_the_module_alone() {
        let layout = layout();
        let manifest = layout.manifest();
        let mut tarball = Vec::new();
        flate2::read::GzDecoder::new(layout.blob(&manifest["layers"][0])).read_to_end(&mut tarball).unwrap();
        let mut archive = tar::Archive::new(tarball.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            seen.push((entry.path().unwrap().display().to_string(), bytes));
        }
        assert_eq!(seen, [("plugin.wasm".to_owned(), IMAGE.module.to_vec())]);
        assert_eq!(layout.module, digest(IMAGE.module));
        let config: Value = serde_json::from_slice(layout.blob(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&tarball)]));
        assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("amd64")));
    }

    #[test]
    fn version_and_revision_are_labels_and_annotations() {
        let layout = layout();
        let manifest = layout.manifest();
        let config: Value = serde_json::from_slice(layout.blob(&manifest["config"])).unwrap();
        for labels in [&manifest["annotations"], &config["config"]["Labels"]] {
            assert_eq!(labels["org.opencontainers.image.version"], "1.2.3");
            assert_eq!(labels["org.opencontainers.image.revision"], "0123abc");
        }
        let unknown = Layout::new(&Image { revision: None, ..IMAGE }).unwrap().manifest();
        assert!(
            !unknown["annotations"].as_object().unwrap().contains_key("org.opencontainers.image.revision")
        );
    }

    /// Every byte of an image counts: a library that compresses, or sorts, in another way gives
    /// another digest to a release that was made before.
    #[test]
    fn the_digest_is_the_same_today_as_it_was() {
        assert_eq!(
            layout().manifest,
            "sha256:661401cacb330c9d2b05fbda0cf781055133033374e54e714914b37261fb02e3"
        );
        assert_eq!(
            digest(&layout().archive().unwrap()),
            "sha256:1747d150789142cdf310504dbee4fdf37e39c2e43ee112b1f2118b0fe610b312"
        );
    }

    #[test]
    fn a_layout_replaces_the_one_before_it() {
        let folder = std::env::temp_dir().join(format!("oci-{}", std::process::id()));
        fs::create_dir_all(folder.join("oci/blobs/sha256")).unwrap();
        fs::write(folder.join("oci/blobs/sha256/old"), b"old").unwrap();
        layout().write(&folder.join("oci")).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let blobs = fs::read_dir(folder.join("oci/blobs/sha256")).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((left, blobs), (vec!["oci".into()], 3));
    }
}
