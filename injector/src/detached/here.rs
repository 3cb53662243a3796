//! Where a process id means something.

/// This start of this machine, and in it this space of process ids, of which every container may have its own. `None` where the system does not say.
#[cfg(target_os = "linux")]
pub fn here() -> Option<String> {
    let start = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", start.trim(), space.display()))
}

/// This start of this machine. `None` where the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn here() -> Option<String> {
    let asked = std::process::Command::new("/usr/sbin/sysctl")
        .args(["-n", "kern.bootsessionuuid"])
        .output();
    let said = String::from_utf8(asked.ok()?.stdout).ok()?;
    let said = said.trim();
    (!said.is_empty()).then(|| said.to_owned())
}
