//! `oci MODULE OUT --tag VERSION --rustc TEXT`: see the library.

use clap::Parser;
use oci::{Image, Layout};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Put the module into an OCI image.
#[derive(Parser)]
struct Options {
    /// The module.
    module: PathBuf,
    /// Where to write the image layout; what is there is removed.
    out: PathBuf,
    /// The module's version, and the image's tag.
    #[arg(long)]
    tag: String,
    /// The commit; empty if it is not known.
    #[arg(long, default_value = "")]
    revision: String,
    /// The version of the compiler.
    #[arg(long)]
    rustc: String,
    /// Write the layout as one file too.
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("oci: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let module = fs::read(&options.module).map_err(|error| cannot("read", &options.module, &error))?;
    let image = Image {
        module: &module,
        version: &options.tag,
        revision: Some(options.revision.as_str()).filter(|revision| !revision.is_empty()),
        rustc: &options.rustc,
    };
    let layout = Layout::new(&image).map_err(|error| error.to_string())?;
    layout.write(&options.out).map_err(|error| cannot("write", &options.out, &error))?;
    if let Some(path) = &options.archive {
        let archive = layout.archive().map_err(|error| error.to_string())?;
        fs::write(path, archive).map_err(|error| cannot("write", path, &error))?;
    }
    // The reader may have closed the pipe; the image is written all the same.
    let _ = io::stdout().write_all(report(options, &layout).as_bytes());
    Ok(())
}

/// Both digests, and which of them a proxy's configuration wants where.
fn report(options: &Options, layout: &Layout) -> String {
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    format!(
        "oci:{}:{}\n\
         image   {}\n        `@sha256:…` of its name in a registry, and `sha256` beside `oci://…` (Istio) and `image:` (Envoy Gateway)\n\
         module  {}\n        `sha256` beside `https://…` (Istio), `http:` (Envoy Gateway) and `remote:` (Envoy)\n",
        options.out.display(),
        options.tag,
        hex(&layout.manifest),
        hex(&layout.module),
    )
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
