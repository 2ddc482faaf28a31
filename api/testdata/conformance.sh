#!/usr/bin/env bash
# Starts a server on an empty data directory and holds it to its own OpenAPI
# document and to the openai client. KINDRED is the binary, VENV the Python
# environment (made when absent).
set -euo pipefail
cd "$(dirname "$0")/../.."
export VENV=${VENV:-.venv} PYTHON=${PYTHON:-python3}
kindred=${KINDRED:-bin/kindred}
if [ ! -x "$VENV/bin/schemathesis" ]; then
  "$PYTHON" -m venv "$VENV"
  "$VENV/bin/pip" install -q --disable-pip-version-check schemathesis==4.32.5 openai
fi
"$VENV/bin/python" -c 'import openai' 2>/dev/null || "$VENV/bin/pip" install -q --disable-pip-version-check openai
work=$(mktemp -d)
"$kindred" serve --data "$work/data" --listen 127.0.0.1:0 2>"$work/log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
  url=$(grep -o 'http://127.0.0.1:[0-9]*' "$work/log" | head -n 1) && [ -n "$url" ] && break
  kill -0 $server || { cat "$work/log"; exit 1; }
  sleep 0.2
done
"$VENV/bin/python" api/testdata/openai_client.py "$url" all-MiniLM-L6-v2
bash api/testdata/schemathesis.sh "$url"
kill -0 $server || { echo "the server died:"; cat "$work/log"; exit 1; }
