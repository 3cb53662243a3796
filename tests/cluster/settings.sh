# shellcheck shell=bash
# Owns the shared settings: versions, paths, addresses and the format of the output. Sourced; changes nothing by itself.
# shellcheck disable=SC2034 # the parts that source this use them

kubernetes_version=1.34.4 # newer kubelets refuse cgroup v1 without extra configuration
dns_version=1.14.7

# For each minor release of Istio: the patch pinned by the sources in istio/, and the stock Envoy of its line.
istio=${ISTIO:-1.31}
case $istio in
  1.31) istio_version=1.31.0 envoy_version=1.39.3 ;;
  1.30) istio_version=1.30.4 envoy_version=1.38.2 ;;
  *) printf 'error: no test cluster has Istio %s\n\nhint: ISTIO=1.30 or ISTIO=1.31\n' "$istio" >&2; exit 1 ;;
esac

cache=${XDG_CACHE_HOME:-$HOME/.cache}/injector
programs=$cache/cluster
kubernetes_bin=$programs/kubernetes-$kubernetes_version
istio_bin=$programs/istio-$istio_version
dns_bin=$programs/dns-$dns_version
pause_bin=$programs/pause-1
debian=$programs/debian-$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
envoy=${ENVOY:-$cache/envoy-$envoy_version/bin/envoy}
export PATH=$PATH:/usr/sbin:/sbin # iptables and ip, if the caller's PATH lacks them

# The cluster lives in its own namespaces. One veth pair leads out of them: its end here is called link, and these routes go through it.
node=node0
link=injector0
link_ip=10.244.255.1
node_ip=10.244.255.2 # the API server and the kubelet listen only here
pod_cidr=10.244.0.0/24
pod_gateway=10.244.0.1
service_cidr=10.96.0.0/16
api_service_ip=10.96.0.1
dns_ip=10.96.0.10
api=https://$node_ip:6443
cgroup=injector-cluster # its name in every hierarchy

started_at=${EPOCHREALTIME/[.,]/}

# say TEXT… : prints progress, with the seconds since the start
say() {
  local tenths=$(((${EPOCHREALTIME/[.,]/} - started_at) / 100000))
  printf '%3d.%ds  %s\n' $((tenths / 10)) $((tenths % 10)) "$*" >&2
}

# fail WHAT HINT : prints an error in the common form, and exits
fail() {
  printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND… : waits until the command succeeds
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what: not within the time" "the last lines of its log are above, or in the cluster's directory under log/"
    sleep 0.1
  done
}

# use_dir ARGUMENT… : takes `--dir DIR` from the arguments; sets dir (absolute) and the array rest
use_dir() {
  dir=${TMPDIR:-/tmp}/injector-cluster
  rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      --dir)
        [ $# -gt 1 ] || fail "--dir: no directory given" "--dir DIR, or leave it out for $dir"
        dir=$2
        shift
        ;;
      --dir=*) dir=${1#--dir=} ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  dir=$(readlink -m "$dir")
  pki=$dir/pki
  logs=$dir/log
  run=$dir/run
  containerd_socket=$dir/containerd/sock
  export KUBECONFIG=$dir/admin.conf KUBECACHEDIR=$dir/kubectl-cache
}

must_be_root() { [ "$(id -u)" = 0 ] || fail "namespaces, cgroups and overlay mounts need root" "sudo -E $0"; }
