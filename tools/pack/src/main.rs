//! `pack ARCHIVE OUT --imports LIST`: see the library.

use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// Turn the compiled filter into the module that a proxy loads.
#[derive(Parser)]
struct Options {
    /// The compiler's output, a static library.
    archive: PathBuf,
    /// Where to write the module.
    out: PathBuf,
    /// The list of agreed imports.
    #[arg(long, value_name = "LIST")]
    imports: PathBuf,
    /// Write the list of imports instead of comparing with it.
    #[arg(long)]
    write_imports: bool,
    /// Print the module's size and its imports.
    #[arg(long)]
    size: bool,
    /// Fail if the module is larger.
    #[arg(long, value_name = "N")]
    max_bytes: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("pack: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let linked = options.archive.with_extension("linked.wasm");
    pack::link(&options.archive, &linked, &pack::exported_functions())?;
    let raw = fs::read(&linked).map_err(|error| cannot("read", &linked, &error))?;
    let packed = pack::pack(&raw).map_err(|error| format!("{}: {error}", linked.display()))?;
    if options.write_imports {
        write(&options.imports, pack::list_imports(&packed.imports).as_bytes())?;
    } else {
        let agreed =
            fs::read_to_string(&options.imports).map_err(|error| cannot("read", &options.imports, &error))?;
        pack::compare_imports(&packed.imports, &agreed)
            .map_err(|error| format!("{}: {error}", options.imports.display()))?;
    }
    let size = packed.wasm.len();
    if options.size {
        let report = format!(
            "{size} bytes, {} imports\n{}",
            packed.imports.len(),
            pack::list_imports(&packed.imports)
        );
        // The reader may have closed the pipe; the module must be written all the same.
        let _ = io::stdout().write_all(report.as_bytes());
    }
    if let Some(max) = options.max_bytes.filter(|max| size > *max) {
        return Err(format!("{}: {size} bytes is more than the agreed {max}", options.out.display()));
    }
    write(&options.out, &packed.wasm)
}

/// Writes a file atomically: a proxy may be watching it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path)).map_err(|error| {
        // The error that matters is the one above.
        let _ = fs::remove_file(&beside);
        cannot("write", path, &error)
    })
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
