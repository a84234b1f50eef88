//! Links the compiler's static library into a module, with the linker of the Rust toolchain.
//!
//! The compiler would link a `cdylib` itself, but then every function that any crate exports stays,
//! and the SDK exports its whole dispatcher. With a static library, the exports are chosen here,
//! and the linker removes what only the SDK's own exports reach.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Links `archive` into `module`, keeping only what these exports reach.
///
/// # Errors
/// The missing part of the toolchain, or the linker's message.
pub fn link(archive: &Path, module: &Path, exports: &[String]) -> Result<(), String> {
    let rustc = Rustc::ask()?;
    let mut linker = Command::new(rustc.linker()?);
    linker.args(["-flavor", "wasm", "--no-entry", "--gc-sections", "--strip-all", "-O2"]);
    // The stack comes first, so that an overflow traps instead of running into the data: the
    // compiler links this way too.
    linker.args(["--stack-first", "-z", "stack-size=1048576"]);
    linker.args(exports.iter().map(|name| format!("--export={name}")));
    linker.arg(archive).arg(rustc.libc()?).arg("-o").arg(module);
    let output = linker.output().map_err(|error| format!("cannot run {linker:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // The archive is named, since it may lack one of the exports.
    Err(format!("{}: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Where the toolchain's parts are.
struct Rustc {
    /// `lib/rustlib`, with a folder for each target.
    libraries: PathBuf,
    host: String,
}

impl Rustc {
    fn ask() -> Result<Self, String> {
        let sysroot = said(&["--print", "sysroot"])?;
        let version = said(&["--version", "--verbose"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("rustc does not say for which host it was built")?.to_owned();
        Ok(Self { libraries: Path::new(sysroot.trim()).join("lib").join("rustlib"), host })
    }

    fn linker(&self) -> Result<PathBuf, String> {
        let name = format!("rust-lld{}", std::env::consts::EXE_SUFFIX);
        self.part(&self.host, &["bin", &name])
    }

    fn libc(&self) -> Result<PathBuf, String> {
        self.part(TARGET, &["lib", "self-contained", "libc.a"])
    }

    fn part(&self, target: &str, path: &[&str]) -> Result<PathBuf, String> {
        let mut whole = self.libraries.join(target);
        whole.extend(path);
        if whole.exists() {
            return Ok(whole);
        }
        Err(format!("this Rust toolchain has no {}; rustup brings it", whole.display()))
    }
}

/// The compiler's output. `RUSTC` selects another compiler, as in cargo.
fn said(arguments: &[&str]) -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(arguments).output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    String::from_utf8(output.stdout).map_err(|_| "rustc says something else than text".to_owned())
}

/// The target that the module is compiled for.
const TARGET: &str = "wasm32-wasip1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let rustc = Rustc { libraries: PathBuf::from("/nowhere"), host: "none".to_owned() };
        assert!(rustc.linker().unwrap_err().contains("/nowhere/none/bin/rust-lld"));
        assert!(rustc.libc().unwrap_err().contains("/nowhere/wasm32-wasip1/lib/self-contained/libc.a"));
    }

    #[test]
    fn an_archive_that_lacks_an_export_is_refused() {
        let folder = std::env::temp_dir().join(format!("pack-link-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (archive, module) = (folder.join("empty.a"), folder.join("out.wasm"));
        std::fs::write(&archive, b"!<arch>\n").unwrap();
        let error = link(&archive, &module, &["gate_on_tick".to_owned()]).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("gate_on_tick"), "{error}");
    }
}
