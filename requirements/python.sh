#!/bin/sh
# Prints the first Python that can build the environment, or one line that says what is missing, on stderr.
# lock.txt has hashes for 3.11 to 3.13.
missing="Python 3.11, 3.12 or 3.13 (looked for python3.11, python3.12, python3.13, python3)"
for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
  path=$("$python" -c 'import sys; print(sys.executable if (3, 11) <= sys.version_info < (3, 14) else "")' 2>/dev/null) || continue
  [ -n "$path" ] || continue
  if ! "$path" -c 'import venv, ensurepip' 2>/dev/null; then
    missing="the venv module of $path (Debian: apt-get install python3-venv)"
  else
    echo "$path"
    exit 0
  fi
  break
done
echo "make: this machine lacks $missing" >&2
exit 1
