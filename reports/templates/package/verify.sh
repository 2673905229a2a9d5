#!/bin/sh
# Checks hashes and signatures of an unpacked package with sha256sum and openssl (3.0 or later) alone.
# Usage: sh verify.sh TRUSTED_FOLDER   (log.vkey, evidence.pub.pem and tsa-ca.pem from outside), inside the package.
# It does not notice files that the manifest does not list, does not rebuild the tree and does not read what the
# entries say: verify.py does.
set -eu
trusted=${1:?usage: sh verify.sh TRUSTED_FOLDER}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "1. every file has the SHA-256 of the manifest"
sha256sum --quiet --strict -c MANIFEST.sha256

echo "2. the log key signed the checkpoint"
vkey=$(cat "$trusted/log.vkey")
name=${vkey%%+*}
key=${vkey#*+}
key=${key#*+}
{ printf '\060\052\060\005\006\003\053\145\160\003\041\000'; printf '%s' "$key" | openssl base64 -d -A | tail -c 32; } \
  | openssl pkey -pubin -inform DER -out "$work/log.pub.pem"
head -n 3 checkpoint > "$work/body"
[ "$(head -n 1 checkpoint)" = "$name" ] || { echo "checkpoint: of another origin" >&2; exit 1; }
[ -z "$(sed -n 4p checkpoint)" ] || { echo "checkpoint: no blank line after the root" >&2; exit 1; }
id=${vkey#*+}
id=${id%%+*}
sed -n '5,$p' checkpoint | grep -F -- "— $name " | while read -r _dash _name sig; do  # two where the key was rotated
  printf '%s' "$sig" | openssl base64 -d -A > "$work/line"
  [ "$(head -c 4 "$work/line" | od -An -tx1 | tr -d ' \n')" != "$id" ] || tail -c 64 "$work/line" > "$work/sig"
done
[ -f "$work/sig" ] || { echo "checkpoint: not signed by the trusted key" >&2; exit 1; }
openssl pkeyutl -verify -pubin -inkey "$work/log.pub.pem" -rawin -in "$work/body" -sigfile "$work/sig"

echo "3. the evidence key signed the manifest and every statement"
for file in dsse/*.json MANIFEST.dsse.json; do
  [ "$file" = "dsse/*.json" ] && continue
  sed 's/^{"payload":"\([^"]*\)".*/\1/' "$file" | openssl base64 -d -A > "$work/payload"
  sed 's/.*"sig":"\([^"]*\)".*/\1/' "$file" | openssl base64 -d -A > "$work/sig"
  { printf 'DSSEv1 28 application/vnd.in-toto+json %s ' "$(wc -c < "$work/payload" | tr -d ' ')"; cat "$work/payload"; } \
    > "$work/signed"
  openssl pkeyutl -verify -pubin -inkey "$trusted/evidence.pub.pem" -rawin -in "$work/signed" -sigfile "$work/sig" \
    > "$work/said" || { echo "$file: false signature" >&2; exit 1; }
done
# the payload that was read last is the manifest's
digest=$(sha256sum < MANIFEST.sha256 | cut -d " " -f 1)
grep -qF "\"subject\":[{\"digest\":{\"sha256\":\"$digest\"},\"name\":\"MANIFEST.sha256\"}]" "$work/payload" \
  && grep -qF "\"predicateType\":\"https://${name%%/*}/package/v1\"" "$work/payload" \
  || { echo "MANIFEST.sha256: not the one that was signed" >&2; exit 1; }
if [ -f checkpoint.tsr ]; then
  echo "4. the time token covers the checkpoint"
  [ -f "$trusted/tsa-ca.pem" ] || { echo "checkpoint.tsr: no tsa-ca.pem in $trusted to check it with" >&2; exit 2; }
  openssl ts -verify -data checkpoint -in checkpoint.tsr -CAfile "$trusted/tsa-ca.pem" 2> "$work/said" \
    || { cat "$work/said" >&2; exit 1; }
fi
echo "Hashes and signatures hold. For the tree, the order of entries and the figures run verify.py."
