//! Checks and slims a module, so that Envoy loads it and wastes no time in it.
//!
//! Works on bytes; knows neither toolchains nor images.

mod reach;

use std::path::Path;

use serde::{Deserialize, Serialize};
use wasm_encoder::{ExportKind, ExportSection, RawSection};
use wasmparser::{
    BinaryReaderError, Export, ExternalKind, Parser, Payload, Validator, WasmFeatures,
};

use self::reach::{Reach, slice};

/// The exports that Envoy's host needs.
///
/// Entry points of the SDK, and the callbacks that the filter implements.
///
/// Envoy enters the VM for every exported callback, used or not: some 1.6 k instructions each, per request and per body chunk. The SDK exports all of them.
/// `proxy_on_delete` stays: without it the SDK would keep the context of every request forever.
const EXPORTS: [(&str, ExternalKind); 9] = [
    ("memory", ExternalKind::Memory),
    ("_initialize", ExternalKind::Func),
    // Allocates memory for the host's return values. On other targets than bare wasm32, the SDK calls it `proxy_on_memory_allocate`.
    ("malloc", ExternalKind::Func),
    ("proxy_abi_version_0_2_1", ExternalKind::Func),
    ("proxy_on_configure", ExternalKind::Func),
    ("proxy_on_context_create", ExternalKind::Func),
    ("proxy_on_delete", ExternalKind::Func),
    ("proxy_on_request_headers", ExternalKind::Func),
    ("proxy_on_vm_start", ExternalKind::Func),
];

/// Features that rustc emits for wasm32 by default and Envoy's V8 accepts.
///
/// Envoy has rejected modules built with all features of a tool.
const FEATURES: WasmFeatures = WasmFeatures::WASM1
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION);

/// The custom section with the module's origin, as JSON. The host skips it.
const PROVENANCE: &str = "injector.provenance";

/// The origin of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The project's version.
    pub version: String,
    /// The commit, with `+dirty` if files were changed, or `unknown`.
    pub commit: String,
}

/// Why a module must not be shipped.
#[derive(Debug, thiserror::Error)]
pub enum InvalidModule {
    /// Not wasm, or with features that Envoy does not accept.
    #[error("not a module that Envoy loads: {0}")]
    Refused(#[from] BinaryReaderError),
    /// Envoy or the SDK requires this export.
    #[error("export {name}: expected {kind:?}, found {}", found.map_or("none".to_owned(), |kind| format!("{kind:?}")))]
    Export {
        /// The name of the export.
        name: &'static str,
        /// The required kind.
        kind: ExternalKind,
        /// The kind found.
        found: Option<ExternalKind>,
    },
    /// An import that Envoy cannot link, which makes it reject the module.
    #[error("import {module}.{name}: expected only env.proxy_*, which is what Envoy provides")]
    Import {
        /// The module part of the import's name.
        module: String,
        /// The other part.
        name: String,
    },
    /// A path of the build machine, which reveals its user and makes every build different.
    #[error("the module contains the path {0} of this machine, expected none")]
    MachinePath(String),
    /// [`PROVENANCE`] is missing or invalid.
    #[error(
        "custom section {PROVENANCE}: expected version and commit, as `wasm-build build` writes them"
    )]
    Provenance,
}

/// Removes unneeded exports, the code that only they reached, and custom sections.
///
/// [`PROVENANCE`] stays.
///
/// Fails if Envoy would reject the result.
pub fn slim(module: &[u8], provenance: &Provenance) -> Result<Vec<u8>, InvalidModule> {
    let payloads = checked_payloads(module)?;
    let reach = Reach::new(&payloads, |name| {
        EXPORTS.iter().any(|(kept, _)| *kept == name)
    })?;
    let mut slim = wasm_encoder::Module::new();
    for payload in &payloads {
        match payload {
            Payload::ExportSection(exports) => {
                slim.section(&kept(exports.clone().into_iter())?);
            }
            Payload::CodeSectionStart { .. } => {
                slim.section(&reach.code(module));
            }
            Payload::CustomSection(_) => {}
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    slim.section(&RawSection {
                        id,
                        data: slice(module, range),
                    });
                }
            }
        }
    }
    let data = serde_json::to_vec(provenance).expect("two strings are JSON");
    slim.section(&wasm_encoder::CustomSection {
        name: PROVENANCE.into(),
        data: data.into(),
    });
    let slim = slim.finish();
    inspect(&slim)?;
    Ok(slim)
}

/// Checks a module from `slim` against the same rules, and returns its origin.
pub fn inspect(module: &[u8]) -> Result<Provenance, InvalidModule> {
    let payloads = checked_payloads(module)?;
    let section = payloads.iter().find_map(|payload| match payload {
        Payload::CustomSection(section) if section.name() == PROVENANCE => Some(section.data()),
        _ => None,
    });
    section
        .and_then(|data| serde_json::from_slice(data).ok())
        .ok_or(InvalidModule::Provenance)
}

/// Rejects a module that contains one of these paths.
pub fn check_paths<'a>(
    module: &[u8],
    paths: impl Iterator<Item = &'a Path>,
) -> Result<(), InvalidModule> {
    for path in paths {
        let text = path.as_os_str().as_encoded_bytes();
        if !text.is_empty() && module.windows(text.len()).any(|window| window == text) {
            return Err(InvalidModule::MachinePath(path.display().to_string()));
        }
    }
    Ok(())
}

fn checked_payloads(module: &[u8]) -> Result<Vec<Payload<'_>>, InvalidModule> {
    Validator::new_with_features(FEATURES).validate_all(module)?;
    let payloads: Vec<_> = Parser::new(0).parse_all(module).collect::<Result<_, _>>()?;
    let mut exports = Vec::new();
    for payload in &payloads {
        match payload {
            Payload::ImportSection(imports) => check_imports(imports.clone().into_imports())?,
            Payload::ExportSection(section) => {
                exports = section.clone().into_iter().collect::<Result<_, _>>()?
            }
            _ => {}
        }
    }
    check_exports(&exports)?;
    Ok(payloads)
}

fn check_imports<'a>(
    imports: impl Iterator<Item = wasmparser::Result<wasmparser::Import<'a>>>,
) -> Result<(), InvalidModule> {
    for import in imports {
        let import = import?;
        if import.module != "env" || !import.name.starts_with("proxy_") {
            return Err(InvalidModule::Import {
                module: import.module.to_owned(),
                name: import.name.to_owned(),
            });
        }
    }
    Ok(())
}

fn check_exports(exports: &[Export]) -> Result<(), InvalidModule> {
    for (name, kind) in EXPORTS {
        let found = exports
            .iter()
            .find(|export| export.name == name)
            .map(|export| export.kind);
        if found != Some(kind) {
            return Err(InvalidModule::Export { name, kind, found });
        }
    }
    Ok(())
}

fn kept<'a>(
    exports: impl Iterator<Item = wasmparser::Result<Export<'a>>>,
) -> Result<ExportSection, InvalidModule> {
    let mut kept = ExportSection::new();
    for export in exports {
        let export = export?;
        if EXPORTS.contains(&(export.name, export.kind)) {
            let kind = if export.kind == ExternalKind::Memory {
                ExportKind::Memory
            } else {
                ExportKind::Func
            };
            kept.export(export.name, kind, export.index);
        }
    }
    Ok(kept)
}

#[cfg(test)]
pub(crate) mod tests {
    use wasm_encoder::{
        CodeSection, CustomSection, EntityType, Function, FunctionSection, ImportSection,
        MemorySection, MemoryType, Module, SectionId, TypeSection,
    };

    use super::*;

    /// The origin of the test modules.
    pub(crate) fn provenance() -> Provenance {
        Provenance {
            version: "1.2.3".to_owned(),
            commit: "0123456789ab".to_owned(),
        }
    }

    /// The exported names.
    fn exports(module: &[u8]) -> Vec<String> {
        let payloads = Parser::new(0).parse_all(module).map(Result::unwrap);
        let sections = payloads.filter_map(|payload| {
            if let Payload::ExportSection(section) = payload {
                Some(section)
            } else {
                None
            }
        });
        sections
            .flatten()
            .map(|export| export.unwrap().name.to_owned())
            .collect()
    }

    /// A module as the linker leaves it.
    ///
    /// One function under all names that the filter needs, and more.
    struct Built {
        import: (&'static str, &'static str),
        missing: Option<&'static str>,
        memory: MemoryType,
        body: Function,
    }

    impl Default for Built {
        fn default() -> Self {
            let memory = MemoryType {
                minimum: 1,
                maximum: None,
                memory64: false,
                shared: false,
                page_size_log2: None,
            };
            let mut body = Function::new([]);
            body.instructions().end();
            Self {
                import: ("env", "proxy_log"),
                missing: None,
                memory,
                body,
            }
        }
    }

    impl Built {
        fn module(self) -> Vec<u8> {
            let mut types = TypeSection::new();
            types.ty().function([], []);
            let mut imports = ImportSection::new();
            imports.import(self.import.0, self.import.1, EntityType::Function(0));
            let mut functions = FunctionSection::new();
            functions.function(0);
            let mut memories = MemorySection::new();
            memories.memory(self.memory);
            let mut exports = ExportSection::new();
            for (name, kind) in EXPORTS
                .iter()
                .filter(|(name, _)| Some(*name) != self.missing)
            {
                let memory = *kind == ExternalKind::Memory;
                exports.export(
                    name,
                    if memory {
                        ExportKind::Memory
                    } else {
                        ExportKind::Func
                    },
                    u32::from(!memory),
                );
            }
            for name in [
                "proxy_on_log",
                "proxy_on_response_body",
                "proxy_on_http_call_response",
            ] {
                exports.export(name, ExportKind::Func, 1);
            }
            let mut code = CodeSection::new();
            code.function(&self.body);
            let mut module = Module::new();
            module
                .section(&types)
                .section(&imports)
                .section(&functions)
                .section(&memories)
                .section(&exports)
                .section(&code);
            module.section(&CustomSection {
                name: "producers".into(),
                data: b"rustc".into(),
            });
            module.finish()
        }
    }

    /// A module that passes all checks.
    pub(crate) fn shippable() -> Vec<u8> {
        slim(&Built::default().module(), &provenance()).unwrap()
    }

    #[test]
    fn only_the_exports_that_envoy_calls_are_kept() {
        let built = Built::default().module();
        assert_eq!(exports(&built).len(), EXPORTS.len() + 3);
        assert_eq!(exports(&shippable()), EXPORTS.map(|(name, _)| name));
    }

    #[test]
    fn all_but_exports_and_custom_sections_stays_as_it_is() {
        let built = Built::default().module();
        let sections = |module: &[u8]| -> Vec<(u8, Vec<u8>)> {
            let payloads = Parser::new(0).parse_all(module).map(Result::unwrap);
            let sections = payloads.filter_map(|payload| {
                payload
                    .as_section()
                    .map(|(id, range)| (id, slice(module, range).to_vec()))
            });
            sections
                .filter(|(id, _)| *id != SectionId::Export as u8 && *id != SectionId::Custom as u8)
                .collect()
        };
        assert_eq!(sections(&built).len(), 5);
        assert_eq!(sections(&shippable()), sections(&built));
    }

    #[test]
    fn the_only_custom_section_says_where_the_module_comes_from() {
        let slim = shippable();
        let names = Parser::new(0).parse_all(&slim).map(Result::unwrap);
        let names = names.filter_map(|payload| {
            if let Payload::CustomSection(section) = payload {
                Some(section.name().to_owned())
            } else {
                None
            }
        });
        assert_eq!(names.collect::<Vec<_>>(), [PROVENANCE]);
        assert_eq!(inspect(&slim).unwrap(), provenance());
    }

    #[test]
    fn slimming_twice_changes_nothing() {
        let once = shippable();
        assert_eq!(slim(&once, &provenance()).unwrap(), once);
    }

    #[test]
    fn each_export_that_envoy_needs_is_asked_for() {
        for (missing, _) in EXPORTS {
            let built = Built {
                missing: Some(missing),
                ..Built::default()
            }
            .module();
            let error = slim(&built, &provenance()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("export {missing}: expected")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_import_that_envoy_does_not_provide_is_refused() {
        for import in [
            ("wasi_snapshot_preview1", "random_get"),
            ("__wbindgen_placeholder__", "proxy_log"),
            ("env", "abort"),
        ] {
            let built = Built {
                import,
                ..Built::default()
            }
            .module();
            let error = slim(&built, &provenance()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("import {}.{}: expected", import.0, import.1)),
                "{error}"
            );
        }
    }

    #[test]
    fn what_envoys_engine_need_not_know_is_refused() {
        let mut tail_call = Function::new([]);
        tail_call.instructions().return_call(1).end();
        let memory64 = MemoryType {
            memory64: true,
            ..Built::default().memory
        };
        for built in [
            Built {
                body: tail_call,
                ..Built::default()
            },
            Built {
                memory: memory64,
                ..Built::default()
            },
        ] {
            let error = slim(&built.module(), &provenance()).unwrap_err();
            assert!(matches!(error, InvalidModule::Refused(_)), "{error}");
        }
    }

    #[test]
    fn what_is_not_wasm_is_refused() {
        let whole = Built::default().module();
        for module in [&b""[..], b"#!/bin/sh", &whole[..whole.len() - 1]] {
            assert!(matches!(
                slim(module, &provenance()),
                Err(InvalidModule::Refused(_))
            ));
        }
    }

    #[test]
    fn a_module_of_unknown_origin_is_told_apart() {
        assert!(matches!(
            inspect(&Built::default().module()),
            Err(InvalidModule::Provenance)
        ));
    }

    #[test]
    fn a_path_of_the_machine_is_found() {
        let module = b"\0\0/home/bob/injector/filter/src/lib.rs\0";
        let error = check_paths(
            module,
            [Path::new("/opt"), Path::new("/home/bob/injector/filter")].into_iter(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("/home/bob/injector/filter"),
            "{error}"
        );
        check_paths(module, [Path::new("/home/ann"), Path::new("")].into_iter()).unwrap();
    }
}
