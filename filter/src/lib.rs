//! The proxy-wasm filter: a thin shell over `intercept-core`, and the only code that names `proxy_wasm`.
//!
//! On a match it writes the two routing headers and the filter state `wasm.intercept`, which no client can forge and without which the gate's routes do not match.
//! On a miss it touches nothing. It never refuses a configuration (a refused one blocks every later change for that proxy), and it must not trap: a trap
//! ends the filter of everybody on that worker. Hence the `_bytes` calls only, and the lints that deny whatever can panic.

mod host;

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use intercept_core::{Matcher, Outcome, parse};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use crate::host::{Downstream, Metrics};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Plugin { matcher: Rc::default(), metrics: Metrics::of_vm() }));
}}

/// The most entries whose reasons are logged with one configuration.
const MAX_REASONS: usize = 20;

/// Envoy makes a new root context, and calls `on_vm_start` for it, with every change of the configuration; this is once per VM.
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// The root context: one configuration in one VM.
struct Plugin {
    matcher: Rc<Matcher>,
    metrics: Metrics,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_vm_start(&mut self, _: usize) -> bool {
        if !ANNOUNCED.swap(true, Ordering::Relaxed) {
            let commit = option_env!("INJECTOR_COMMIT").unwrap_or("unknown");
            let version = env!("CARGO_PKG_VERSION");
            host::log(
                LogLevel::Info,
                &format!("intercept filter {version} ({commit})"),
            );
        }
        true
    }

    fn on_configure(&mut self, _: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let (config, mut rejected) = parse(&json);
        let hash = config.hash;
        let (matcher, refused) = Matcher::compile(config);
        rejected.extend(refused);
        for entry in rejected.iter().take(MAX_REASONS) {
            host::log(LogLevel::Warn, &format!("left out: {}", entry.log_line()));
        }
        if let Some(more @ 1..) = rejected.len().checked_sub(MAX_REASONS) {
            host::log(LogLevel::Warn, &format!("left out: {more} more"));
        }
        let active = matcher.active(host::now());
        self.metrics.record_config(rejected.len(), hash, active);
        self.matcher = Rc::new(matcher);
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            matcher: Rc::clone(&self.matcher),
            metrics: self.metrics,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request. A stream keeps the configuration it began with.
struct Stream {
    matcher: Rc<Matcher>,
    metrics: Metrics,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Outcome {
            intercept,
            bypass,
            expired,
        } = self.matcher.decide(&Downstream::default());
        if expired {
            self.metrics.count_expired();
        }
        if let Some(bypass) = bypass {
            self.metrics.count_bypassed(bypass);
        }
        if let Some(compiled) = intercept {
            let intercept = compiled.intercept();
            host::reroute(compiled.name(), &intercept.cluster, &intercept.address);
            self.metrics.count_matched();
        }
        Action::Continue
    }
}
