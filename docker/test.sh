#!/usr/bin/env bash
# test.sh: build the cpu image, run it locked down, ask it, stop it; try Compose, proxy, alert rules and dashboard.
# `GPU=1` also builds the gpu image (2.8 GB), `EXPORT=1` the export image (1.4 GB, converts and serves a model).
#
# Uses the Docker engine that answers. Where none does but dockerd is installed (needs root), an engine of its own runs
# in a scratch folder and is stopped at the end. Where a base image cannot be pulled, offline-base.sh makes a stand-in
# (BASE_TAR=FILE and EXPORT_BASE_TAR=FILE take those made before). pip.conf and CA bundle of this machine go into the
# build as secrets, if set; WHEELS=DIR is a folder of wheels that the export image may take PyTorch from.
# HAProxy, Prometheus and dnsmasq of Debian stand in for images of others; PYTHON has the packages of the tests.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

readonly image=patchserve:test
readonly container=patchserve-test-$$
readonly official=python:3.12-slim-bookworm
readonly export_official=python:3.11-slim-bookworm
readonly model=model/bundled/fashion-mnist.onnx
readonly bill=/usr/local/share/patchserve/sbom.cdx.json
# Ray, of the cluster, pyarrow, of data sets, and httpx, of the client, are no part of the images.
readonly import_all='import importlib, pkgutil, service
for each in pkgutil.walk_packages(service.__path__, "service."):
    try:
        importlib.import_module(each.name)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "pyarrow", "httpx"):
            raise'
readonly ready_limit_s=60
readonly stop_limit_s=10
readonly cpu_limit_mb=220 gpu_limit_mb=2800 # on top of the base
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
scratch=$(mktemp -d)
engine_pid=
export_base=$export_official
failures=0
summary=

main() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    check_files
    check_node
    find_engine
    base=$(find_base "$official" 3.12 "${BASE_TAR:-}") || exit 1
    note "base image: $base"
    build cpu "$image" "$cpu_limit_mb"
    run_locked_down
    wait_until_healthy
    check_answers
    check_confinement
    check_image
    check_stop
    check_starts
    check_compose
    [ "${GPU:-0}" = 0 ] || check_gpu_image
    [ "${EXPORT:-0}" = 0 ] || check_export_image
    report
}

report() {
    printf '\n%b' "$summary"
    [ "$failures" = 0 ] || { printf '\n%s of the checks above failed\n' "$failures"; exit 1; }
    printf '\nall checks passed\n'
}

# check WHAT COMMAND...: one line of the summary; a failure is shown at once and counted.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        summary+="ok      $what\n"
    else
        summary+="FAILED  $what\n"
        failures=$((failures + 1))
        printf 'FAILED: %s\n%s\n' "$what" "$output" >&2
    fi
}

note() { summary+="        $1\n"; }

die() {
    printf 'docker/test.sh: %s\n' "$*" >&2
    exit 1
}

# ---- engine and base

# The cache mounts of the Dockerfile need BuildKit: the buildx plugin, or a client old enough to have it built in.
find_client() {
    local candidate major
    while read -r candidate; do
        major=$("$candidate" --version | grep -oE '[0-9]+' | head -n 1)
        if "$candidate" buildx version >/dev/null 2>&1 || [ "${major:-99}" -lt 23 ]; then
            docker=$candidate
            return
        fi
    done < <(type -aP docker)
    die "no docker client with BuildKit: install Docker and its buildx plugin"
}

find_engine() {
    find_client
    network=published
    if "$docker" info >/dev/null 2>&1; then
        echo "engine: the one that answers"
    elif command -v dockerd >/dev/null && [ "$(id -u)" = 0 ]; then
        start_engine
    else
        die "no Docker engine answers, and dockerd cannot be started here"
    fi
}

# Without bridge and packet filter: nothing outside the scratch folder changes, and containers use the host's network.
start_engine() {
    echo "engine: none answers, so one of our own runs in $scratch"
    network=host
    export DOCKER_HOST=unix://$scratch/docker.sock
    dockerd --host "$DOCKER_HOST" --data-root "$scratch/data" --exec-root "$scratch/exec" --pidfile "$scratch/pid" \
        --bridge=none --iptables=false --ip6tables=false --ip-forward=false --exec-opt native.cgroupdriver=cgroupfs \
        >"$scratch/engine.log" 2>&1 &
    engine_pid=$!
    local second
    for second in {1..30}; do
        "$docker" info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 1
    done
    tail -n 5 "$scratch/engine.log" >&2
    die "dockerd did not start within ${second} s"
}

# find_base OFFICIAL MINOR TAR: print the image to build on.
find_base() {
    local minor=$2 tar=${3:-$scratch/base-$2.tar}
    if "$docker" image inspect "$1" >/dev/null 2>&1 ||
        timeout 300 "$docker" pull --quiet "$1" >/dev/null 2>"$scratch/pull.log"; then
        echo "$1"
        return
    fi
    echo "base: $1 cannot be pulled ($(tail -n 1 "$scratch/pull.log" | cut -c -80)), so a stand-in is made" >&2
    [ -f "$tar" ] || bash docker/offline-base.sh "$tar" "$minor" || die "the stand-in could not be made"
    "$docker" import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin' "$tar" \
        "patchserve-offline-base:$minor" >/dev/null || die "the stand-in could not be imported"
    echo "patchserve-offline-base:$minor"
}

# build TARGET TAG LIMIT_MB [BASE]: LIMIT_MB is on top of the base, 0 for none.
build() {
    local options=() version revision size base_size added
    pip_secrets
    [ "$network" = host ] && options+=(--network host)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    DOCKER_BUILDKIT=1 BUILDX_BUILDER=default "$docker" build --progress plain --file docker/Dockerfile --target "$1" \
        --tag "$2" --build-arg "BASE=$base" --build-arg "EXPORT_BASE=$export_base" --build-arg "VERSION=$version" \
        --build-arg "REVISION=$revision" "${options[@]}" . \
        >"$scratch/build.log" 2>&1 || { tail -n 30 "$scratch/build.log" >&2; die "target $1 does not build"; }
    size=$("$docker" image inspect --format '{{.Size}}' "$2")
    base_size=$("$docker" image inspect --format '{{.Size}}' "${4:-$base}")
    added=$(((size - base_size) / 1000000))
    note "target $1: $((size / 1000000)) MB, of these $added MB on top of the base"
    [ "$3" = 0 ] || check "target $1 adds at most $3 MB to its base" test "$added" -le "$3"
}

# Adds to `options` of the caller.
pip_secrets() {
    local file
    : >"$scratch/pip.conf"
    for file in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" /etc/pip.conf; do
        [ -f "$file" ] && cp "$file" "$scratch/pip.conf" && break
    done
    [ -z "${WHEELS:-}" ] || printf '[install]\nfind-links = http://127.0.0.1:%s/\n' "$(serve_wheels)" >>"$scratch/pip.conf"
    options+=(--secret "id=pip_conf,src=$scratch/pip.conf")
    for file in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}"; do
        [ -f "$file" ] && options+=(--secret "id=ca,src=$file") && break
    done
}

# A build sees no folder of this machine, but its network.
serve_wheels() {
    if [ ! -f "$scratch/wheels.port" ]; then
        free_port >"$scratch/wheels.port"
        "$python" -m http.server --bind 127.0.0.1 --directory "$WHEELS" "$(cat "$scratch/wheels.port")" \
            >/dev/null 2>&1 </dev/null &
        echo $! >"$scratch/wheels.pid"
    fi
    cat "$scratch/wheels.port"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# ---- what needs no container

check_files() {
    local tool
    for tool in hadolint haproxy promtool; do
        command -v "$tool" >/dev/null || note "$tool is not installed: what it checks was not checked"
    done
    ! command -v hadolint >/dev/null || check "hadolint" hadolint docker/Dockerfile
    ! command -v haproxy >/dev/null || check "haproxy takes the configuration of the proxy" haproxy -c -f docker/proxy/haproxy.cfg
    command -v promtool >/dev/null || return
    check "promtool takes configuration and rules" promtool check config docker/monitoring/prometheus.yml
    check "promtool: each alert fires in its example and not in the calm" promtool test rules docker/monitoring/rules_test.yml
    check "promtool: a broken rule is noticed" fails_with FAILED broken_rules
}

broken_rules() {
    mkdir -p "$scratch/rules"
    cp docker/monitoring/rules_test.yml "$scratch/rules/"
    sed 's/up{job="patchserve"} == 0/up{job="patchserve"} == 2/' docker/monitoring/rules.yml >"$scratch/rules/rules.yml"
    promtool test rules "$scratch/rules/rules_test.yml"
}

# Two replicas as processes, the proxy's and Prometheus' own files, a drain under load.
check_node() {
    local tool
    for tool in haproxy dnsmasq prometheus; do
        command -v "$tool" >/dev/null || { note "$tool is not installed: no replica was drained behind the proxy"; return; }
    done
    PYTHONPATH=. "$python" docker/try_node.py >"$scratch/node" 2>&1 </dev/null
    local status=$?
    while read -r line; do note "$line"; done < <(grep -vE '^(ok|FAILED) ' "$scratch/node")
    summary+=$(grep -E '^ok ' "$scratch/node" | sed 's/$/\\n/' | tr -d '\n')
    check "two replicas behind the proxy" sh -c "cat '$scratch/node'; exit $status"
}

# ---- run

run_locked_down() {
    local options=(--publish 127.0.0.1::8000)
    if [ "$network" = host ]; then
        port=$(free_port)
        options=(--network host --env "PATCHSERVE_HOST=127.0.0.1" --env "PATCHSERVE_PORT=$port")
    fi
    # 1 MB of /tmp: uploads may not depend on a disk.
    "$docker" run --detach --name "$container" --read-only --tmpfs /tmp:size=1m,noexec,nosuid,nodev --cap-drop ALL \
        --security-opt no-new-privileges --memory 1g --pids-limit 256 "${options[@]}" "$image" >/dev/null ||
        die "the container does not start"
    [ "$network" = host ] || port=$("$docker" port "$container" 8000/tcp | head -n 1 | sed 's/.*://')
}

wait_until_healthy() {
    local second health running
    for ((second = 0; second < ready_limit_s; second++)); do
        health=$("$docker" inspect --format '{{.State.Health.Status}}' "$container")
        running=$("$docker" inspect --format '{{.State.Running}}' "$container")
        [ "$health" = healthy ] && { summary+="ok      healthy after $second s (checked every 10 s)\n"; return; }
        [ "$running" = true ] || break
        sleep 1
    done
    "$docker" logs "$container" >&2
    die "not healthy within $ready_limit_s s: $health, running: $running"
}

inside() { "$docker" exec "$container" "$@"; }

# ---- checks

check_answers() {
    python3 docker/check_answers.py "127.0.0.1:$port" tests/data | tee "$scratch/answers"
    check "the bundled model gives the known labels, and a body of nearly 10 MiB is answered" test "${PIPESTATUS[0]}" = 0
    check "uploads stay in memory: /tmp is empty" is_empty inside ls -A /tmp
}

check_confinement() {
    check "user is not root" is_not 0 inside id -u
    check "root file system is read-only" refuses_to_write
    check "no capabilities, no way to new ones" inside sh -c \
        'cd /proc/1 && grep -q "^CapEff:.0*$" status && grep -q "^CapBnd:.0*$" status && grep -q "^NoNewPrivs:.1$" status'
    check "files of the service are not the user's to change" is_empty inside find /usr/local -user 10001
}

check_image() {
    check "no torch, no export tools" inside python3 -c \
        'import importlib.util as u; raise SystemExit([n for n in ("torch", "onnx", "safetensors") if u.find_spec(n)] or 0)'
    check "no build secret, no .env, no .git in the image" is_empty inside find / -xdev \( -name pip_conf -o -name pip.conf \
        -o -name '.env*' -o -name .git -o -path '/run/secrets/*' \)
    local label
    label=$("$docker" image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image")
    check "label version is the version of the package" prints "patchserve $label" inside patchserve --version
    check "every module of the service imports" inside python3 -c "$import_all"
    check "nothing can be installed: no pip" fails_with "No module named pip" inside python3 -m pip --version
    check "the bill of materials names what is installed" bill_is_whole "$image"
}

check_stop() {
    local began ended code
    began=$(date +%s%N)
    "$docker" stop -t 30 "$container" >/dev/null
    ended=$(date +%s%N)
    code=$("$docker" inspect --format '{{.State.ExitCode}}, killed for memory: {{.State.OOMKilled}}' "$container")
    note "docker stop: $(((ended - began) / 1000000)) ms, exit code $code"
    check "docker stop ends it within $stop_limit_s s" test $(((ended - began) / 1000000000)) -lt "$stop_limit_s"
    check "docker stop ends it with status 0" prints "0, killed for memory: false" echo "$code"
    "$docker" logs "$container" >"$scratch/log" 2>&1
    check "the log says that it stopped" grep -qE '"event": ?"stopped"' "$scratch/log"
    check "the log has no error" is_empty grep -E '"level": ?"(error|critical)"|Traceback' "$scratch/log"
}


# A start that cannot work ends at once with status 1 and one line; the model may lie in /models.
check_starts() {
    local run=("$docker" run --rm --network none --read-only --cap-drop ALL)
    check "a wrong value ends the start in one clear line" says_one_line '^patchserve: --port \(or PATCHSERVE_PORT\): ' \
        "${run[@]}" --env PATCHSERVE_PORT=http "$image"
    check "so does a setting that does not exist" says_one_line '^patchserve: no such setting: PATCHSERVE_PROT' \
        "${run[@]}" --env PATCHSERVE_PROT=1 "$image"
    check "so does a model that is not there" says_one_line '^patchserve: .*/models/none.onnx' \
        "${run[@]}" --env PATCHSERVE_MODEL=/models/none.onnx "$image"
    check "so does a GPU that is not there" says_one_line '^patchserve: .*cuda' \
        "${run[@]}" --env PATCHSERVE_PROVIDER=cuda "$image"
    mkdir -p "$scratch/models"
    cp "$model" "$scratch/models/clothes.onnx"
    chmod -R a+rX "$scratch/models" # the user of the image is nobody here
    check "a folder at /models is served" serves_models /models
    check "one file at /models is served" serves_models /models/clothes.onnx
}

serves_models() {
    local name=$container-models status
    "$docker" rm --force "$name" >/dev/null 2>&1
    "$docker" run --detach --name "$name" --network none --read-only --cap-drop ALL \
        --volume "$scratch/models:/models:ro" --env PATCHSERVE_MODEL="$1" "$image" >/dev/null || return 1
    for _ in {1..60}; do
        "$docker" exec "$name" python3 -S /usr/local/share/patchserve/healthcheck.py 2>/dev/null && break
        sleep 0.5
    done
    "$docker" exec "$name" python3 -c "import urllib.request as u
print(u.urlopen('http://127.0.0.1:8000/models').read().decode())" | grep -q '"name":"fashion-mnist"'
    status=$?
    [ "$status" = 0 ] || "$docker" logs "$name"
    "$docker" rm --force "$name" >/dev/null
    return "$status"
}

check_compose() {
    local profile wanted
    if "$docker" compose version >/dev/null 2>&1; then
        compose=("$docker" compose)
    elif command -v docker-compose >/dev/null; then
        compose=(docker-compose)
    else
        note "Docker Compose is not installed: docker-compose.yml was not checked"
        return
    fi
    note "Compose: $("${compose[@]}" version --short)"
    for profile in "cpu:cpu" "gpu:gpu0 proxy" "gpu2:gpu0 gpu1 proxy" "gpu4:gpu0 gpu1 gpu2 gpu3 proxy" \
        "monitoring:grafana prometheus" "gpu-monitoring:gpu-metrics"; do
        wanted=${profile#*:}
        check "compose profile ${profile%%:*}: $wanted" prints "$wanted" services_of "${profile%%:*}"
    done
    check_compose_up
}

services_of() {
    "${compose[@]}" --profile "$1" config --services | sort | xargs
}

# Without a bridge the container has no network of its own, and listens where the host does.
check_compose_up() {
    local files=(--project-name "$container" --file docker-compose.yml --file "$scratch/compose.yml" --profile cpu)
    port=$(free_port)
    printf 'services:\n  cpu:\n    image: %s\n    environment:\n      PATCHSERVE_MODEL: /models\n' "$image" >"$scratch/compose.yml"
    [ "$network" = host ] && cat >>"$scratch/compose.yml" <<EOF
      PATCHSERVE_HOST: 127.0.0.1
      PATCHSERVE_PORT: "$port"
    network_mode: host
    networks: !reset null
    ports: !reset []
EOF
    check "compose up --wait" env MODELS="$scratch/models" PUBLISH="127.0.0.1:$port" \
        "${compose[@]}" "${files[@]}" up --detach --no-build --wait --wait-timeout "$ready_limit_s"
    check "what Compose started knows the labels" "$python" docker/check_answers.py "127.0.0.1:$port" tests/data
    check "compose down" "${compose[@]}" "${files[@]}" down --volumes --timeout 20
}

# Without a GPU this shows that the image is whole, and that it never falls back to the CPU on its own.
check_gpu_image() {
    build gpu patchserve:gpu-test "$gpu_limit_mb"
    local run=("$docker" run --rm --network none --read-only --cap-drop ALL)
    check "gpu: onnxruntime has the CUDA provider" "${run[@]}" --entrypoint python3 patchserve:gpu-test -c \
        'import onnxruntime as o; raise SystemExit("CUDAExecutionProvider" not in o.get_available_providers())'
    # shellcheck disable=SC2016 # for the shell and the awk in the image
    check "gpu: all libraries of the provider are in the image, but the driver's" prints "libcuda.so.1" "${run[@]}" \
        --entrypoint sh patchserve:gpu-test -c \
        'ldd /usr/local/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so | awk "/not found/ {print \$1}"'
    # shellcheck disable=SC2016
    check "gpu: every library of CUDA and cuDNN finds those it is linked with, but the driver's" prints "libcuda.so.1" \
        "${run[@]}" --entrypoint sh patchserve:gpu-test -c \
        'ldd $(find /usr/local/lib/python3*/site-packages/nvidia -name "*.so*" -type f) | awk "/not found/ {print \$1}" | sort -u'
    # Second builds of the compiler and two wrappers were taken out: nobody links them (above), nor opens them by name.
    check "gpu: nothing in the image names a library that was taken out" is_empty "${run[@]}" --entrypoint grep \
        patchserve:gpu-test -rlaE 'libnvrtc[a-z-]*\.alt|libnvblas|libcufftw' --include='*.so*' /usr/local/lib
    check "gpu: the bill of materials names what is installed" bill_is_whole patchserve:gpu-test
    if [ -e /dev/nvidiactl ]; then
        note "gpu: there is a GPU here, but running the image on it is not part of this test"
    else
        # ONNX Runtime writes lines of its own before that, which name the library that is missing.
        check "gpu: without a GPU it ends, and names the driver's library" fails_with 'libcuda\.so\.1' \
            "${run[@]}" patchserve:gpu-test
        check "gpu: what it says last is one clear line" ends_saying '^patchserve: provider cuda could not be started' \
            "${run[@]}" patchserve:gpu-test
    fi
}

# A checkpoint's way without a network: random weights become an artifact, and the cpu image serves it.
check_export_image() {
    export_base=$(find_base "$export_official" 3.11 "${EXPORT_BASE_TAR:-}") || exit 1
    build export patchserve:export-test 0 "$export_base"
    mkdir -p "$scratch/exported"
    chmod 777 "$scratch/exported"
    local run=("$docker" run --rm --network none --read-only --tmpfs "/tmp:size=1g" --cap-drop ALL
        --security-opt no-new-privileges)
    check "export: converts without a network" "${run[@]}" --volume "$scratch/exported:/models" patchserve:export-test \
        --random Ti/16 --output ti.onnx --quick-check
    check "export: what it has is PyTorch for the CPU" "${run[@]}" --entrypoint python3 patchserve:export-test -c \
        'import torch; raise SystemExit(torch.version.cuda)'
    check "export: a source that is missing ends in one line" says_one_line '^error: ' "${run[@]}" patchserve:export-test \
        none.safetensors --output none.onnx
    check "export: the bill of materials names what is installed" bill_is_whole patchserve:export-test
    check "export: the cpu image serves it" "$docker" run --rm --network none --read-only --cap-drop ALL \
        --volume "$scratch/exported:/models:ro" --volume "$PWD/tests/data:/data:ro" "$image" \
        classify --model /models/ti.onnx /data/bag-224x224.jpg
}

# The same packages and versions as the interpreter of the image finds.
bill_is_whole() {
    "$docker" run --rm --network none --entrypoint python3 "$1" -c "import json, re
from importlib.metadata import distributions
norm = lambda name: re.sub('[-_.]+', '-', name).lower()
bill = json.load(open('$bill'))
named = {(norm(each['name']), each.get('version')) for each in bill['components']}
named.add((norm(bill['metadata']['component']['name']), bill['metadata']['component'].get('version')))
found = {(norm(each.metadata['Name']), each.version) for each in distributions()}
print(bill['bomFormat'], len(found), 'missing', found - named, 'too much', named - found)
raise SystemExit(bill['bomFormat'] != 'CycloneDX' or not found or found != named)"
}

# What finds nothing may say so with its status; 125 and above is Docker that could not ask.
is_empty() {
    local output status=0
    output=$("$@") || status=$?
    echo "$output (status $status)"
    [ -z "$output" ] && [ "$status" -lt 125 ]
}

is_not() {
    local unwanted=$1 output
    shift
    output=$("$@") && echo "$output" && [ "$output" != "$unwanted" ]
}

prints() {
    local wanted=$1 output
    shift
    output=$("$@") && echo "$output" && [ "$output" = "$wanted" ]
}

fails_with() {
    local pattern=$1 output status=0
    shift
    output=$("$@" 2>&1) || status=$?
    echo "$output (status $status)"
    [ "$status" != 0 ] && grep -qE "$pattern" <<<"$output"
}

# As root, who owns the files, so that nothing but the read-only mount can be what refuses.
refuses_to_write() { fails_with 'Read-only file system' "$docker" exec --user 0 "$container" touch /usr/local/probe; }

says_one_line() { ends_saying "$@" && [ "$(wc -l <<<"$output")" = 1 ]; }

# Leaves `output` for the caller.
ends_saying() {
    local pattern=$1 status=0
    shift
    output=$("$@" 2>&1) || status=$?
    echo "$output (status $status)"
    [ "$status" = 1 ] && tail -n 1 <<<"$output" | grep -qE "$pattern"
}

# ---- end

clean_up() {
    local second mount
    "$docker" rm --force "$container" "$container-models" >/dev/null 2>&1
    [ -f "$scratch/wheels.pid" ] && kill "$(cat "$scratch/wheels.pid")"
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null
        for second in {1..30}; do
            kill -0 "$engine_pid" 2>/dev/null || break
            sleep 1
        done
        while read -r mount; do
            umount "$mount"
        done < <(awk -v at="$scratch/" 'index($2, at) == 1 {print $2}' /proc/self/mounts | sort -r)
    fi
    rm -rf "$scratch"
}

main
