# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns the cell: the mount, PID, network, IPC and UTS namespaces and the cgroup of the whole cluster, and the veth pair into them.
# Ending the cell's first process ends every process in it, and with them go all mounts, links, routes, netfilter rules and sysctls of the
# cluster: only the cgroup's directories, the veth pair and one directory of files remain to be removed.
# Knows nothing of Kubernetes except the kernel settings that a kubelet requires.

# Hard-wired directories of runtimes; in the cell they are overlays, so that no writes reach the machine.
overlaid=(/run /var/lib /var/log)

# A kubelet sets these, which belong to the whole machine; in the cell each is hidden by a plain file with the right value.
kernel_settings=(vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000)

# cgroup_roots : the mount points of all hierarchies, v1 and v2
cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

cgroup_create() {
  local root file
  while read -r root; do
    mkdir -p "$root/$cgroup/system"
    # v1 (in v2 the root has no such files): a cpuset accepts processes only once it has processors and memory
    for file in cpuset.cpus cpuset.mems; do
      if [ -e "$root/$file" ]; then
        cat "$root/$file" >"$root/$cgroup/$file"
        cat "$root/$file" >"$root/$cgroup/system/$file"
      fi
    done
    if [ -e "$root/cgroup.subtree_control" ]; then cgroup_controllers "$root"; fi
  done < <(cgroup_roots)
}

# cgroup_controllers ROOT : v2 only. A kubelet needs all controllers below its root. Remembers those that were not enabled at the machine's root.
cgroup_controllers() {
  local controller
  for controller in $(<"$1/cgroup.controllers"); do
    if ! grep -qw "$controller" "$1/cgroup.subtree_control"; then
      echo "$controller" >>"$dir/controllers"
      echo "+$controller" >"$1/cgroup.subtree_control"
    fi
    echo "+$controller" >"$1/$cgroup/cgroup.subtree_control"
  done
}

# cgroup_join : moves this process, and so its children, into the cell's cgroup
cgroup_join() {
  local root
  while read -r root; do echo "$BASHPID" >"$root/$cgroup/system/cgroup.procs"; done < <(cgroup_roots)
}

# cgroup_pids : all processes of the cell, by the cgroups
cgroup_pids() {
  local root
  while read -r root; do find "$root/$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done < <(cgroup_roots) | sort -un
}

cgroup_empty() { [ -z "$(cgroup_pids)" ]; }

cgroup_remove() {
  local root controller
  while read -r root; do
    if [ -d "$root/$cgroup" ]; then find "$root/$cgroup" -depth -type d -exec rmdir {} +; fi
    if [ -e "$root/cgroup.subtree_control" ] && [ -e "$dir/controllers" ]; then
      while read -r controller; do echo "-$controller" >"$root/cgroup.subtree_control" || true; done <"$dir/controllers"
    fi
  done < <(cgroup_roots)
}

# cell_dir : the directory of the running cluster on this machine, if any
cell_dir() {
  local pid
  for pid in $(cgroup_pids); do
    # it may end in the meantime
    { tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^INJECTOR_CLUSTER=//p'; } 2>/dev/null || true
  done | sort -u | head -n 1
}

# cell_free : fails with an error if something on the machine conflicts with the cell
cell_free() {
  local net hidden
  for hidden in "${overlaid[@]}"; do
    case $dir/ in "$hidden"/*) fail "$dir lies beneath $hidden, which the cluster overlays" "choose another place with --dir" ;; esac
  done
  if [ -d "$dir" ] && [ -n "$(ls -A "$dir")" ]; then fail "$dir is not empty" "tests/cluster/down --dir $dir, or choose another place"; fi
  cgroup_empty || fail "a test cluster runs already, in $(cell_dir)" "tests/cluster/down --dir $(cell_dir)"
  [ ! -e "/sys/class/net/$link" ] || fail "the network link $link exists and is not ours" "ip link show $link; set another name in tests/cluster/settings.sh"
  for net in "$pod_cidr" "$link_ip/30" "$service_cidr"; do
    if [ -n "$(ip -4 route show root "$net"; ip -4 route show match "$net" | grep -v '^default')" ]; then
      fail "this machine already has a route for $net, which the cluster needs" "ip route show root $net; set other addresses in tests/cluster/settings.sh"
    fi
  done
}

# cell_create : starts the first process, mounts, and connects the veth pair
cell_create() {
  cgroup_create
  mkdir -p "$run" "$logs" "$dir/overlay" "$dir/tmp"
  (
    cgroup_join
    echo "$BASHPID" >"$run/cell"
    export INJECTOR_CLUSTER=$dir
    exec setsid unshare --mount --pid --net --ipc --uts --fork --kill-child --mount-proc \
      bash -euc "$(declare -f cell_mount); $(declare -p overlaid kernel_settings); cell_mount '$dir'; hostname '$node'; touch '$run/cell.ready'; exec '$pause_bin/pause'" \
      </dev/null >"$logs/cell.log" 2>&1
  ) &
  wait_for 10 "the cell's first process" test -e "$run/cell.ready"
  cell_first >"$run/first"
  cell_plug
}

# cell_mount DIR : runs first inside
cell_mount() {
  local path setting
  mount --make-rshared / # as on a booted machine: mounts of pods propagate within the cell
  for path in "${overlaid[@]}"; do
    mkdir -p "$1/overlay$path/upper" "$1/overlay$path/work"
    mount -t overlay overlay -o "lowerdir=$path,upperdir=$1/overlay$path/upper,workdir=$1/overlay$path/work" "$path"
  done
  for setting in "${kernel_settings[@]}"; do
    path=$1/overlay/${setting//[\/=]/-}
    echo "${setting#*=}" >"$path"
    mount --bind "$path" "/proc/sys/${setting%=*}"
  done
}

# cell_first : the PID, here, of the cell's first process: the only child of the recorded one
cell_first() {
  local unshare children
  read -r unshare <"$run/cell"
  read -r children <"/proc/$unshare/task/$unshare/children" || [ -n "$children" ] # the line has no end
  echo "${children% }"
}

# A veth pair, with the routes to pods and services. There is no default route inside: the cell reaches only this machine.
# The node's own route to services is never used: it only lets a connection start, which the service proxy then redirects.
cell_plug() {
  local first
  read -r first <"$run/first"
  ip link add "$link" type veth peer name node netns "$first"
  ip addr add "$link_ip/30" dev "$link"
  ip link set "$link" up
  cell bash -euc "ip link set lo up; ip addr add '$node_ip/30' dev node; ip link set node up; ip route add '$service_cidr' dev node; echo 1 >/proc/sys/net/ipv4/ip_forward"
  ip route add "$pod_cidr" via "$node_ip"
  ip route add "$service_cidr" via "$node_ip"
}

# cell COMMAND… : runs a command inside, with the cluster's programs on its path
cell() {
  local first
  read -r first <"$run/first"
  (
    cgroup_join
    exec nsenter --target "$first" --mount --pid --net --ipc --uts env \
      "PATH=$kubernetes_bin:$debian/usr/bin:$debian/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
      "INJECTOR_CLUSTER=$dir" "TMPDIR=$dir/tmp" "HOME=$dir/tmp" "$@"
  )
}

# start NAME COMMAND… : starts a long-running program of the cell; records its PID (inside) and command for `component`
start() {
  local name=$1
  shift
  printf '%s\0' "$@" >"$run/$name.command"
  cell setsid --fork bash -c "echo \$\$ >'$run/$name.pid'; exec \"\$@\" </dev/null >>'$logs/$name.log' 2>&1" start "$@"
}

# cell_end : ends everything in the cell. Idempotent, and works in every state that an interrupted start may leave.
cell_end() {
  local unshare
  if [ -e "$run/cell" ]; then
    read -r unshare <"$run/cell" || true
    # the PID may have been reused: only a process in our cgroup is ours
    if cgroup_pids | grep -qx "$unshare"; then kill -KILL "$unshare" 2>/dev/null || true; fi
  fi
  cgroup_kill
  ip link delete "$link" 2>/dev/null || true
  wait_for 10 "the network link to go" test ! -e "/sys/class/net/$link"
  cgroup_remove
}

# Ends what escaped from its cell, or was on its way in. By the cgroup, so that it hits no other process.
cgroup_kill() {
  local deadline=$((SECONDS + 20)) pids
  until cgroup_empty; do
    pids=$(cgroup_pids | grep -vx -e 0 -e "$$" || true)
    # shellcheck disable=SC2086 # one argument each
    kill -KILL $pids 2>/dev/null || true
    [ $SECONDS -lt $deadline ] || fail "processes do not end: $pids" "ps -o pid,stat,wchan,cmd -p ${pids//$'\n'/,}"
    sleep 0.05
  done
}
