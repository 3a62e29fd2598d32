#!/usr/bin/env bash
# test.sh: build the cpu image, run it locked down, ask it, stop it. `GPU=1` also builds the gpu image (3 GB).
#
# Uses the Docker engine that answers. Where none does but dockerd is installed (needs root), an engine of its own runs
# in a scratch folder and is stopped at the end. Where the base image cannot be pulled, offline-base.sh makes a stand-in
# (BASE_TAR=FILE takes one made before). pip.conf and CA bundle of this machine go into the build as secrets, if set.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

readonly image=patchserve:test
readonly container=patchserve-test-$$
readonly official=python:3.12-slim-bookworm
readonly ready_limit_s=60
readonly stop_limit_s=10
scratch=$(mktemp -d)
engine_pid=
failures=0
summary=

main() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    find_engine
    find_base
    build cpu "$image"
    run_locked_down
    wait_until_healthy
    check_answers
    check_confinement
    check_image
    check_stop
    check_compose
    [ "${GPU:-0}" = 0 ] || check_gpu_image
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

find_base() {
    base=$official
    if ! "$docker" image inspect "$base" >/dev/null 2>&1 &&
        ! timeout 300 "$docker" pull --quiet "$base" >/dev/null 2>"$scratch/pull.log"; then
        echo "base: $official cannot be pulled ($(tail -n 1 "$scratch/pull.log" | cut -c -80)), so a stand-in is made"
        base=patchserve-offline-base:3.12
        local tar=${BASE_TAR:-$scratch/base.tar}
        [ -f "$tar" ] || bash docker/offline-base.sh "$tar" || die "the stand-in could not be made"
        "$docker" import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin' "$tar" "$base" >/dev/null ||
            die "the stand-in could not be imported"
    fi
    note "base image: $base"
}

# build TARGET TAG
build() {
    local file options=()
    for file in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" /etc/pip.conf; do
        [ -f "$file" ] && options+=(--secret "id=pip_conf,src=$file") && break
    done
    for file in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}"; do
        [ -f "$file" ] && options+=(--secret "id=ca,src=$file") && break
    done
    [ "$network" = host ] && options+=(--network host)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    DOCKER_BUILDKIT=1 BUILDX_BUILDER=default "$docker" build --progress plain --file docker/Dockerfile \
        --target "$1" --tag "$2" --build-arg "BASE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "${options[@]}" . \
        >"$scratch/build.log" 2>&1 || { tail -n 30 "$scratch/build.log" >&2; die "target $1 does not build"; }
    local size base_size
    size=$("$docker" image inspect --format '{{.Size}}' "$2")
    base_size=$("$docker" image inspect --format '{{.Size}}' "$base")
    note "target $1: $((size / 1000000)) MB, of these $(((size - base_size) / 1000000)) MB on top of the base"
}

# ---- run

run_locked_down() {
    local options=(--publish 127.0.0.1::8000)
    if [ "$network" = host ]; then
        port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
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
    if command -v hadolint >/dev/null; then
        check "hadolint" hadolint docker/Dockerfile
    else
        note "hadolint is not installed: the Dockerfile was not linted"
    fi
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
    check "the log says that it stopped" grep -q '"event": "stopped"' "$scratch/log"
    check "the log has no error" is_empty grep -E '"level": "(error|critical)"|Traceback' "$scratch/log"
}

check_compose() {
    local profile compose=()
    if "$docker" compose version >/dev/null 2>&1; then
        compose=("$docker" compose)
    elif command -v docker-compose >/dev/null; then
        compose=(docker-compose)
    else
        note "Docker Compose is not installed: docker-compose.yml was not checked"
        return
    fi
    for profile in cpu gpu; do
        check "compose profile $profile is valid and starts one service" \
            prints "$profile" "${compose[@]}" --profile "$profile" config --services
    done
}

# Without a GPU this shows that the image is whole, and that it never falls back to the CPU on its own.
check_gpu_image() {
    build gpu patchserve:gpu-test
    local run=("$docker" run --rm --network none --read-only --cap-drop ALL)
    check "gpu: onnxruntime has the CUDA provider" "${run[@]}" --entrypoint python3 patchserve:gpu-test -c \
        'import onnxruntime as o; raise SystemExit("CUDAExecutionProvider" not in o.get_available_providers())'
    # shellcheck disable=SC2016 # for the shell and the awk in the image
    check "gpu: all libraries of the provider are in the image, but the driver's" prints "libcuda.so.1" "${run[@]}" \
        --entrypoint sh patchserve:gpu-test -c \
        'ldd /usr/local/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so | awk "/not found/ {print \$1}"'
    if [ -e /dev/nvidiactl ]; then
        note "gpu: there is a GPU here, but running the image on it is not part of this test"
    else
        check "gpu: without a GPU it ends and says why" fails_with '^patchserve: provider cuda could not be started' \
            "${run[@]}" patchserve:gpu-test
    fi
}

is_empty() {
    local output
    output=$("$@")
    echo "$output"
    [ -z "$output" ]
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

# ---- end

clean_up() {
    local second mount
    "$docker" rm --force "$container" >/dev/null 2>&1
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
