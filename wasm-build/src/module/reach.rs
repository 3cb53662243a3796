//! Finds functions of a module that can still run once exports are removed.
//!
//! The linker kept everything that any export reached, and everything in a table. In the filter 20 of 239 kB are unused (measured), which Envoy would compile at every start.

use std::ops::Range;

use wasm_encoder::{CodeSection, Function};
use wasmparser::{
    ElementItems, ExternalKind, FunctionBody, Operator, OperatorsReader, Payload, Result, TypeRef,
};

/// The functions of a module by index, imported ones first.
pub struct Reach<'a> {
    imported: usize,
    bodies: Vec<FunctionBody<'a>>,
    is_live: Vec<bool>,
    /// For each type, the first equal one.
    canonical: Vec<u32>,
    /// The canonical type of each function.
    types: Vec<u32>,
    /// By type: is it called through a table?
    is_called: Vec<bool>,
    /// By type: the functions in a table.
    ///
    /// They run only if their type is called indirectly, any other call traps. (Vtables contain many methods without calls.)
    in_table: Vec<Vec<u32>>,
    /// Live functions with a body that was not scanned yet.
    waiting: Vec<u32>,
}

impl<'a> Reach<'a> {
    /// Follows calls from all roots.
    ///
    /// Roots are exports for which `is_kept` holds, the start function, functions in globals, and functions in a table whose type is called indirectly.
    pub fn new(payloads: &[Payload<'a>], is_kept: impl Fn(&str) -> bool) -> Result<Self> {
        let bodies = payloads.iter().filter_map(|payload| match payload {
            Payload::CodeSectionEntry(body) => Some(body.clone()),
            _ => None,
        });
        let bodies: Vec<_> = bodies.collect();
        let canonical = canonical_types(payloads)?;
        let types = function_types(payloads, &canonical)?;
        let imported = types.len() - bodies.len();
        let count = canonical.len();
        let mut reach = Self {
            imported,
            bodies,
            is_live: vec![false; types.len()],
            types,
            canonical,
            is_called: vec![false; count],
            in_table: vec![Vec::new(); count],
            waiting: Vec::new(),
        };
        for payload in payloads {
            reach.read_roots(payload, &is_kept)?;
        }
        while let Some(function) = reach.waiting.pop() {
            reach.follow(function)?;
        }
        Ok(reach)
    }

    /// The code section, with an empty body for each function that cannot run.
    ///
    /// Indices stay the same, because calls use them.
    pub fn code(&self, module: &[u8]) -> CodeSection {
        let mut code = CodeSection::new();
        let mut trap = Function::new([]);
        trap.instructions().unreachable().end();
        for (body, is_live) in self.bodies.iter().zip(&self.is_live[self.imported..]) {
            if *is_live {
                code.raw(slice(module, body.range()));
            } else {
                code.function(&trap);
            }
        }
        code
    }

    fn read_roots(&mut self, payload: &Payload, is_kept: impl Fn(&str) -> bool) -> Result<()> {
        match payload {
            Payload::StartSection { func, .. } => self.mark(*func),
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    if export.kind == ExternalKind::Func && is_kept(export.name) {
                        self.mark(export.index);
                    }
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals.clone() {
                    self.mark_all(global?.init_expr.get_operators_reader())?;
                }
            }
            Payload::ElementSection(elements) => {
                for element in elements.clone() {
                    self.mark_items(element?.items)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn mark_items(&mut self, items: ElementItems) -> Result<()> {
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.put_in_table(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    for operator in expression?.get_operators_reader() {
                        if let Operator::RefFunc { function_index } = operator? {
                            self.put_in_table(function_index);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn put_in_table(&mut self, function: u32) {
        let type_index = self.types[function as usize] as usize;
        match self.is_called[type_index] {
            true => self.mark(function),
            false => self.in_table[type_index].push(function),
        }
    }

    fn call_type(&mut self, type_index: u32) {
        let type_index = self.canonical[type_index as usize] as usize;
        self.is_called[type_index] = true;
        for function in std::mem::take(&mut self.in_table[type_index]) {
            self.mark(function);
        }
    }

    fn follow(&mut self, function: u32) -> Result<()> {
        let Some(body) = (function as usize).checked_sub(self.imported) else {
            return Ok(());
        };
        let operators = self.bodies[body].get_operators_reader()?;
        self.mark_all(operators)
    }

    /// Follows operators that name functions or their types.
    ///
    /// Tail calls and calls of references are not among the allowed features.
    fn mark_all(&mut self, operators: OperatorsReader) -> Result<()> {
        for operator in operators {
            match operator? {
                Operator::Call { function_index } | Operator::RefFunc { function_index } => {
                    self.mark(function_index);
                }
                Operator::CallIndirect { type_index, .. } => {
                    self.call_type(type_index);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn mark(&mut self, function: u32) {
        let is_live = &mut self.is_live[function as usize];
        if !*is_live {
            *is_live = true;
            self.waiting.push(function);
        }
    }
}

/// For each type, the first equal one: types are compared by structure.
fn canonical_types(payloads: &[Payload]) -> Result<Vec<u32>> {
    let mut types = Vec::new();
    for payload in payloads {
        if let Payload::TypeSection(section) = payload {
            for group in section.clone() {
                types.extend(group?.into_types());
            }
        }
    }
    let first = |ty| types.iter().position(|other| other == ty);
    let canonical = types.iter().zip(0..);
    Ok(canonical
        .map(|(ty, index)| first(ty).map_or(index, |first| first as u32))
        .collect())
}

/// The type of each function, imported ones first.
fn function_types(payloads: &[Payload], canonical: &[u32]) -> Result<Vec<u32>> {
    let mut types = Vec::new();
    for payload in payloads {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    if let TypeRef::Func(index) = import?.ty {
                        types.push(canonical[index as usize]);
                    }
                }
            }
            Payload::FunctionSection(functions) => {
                for index in functions.clone() {
                    types.push(canonical[index? as usize]);
                }
            }
            _ => {}
        }
    }
    Ok(types)
}

/// The bytes of a range, which the parser made from this very slice.
pub fn slice(module: &[u8], range: Range<u64>) -> &[u8] {
    &module[range.start as usize..range.end as usize]
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use wasm_encoder::{
        ElementSection, Elements, EntityType, ExportKind, ExportSection, FunctionSection,
        GlobalSection, GlobalType, ImportSection, Module, RefType, StartSection, TableSection,
        TableType, TypeSection, ValType,
    };
    use wasmparser::{Parser, Validator};

    use super::*;

    /// Possible references to a function.
    #[derive(Default)]
    struct From {
        kept: Option<u32>,
        dropped: Option<u32>,
        start: Option<u32>,
        table: Option<u32>,
        table_expression: Option<u32>,
        global: Option<u32>,
        calls: Vec<(u32, u32)>,
        /// Calls the first function of the table.
        indirect: Option<u32>,
    }

    /// A module with the imported function 0, and functions 1 to 4.
    fn module(from: &From) -> Vec<u8> {
        let mut types = TypeSection::new();
        // Three times: the last type differs, and is that of function 4.
        types.ty().function([], []);
        types.ty().function([], []);
        types.ty().function([ValType::I32], []);
        let mut imports = ImportSection::new();
        imports.import("env", "proxy_log", EntityType::Function(0));
        let mut functions = FunctionSection::new();
        let mut code = CodeSection::new();
        for function in 1..=4 {
            functions.function(if function == 4 { 2 } else { 0 });
            let mut body = Function::new([]);
            let mut instructions = body.instructions();
            for (_, callee) in from.calls.iter().filter(|(caller, _)| *caller == function) {
                if *callee == 4 {
                    instructions.i32_const(0);
                }
                instructions.call(*callee);
            }
            if from.indirect == Some(function) {
                instructions.i32_const(0).call_indirect(0, 1);
            }
            instructions.nop().end();
            code.function(&body);
        }
        let mut tables = TableSection::new();
        let (minimum, maximum) = (4, None);
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            minimum,
            maximum,
            table64: false,
            shared: false,
        });
        let mut globals = GlobalSection::new();
        if let Some(function) = from.global {
            let ty = GlobalType {
                val_type: ValType::Ref(RefType::FUNCREF),
                mutable: false,
                shared: false,
            };
            globals.global(ty, &wasm_encoder::ConstExpr::ref_func(function));
        }
        let mut exports = ExportSection::new();
        for (name, function) in [("kept", from.kept), ("dropped", from.dropped)] {
            if let Some(function) = function {
                exports.export(name, ExportKind::Func, function);
            }
        }
        let mut elements = ElementSection::new();
        let zero = wasm_encoder::ConstExpr::i32_const(0);
        if let Some(function) = from.table {
            elements.active(None, &zero, Elements::Functions(Cow::Owned(vec![function])));
        }
        if let Some(function) = from.table_expression {
            let expressions = vec![wasm_encoder::ConstExpr::ref_func(function)];
            elements.active(
                None,
                &zero,
                Elements::Expressions(RefType::FUNCREF, Cow::Owned(expressions)),
            );
        }
        let mut module = Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&functions)
            .section(&tables)
            .section(&globals)
            .section(&exports);
        if let Some(function_index) = from.start {
            module.section(&StartSection { function_index });
        }
        module.section(&elements).section(&code);
        module.finish()
    }

    /// The functions from 1 to 4 that keep their bodies.
    fn live(from: From) -> Vec<u32> {
        let module = module(&from);
        Validator::new().validate_all(&module).unwrap();
        let payloads: Vec<_> = Parser::new(0)
            .parse_all(&module)
            .map(Result::unwrap)
            .collect();
        let code = Reach::new(&payloads, |name| name == "kept")
            .unwrap()
            .code(&module);
        let mut functions = FunctionSection::new();
        for function in 1..=4 {
            functions.function(if function == 4 { 2 } else { 0 });
        }
        let mut encoded = Module::new();
        encoded.section(&functions).section(&code);
        let encoded = encoded.finish();
        let bodies = Parser::new(0).parse_all(&encoded).map(Result::unwrap);
        let bodies = bodies.filter_map(|payload| {
            if let Payload::CodeSectionEntry(body) = payload {
                Some(body)
            } else {
                None
            }
        });
        let is_trap = |body: &FunctionBody| {
            matches!(
                body.get_operators_reader().unwrap().read().unwrap(),
                Operator::Unreachable
            )
        };
        let bodies: Vec<_> = bodies.collect();
        assert_eq!(
            bodies.len(),
            4,
            "functions are called by index, so none may go"
        );
        (1..=4)
            .zip(bodies)
            .filter(|(_, body)| !is_trap(body))
            .map(|(function, _)| function)
            .collect()
    }

    #[test]
    fn a_function_that_only_a_dropped_export_reached_loses_its_body() {
        assert_eq!(
            live(From {
                kept: Some(1),
                dropped: Some(2),
                calls: vec![(2, 3)],
                ..From::default()
            }),
            [1]
        );
    }

    #[test]
    fn a_function_stays_however_it_can_be_reached() {
        for from in [
            From {
                kept: Some(2),
                ..From::default()
            },
            From {
                start: Some(2),
                ..From::default()
            },
            From {
                global: Some(2),
                ..From::default()
            },
        ] {
            assert_eq!(live(from), [2]);
        }
    }

    /// Only function 4 has a type without indirect calls.
    #[test]
    fn a_function_in_a_table_stays_if_its_type_is_called() {
        for (in_table, is_called, expected) in
            [(2, true, &[1, 2][..]), (2, false, &[1]), (4, true, &[1])]
        {
            for is_expression in [false, true] {
                let from = From {
                    kept: Some(1),
                    indirect: is_called.then_some(1),
                    table: (!is_expression).then_some(in_table),
                    table_expression: is_expression.then_some(in_table),
                    ..From::default()
                };
                assert_eq!(
                    live(from),
                    expected,
                    "{in_table} {is_called} {is_expression}"
                );
            }
        }
    }

    #[test]
    fn calls_are_followed_all_the_way_and_in_circles() {
        assert_eq!(
            live(From {
                kept: Some(1),
                calls: vec![(1, 0), (1, 3), (3, 4), (4, 1)],
                ..From::default()
            }),
            [1, 3, 4]
        );
    }
}
