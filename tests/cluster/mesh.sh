# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns cluster DNS and Istio's control plane with injection, as installed into the running cluster.

start_dns() { kubectl apply -f "$here/dns.yaml" >/dev/null; }

# The charts are part of istioctl, so this needs no network.
install_istio() {
  sed "s/ISTIO_VERSION/$istio_version/" "$here/istio.yaml" >"$dir/istio.yaml"
  HOME=$dir/tmp istioctl install --skip-confirmation --filename "$dir/istio.yaml" --readiness-timeout 120s >"$logs/istioctl.log" 2>&1
}

# rolled_out NAMESPACE SECONDS : waits for all deployments of a namespace
rolled_out() { kubectl --namespace "$1" wait deployment --all --for=condition=Available --timeout="$2s"; }

# injects : checks that the API server reaches istiod's webhook, which adds a sidecar to a pod
injects() {
  kubectl run probe --image localhost/pause:1 --labels sidecar.istio.io/inject=true --dry-run=server --output json | grep -q '"name": "istio-proxy"'
}
