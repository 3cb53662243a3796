# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns the node: containerd with its own root, state and socket, the pod network, the kubelet and the service proxy.

# ptp routes each pod over its own veth: without a bridge, nothing depends on bridge-nf-call-iptables, and a pod can call its own Service.
write_pod_network() {
  mkdir -p "$dir/cni"
  cat >"$dir/cni/10-pods.conflist" <<C
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "$dir/cni-addresses", "ranges": [[{"subnet": "$pod_cidr", "gateway": "$pod_gateway"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
}

start_containerd() {
  write_pod_network
  mkdir -p "$dir/containerd"
  cat >"$dir/containerd/config.toml" <<C
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
[grpc]
  address = "$containerd_socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$debian/usr/lib/cni"
    conf_dir = "$dir/cni"
C
  start containerd containerd --config "$dir/containerd/config.toml" --log-level warn
}

# images_import FILE… : imports archives, one after the other
images_import() {
  local archive
  for archive in "$@"; do cell ctr --address "$containerd_socket" --namespace k8s.io images import "$archive" >/dev/null; done
}

start_kubelet() {
  : >"$dir/resolv.conf" # only the cluster's own name server
  cat >"$dir/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_ip
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
authentication: {x509: {clientCAFile: $pki/ca.crt}, anonymous: {enabled: false}, webhook: {enabled: true}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$dns_ip]
resolvConf: $dir/resolv.conf
containerRuntimeEndpoint: unix://$containerd_socket
podLogsDir: $dir/pod-logs
volumePluginDir: $dir/volume-plugins
# the state of this machine's disk must not affect the cluster
evictionHard: {memory.available: "200Mi", nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
healthzPort: 0
syncFrequency: 10s
C
  start kubelet kubelet --config="$dir/kubelet.yaml" --kubeconfig="$pki/kubelet.conf" \
    --root-dir="$dir/kubelet" --cert-dir="$pki" --hostname-override="$node" --node-ip="$node_ip"
}

# The conntrack sizes belong to the whole machine and stay. Its health ports must be real numbers; no other process uses the cell's.
start_proxy() {
  start kube-proxy kube-proxy --kubeconfig="$pki/kube-proxy.conf" --hostname-override="$node" \
    --proxy-mode=iptables --cluster-cidr="$pod_cidr" --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249 \
    --conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
}
