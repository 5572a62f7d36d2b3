#!/bin/sh
# Writes Alertmanager's configuration from the settings, and starts it.
set -eu

settings=/tmp/alertmanager.yml
webhook=/keys/webhook
password=/keys/smtp-password

refuse() {
    echo "$*" >&2
    exit 1
}

for key in "$webhook" "$password"; do
    [ ! -e "$key" ] || [ -r "$key" ] || refuse "keys/alerts/${key##*/} cannot be read by user 65534: \`chmod 644\` it, and keep others out with \`chmod 700 keys\`"
done
case ${ALERT_WEBHOOK:-} in
    '' | http://?* | https://?*) ;;
    *) refuse "ALERT_WEBHOOK=$ALERT_WEBHOOK: give an address that begins with https:// or http://" ;;
esac
if [ -n "${ALERT_EMAIL:-}" ] && [ -z "${SMTP_HOST:-}" ]; then
    refuse 'ALERT_EMAIL is set, but SMTP_HOST is not: give your mail server and its port, such as smtp.example.org:587'
fi

# A value in YAML's own quotes.
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"; }

{
    cat <<YAML
route:
  receiver: owner
  group_by: [alertname]
  group_wait: 15s
  group_interval: 1m
  repeat_interval: 12h
receivers:
  - name: owner
YAML
    if [ -e $webhook ]; then
        printf '    webhook_configs:\n      - url_file: %s\n' $webhook
    elif [ -n "${ALERT_WEBHOOK:-}" ]; then
        printf '    webhook_configs:\n      - url: %s\n' "$(quoted "$ALERT_WEBHOOK")"
    fi
    if [ -n "${ALERT_EMAIL:-}" ]; then
        printf '    email_configs:\n      - to: %s\n        send_resolved: true\n' "$(quoted "$ALERT_EMAIL")"
        printf '        from: %s\n        smarthost: %s\n' "$(quoted "${SMTP_FROM:-$ALERT_EMAIL}")" "$(quoted "$SMTP_HOST")"
        [ -z "${SMTP_USER:-}" ] || printf '        auth_username: %s\n' "$(quoted "$SMTP_USER")"
        [ ! -e $password ] || printf '        auth_password_file: %s\n' $password
    fi
} > $settings
grep -q _configs $settings || echo 'alerts go to nobody: set ALERT_WEBHOOK or ALERT_EMAIL' >&2

exec alertmanager --config.file=$settings --storage.path=/alertmanager --cluster.listen-address=
