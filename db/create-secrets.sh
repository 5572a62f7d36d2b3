#!/usr/bin/env bash
# Runs before everything else: refuses settings that cannot work, then makes what must be secret.
set -euo pipefail
# In the image's own, [A-Za-z] matches letters with accents.
export LC_ALL=C

name='[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?'
if [[ $DOMAIN =~ ^\*\.$name$ ]]; then
    echo "DOMAIN=$DOMAIN: give a single name, such as ${DOMAIN#*.}, and this one in DOMAINS"
    exit 1
fi
if [[ ! $DOMAIN =~ ^$name$ ]]; then
    echo "DOMAIN=$DOMAIN: give the bare host name, such as example.org, without scheme, port or path; a name with other letters as browsers send it, such as xn--bcher-kva.example"
    exit 1
fi
if [[ -n ${BEHIND:-} && $DOMAIN == localhost ]]; then
    echo "BEHIND=$BEHIND: give a name of its own as DOMAIN, by which $BEHIND knows what to pass on"
    exit 1
fi
# is_local: whether a name is every machine's own, which no authority signs.
is_local() { [[ .${1,,} == *.localhost ]]; }
names=,$DOMAIN,
for variable in DOMAINS REDIRECT_DOMAINS; do
    value=${!variable}
    [[ -n $value ]] || continue
    if [[ ! $value, =~ ^((\*\.)?$name,)+$ ]]; then
        echo "$variable=$value: give bare host names with commas between them, as shop.example.org,*.example.com"
        exit 1
    fi
    IFS=, read -ra given <<< "$value"
    for one in "${given[@]}"; do
        if is_local "$DOMAIN" && ! is_local "$one"; then
            echo "$variable=$value: give the first name as DOMAIN; left out, it is localhost, a trial"
            exit 1
        fi
        if is_local "$one" && ! is_local "$DOMAIN"; then
            echo "$variable=$value: no authority signs for $one, which is every machine's own: leave it out, or give such a name as DOMAIN"
            exit 1
        fi
        if [[ ${names,,} == *",${one,,},"* ]]; then
            echo "$variable=$value: $one is given twice in DOMAIN, DOMAINS and REDIRECT_DOMAINS: once is enough"
            exit 1
        fi
        if [[ $one == '*.'* && -z $ACME_DNS_PROVIDER ]] && ! is_local "$one"; then
            echo "$variable=$value: for a wildcard, authorities want a record in the DNS: give ACME_DNS_PROVIDER, as docs/names-and-proxies.md says"
            exit 1
        fi
        if [[ -n ${BEHIND:-} && ${one,,} != *".${DOMAIN,,}" ]]; then
            echo "$variable=$value: $one is not below DOMAIN=$DOMAIN, and $BEHIND passes on no other names"
            exit 1
        fi
        names+=$one,
    done
done

# network: whether this is an address, or a network smaller than everything.
byte='(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
group='[0-9A-Fa-f]{1,4}'
network() {
    local colons=${1//[!:]/}
    if [[ $1 =~ ^$byte(\.$byte){3}(/([1-9]|[12][0-9]|3[0-2]))?$ ]]; then
        return
    fi
    [[ $1 =~ ^(($group:){7}$group|($group(:$group)*)?::($group(:$group)*)?)(/([1-9][0-9]?|1[01][0-9]|12[0-8]))?$ ]] &&
        ((${#colons} <= 7))
}
if [[ -n $TRUSTED_PROXIES ]]; then
    IFS=, read -ra proxies <<< "$TRUSTED_PROXIES,"
    for one in "${proxies[@]}"; do
        if [[ $one != cloudflare ]] && ! network "$one"; then
            echo "TRUSTED_PROXIES=$TRUSTED_PROXIES: ${one:-a blank} is neither an address, nor a network such as 192.0.2.0/24, nor \`cloudflare\`; put commas between several"
            exit 1
        fi
    done
fi

if [[ -n $ACME_CA_SERVER && ! $ACME_CA_SERVER =~ ^https://[^/]+/ ]]; then
    echo "ACME_CA_SERVER=$ACME_CA_SERVER: give the URL of the CA's ACME directory, with https://"
    exit 1
fi
if [[ -n $ACME_DNS_PROVIDER ]]; then
    variables=
    while read -r provider rest; do
        [[ $provider != "$ACME_DNS_PROVIDER" ]] || variables=$rest
    done < /checkout/traefik/dns-providers
    if [[ -z $variables ]]; then
        echo "ACME_DNS_PROVIDER=$ACME_DNS_PROVIDER: no provider of this name is known; traefik/dns-providers lists those that are"
        exit 1
    fi
    found=
    for variable in $variables; do
        [[ ! -s /checkout/keys/dns/$variable ]] || found=yes
    done
    if [[ -z $found ]]; then
        echo "ACME_DNS_PROVIDER=$ACME_DNS_PROVIDER: put what it gave you into keys/dns, each value in a file named as its variable: ${variables// /, }"
        exit 1
    fi
fi
if [[ -n $COPIES_BACKUPS && -z $BACKUP_DIR ]]; then
    echo "RESTIC_REPOSITORY is set, but BACKUP_DIR is not: give the folder of what is to be copied there"
    exit 1
fi
if [[ -n $COPIES_BACKUPS && ,$PROFILES, != *,offsite,* ]]; then
    echo "RESTIC_REPOSITORY is set, but nothing copies there: add COMPOSE_PROFILES=offsite to .env"
    exit 1
fi
if [[ -n $DATABASE_URL_FILE ]]; then
    if [[ -n $BACKUP_DIR ]]; then
        echo "BACKUP_DIR and DATABASE_URL_FILE are both set: a database elsewhere is its provider's to back up; leave BACKUP_DIR out"
        exit 1
    fi
    url=$(tr -d '\0' < /database-url)
    if [[ ! $url =~ ^postgres(ql)?(\+[a-z0-9_]+)?://[^[:space:]]+@[^[:space:]]+/[^[:space:]]+$ ]]; then
        # Never what it holds.
        echo "DATABASE_URL_FILE=$DATABASE_URL_FILE: the file must hold one line like postgresql://user:password@host:5432/name"
        exit 1
    fi
fi
if [[ ! $STATUS =~ ^(on|off)?$ ]]; then
    echo "STATUS=$STATUS: on or off"
    exit 1
fi
if [[ $STATUS == on && ,$PROFILES, != *,metrics,* ]]; then
    echo "STATUS=on, but there is nothing to show: add metrics to COMPOSE_PROFILES in .env"
    exit 1
fi

if [[ -n $ALERTS && ,$PROFILES, != *,metrics,* ]]; then
    echo "ALERT_WEBHOOK or ALERT_EMAIL is set, but nothing watches: add metrics to COMPOSE_PROFILES in .env"
    exit 1
fi

# put_database: copy what leads to a database elsewhere.
put_database() {
    cp /database-url "$1/database-url"
    [[ ! -f /database-ca.pem ]] || cp /database-ca.pem "$1/database-ca.pem"
    chmod --recursive u=rwX,go=rX "$1"
}
if [[ ${1:-} == try ]]; then
    # For somebody to log in by it before anything is changed.
    rm -rf /run/app/tried
    mkdir /run/app/tried
    put_database /run/app/tried
    exit
fi

# Readable by whoever has the volume mounted: the mount is the permission.
umask 222
cd /run/secrets

new_secret() {
    head -c 32 /dev/urandom | base64 --wrap=0 | tr '+/' '-_' > "$1.new"
    mv "$1.new" "$1"
}
make_secret() { [[ -s $1 ]] || new_secret "$1"; }
point_to() {
    ln --symbolic --force "$1" database-password.new
    mv --no-target-directory database-password.new database-password
}

make_secret postgres-password
# The superuser's lies beside the app's, and the database's user alone can read it.
if [[ -O postgres-password ]]; then
    chmod 400 postgres-password
    chown postgres postgres-password
fi
# Each in a volume of its own: a replica sees neither the owner's password nor the exporter's.
others=(../owner-secrets/database-password ../metrics-secrets/postgres-password)
for file in "${others[@]}"; do
    make_secret "$file"
done
# The app logs in by one of two names in turn. A file that is called as one has its password, the
# link leads to whose turn it is, and without a file nobody gets in by that name: see roles.sql.
if [[ ! -L database-password ]]; then
    # It was that of `berth`, when there was one name.
    [[ ! -s database-password ]] || ln --force database-password berth
    make_secret berth
    point_to berth
fi
# The steps of `make rotate-secrets`, each of which may be killed and run again.
turn=$(readlink database-password)
[[ $turn == berth ]] && other=berth_clone || other=berth
case ${1:-} in
    prepare)
        for file in "${others[@]}"; do
            new_secret "$file"
        done
        # Where there is one, nobody has finished a change.
        [[ -e $other ]] || make_secret $other.next
        ;;
    switch)
        if [[ -e $other.next ]]; then
            ln --force $other.next $other
            point_to $other
        fi
        rm -f ./*.next
        ;;
    retire) rm -f "$other" ;;
esac

# The app's own variables and secrets, where whoever runs its image finds them; all at once, since
# replicas may start at this moment.
app_env=/app.env
[[ -f $app_env ]] || app_env=/checkout/app.env
app_secrets=/app-secrets
[[ -d $app_secrets ]] || app_secrets=/checkout/secrets
cd /run/app
umask 022
old=$(readlink current) || old=''
new=$(mktemp --directory files.XXXXXX)
mkdir "$new/secrets"
[[ ! -f $app_env ]] || cp "$app_env" "$new/app.env"
for file in "$app_secrets"/*; do
    [[ ! -f $file ]] || cp "$file" "$new/secrets/"
done
if [[ -n $DATABASE_URL_FILE ]]; then
    # Berth hands it on, with what belongs to it.
    rm -f "$new/secrets/DATABASE_URL"
    put_database "$new"
fi
rm -rf tried
chmod --recursive u=rwX,go=rX "$new"
# What has not changed stays: by the link's age programs know which replicas have read other files.
if [[ -n $old ]] && diff --recursive --brief "$old" "$new" > /dev/null; then
    rm -rf "$new"
else
    ln --symbolic "$new" current.new
    mv --no-target-directory current.new current
    [[ -z $old ]] || rm -rf "$old"
fi
umask 222

# What Traefik tells the DNS provider: whoever may read it in keys/dns, here Traefik alone finds it.
cd /run/dns
for file in /checkout/keys/dns/*; do
    if [[ -f $file && -n $ACME_DNS_PROVIDER ]]; then
        cp "$file" .new
        chmod 444 .new
        mv .new "${file##*/}"
    fi
done
for file in *; do
    [[ -n $ACME_DNS_PROVIDER && -f /checkout/keys/dns/$file ]] || rm -f "$file"
done

# The status page's password is for root alone to read; Traefik gets a hash of it.
cd /run/status
make_secret password
chmod 400 password
if [[ ! -s users ]]; then
    hash=$(openssl passwd -apr1 -stdin < password)
    echo "berth:$hash" > users
fi
if [[ ${1:-} == status ]]; then
    cat password
fi

# What `make trust` made; it stays, trusted or not, so that Traefik has one as good tomorrow.
if [[ -f /checkout/localhost/certificate.pem ]]; then
    cp /checkout/localhost/certificate.pem /certificates/localhost.pem.new
    chmod 444 /certificates/localhost.pem.new
    mv /certificates/localhost.pem.new /certificates/localhost.pem
fi

# Traefik's user owns the store of certificates.
if [[ -O /certificates ]]; then
    chmod 700 /certificates
    chown 65532:65532 /certificates
fi

# The backup service, which is postgres, owns what it writes to once and for all.
if [[ -O /backup-state ]]; then
    chmod 755 /backup-state
    chown postgres:postgres /backup-state
fi

# usable: whether postgres may write there, as far as the mode tells.
usable() {
    [[ -n $(find /backups -maxdepth 0 \( -user postgres -perm -u+wx -o -group postgres -perm -g+wx \
        -o -perm -o+wx \)) ]]
}
# An empty folder becomes its own; where others keep files, nothing is changed.
if [[ $(stat --format=%U /backups) != postgres ]]; then
    owner=$(id --user postgres):$(id --group postgres)
    look() { find /backups -mindepth 1 -maxdepth 1 ! -name lost+found -printf '%f\n' 2> /dev/null; }
    if ! holds=$(look); then
        # Closed to others, and without capabilities root is one: as its owner for the moment.
        before=$(stat --format=%u /backups)
        chown root /backups 2> /dev/null && holds=$(look) || holds=unreadable
        chown "$before" /backups 2> /dev/null || true
    fi
    if [[ -z $holds ]]; then
        said=$({ chown root:root /backups && chmod 700 /backups && chown "$owner" /backups; } 2>&1) || usable || {
            echo "BACKUP_DIR=$BACKUP_DIR cannot be given to the database's user (${said##*: }): \`sudo chown" \
                "$owner $BACKUP_DIR\`, or for a disk that knows no owners, mount it with uid=${owner/:/,gid=}"
            exit 1
        }
    elif ! usable; then
        if [[ $holds == unreadable ]]; then
            echo "BACKUP_DIR=$BACKUP_DIR cannot be read: \`sudo chown $owner $BACKUP_DIR\`"
        elif [[ $'\n'$holds$'\n' == *$'\nsystem\n'* ]]; then
            echo "BACKUP_DIR=$BACKUP_DIR holds backups of another owner: \`sudo chown --recursive $owner $BACKUP_DIR\`"
        else
            echo "BACKUP_DIR=$BACKUP_DIR holds other files (${holds%%$'\n'*}): give a folder of its own, such as $BACKUP_DIR/berth"
        fi
        exit 1
    fi
fi
