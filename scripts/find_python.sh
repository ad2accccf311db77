#!/bin/sh
# Print the first Python >= 3.11 that really starts, or say what is missing and fail.
# Reads: PATH. Prints: one absolute path. Exit: 0 found, 1 none.
for name in python3.11 python3 python3.12 python3.13 python3.14 /usr/bin/python3.11 /usr/bin/python3; do
    # Ask the interpreter itself: a pyenv shim may exist for a version that is not installed.
    path=$("$name" -I -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null) || continue
    if [ -n "$path" ]; then
        printf '%s\n' "$path"
        exit 0
    fi
done
echo "fxcell needs Python 3.11 or newer and found none. On Debian 12: sudo apt-get install -y python3.11 python3.11-venv" >&2
exit 1
