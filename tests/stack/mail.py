"""Receives mail over STARTTLS from whoever knows the password, and prints it as lines of JSON."""

import json
import ssl
import sys
import threading
from email import message_from_bytes
from email.header import decode_header, make_header

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Printer:
    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        message = message_from_bytes(envelope.original_content or b"")
        subject = str(make_header(decode_header(message["Subject"])))
        told = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "subject": subject}
        print(json.dumps(told), flush=True)
        return "250 OK"


def check(
    _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: LoginPassword
) -> AuthResult:
    return AuthResult(success=given == LoginPassword(b"berth", b"secret"))


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
Controller(
    Printer(),
    hostname="127.0.0.1",
    port=2525,
    tls_context=context,
    require_starttls=True,
    authenticator=check,
    auth_required=True,
    auth_exclude_mechanism=["LOGIN"],  # whose prompts are not those that Alertmanager knows
).start()
threading.Event().wait()
