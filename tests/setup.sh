# What tests/run and tests/bench need of the system, to be sourced in the folder of the workspace. Everything is set up
# where it is missing: from Debian's packages, as root or with sudo, and into the target folder.
# Sets `target`; what is set up says what it says into `log`, which the caller names.

target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

has() { command -v "$1" >/dev/null 2>&1; }
has_venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo --non-interactive "$@"; fi
}

install_packages() {
    has apt-get || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >>"$log" 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" >>"$log" 2>&1
}

setup_python() {
    local python=$target/python/bin/python3
    "$python" -c 'import websockets' 2>/dev/null && return 0
    rm -rf "$target/python"
    python3 -m venv "$target/python" >>"$log" 2>&1 &&
        "$python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt >>"$log" 2>&1
}
