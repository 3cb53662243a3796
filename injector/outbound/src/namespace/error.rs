//! Why there is no namespace: the step that failed, what that means on this system, and what to do about it.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;

/// A step of the setup, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Starting the helper process.
    Helper,
    /// Making user, network and mount namespaces.
    Unshare,
    /// Mapping the user's own numbers into the user namespace.
    Identity,
    /// Setting up `lo`.
    Loopback,
    /// Opening the sockets that take captured traffic.
    Sockets,
    /// Installing the nftables table.
    Rules,
    /// Covering resolv.conf and nsswitch.conf.
    Files,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Helper,
        Self::Unshare,
        Self::Identity,
        Self::Loopback,
        Self::Sockets,
        Self::Rules,
        Self::Files,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helper => "helper",
            Self::Unshare => "unshare",
            Self::Identity => "uid_map",
            Self::Loopback => "loopback",
            Self::Sockets => "sockets",
            Self::Rules => "nftables",
            Self::Files => "files",
        }
    }
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupError {
    step: Step,
    /// What it was about: a rule, a file, an address. May be empty.
    object: String,
    /// The kernel's error, where it was one.
    errno: Option<i32>,
}

impl SetupError {
    /// A step that failed with the kernel's `errno`.
    pub fn new(step: Step, object: impl fmt::Display, errno: Option<i32>) -> Self {
        Self {
            step,
            object: object.to_string(),
            errno,
        }
    }

    /// A step that failed with an error of the standard library.
    pub fn io(step: Step, object: impl fmt::Display, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(step, object, Some(errno)),
            None => Self::new(step, format_args!("{object}: {error}"), None),
        }
    }

    /// The step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The error, and what it means on this system where that is known.
    pub fn describe(&self) -> String {
        match self.cause() {
            Some(cause) => format!("{self}; {cause}"),
            None => self.to_string(),
        }
    }

    /// What it means on this system, where that is known.
    pub fn cause(&self) -> Option<String> {
        diagnosis(self, setting).0
    }

    /// A command that helps.
    pub fn hint(&self) -> String {
        diagnosis(self, setting).1
    }

    /// As one line for the engine.
    pub fn encode(&self) -> String {
        let errno = self.errno.unwrap_or_default();
        format!("{} {errno} {}", self.step.as_str(), self.object)
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let word = parts.next()?;
        let step = Step::ALL.into_iter().find(|step| step.as_str() == word)?;
        let errno = parts.next()?.parse().ok()?;
        let object = parts.next()?;
        Some(Self::new(step, object, Some(errno).filter(|n| *n != 0)))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "network namespace: {}", self.step.as_str())?;
        if !self.object.is_empty() {
            write!(formatter, ": {}", self.object)?;
        }
        match self.errno {
            Some(errno) => write!(formatter, ": {}", Errno::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SetupError {}

/// Shows which of the kernel's parts are there.
const CONFIGURATION: &str =
    "zgrep -hE 'USER_NS|NFT_(TPROXY|SOCKET|QUEUE)' /proc/config.gz /boot/config-$(uname -r)";

/// A setting of the kernel, by its path below /proc/sys.
fn setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

/// What an error means, and a command that helps. Ubuntu's, Debian's and Docker's defaults are the usual reasons.
fn diagnosis(
    error: &SetupError,
    setting: impl Fn(&str) -> Option<String>,
) -> (Option<String>, String) {
    let errno = error.errno.map(Errno::from_raw_os_error);
    let is_forbidden = matches!(errno, Some(Errno::PERM | Errno::ACCESS));
    match error.step {
        Step::Unshare if errno == Some(Errno::NOSPC) => limit(setting),
        Step::Unshare if is_forbidden => forbidden(setting),
        Step::Identity if is_forbidden => apparmor(),
        Step::Rules if matches!(errno, Some(Errno::NOENT | Errno::OPNOTSUPP)) => {
            let cause = "this kernel lacks a module that the rule needs".to_owned();
            let hint = "sudo modprobe -a nft_tproxy nft_socket nft_reject_inet nfnetlink_queue";
            (Some(cause), hint.to_owned())
        }
        Step::Files if errno == Some(Errno::NOENT) => {
            let cause = "programs find the resolver by this file".to_owned();
            (Some(cause), "sudo touch /etc/resolv.conf".to_owned())
        }
        _ => (None, CONFIGURATION.to_owned()),
    }
}

fn limit(setting: impl Fn(&str) -> Option<String>) -> (Option<String>, String) {
    let names = ["user", "net", "mnt"].map(|kind| format!("user/max_{kind}_namespaces"));
    let zero = names
        .into_iter()
        .find(|name| setting(name).as_deref() == Some("0"));
    let name = zero.unwrap_or_else(|| "user/max_user_namespaces".to_owned());
    let name = name.replace('/', ".");
    let cause = format!("{name} allows no more of them");
    (Some(cause), format!("sudo sysctl -w {name}=15000"))
}

fn forbidden(setting: impl Fn(&str) -> Option<String>) -> (Option<String>, String) {
    const SWITCH: &str = "kernel.unprivileged_userns_clone";
    if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        let cause = format!("{SWITCH} is 0");
        return (Some(cause), format!("sudo sysctl -w {SWITCH}=1"));
    }
    let cause = "this container does not let a process make a user namespace".to_owned();
    let hint = "docker run --security-opt seccomp=unconfined --help".to_owned();
    (Some(cause), hint)
}

/// Ubuntu 23.10 and later: a user namespace may be made, and has no capabilities.
fn apparmor() -> (Option<String>, String) {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/injector".into());
    let cause = "AppArmor takes the rights in a user namespace from programs without a profile";
    let profile = format!(
        "abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile injector \"{}\" flags=(unconfined) {{ userns, }}\\n",
        program.display()
    );
    let file = "/etc/apparmor.d/injector";
    let hint = format!("printf '{profile}' | sudo tee {file} && sudo apparmor_parser -r {file}");
    (Some(cause.to_owned()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnose(step: Step, errno: Errno, settings: &[(&str, &str)]) -> (String, String) {
        let error = SetupError::new(step, "", Some(errno.raw_os_error()));
        let (cause, hint) = diagnosis(&error, |name| {
            let found = settings.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        });
        (cause.unwrap_or_default(), hint)
    }

    #[test]
    fn causes_name_the_closed_door() {
        let container = diagnose(Step::Unshare, Errno::PERM, &[]).0;
        assert!(container.starts_with("this container"), "{container}");
        let debian = [("kernel/unprivileged_userns_clone", "0")];
        let (cause, hint) = diagnose(Step::Unshare, Errno::PERM, &debian);
        assert_eq!(cause, "kernel.unprivileged_userns_clone is 0");
        assert_eq!(hint, "sudo sysctl -w kernel.unprivileged_userns_clone=1");
        let limits = [
            ("user/max_user_namespaces", "100"),
            ("user/max_net_namespaces", "0"),
        ];
        let (cause, hint) = diagnose(Step::Unshare, Errno::NOSPC, &limits);
        assert_eq!(cause, "user.max_net_namespaces allows no more of them");
        assert_eq!(hint, "sudo sysctl -w user.max_net_namespaces=15000");
        let ubuntu = diagnose(Step::Identity, Errno::ACCESS, &[]).0;
        assert!(ubuntu.contains("AppArmor"), "{ubuntu}");
        let wsl = diagnose(Step::Rules, Errno::NOENT, &[]).1;
        assert!(wsl.contains("nft_tproxy"), "{wsl}");
    }

    #[test]
    fn text_names_step_and_object() {
        let error = SetupError::new(Step::Rules, "rule 10 (capture TCP: nft_tproxy)", Some(2));
        assert_eq!(
            error.to_string(),
            "network namespace: nftables: rule 10 (capture TCP: nft_tproxy): No such file or directory (os error 2)"
        );
    }
}
