#!/bin/sh
# Makes the secrets and folders that compose.yaml wants, where they are missing. Running it again changes nothing.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets state/postgres state/s3 state/work

random() { od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'; }

[ -e secrets/postgres_password ] || random > secrets/postgres_password
[ -e secrets/ray_token ] || random > secrets/ray_token
if [ ! -e secrets/aws_credentials ] || [ ! -e secrets/s3.json ]; then
  key=$(random | cut -c1-20) secret=$(random)
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" > secrets/aws_credentials
  printf '{"identities": [{"name": "genai", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' \
    "$key" "$secret" > secrets/s3.json
fi
[ "$(id -u)" = 1000 ] || echo "export GENAI_UID=$(id -u) GENAI_GID=$(id -g)   # the containers then run as you, who own these files"
