# Has the programs of a system trust one more certificate authority, whose certificate comes on the standard input. The
# system is this one, or that below the directory which is the argument.
set -eu
umask 022
root=${1-}
own=$root/usr/local/share/ca-certificates/pandastack-broker.crt
bundle=$root/etc/ssl/certs/ca-certificates.crt
mkdir -p "${own%/*}" "${bundle%/*}"
cat > "$own.new"
line=$(sed -n 2p "$own.new")
has() { grep -qF -e "$line" "$1" 2>/dev/null; }
add() { has "$1" || { printf '\n' >> "$1" && cat "$own" >> "$1"; }; }

if has "$own" && has "$bundle"; then
    rm "$own.new"
    exit 0
fi
mv "$own.new" "$own"

# OpenSSL, and all that read the system's bundle. `update-ca-certificates` keeps it: it takes what lies in /usr/local.
add "$bundle"
if command -v openssl >/dev/null; then
    ln -sf "$own" "$root/etc/ssl/certs/$(openssl x509 -hash -noout -in "$own").0"
fi

# Python's certifi, where Debian has not made it read the system's bundle. Environments made later find it by variables.
for each in "$root"/usr/local/lib/python3*/*-packages/certifi/cacert.pem \
    "$root"/usr/local/lib/python3*/*-packages/pip/_vendor/certifi/cacert.pem \
    "$root"/opt/*/lib/python3*/site-packages/certifi/cacert.pem; do
    if [ -f "$each" ]; then
        add "$each"
    fi
done

# Browsers: policies, and the databases of NSS where its tool is there.
body=$(sed -e '/^-----/d' "$own" | tr -d '\n')
for each in "$root"/etc/chromium "$root"/etc/opt/chrome "$root"/etc/opt/chrome_for_testing; do
    if [ -d "$each" ]; then
        mkdir -p "$each/policies/managed"
        printf '{"CACertificates": ["%s"]}\n' "$body" > "$each/policies/managed/pandastack.json"
    fi
done
firefox=$root/etc/firefox/policies
if [ -d "$root/usr/lib/firefox-esr" ] || [ -d "$root/usr/lib/firefox" ]; then
    mkdir -p "$firefox"
    [ -e "$firefox/policies.json" ] ||
        printf '{"policies": {"Certificates": {"Install": ["%s"]}}}\n' "$own" > "$firefox/policies.json"
fi
if command -v certutil >/dev/null; then
    for home in "$root"/root "$root"/home/*; do
        if [ -d "$home" ]; then
            db=$home/.pki/nssdb
            if [ ! -e "$db/cert9.db" ]; then
                mkdir -p "$db"
                certutil -d "sql:$db" -N --empty-password
            fi
            certutil -d "sql:$db" -A -t C,, -n pandastack-broker -i "$own"
            chown -R "$(stat -c %u:%g "$home")" "$home/.pki"
        fi
    done
fi
