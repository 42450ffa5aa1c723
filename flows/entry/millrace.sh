#!/bin/sh
# .venv/bin/millrace: it finds the project by its own place. pip's script would hand the folder's name to a shell, and
# would not be found again once the folder has moved.
bin=$(dirname -- "$(readlink -f -- "$0")")
exec "$bin/python" "$bin/../../flows/entry/millrace" "$@"
