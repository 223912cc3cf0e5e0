# Sourced by scripts/demo and scripts/test: makes .venv with this checkout installed in it.
# usage: environment EXTRAS [VENV] [CONSTRAINTS]   (EXTRAS "" or "[dev]")

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
  local extras=$1 venv=$root/${2:-.venv} constraints=${3:-} stamp wanted found
  if [ ! -x "$venv/bin/python" ]; then
    local python
    python=$(find_python)
    echo "== making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
  fi
  stamp=$venv/.installed$extras
  wanted=$(cksum < "$root/pyproject.toml")
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing poolpipe$extras into $venv (once; a minute or two)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check ${constraints:+--constraint "$constraints"} \
      --editable "$root$extras"
    # Python 3.11 reads these files in the locale's encoding: a path with other letters would end it under LC_ALL=C.
    for found in "$venv"/lib/python3*/site-packages/_editable_impl_poolpipe.pth; do
      if [ "$(cat "$found")" = "$root" ]; then
        "$venv/bin/python" -c 'import os, sys; print(os.path.relpath(sys.argv[1], os.path.dirname(sys.argv[2])))' \
          "$root" "$found" > "$found.new" && mv "$found.new" "$found"
      fi
    done
    echo "$wanted" > "$stamp"
  fi
}

# The lowest versions that pyproject.toml allows of what poolpipe itself needs, as constraints for pip.
lowest() {
  "$(find_python)" - "$root/pyproject.toml" << 'EOF'
import sys, tomllib
for need in tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]:
    print(need.replace(">=", "==").split(",")[0])
EOF
}

# Pythons that poolpipe supports and this machine has, in the path or under pyenv.
pythons() {
  local version found
  for version in 3.11 3.12 3.13; do
    for found in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
      if "$found" -c 'import venv, ensurepip' > /dev/null 2>&1; then
        echo "$found"
        break
      fi
    done
  done
}
