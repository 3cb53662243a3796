//! Variables that can make a program run or load other code.
//!
//! With them, a user who may edit a ConfigMap of the workload could run code on the developer machine. They are options of interpreters and virtual machines,
//! start-up files, module search paths, and wrappers and helpers of tools.

/// Names of such variables.
const NAMES: &[&str] = &[
    // Shells
    "BASH_ENV",
    "BASHOPTS",
    "CDPATH",
    "ENV",
    "IFS",
    "PROMPT_COMMAND",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
    // Java
    "ANT_OPTS",
    "CATALINA_OPTS",
    "CLASSPATH",
    "GRADLE_OPTS",
    "JAVA_HOME",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "JDK_JAVAC_OPTIONS",
    "MAVEN_ARGS",
    "MAVEN_OPTS",
    "SBT_OPTS",
    "_JAVA_OPTIONS",
    // JavaScript
    "BUN_OPTIONS",
    "ELECTRON_RUN_AS_NODE",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    // Python
    "PYTHONBREAKPOINT",
    "PYTHONEXECUTABLE",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONWARNINGS",
    // Perl, PHP, R, Ruby
    "BUNDLE_GEMFILE",
    "BUNDLE_PATH",
    "GEM_HOME",
    "GEM_PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "RUBYLIB",
    "RUBYOPT",
    "R_ENVIRON",
    "R_ENVIRON_USER",
    "R_PROFILE",
    "R_PROFILE_USER",
    // .NET, Erlang, Julia
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
    "DOTNET_STARTUP_HOOKS",
    "ELIXIR_ERL_OPTIONS",
    "ERL_AFLAGS",
    "ERL_FLAGS",
    "ERL_LIBS",
    "ERL_ZFLAGS",
    "JULIA_DEPOT_PATH",
    "JULIA_LOAD_PATH",
    // Go, Rust, C
    "CC",
    "CXX",
    "GNUMAKEFLAGS",
    "GOENV",
    "GOFLAGS",
    "GOINSECURE",
    "GONOSUMDB",
    "GOPROXY",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "MAKEFILES",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    // Git, ssh, and programs that prompt or show output
    "BROWSER",
    "EDITOR",
    "GIT_ASKPASS",
    "GIT_DIR",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_TEMPLATE_DIR",
    "LESSCLOSE",
    "LESSOPEN",
    "MANPAGER",
    "PAGER",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "VISUAL",
    // Libraries that load modules, or run helpers named in a file
    "AWS_CONFIG_FILE",
    "DOCKER_CONFIG",
    "GCONV_PATH",
    "GTK_MODULES",
    "LOCPATH",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "QT_PLUGIN_PATH",
];

/// Prefixes of such variables, compared without case, as npm does.
///
/// The dynamic linker, exported bash functions, .NET profilers, and configuration of tools that run hooks or fetch packages.
const PREFIXES: &[&str] = &[
    "BASH_FUNC_",
    "CARGO_",
    "COREPACK_",
    "CORECLR_",
    "COR_",
    "DYLD_",
    "GIT_CONFIG",
    "LD_",
    "LUA_",
    "NPM_CONFIG_",
    "PIP_",
    "POETRY_",
    "TS_NODE_",
    "UV_",
    "YARN_",
];

/// Can a variable of this name make a program run code?
pub fn may_run_code(name: &str) -> bool {
    let has = |prefix: &&str| {
        let head = name.as_bytes().get(..prefix.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    NAMES.contains(&name) || PREFIXES.iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_configuration() {
        for name in [
            "NODE_OPTIONS",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "npm_config_node_options",
            "NPM_CONFIG_REGISTRY",
            "LD_PRELOAD",
            "DYLD_INSERT_LIBRARIES",
            "_JAVA_OPTIONS",
            "GIT_CONFIG_COUNT",
            "LUA_INIT_5_4",
        ] {
            assert!(may_run_code(name), "{name}");
        }
        for name in [
            "NODE_ENV",
            "ENVIRONMENT",
            "DATABASE_URL",
            "GIT_COMMIT",
            "LDAP_URL",
            "PYTHONUNBUFFERED",
            "é",
            "",
        ] {
            assert!(!may_run_code(name), "{name}");
        }
    }
}
