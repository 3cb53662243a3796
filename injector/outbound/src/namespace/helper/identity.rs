//! The namespaces themselves, and who the user is in them.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{getgid, getuid};

use crate::namespace::error::{SetupError, Step};

/// Moves this process into new user, network and mount namespaces, as the same user and group.
pub fn enter_namespaces() -> Result<(), SetupError> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| SetupError::new(Step::Unshare, "", Some(errno as i32)))?;
    for (file, text) in [
        // A group may be mapped only by a process that cannot change its groups.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ] {
        write("self", file, &text).map_err(|error| SetupError::io(Step::Identity, file, &error))?;
    }
    Ok(())
}

/// Lets programs bind every port and ping, as in a container. Where /proc/sys is read-only they go without.
pub fn open_low_ports() {
    let gid = getgid().as_raw();
    let _ = write("sys/net/ipv4", "ip_unprivileged_port_start", "0");
    let _ = write("sys/net/ipv4", "ping_group_range", &format!("{gid} {gid}"));
}

fn write(dir: &str, file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/{dir}/{file}"), text)
}
