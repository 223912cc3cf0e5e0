# Sourced by scripts/demo and scripts/test: makes .venv with this checkout installed in it.
# usage: environment EXTRAS   ("" or "[dev]")

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
  local name
  for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$name"
      return
    fi
  done
  echo "error: no Python 3.11 or newer with venv found; install it, or name one: PYTHON=/path/to/python3 $0" >&2
  return 1
}

environment() {
  local extras=$1 python stamp wanted
  if [ ! -x "$root/.venv/bin/python" ]; then
    python=$(find_python)
    echo "== making $root/.venv with $("$python" --version)"
    "$python" -m venv "$root/.venv"
  fi
  stamp=$root/.venv/.installed$extras
  wanted=$(cksum < "$root/pyproject.toml")
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing poolpipe$extras into .venv (once; a minute or two)"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root$extras"
    echo "$wanted" > "$stamp"
  fi
}
