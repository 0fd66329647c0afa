#!/bin/sh
# Makes the secrets, folders and settings that compose.yaml wants, where they are missing. Running it again changes nothing.
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
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then # nothing runs as root
  uid=1000 gid=1000
  chown -R 1000:1000 secrets state
fi
printf 'GENAI_UID=%s\nGENAI_GID=%s\n' "$uid" "$gid" > .env # the containers run as the owner of these files
