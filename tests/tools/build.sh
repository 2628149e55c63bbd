#!/usr/bin/env bash
# Builds the real components that tests and benchmarks run beside us: kube-apiserver, etcd, an S3 server, restic and their like.
#
#   build.sh                  what `make test` needs
#   build.sh --set node       what `make test-node` needs beside it
#   build.sh NAME...          those; NAME is a name of versions.txt, or NAME-VERSION where a name stands there twice
#   build.sh --list           every component with its version, and whether it is built
#
# Promises: a component that is there is left alone, so a second run takes no time. A binary appears under
# $LONGSHORE_TOOLS_DIR/bin/NAME-VERSION (default ~/.cache/longshore/tools) only when it is whole and has answered a version call; the
# symlink bin/NAME points at it. One that fails is named with the end of its log, the others are still built, and the exit code is 1.
# Runs may overlap: they take turns, component by component. Ctrl-C and SIGTERM end the compilers too.
#
# Does not know: what the components are used for, nor how they are started (tests/support/components.py).
#
# Every Go program is built from a throw-away module that requires it. `go install PATH@VERSION` would refuse those whose go.mod has
# replace lines (Kubernetes, etcd, Velero), and one way for all is simpler than two.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
tools=${LONGSHORE_TOOLS_DIR:-${HOME:?}/.cache/longshore/tools}
jobs=${LONGSHORE_TOOLS_JOBS:-2} # packages at once; the API server's link step alone takes 1.8 GB of memory

export GOTOOLCHAIN=local GOFLAGS="-trimpath -buildvcs=false" CGO_ENABLED=0 GOWORK=off

versions() { grep -Ev '^[[:space:]]*(#|$)' "$here/versions.txt"; }

# NAME or NAME-VERSION → "NAME VERSION"; fails when there is no such row.
resolve() { versions | awk -v want="$1" '$1 == want || $1 "-" $2 == want {print $1, $2; found = 1; exit} END {exit !found}'; }

# --- one running child at a time, in a process group of its own, so that a signal can end all of it ---
child=
partial=
stop() {
  trap - INT TERM HUP EXIT
  [ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null
  [ -z "$partial" ] || rm -rf "$partial"
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP
trap '[ -z "$partial" ] || rm -rf "$partial"' EXIT

run() {
  setsid nice -n 10 "$@" </dev/null &
  child=$!
  wait "$child"
  local code=$?
  child=
  return "$code"
}

# go_build OUT MODULE VERSION PACKAGE LDFLAGS [REPLACE...]: works in the current folder, which is empty or holds the same module.
go_build() {
  local out=$1 module=$2 version=$3 package=$4 ldflags=$5 replace
  shift 5
  [ -f go.mod ] || run go mod init "local/tool" || return
  run go mod edit "-require=$module@v$version" || return
  for replace in "$@"; do run go mod edit "-replace=$replace" || return; done
  run go build -mod=mod -p "$jobs" -ldflags "-s -w $ldflags" -o "$out" "$package"
}

# Kubernetes' go.mod requires its own staging modules as v0.0.0 and replaces them by folders; a requiring module does not see those
# lines, so each is replaced here by the version published with the release. Without the -X lines /version says v0.0.0-master.
kube_build() {
  local out=$1 name=$2 version=$3 gomod p=k8s.io/component-base/version
  local staging=()
  [ -f go.mod ] || run go mod init "local/tool" || return
  run go mod download -json "k8s.io/kubernetes@v$version" >module.json || { cat module.json >&2; return 1; }
  gomod=$(sed -n 's/^.*"GoMod": "\(.*\)",*$/\1/p' module.json)
  mapfile -t staging < <(awk -v v="v0.${version#1.}" '$1 ~ /^k8s\.io\// && $2 == "v0.0.0" {print $1 "=" $1 "@" v}' "$gomod" | sort -u)
  local minor=${version#1.}
  go_build "$out" k8s.io/kubernetes "$version" "k8s.io/kubernetes/cmd/$name" \
    "-X $p.gitVersion=v$version -X $p.gitMajor=1 -X $p.gitMinor=${minor%%.*} -X $p.gitTreeState=clean" "${staging[@]}"
}

velero_build() {
  local out=$1 version=$2 m=github.com/vmware-tanzu/velero
  local replaces=()
  # Velero's own replace of kopia by its fork has to be said again; its k8s.io/cli-runtime 0.33.12 is not served by the module proxy.
  [ "$version" != 1.18.2 ] || replaces=(
    github.com/kopia/kopia=github.com/project-velero/kopia@v0.0.0-20251230033609-d946b1e75197
    k8s.io/cli-runtime=k8s.io/cli-runtime@v0.33.10
  )
  go_build "$out" $m "$version" $m/cmd/velero "-X $m/pkg/buildinfo.Version=v$version" ${replaces[@]+"${replaces[@]}"}
}

rustic_build() {
  local out=$1 version=$2
  run cargo install rustic-rs --version "$version" --locked --jobs "$jobs" --root "$PWD/root" --target-dir "$PWD/target" || return
  mv "$PWD/root/bin/rustic" "$out" && rm -rf "$PWD/target" "$PWD/root"
}

# debian_unpack PACKAGE VERSION [MORE...]: Debian's own packages, unpacked beside one another in unpacked/ and not installed, so that no
# root is needed; a Debian that has another version is a failure.
debian_unpack() {
  local package=$1 version=$2 file have
  shift 2
  run apt-get -o APT::Sandbox::User= download "$package" "$@" || return
  have=$(dpkg-deb -f "$package"_*.deb Version) || return
  have=${have#*:}
  [ "${have%-*}" = "$version" ] || { echo "Debian here has another version: package=$package, version=$have" >&2; return 1; }
  for file in ./*.deb; do run dpkg -x "$file" unpacked && rm -f "$file" || return; done
}

# borg's compiled modules are for the interpreter of the same Debian.
borg_build() {
  local out=$1 version=$2
  debian_unpack borgbackup "$version" python3-msgpack python3-packaging python3-pkg-resources libxxhash0 || return
  cat >"$out" <<END
#!/bin/sh
PYTHONPATH=$PWD/unpacked/usr/lib/python3/dist-packages LD_LIBRARY_PATH=$(echo "$PWD"/unpacked/usr/lib/*-linux-gnu) \\
  exec /usr/bin/python3 "$PWD/unpacked/usr/bin/borg" "\$@"
END
  chmod +x "$out"
}

valgrind_build() {
  local out=$1 version=$2
  debian_unpack valgrind "$version" || return
  cat >"$out" <<END
#!/bin/sh
VALGRIND_LIB=$(echo "$PWD"/unpacked/usr/libexec/valgrind) exec "$PWD/unpacked/usr/bin/valgrind" "\$@"
END
  chmod +x "$out"
}

# Of Debian's prometheus package one program is kept: the one that judges rules, or the server itself.
prometheus_build() {
  local out=$1 name=$2 version=$3
  debian_unpack prometheus "$version" && mv "unpacked/usr/bin/$name" "$out" && rm -rf unpacked
}

# runc is linked against libseccomp, which every Debian has; the rest of its package is not needed.
runc_build() {
  local out=$1 version=$2
  debian_unpack runc "$version" && mv unpacked/usr/sbin/runc "$out" && rm -rf unpacked
}

# A CNI plugin is called by its own name and says by CNI_COMMAND what it is to do: whoever makes a folder of plugins gives this program
# their names.
cni_plugins_build() {
  local out=$1 version=$2
  debian_unpack containernetworking-plugins "$version" || return
  cat >"$out" <<END
#!/bin/sh
[ "\$*" != --version ] || { CNI_COMMAND=VERSION exec "$PWD/unpacked/usr/lib/cni/bridge" </dev/null; }
exec "$PWD/unpacked/usr/lib/cni/\${0##*/}" "\$@"
END
  chmod +x "$out"
}

# build OUT NAME VERSION, in the component's own folder. The second half asks the new binary for its version: a program that
# cannot start is a failed build.
build() {
  local out=$1 name=$2 version=$3
  case $name in
    etcd)       go_build "$out" go.etcd.io/etcd/server/v3 "$version" go.etcd.io/etcd/server/v3 "" ;;
    kube*)      kube_build "$out" "$name" "$version" ;;
    versitygw)  go_build "$out" github.com/versity/versitygw "$version" github.com/versity/versitygw/cmd/versitygw "-X main.Version=v$version" ;;
    restic)     go_build "$out" github.com/restic/restic "$version" github.com/restic/restic/cmd/restic "" ;;
    kopia)      go_build "$out" github.com/kopia/kopia "$version" github.com/kopia/kopia "-X github.com/kopia/kopia/repo.BuildVersion=$version" ;;
    toxiproxy)  go_build "$out" github.com/Shopify/toxiproxy/v2 "$version" github.com/Shopify/toxiproxy/v2/cmd/server \
                  "-X github.com/Shopify/toxiproxy/v2.Version=$version" ;;
    velero)     velero_build "$out" "$version" ;;
    rustic)     rustic_build "$out" "$version" ;;
    borg)       borg_build "$out" "$version" ;;
    valgrind)   valgrind_build "$out" "$version" ;;
    helm)       go_build "$out" helm.sh/helm/v4 "$version" helm.sh/helm/v4/cmd/helm "" ;;
    promtool|prometheus)
                prometheus_build "$out" "$name" "$version" ;;
    containerd|containerd-shim-runc-v2|ctr)
                go_build "$out" github.com/containerd/containerd/v2 "$version" "github.com/containerd/containerd/v2/cmd/$name" \
                  "-X github.com/containerd/containerd/v2/version.Version=v$version" ;;
    runc)       runc_build "$out" "$version" ;;
    cni-plugins) cni_plugins_build "$out" "$version" ;;
    *)          echo "versions.txt names it, but build.sh has no recipe for it: $name" >&2; return 1 ;;
  esac || return
  case $name in
    kubectl)    run timeout 60 "$out" version --client ;;
    velero)     run timeout 60 "$out" version --client-only ;;
    restic|helm) run timeout 60 "$out" version ;;
    containerd-shim-runc-v2) run timeout 60 "$out" -v ;;
    *)          run timeout 60 "$out" --version ;;
  esac
}

# One component: skip, or take the lock, build under a temporary name, rename.
component() {
  local name=$1 version=$2 needs=go start log final source attempt
  final=$tools/bin/$name-$version
  log=$tools/log/$name-$version.log
  case $name in
    rustic) needs=cargo ;;
    borg | valgrind | promtool | prometheus | runc | cni-plugins) needs=dpkg-deb ;;
  esac
  if [ ! -x "$final" ]; then
    command -v $needs >/dev/null || { echo "$name $version: failed: $needs is not on PATH; install it, then run this again" >&2; return 1; }
    # Children inherit the lock: should this script be killed outright, its compiler still holds the folder it works in.
    exec 9>"$tools/lock" || return
    flock -n 9 || { echo "$name $version: waiting for another build"; run flock 9; }
  fi
  if [ -x "$final" ]; then
    echo "$name $version: there already ($final)"
    link "$name" "$version"
    return
  fi
  echo "$name $version: building"
  start=$SECONDS
  source=$tools/src/$name-$version
  case $name in
    kube*) source=$tools/src/kubernetes-$version ;;
    containerd* | ctr) source=$tools/src/containerd-$version ;;
  esac
  partial=$tools/bin/.$name-$version.$$
  for attempt in 1 2; do # the second time for a module proxy that hiccuped: what was downloaded and compiled stays cached
    rm -rf "$source" "$partial"
    if mkdir -p "$source" && cd "$source" && build "$partial" "$name" "$version" >"$log" 2>&1; then
      mv "$partial" "$final" && partial= && link "$name" "$version" || return
      echo "$name $version: built in $((SECONDS - start)) s ($final)"
      return
    fi
  done
  rm -rf "$partial"
  partial=
  echo "$name $version: failed after $((SECONDS - start)) s and $attempt attempts; log=$log; its end:" >&2
  tail -n 15 "$log" | sed 's/^/    /' >&2
  return 1
}

# The bare name points at the version that versions.txt means by it.
link() {
  [ "$(resolve "$1")" != "$1 $2" ] || { ln -sfn "$1-$2" "$tools/bin/.$1.$$" && mv -fT "$tools/bin/.$1.$$" "$tools/bin/$1"; }
}

main() {
  local wanted=() failed=() name version set state
  mkdir -p "$tools/bin" "$tools/log" "$tools/src" || exit 1

  if [ "${1:-}" = --list ]; then
    versions | while read -r name version set; do
      state=missing
      [ ! -x "$tools/bin/$name-$version" ] || state=built
      printf '%-24s %-8s %-6s %s\n' "$name" "$version" "$set" "$state"
    done
    exit 0
  fi

  [ $# -gt 0 ] || set -- --set test
  if [ "$1" = --set ]; then
    mapfile -t wanted < <(versions | awk -v set="${2:-}" '$3 == set {print $1 "-" $2}')
    [ ${#wanted[@]} -gt 0 ] || { echo "no such set: ${2:-}; known are: $(versions | awk '{print $3}' | sort -u | paste -sd' ')" >&2; exit 2; }
  else
    for name in "$@"; do
      resolve "$name" >/dev/null || { echo "no such component: $name; known are: $(versions | awk '{print $1}' | uniq | paste -sd' ')" >&2; exit 2; }
      wanted+=("$name")
    done
  fi

  for name in "${wanted[@]}"; do
    read -r name version < <(resolve "$name")
    component "$name" "$version" || failed+=("$name-$version")
    exec 9>&- # the next run in the queue may have a turn between two components
  done
  [ ${#failed[@]} -eq 0 ] || { echo "not built: ${failed[*]}" >&2; exit 1; }
}

# All of this file is read before anything runs, so that it may be edited while a build goes on.
main "$@"; exit
