# shellcheck shell=bash
# shellcheck disable=SC2154 # settings.sh and use_dir set them
# Owns how an image is made without a registry: a directory becomes one layer of an archive that `ctr images import` takes.
# Owns also the contents of the cluster's own images: pause, dns, pilot, proxyv2 and tools.

# put ROOT FILE [AS] : a program or a file, with the shared libraries it names
put() {
  local library as=${3:-$2}
  mkdir -p "$1${as%/*}"
  cp -L "$2" "$1$as"
  for library in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$1${library%/*}"
    cp -L --update "$library" "$1$library"
  done
}

# pack ROOT NAME CONFIG ARCHIVE : CONFIG is the image's run configuration as JSON. Same content, same digest.
pack() {
  local work layer
  work=$(mktemp -d)
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$work/layer.tar" .
  layer=sha256:$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
  jq -nc --argjson config "$3" --arg layer "$layer" --arg machine "$(dpkg --print-architecture)" \
    '{architecture: $machine, os: "linux", config: $config, rootfs: {type: "layers", diff_ids: [$layer]}}' >"$work/config.json"
  jq -nc --arg name "$2" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$4" manifest.json config.json layer.tar
  rm -rf "$work"
}

# busybox_into ROOT : a shell and its friends, for looking around
busybox_into() {
  local name
  put "$1" "$debian/bin/busybox" /bin/busybox
  mkdir -m 1777 "$1/tmp"
  for name in sh cat ls wget nc sleep ps kill env grep httpd; do ln -s busybox "$1/bin/$name"; done
}

image_pause() {
  put "$1" "$pause_bin/pause" /pause
  pack "$1" localhost/pause:1 '{"Entrypoint": ["/pause"]}' "$2"
}

image_dns() {
  put "$1" "$dns_bin/dns" /dns
  pack "$1" localhost/dns:1 '{"Entrypoint": ["/dns"]}' "$2"
}

image_tools() {
  busybox_into "$1"
  pack "$1" localhost/tools:1 '{"Entrypoint": ["/bin/sh"], "Env": ["PATH=/bin"], "User": "1000:1000"}' "$2"
}

image_pilot() {
  put "$1" "$istio_bin/pilot-discovery" /usr/local/bin/pilot-discovery
  put "$1" /etc/ssl/certs/ca-certificates.crt
  mkdir -m 1777 "$1/tmp"
  pack "$1" "localhost/pilot:$istio_version" '{"Entrypoint": ["/usr/local/bin/pilot-discovery"], "User": "1337:1337", "Env": ["PATH=/usr/local/bin"]}' "$2"
}

# What Istio's own image holds, around a stock Envoy: the agent, the bootstrap template, and iptables in both flavours for istio-init.
image_proxyv2() {
  local family suffix extensions
  busybox_into "$1"
  put "$1" "$istio_bin/pilot-agent" /usr/local/bin/pilot-agent
  put "$1" "$envoy" /usr/local/bin/envoy
  chmod 755 "$1/usr/local/bin/envoy"
  put "$1" "$istio_bin/envoy_bootstrap.json" /var/lib/istio/envoy/envoy_bootstrap_tmpl.json
  put "$1" /etc/ssl/certs/ca-certificates.crt
  put "$1" /usr/sbin/xtables-nft-multi
  put "$1" /usr/sbin/xtables-legacy-multi
  for family in ip ip6; do
    for suffix in "" -save -restore; do
      ln -s xtables-nft-multi "$1/usr/sbin/${family}tables$suffix"
      ln -s xtables-nft-multi "$1/usr/sbin/${family}tables-nft$suffix"
      ln -s xtables-legacy-multi "$1/usr/sbin/${family}tables-legacy$suffix"
    done
  done
  extensions=$(echo /usr/lib/*/xtables)
  mkdir -p "$1${extensions%/*}" "$1/etc/istio" "$1/var/run" "$1/run"
  cp -r "$extensions" "$1$extensions"
  printf '%s\n' root:x:0:0::/:/bin/sh istio-proxy:x:1337:1337::/:/bin/sh >"$1/etc/passwd"
  printf '%s\n' root:x:0: istio-proxy:x:1337: >"$1/etc/group"
  chmod -R a+rX "$1"
  pack "$1" "localhost/proxyv2:$istio_version" '{"Entrypoint": ["/usr/local/bin/pilot-agent"], "Env": ["PATH=/usr/local/bin:/usr/sbin:/bin"]}' "$2"
}

# images_dir : where the archives of just these ingredients are cached
images_dir() {
  local parts=$kubernetes_version/$istio_version/$dns_version/$debian
  echo "$programs/images-$({ echo "$parts"; cat "$here/images.sh"; stat -Lc '%s %Y' "$envoy"; } | sha256sum | cut -c1-12)"
}

# images_build DIR : all of them
images_build() {
  local name root
  for name in pause dns tools pilot proxyv2; do
    root=$(mktemp -d)
    chmod 755 "$root"
    "image_$name" "$root" "$1/$name.tar"
    rm -rf "$root"
  done
}
