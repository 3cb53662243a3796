//! The proxy-wasm filter, a thin shell over `intercept-core`.
//!
//! No other code names `proxy_wasm`.
//!
//! On a match it writes the two routing headers and the filter state `wasm.intercept`, which no client can forge and which the gate's routes require.
//! On a miss it changes nothing. It accepts every configuration, because a rejected one blocks all later updates of that proxy. It must not trap: a trap
//! ends the filter for all requests on that worker. Hence the `_bytes` calls, and the lints that deny code that can panic.

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

/// How many rejected entries to log with their reasons per configuration.
const MAX_REASONS: usize = 20;

/// Limits the announcement to once per VM.
///
/// Envoy creates a new root context, and calls `on_vm_start` for it, with every change of the configuration.
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

/// One request. A stream keeps the configuration that it began with.
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
