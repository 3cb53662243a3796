//! A module made without a compiler, and the program under test.

use std::process::Output;

use wasm_encoder::{
    CodeSection, CustomSection, ExportKind, ExportSection, Function, FunctionSection,
    MemorySection, MemoryType, Module, TypeSection,
};

/// A commit as a module names it.
pub const COMMIT: &str = "0123456789ab";

/// The smallest module that `wasm-build build` could write, with this commit.
pub fn module(commit: &str) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    for name in ["_initialize", "malloc", "proxy_abi_version_0_2_1"] {
        exports.export(name, ExportKind::Func, 0);
    }
    for callback in [
        "configure",
        "context_create",
        "delete",
        "request_headers",
        "vm_start",
    ] {
        exports.export(&format!("proxy_on_{callback}"), ExportKind::Func, 0);
    }
    let mut body = Function::new([]);
    body.instructions().end();
    let mut code = CodeSection::new();
    code.function(&body);
    let provenance = format!(r#"{{"version":"1.2.3","commit":"{commit}"}}"#);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code);
    module.section(&CustomSection {
        name: "injector.provenance".into(),
        data: provenance.as_bytes().into(),
    });
    module.finish()
}

/// Runs the program to its end.
pub fn wasm_build(args: &[&str]) -> Output {
    assert_cmd::Command::cargo_bin("wasm-build")
        .unwrap()
        .args(args)
        .output()
        .unwrap()
}
