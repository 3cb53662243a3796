//! Which backend the flags choose.

mod plain;

use std::path::Path;

use self::plain::{PlainEnvoy, identity};
use crate::args::{Global, connect, connect_patiently};
use crate::envoy::Dir;
use crate::error::{CliError, Result};
use crate::mesh::Mesh;
use crate::model::Backend;

pub use self::plain::now;

/// The backend that the flags choose: a directory where one is named, else the cluster of the kubeconfig.
pub async fn open(global: &Global) -> Result<Box<dyn Backend>> {
    match &global.envoy {
        Some(dir) => Ok(Box::new(PlainEnvoy(Dir::open(dir)?))),
        None => Ok(Box::new(Mesh::new(connect(global).await?))),
    }
}

/// The same for what must not be left half done.
pub async fn open_patiently(global: &Global) -> Result<Box<dyn Backend>> {
    match &global.envoy {
        Some(dir) => Ok(Box::new(PlainEnvoy(Dir::open(dir)?))),
        None => Ok(Box::new(Mesh::new(connect_patiently(global).await?))),
    }
}

/// The directory that the flags name.
pub fn directory(global: &Global) -> Result<&Path> {
    global.envoy.as_deref().ok_or_else(|| {
        CliError::usage(
            "no target: pass --envoy DIR or set INJECTOR_ENVOY",
            "injector sandbox, and paste the line that it prints: export INJECTOR_ENVOY=…",
        )
    })
}

/// [`Backend::detached_in`] of the backend that the flags choose, also where a directory is not prepared any more.
pub async fn detached(global: &Global) -> Result<String> {
    match &global.envoy {
        Some(dir) => {
            let absolute = std::path::absolute(dir);
            Ok(identity(absolute.as_deref().unwrap_or(dir)))
        }
        None => Ok(open(global).await?.detached_in(None)),
    }
}
