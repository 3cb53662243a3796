# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns etcd, the API server, the controllers and the scheduler: their addresses and their configuration.

etcd_url=http://127.0.0.1:2379 # the cell's own loopback

start_etcd() {
  start etcd etcd --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls $etcd_url --advertise-client-urls $etcd_url
}

start_apiserver() {
  start apiserver kube-apiserver --etcd-servers=$etcd_url \
    --bind-address="$node_ip" --advertise-address="$node_ip" --secure-port="${api##*:}" --service-cluster-ip-range="$service_cidr" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true --profiling=false
}

start_controllers() {
  # The grace period: tests stop the API server for 30 s, after which the only node would count as lost for a moment (50 s without a heartbeat), and every pod as unready.
  start controller-manager kube-controller-manager --kubeconfig="$pki/kube-controller-manager.conf" \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/service-accounts.key" --use-service-account-credentials \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --bind-address=127.0.0.1 --leader-elect=false --flex-volume-plugin-dir="$dir/volume-plugins" --node-monitor-grace-period=180s
  start scheduler kube-scheduler --kubeconfig="$pki/kube-scheduler.conf" --bind-address=127.0.0.1 --leader-elect=false
}
