# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns the cell: the mount, PID, network, IPC and UTS namespaces and the cgroup that the whole cluster lives in, and the cable into them.
# Ending the cell's first process ends every process in it, and with them go all mounts, links, routes, netfilter rules and sysctls of the
# cluster: there is nothing to undo on the machine but the cgroup's directories, the cable and one directory of files.
# Knows nothing of Kubernetes but the kernel settings that a kubelet insists on.

# The directories that runtimes write to by hard-wired names; in the cell they are overlays, so that nothing of it reaches the machine.
overlaid=(/run /var/lib /var/log)

# A kubelet sets these, and they belong to the whole machine; in the cell a plain file with the value it wants lies over each.
kernel_settings=(vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000)

# cgroup_roots : the mount points of all hierarchies, v1 and v2
cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

cgroup_create() {
  local root file
  while read -r root; do
    mkdir -p "$root/$cgroup/system"
    # v1 (in v2 the root has no such files): a cpuset takes no process before it has processors and memory
    for file in cpuset.cpus cpuset.mems; do
      if [ -e "$root/$file" ]; then
        cat "$root/$file" >"$root/$cgroup/$file"
        cat "$root/$file" >"$root/$cgroup/system/$file"
      fi
    done
    if [ -e "$root/cgroup.subtree_control" ]; then cgroup_controllers "$root"; fi
  done < <(cgroup_roots)
}

# cgroup_controllers ROOT : v2 only. A kubelet needs them all below its root; what the machine's root did not hand out before is remembered.
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

# cgroup_join : puts this process, and so its children, under the cell's accounting
cgroup_join() {
  local root
  while read -r root; do echo "$BASHPID" >"$root/$cgroup/system/cgroup.procs"; done < <(cgroup_roots)
}

# cgroup_pids : everything that runs in the cell, by the cgroups
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

# cell_dir : the directory of the cluster that runs on this machine, if one does
cell_dir() {
  local pid
  for pid in $(cgroup_pids); do
    # it may end while we look
    { tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^INJECTOR_CLUSTER=//p'; } 2>/dev/null || true
  done | sort -u | head -n 1
}

# cell_free : fails with a clear word where something of the machine is in the cell's way
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

# cell_create : the first process stands, the mounts are in place, the cable is plugged in
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

# cell_mount DIR : runs inside, before anything else does
cell_mount() {
  local path setting
  mount --make-rshared / # as on a machine that booted: the mounts of pods spread within the cell
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

# cell_first : the PID, here, of the cell's first process: the only child of the remembered one
cell_first() {
  local unshare children
  read -r unshare <"$run/cell"
  read -r children <"/proc/$unshare/task/$unshare/children" || [ -n "$children" ] # the line has no end
  echo "${children% }"
}

# A veth pair; the routes to pods and services go through it. There is no default route inside: nothing in the cell reaches further than this machine.
# The node's own route to services is never followed: it only lets a connection begin, and the service proxy gives it another destination.
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

# cell COMMAND… : runs a command inside, with the programs of the cluster on its path
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

# start NAME COMMAND… : a lasting program of the cell; remembers its PID (inside) and its command, for `component`
start() {
  local name=$1
  shift
  printf '%s\0' "$@" >"$run/$name.command"
  cell setsid --fork bash -c "echo \$\$ >'$run/$name.pid'; exec \"\$@\" </dev/null >>'$logs/$name.log' 2>&1" start "$@"
}

# cell_end : ends everything in the cell. Safe to repeat, and in every state that an interrupted start may leave.
cell_end() {
  local unshare
  if [ -e "$run/cell" ]; then
    read -r unshare <"$run/cell" || true
    # a PID may have been given to another since: only one that lives in our cgroup is ours
    if cgroup_pids | grep -qx "$unshare"; then kill -KILL "$unshare" 2>/dev/null || true; fi
  fi
  cgroup_kill
  ip link delete "$link" 2>/dev/null || true
  wait_for 10 "the network link to go" test ! -e "/sys/class/net/$link"
  cgroup_remove
}

# What outlived its cell, or was on its way in: by the cgroup, so nobody else's process is meant.
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
