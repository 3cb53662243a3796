//! The image of relay and module server: a static program and the filter.
//!
//! Knows nothing of how the program is built.

use std::io;

use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_TITLE,
    ANNOTATION_VERSION, Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os,
    RootFsBuilder,
};

use super::{File, Image, Layer};
use crate::module::Provenance;

/// The program's path in the image.
const PROGRAM: &str = "injector";

/// The filter's path in the image.
const FILTER: &str = "filter.wasm";

/// The unprivileged user, as a number: Kubernetes checks `runAsNonRoot` against one.
const USER: &str = "65532:65532";

/// Type of the program header that requests a dynamic loader (ELF: `PT_INTERP`).
const INTERPRETER: u32 = 3;

/// Why a program cannot run in an empty root.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotStatic {
    /// Not a 64-bit little-endian ELF file for a supported machine.
    #[error("expected a 64-bit ELF program for x86-64 or aarch64")]
    NotElf,
    /// It requests a dynamic loader, which the image does not have.
    #[error("expected a static program, it asks for a dynamic loader")]
    Dynamic,
}

/// The image of a static program and a filter of the same commit.
pub fn image(program: &[u8], filter: &[u8], provenance: &Provenance) -> anyhow::Result<Image> {
    let arch = machine(program)?;
    // Two layers, because the program changes with each build, the filter rarely.
    let layers = vec![
        Layer::pack(&[File {
            path: FILTER,
            mode: 0o644,
            bytes: filter,
        }])?,
        Layer::pack(&[File {
            path: PROGRAM,
            mode: 0o755,
            bytes: program,
        }])?,
    ];
    Ok(Image {
        config: config(&layers, arch)?,
        layers,
        annotations: annotations(provenance),
    })
}

/// The architecture of a static program.
fn machine(program: &[u8]) -> Result<Arch, NotStatic> {
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at + bytes).ok_or(NotStatic::NotElf)?;
        Ok(field
            .iter()
            .rev()
            .fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    // e_ident: magic, 64 bits, little-endian.
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return Err(NotStatic::NotElf);
    }
    let arch = match number(18, 2)? {
        62 => Arch::Amd64,
        183 => Arch::ARM64,
        _ => return Err(NotStatic::NotElf),
    };
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(headers + index * size, 4)? == INTERPRETER as usize {
            return Err(NotStatic::Dynamic);
        }
    }
    Ok(arch)
}

fn config(layers: &[Layer], arch: Arch) -> io::Result<ImageConfiguration> {
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(
            layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect::<Vec<_>>(),
        )
        .build()
        .map_err(io::Error::other)?;
    let run = ConfigBuilder::default()
        .entrypoint([format!("/{PROGRAM}")])
        .user(USER)
        .build()
        .map_err(io::Error::other)?;
    ImageConfigurationBuilder::default()
        .architecture(arch)
        .os(Os::Linux)
        .config(run)
        .rootfs(rootfs)
        .build()
        .map_err(io::Error::other)
}

fn annotations(provenance: &Provenance) -> Vec<(String, String)> {
    let all = [
        (ANNOTATION_TITLE, "injector"),
        (
            ANNOTATION_DESCRIPTION,
            "Personal intercepts in a service mesh: relay and module server",
        ),
        (ANNOTATION_VERSION, &provenance.version),
        (ANNOTATION_REVISION, &provenance.commit),
        (ANNOTATION_LICENSES, env!("CARGO_PKG_LICENSE")),
    ];
    all.into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::tests::provenance;

    /// An ELF header and program headers of these types.
    fn elf(machine: u8, types: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = machine;
        file[32] = 64;
        file[54] = 56;
        file[56] = types.len() as u8;
        for kind in types {
            let mut header = vec![0; 56];
            header[0] = *kind;
            file.extend(header);
        }
        file
    }

    #[test]
    fn the_image_starts_the_program_as_nobody() {
        let image = image(&elf(62, &[1, 2]), b"\0asm", &provenance()).unwrap();
        let config = image.config.config().as_ref().unwrap();
        assert_eq!(config.entrypoint().as_ref().unwrap(), &["/injector"]);
        assert_eq!(config.user().as_deref(), Some("65532:65532"));
        assert_eq!(image.config.rootfs().diff_ids().len(), 2);
    }

    #[test]
    fn the_image_is_for_the_machine_that_the_program_is_for() {
        for (machine, expected) in [(62, Arch::Amd64), (183, Arch::ARM64)] {
            let image = image(&elf(machine, &[1]), b"\0asm", &provenance()).unwrap();
            assert_eq!(image.config.architecture(), &expected);
        }
    }

    #[test]
    fn a_program_that_wants_a_loader_is_refused() {
        assert_eq!(machine(&elf(62, &[1, 3])), Err(NotStatic::Dynamic));
        assert_eq!(machine(&elf(40, &[1])), Err(NotStatic::NotElf));
        assert_eq!(machine(b"#!/bin/sh\n"), Err(NotStatic::NotElf));
        assert_eq!(machine(&elf(62, &[1])[..60]), Err(NotStatic::NotElf));
        assert_eq!(machine(&elf(62, &[1])[..70]), Ok(Arch::Amd64));
    }
}
