//! Turns the compiled filter into the module that a proxy loads.
//!
//! The compiler's output exports the callbacks as `gate_*`, beside whatever else was linked. The
//! packed module exports `proxy_*` callbacks and nothing that the proxy does not need, imports
//! exactly what the agreed list names, and has no custom sections.
//!
//! Exports and imports are both checked, because a proxy does not check them: it skips a callback
//! that a module lacks, so requests would pass unchecked; and a new import is a new capability of
//! the filter, or one that an older proxy lacks.

mod link;

pub use link::link;

use std::collections::BTreeSet;
use std::fmt;
use walrus::{Export, ExportItem, Module, ModuleConfig};

/// A module that a proxy can load.
#[derive(Debug)]
pub struct Packed {
    /// The module.
    pub wasm: Vec<u8>,
    /// What it imports, as `module.name`.
    pub imports: BTreeSet<String>,
}

/// Why a module cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input is not a WebAssembly module.
    NotWasm(String),
    /// The input lacks exports that the proxy calls.
    MissingExports(Vec<String>),
    /// The module's imports are not the agreed ones.
    Imports {
        /// Imported, but not agreed to.
        added: Vec<String>,
        /// Agreed to, but not imported.
        removed: Vec<String>,
    },
}

/// Packs the compiler's output.
///
/// # Errors
/// [`Error`] if the input is not a module, or lacks a callback.
pub fn pack(raw: &[u8]) -> Result<Packed, Error> {
    let mut config = ModuleConfig::new();
    config.generate_name_section(false).generate_producers_section(false);
    let mut module = config.parse(raw).map_err(|error| Error::NotWasm(format!("{error:#}")))?;
    keep_exports(&mut module)?;
    let customs: Vec<_> = module.customs.iter().map(|(id, _)| id).collect();
    for id in customs {
        module.customs.delete(id);
    }
    walrus::passes::gc::run(&mut module);
    let imports = module.imports.iter().map(|import| format!("{}.{}", import.module, import.name)).collect();
    Ok(Packed { wasm: module.emit_wasm(), imports })
}

/// Compares a module's imports with the agreed list: one `module.name` per line.
///
/// # Errors
/// [`Error::Imports`] if they differ.
pub fn compare_imports(imports: &BTreeSet<String>, agreed: &str) -> Result<(), Error> {
    let agreed: BTreeSet<String> =
        agreed.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    let added: Vec<_> = imports.difference(&agreed).cloned().collect();
    let removed: Vec<_> = agreed.difference(imports).cloned().collect();
    if added.is_empty() && removed.is_empty() { Ok(()) } else { Err(Error::Imports { added, removed }) }
}

/// The list that [`compare_imports`] reads.
pub fn list_imports(imports: &BTreeSet<String>) -> String {
    imports.iter().map(|import| format!("{import}\n")).collect()
}

/// The functions that the linker must keep, as the source spells them.
pub fn exported_functions() -> Vec<String> {
    EXPORTS.iter().filter(|name| **name != "memory").map(|name| raw_name(name)).collect()
}

/// Drops every export but the agreed ones, and gives those the names that the proxy calls.
fn keep_exports(module: &mut Module) -> Result<(), Error> {
    let surplus: Vec<_> =
        module.exports.iter().filter(|export| final_name(export).is_none()).map(Export::id).collect();
    for id in surplus {
        module.exports.delete(id);
    }
    for export in module.exports.iter_mut() {
        if let Some(name) = final_name(export) {
            export.name = name;
        }
    }
    let present: BTreeSet<&str> = module.exports.iter().map(|export| export.name.as_str()).collect();
    let missing: Vec<_> =
        EXPORTS.iter().filter(|name| !present.contains(*name)).map(|name| raw_name(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::MissingExports(missing)) }
}

/// The name of a raw export in the packed module; `None` if it is dropped. A function that is
/// already named `proxy_*` is not ours: a linked SDK exports such functions, and they would replace
/// the filter's.
fn final_name(export: &Export) -> Option<String> {
    let is_memory = matches!(export.item, ExportItem::Memory(_));
    EXPORTS
        .iter()
        .find(|name| export.name == raw_name(name) && is_memory == (**name == "memory"))
        .map(|name| (*name).to_owned())
}

fn raw_name(name: &str) -> String {
    name.strip_prefix("proxy_").map_or_else(|| name.to_owned(), |rest| format!("gate_{rest}"))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWasm(cause) => write!(f, "not a webassembly module: {cause}"),
            Self::MissingExports(names) => {
                let names = names.join("`, `");
                write!(
                    f,
                    "the module does not export `{names}`: a proxy would skip the missing callbacks, so it is not packed"
                )
            }
            Self::Imports { added, removed } => {
                write!(f, "the module's imports are not the agreed ones:")?;
                added.iter().try_for_each(|import| write!(f, "\n  + {import}"))?;
                removed.iter().try_for_each(|import| write!(f, "\n  - {import}"))?;
                write!(f, "\nif this is meant, run again with --write-imports and commit the list")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Everything that a packed module exports.
const EXPORTS: [&str; 12] = [
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_http_call_response",
    "proxy_on_delete",
];

#[cfg(test)]
mod tests {
    use super::*;
    use walrus::{FunctionBuilder, FunctionId, RawCustomSection};

    /// A module with every raw export, a function that only a surplus export reaches, and one
    /// import for each of the two.
    fn raw(leave_out: &str) -> Vec<u8> {
        let mut module = Module::with_config(ModuleConfig::new());
        let ty = module.types.add(&[], &[]);
        let (used, _) = module.add_import_func("env", "proxy_log", ty);
        let (unused, _) = module.add_import_func("env", "proxy_grpc_call", ty);
        let memory = module.memories.add_local(false, false, 1, None, None);
        let ours = function_that_calls(&mut module, used);
        let theirs = function_that_calls(&mut module, unused);
        module.exports.add("memory", memory);
        for name in
            EXPORTS.iter().map(|name| raw_name(name)).filter(|name| name != "memory" && name != leave_out)
        {
            module.exports.add(&name, ours);
        }
        for name in [
            "proxy_on_request_headers",
            "proxy_on_memory_allocate",
            "gate_on_grpc_close",
            "__heap_base",
            "main",
        ] {
            module.exports.add(name, theirs);
        }
        module.customs.add(RawCustomSection { name: "target_features".to_owned(), data: vec![0] });
        module.emit_wasm()
    }

    fn function_that_calls(module: &mut Module, callee: FunctionId) -> FunctionId {
        let mut builder = FunctionBuilder::new(&mut module.types, &[], &[]);
        builder.name("a name".to_owned()).func_body().call(callee);
        builder.finish(vec![], &mut module.funcs)
    }

    fn agreed(list: &str, packed: &Packed) -> Result<(), String> {
        compare_imports(&packed.imports, list).map_err(|error| error.to_string())
    }

    #[test]
    fn callbacks_are_renamed_and_everything_else_is_dropped() {
        let packed = pack(&raw("")).unwrap();
        let module = Module::from_buffer(&packed.wasm).unwrap();
        let exports: BTreeSet<&str> = module.exports.iter().map(|export| export.name.as_str()).collect();
        assert_eq!(exports, BTreeSet::from(EXPORTS));
        assert_eq!(module.customs.iter().count(), 0);
        assert!(module.funcs.iter().all(|function| function.name.is_none()));
        // What only the surplus exports reached is gone, the import included: none of them replaced
        // ours.
        assert_eq!(list_imports(&packed.imports), "env.proxy_log\n");
        assert_eq!(module.imports.iter().count(), 1);
    }

    #[test]
    fn a_missing_export_is_named_as_the_source_spells_it() {
        let error = pack(&raw("gate_on_request_trailers")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the module does not export `gate_on_request_trailers`: a proxy would skip the missing callbacks, so it is not packed",
        );
        assert_eq!(
            pack(&raw("_initialize")).unwrap_err(),
            Error::MissingExports(vec!["_initialize".to_owned()])
        );
    }

    #[test]
    fn a_function_called_memory_is_not_the_memory() {
        let mut module = Module::from_buffer(&raw("")).unwrap();
        let function = module.exports.get_func("main").unwrap();
        module.exports.remove("memory").unwrap();
        module.exports.add("memory", function);
        assert_eq!(pack(&module.emit_wasm()).unwrap_err(), Error::MissingExports(vec!["memory".to_owned()]));
    }

    #[test]
    fn imports_are_compared_in_both_directions() {
        let packed = pack(&raw("")).unwrap();
        assert_eq!(agreed("\n env.proxy_log\n", &packed), Ok(()));
        assert_eq!(
            agreed("env.proxy_done\n", &packed).unwrap_err(),
            "the module's imports are not the agreed ones:\n  + env.proxy_log\n  - env.proxy_done\n\
             if this is meant, run again with --write-imports and commit the list",
        );
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        for bytes in [&b""[..], b"\0asm", b"#!/bin/sh\n"] {
            assert!(
                pack(bytes).unwrap_err().to_string().starts_with("not a webassembly module: "),
                "{bytes:?}"
            );
        }
    }
}
