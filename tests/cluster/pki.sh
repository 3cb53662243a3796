# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns the cluster's keys: one authority for everything, certificates, and the kubeconfigs with them. Ten days are enough for a test cluster.

pki_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"; }

# pki_certificate NAME SUBJECT [ALTERNATIVE-NAMES] : creates NAME.key and NAME.crt, for either end of a connection
pki_certificate() {
  pki_key "$1"
  openssl req -new -key "$pki/$1.key" -subj "$2" |
    openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days 10 -out "$pki/$1.crt" \
      -extfile <(echo 'extendedKeyUsage=serverAuth,clientAuth'; [ -z "${3:-}" ] || echo "subjectAltName=$3") 2>/dev/null
}

# pki_kubeconfig NAME [FILE] : creates a self-contained kubeconfig with NAME.crt
pki_kubeconfig() {
  local file=${2:-$pki/$1.conf}
  (umask 077 && jq -n --arg api "$api" --arg user "$1" --arg ca "$(base64 -w0 "$pki/ca.crt")" --arg crt "$(base64 -w0 "$pki/$1.crt")" --arg key "$(base64 -w0 "$pki/$1.key")" '{
    apiVersion: "v1", kind: "Config", "current-context": $user,
    clusters: [{name: "injector-test", cluster: {server: $api, "certificate-authority-data": $ca}}],
    users: [{name: $user, user: {"client-certificate-data": $crt, "client-key-data": $key}}],
    contexts: [{name: $user, context: {cluster: "injector-test", user: $user}}]}' >"$file")
}

pki_create() {
  local program
  mkdir -p "$pki"
  pki_key ca
  openssl req -x509 -new -key "$pki/ca.key" -subj /CN=injector-test-ca -days 10 -out "$pki/ca.crt"
  pki_key service-accounts
  openssl ec -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub" 2>/dev/null
  pki_certificate apiserver /CN=kube-apiserver \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:$node_ip,IP:$api_service_ip"
  pki_certificate apiserver-kubelet /O=system:masters/CN=apiserver-kubelet
  pki_certificate kubelet "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$node_ip"
  pki_certificate admin /O=system:masters/CN=admin
  for program in kube-controller-manager kube-scheduler kube-proxy; do pki_certificate "$program" "/CN=system:$program"; done
  for program in kubelet kube-controller-manager kube-scheduler kube-proxy; do pki_kubeconfig "$program"; done
  pki_kubeconfig admin "$dir/admin.conf"
}
