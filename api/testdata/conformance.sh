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
# With a key, so that it is checked that every route asks for it.
KEY=$("$kindred" keys add conformance --role admin --data "$work/data" | tail -n 1)
export KEY
"$kindred" serve --data "$work/data" --listen 127.0.0.1:0 --min-audience 1 2>"$work/log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
  url=$(grep -o 'http://127.0.0.1:[0-9]*' "$work/log" | head -n 1) && [ -n "$url" ] && break
  kill -0 $server || { cat "$work/log"; exit 1; }
  sleep 0.2
done
# What the document's examples name.
send() { curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null -X "$1" "$url$2" -H "Content-Type: $3" --data-binary "$4"; }
send PUT /v1/collections/shop application/json '{"model":"all-MiniLM-L6-v2","fields":[{"name":"age","type":"number"},{"name":"note","type":"text"}]}'
for i in $(seq 60); do
  echo "{\"id\":\"c$i\",\"fields\":{\"age\":$((20 + i)),\"note\":\"likes coffee number $i\"}}"
done >"$work/shop.ndjson"
send POST /v1/collections/shop/customers application/x-ndjson "@$work/shop.ndjson"
send POST /v1/collections/shop/audiences application/json '{"name":"spring","seeds":{"filter":{"field":"age","gt":50}},"size":{"count":10}}'
for _ in $(seq 100); do
  curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null "$url/v1/collections/shop/audiences/spring/members" 2>/dev/null && break
  sleep 0.2
done
curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null "$url/v1/collections/shop/audiences/spring/members"
send POST /v1/collections/shop/segments application/json '{"k":3}'
send POST /v1/collections/shop/tags application/json '{"name":"mood","labels":[
  {"label":"happy","texts":["great service","love it","arrived early, well packed","wonderful, thank you","the best shop"]},
  {"label":"unhappy","texts":["never again","it broke on the first day","nobody answers","late and damaged","i want my money back"]}]}'
for _ in $(seq 150); do
  curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null "$url/v1/collections/shop/tags/mood" 2>/dev/null && break
  sleep 0.2
done
curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null "$url/v1/collections/shop/tags/mood"
curl -fsS -H "Authorization: Bearer $KEY" -o /dev/null "$url/v1/collections/shop/customers/c1/segment"
"$VENV/bin/python" api/testdata/openai_client.py "$url" all-MiniLM-L6-v2 "$KEY"
bash api/testdata/schemathesis.sh "$url"
kill -0 $server || { echo "the server died:"; cat "$work/log"; exit 1; }
