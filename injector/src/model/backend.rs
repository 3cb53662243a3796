//! Where intercepts are kept, as commands and sessions see it. There are two: the files that a plain Envoy watches, and the Intercepts of a mesh.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use intercept_core::{Document, Intercept};
use intercept_tunnel::presence::Presence;
use intercept_tunnel::relay_end::RelayEnd;
use serde_json::Value;

use super::answers::{Found, Live, Named, NotRenewed, Placement, Replicas, Seen, TargetPort};
use super::plan::Plan;
use crate::environment::Environment;
use crate::error::{CliError, Result};

/// Whether an intercept may be added to these.
pub type Check<'c> = dyn Fn(&Document) -> Result<()> + Sync + 'c;

/// The place where intercepts are kept.
#[async_trait(?Send)]
pub trait Backend: Debug {
    /// Looks at all namespaces from now on.
    fn everywhere(&mut self) -> Result<()>;

    /// The identity under which local state is stored. It survives a cluster that is recreated under the same name.
    fn identity(&self) -> String;

    /// The name under which its intercepts in the background are remembered, in this namespace where one is given. No other backend has it.
    fn detached_in(&self, namespace: Option<&str>) -> String;

    /// The flags that choose this namespace of it, with a blank before each word; `None` where there are no namespaces.
    fn namespace_flags(&self, namespace: &str) -> Option<String>;

    /// Who the caller is: as the API server knows them, else by this machine's user name.
    async fn owner(&self) -> Result<String>;

    /// The workload that TARGET means.
    async fn target(&self, target: &str) -> Result<Box<dyn Target + '_>>;

    /// The relay at which a tunnel of the caller's ends, and where connections into the cluster are opened.
    ///
    /// # Errors
    /// Where no operator opened them.
    async fn ways_in(&self) -> Result<(RelayEnd, RelayEnd)>;

    /// All intercepts.
    async fn all(&self) -> Result<Vec<Found>>;

    /// Is the developer machine of each connected? In the same order.
    async fn presences(&self, all: &[Found]) -> Vec<Presence>;

    /// Removes an intercept if it still is the one that was found. What is left goes after [`Self::wait_gone`], by [`Self::clear`].
    async fn remove(&self, found: &Found) -> Result<bool>;

    /// Waits until the proxies have let go of this intercept; where that cannot be seen, for as long as it usually takes.
    async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live;

    /// Clears away what is left of removed intercepts. Returns the first failure, and does not stop at it.
    async fn clear(&self, all: &[&Found]) -> Result<()>;

    /// Removes expired intercepts, where no controller does.
    fn sweep(&self) -> Result<()> {
        Ok(())
    }

    /// Seconds since the epoch, by the clock that leases are counted by.
    async fn now(&self) -> Result<u64>;
}

/// One workload that can be intercepted.
#[async_trait(?Send)]
pub trait Target: Debug {
    /// The workload's name.
    fn name(&self) -> &str;

    /// Who the caller is.
    fn owner(&self) -> String;

    /// The port that `--port` means: by name or number, else the only one.
    fn port(&self, wanted: Option<&str>) -> Result<TargetPort>;

    /// Refuses what would not work here, before anything is opened or written. `all`: an intercept of all requests.
    fn check(&self, _port: u16, _all: bool) -> Result<()> {
        Ok(())
    }

    /// Refuses a port of the developer machine on which an intercepted request would come back to where it was intercepted.
    /// `service`: what was given behind the colon of `--port`.
    fn check_developer_port(&self, _port: u16, _service: Option<&str>) -> Result<()> {
        Ok(())
    }

    /// Does a command behind `--` get the workload's environment?
    fn has_environment(&self) -> bool;

    /// The environment of the container that serves this port.
    async fn environment(&self, port: u16) -> Result<Environment>;

    /// Where connections into the cluster are opened.
    ///
    /// # Errors
    /// Where no operator opened them.
    async fn outbound(&self) -> Result<RelayEnd>;

    /// The namespace and the DNS domain in which the workload looks up names.
    fn names(&self) -> (Option<&str>, &str);

    /// Where the tunnel of this intercept ends, and the cluster that leads there.
    async fn place(&self, name: &str, port: u16) -> Result<Placement>;

    /// The same without the relays of these numbers, which are full; `None` where there is no other one.
    async fn place_beside(&self, name: &str, port: u16, full: &BTreeSet<u16>) -> Option<Placement>;

    /// Is the caller's own developer machine of this address connected?
    async fn presence(&self, address: &str) -> Presence;

    /// The operator's limits and all intercepts of the workload, as they are this moment.
    async fn document(&self) -> Result<Document>;

    /// What the filter is given, with what it leaves out.
    async fn configuration(&self) -> Result<Vec<u8>>;

    /// What a session has to know of its intercept.
    async fn look(&self, name: &str) -> Result<Seen>;

    /// This name with the intercept that has it. Where it is only the usual name and another developer has it, a name that is made of it. `document`: what is there.
    async fn named(&self, document: &Document, name: String, is_usual: bool) -> Result<Named>;

    /// The intercept of this name; refused where the name cannot be used.
    async fn find(&self, name: &str) -> Result<Option<Intercept>> {
        Ok(self.look(name).await?.entry)
    }

    /// What would be written, to be shown.
    async fn rendered(&self, plan: &Plan, entry: &Intercept) -> Result<Value>;

    /// Adds an intercept if `check` allows it for what is there at that moment.
    async fn add(&self, plan: &Plan, entry: &Intercept, check: &Check<'_>) -> Result<()>;

    /// Moves the end of a lease, in seconds since the epoch. In a mesh the controller has the last word on that.
    async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed>;

    /// The error of an intercept whose workload is not prepared any more.
    fn gone(&self, name: &str) -> CliError;

    /// Removes an intercept if it still is this tunnel's. What is left goes after [`Self::wait_gone`], by [`Self::clear`].
    async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>>;

    /// Waits until the proxies have the intercept and its upstream cluster. Reports the number of replicas that do to `progress`.
    ///
    /// # Errors
    /// Where none will have it.
    async fn wait_live(
        &self,
        name: &str,
        entry: &Intercept,
        timeout: Duration,
        progress: &(dyn Fn(Replicas) + Sync),
    ) -> Result<Live>;

    /// Waits until the proxies have let go of this tunnel's intercept; where that cannot be seen, for as long as it usually takes.
    async fn wait_gone(&self, name: &str, address: &str, timeout: Duration) -> Live;

    /// Does the session remove the intercept's cluster? In a mesh the controller does.
    fn has_clusters(&self) -> bool;

    /// Clears away what is left of a removed intercept.
    async fn clear(&self, plan: &Plan, address: &str) -> Result<()>;

    /// How long an intercept that ends may try to be removed.
    fn undo_patience(&self) -> Duration;

    /// How often a session looks whether its intercept is still there.
    fn look_every(&self) -> Duration;

    /// Seconds since the epoch, by the clock that leases are counted by.
    async fn now(&self) -> Result<u64>;
}
