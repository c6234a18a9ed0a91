# Runs once in the container that becomes an agent's image, as root, with the agent's files already there.
set -eu
agent=$1
link=$2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive HOME=/tmp

has() { command -v "$1" >/dev/null 2>&1; }
has_certificates() { [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -s /etc/pki/tls/certs/ca-bundle.crt ]; }

missing=
has git || missing="$missing git"
has_certificates || missing="$missing ca-certificates"
if [ -n "$missing" ]; then
    echo "installing$missing"
    if has apt-get; then
        apt-get -qq update
        apt-get -qq install -y --no-install-recommends $missing >/dev/null
        rm -rf /var/lib/apt/lists/*
    elif has dnf; then
        dnf -q -y install $missing
        dnf -q clean all
    elif has microdnf; then
        microdnf -y install $missing
        microdnf clean all
    elif has apk; then
        apk add --quiet --no-cache $missing
    else
        echo "it lacks$missing, and there is no apt-get, dnf or apk to install that with"
        exit 1
    fi
fi

if ! id -u agent >/dev/null 2>&1; then
    shell=/bin/sh
    [ -x /bin/bash ] && shell=/bin/bash
    if has useradd; then
        # The uid may have another name in the base; files and processes know the number only.
        useradd --create-home --non-unique --uid 1000 --shell "$shell" agent
    elif has adduser; then
        adduser -D -u 1000 -s "$shell" agent
    else
        echo "it has neither useradd nor adduser to make the user agent with"
        exit 1
    fi
fi
mkdir -p /workspace
chmod 1777 /workspace

if [ -n "$link" ]; then
    ln -sfn "$link" "/usr/local/bin/$agent"
fi
# Whether it starts here: a base without glibc, or for another machine, shows now.
limit=
has timeout && limit="timeout 120"
version=$($limit "/usr/local/bin/$agent" --version </dev/null 2>/tmp/errors) || {
    echo "$version"
    cat /tmp/errors
    echo "/usr/local/bin/$agent --version failed, or did not end within 120 s"
    exit 1
}
echo "version:" $version
